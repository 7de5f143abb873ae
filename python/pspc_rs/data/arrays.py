"""What every image array goes through on its way in: checks of type, shape and range, and no copy without need."""

import operator
from collections.abc import Collection, Iterator
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import is_torch, numpy_view
from pspc_rs.checks import integer
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, ShapeError

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""Image arrays as they are held: u8, or float32 in whatever unit the data set uses."""

Choice: TypeAlias = slice | NDArray[np.int64]
"""Which stored images are meant: a slice where one will do, because slicing copies nothing."""

MAX_MAGNITUDE = 1e6
"""Float pixels beyond this are refused: their squared distances drown everything in float32."""

_CHUNK_BYTES = 1 << 24


def as_numpy(array: object, what: str) -> NDArray[Any]:
    """A plain numpy view of an array or tensor; memory is shared unless the tensor lives on a device or is bfloat16."""
    if isinstance(array, np.ma.MaskedArray):
        raise DTypeError(f"{what} is a masked array; fill it first, for example with .filled(0)")
    if is_array(array):
        return numpy_view(array)
    raise DTypeError(f"{what} must be a numpy array or a torch tensor, not {type(array).__name__}")


def is_array(value: object) -> bool:
    """Whether `as_numpy` takes it."""
    return is_torch(value) or hasattr(value, "__array__")


def chunks(array: NDArray[Any]) -> Iterator[slice]:
    """Slices of the first axis that cover `array` in pieces of about 16 MiB."""
    step = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    return (slice(start, start + step) for start in range(0, len(array), step))


def as_pixels(images: object) -> Pixels:
    """A read-only, C-contiguous [N, C, H, W] array of u8 or float32; a copy is made only when the input is neither."""
    array = _with_channels(as_numpy(images, "images"))
    held: Pixels
    if array.dtype == np.uint8:
        held = np.ascontiguousarray(array)
    elif array.dtype.kind == "f" and array.dtype.itemsize <= 8:
        held = _checked_floats(array)
    else:
        raise DTypeError(
            f"images have dtype {array.dtype}; allowed are uint8 (pixels u / 127.5 - 1) and float32, float64 or float16"
        )
    view = held.view()
    view.flags.writeable = False
    return view


def _with_channels(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise ShapeError(f"images have shape {array.shape}; allowed are [N, C, H, W] and, for grey images, [N, H, W]")
    if len(array) == 0:
        raise DataError(f"the data set is empty: images have shape {array.shape}; at least one image is needed")
    if 0 in array.shape:
        raise ShapeError(f"images have shape {array.shape}; channels, height and width must be at least 1")
    _, first, middle, last = array.shape
    if last <= 4 < min(first, middle):
        raise ShapeError(
            f"images have shape {array.shape}, which looks like [N, H, W, C]; transpose them to [N, C, H, W] with "
            "images.transpose(0, 3, 1, 2), or read the file with channels_last=True"
        )
    return array


def _checked_floats(array: NDArray[Any]) -> NDArray[np.float32]:
    native = array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous
    held = cast(NDArray[np.float32], array) if native else np.empty(array.shape, np.float32)
    for part in chunks(array):
        block = array[part]
        with np.errstate(invalid="ignore"):
            low, high = float(block.min()), float(block.max())
        # NaN makes both comparisons false, so this catches it too.
        if not (low >= -MAX_MAGNITUDE and high <= MAX_MAGNITUDE):
            raise _bad_pixel(block, part.start)
        if not native:
            held[part] = block
    return held


def _bad_pixel(block: NDArray[Any], start: int) -> InvalidValueError:
    # In float64, because the limit itself is beyond float16.
    bad = ~(np.abs(block.astype(np.float64)) <= MAX_MAGNITUDE)
    image, channel, y, x = np.argwhere(bad)[0]
    return InvalidValueError(
        f"images hold {block[image, channel, y, x]} at [{start + image}, {channel}, {y}, {x}]; pixels must be finite "
        f"and at most {MAX_MAGNITUDE:g} in magnitude"
    )


def as_labels(labels: object, num: int) -> NDArray[np.int64]:
    """A private, read-only int64 copy of `num` labels."""
    array = _flat_or_array(labels, "labels")
    if array.shape != (num,):
        raise ShapeError(f"labels have shape {array.shape}; {num} images need labels of shape ({num},)")
    if array.dtype.kind not in "iu":
        raise DTypeError(f"labels have dtype {array.dtype}; allowed are integers, one per image")
    if array.max() > np.iinfo(np.int64).max:
        raise InvalidValueError(f"label {array.max()} does not fit into 64 bits with a sign")
    held = array.astype(np.int64)
    held.flags.writeable = False
    return held


def _flat_or_array(values: object, what: str) -> NDArray[Any]:
    if not isinstance(values, list | tuple | range):
        return as_numpy(values, what)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ShapeError(f"{what} are a nested sequence of mixed lengths; allowed is a flat one") from error


def as_indices(indices: object, num: int) -> NDArray[np.int64]:
    """Integer positions below `num` as int64, negative ones counted from the end."""
    array = _flat_or_array(indices, "indices")
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1:
        raise ShapeError(f"indices have shape {array.shape}; allowed is a flat sequence")
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"indices have dtype {array.dtype}; allowed are integers (np.flatnonzero turns a mask into some)"
        )
    if array.min() < -num or array.max() >= num:
        raise InvalidValueError(f"indices run from {array.min()} to {array.max()}; allowed are {-num} .. {num - 1}")
    positions = array.astype(np.int64)
    return np.where(positions < 0, positions + num, positions)


def as_choice(indices: object, num: int) -> Choice:
    """The chosen images as a slice when they follow each other, else as indices."""
    if isinstance(indices, slice):
        indices = range(*indices.indices(num))
    positions = as_indices(indices, num)
    if positions.size == 0:
        raise DataError(f"no image is chosen out of {num}; a data set needs at least one")
    if np.all(np.diff(positions) == 1):
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def choose(num: int, labels: NDArray[np.int64] | None, max_size: int | None, classes: Collection[int] | None) -> Choice:
    """The first `max_size` images out of those whose label is in `classes`."""
    limit = num if max_size is None else integer("max_size", max_size)
    if classes is None:
        return slice(0, min(limit, num))
    if labels is None:
        raise DataError("classes were asked for, but the data set has no labels")
    wanted = {_as_class(label) for label in classes}
    present = {int(label) for label in np.unique(labels)}
    if not wanted or not wanted <= present:
        raise InvalidValueError(
            f"classes are {sorted(wanted)}; allowed is a non-empty choice from {_shortened(sorted(present))}"
        )
    return as_choice(np.flatnonzero(np.isin(labels, list(wanted)))[:limit], num)


def _as_class(label: object) -> int:
    if isinstance(label, bool) or not hasattr(label, "__index__"):
        raise DTypeError(f"class {label!r} is a {type(label).__name__}; allowed are integers")
    return operator.index(cast(Any, label))


def as_flag(value: object, what: str) -> bool:
    """A yes or no; numbers and strings are refused, because "no" would count as true."""
    if not isinstance(value, bool | np.bool_):
        raise DTypeError(f"{what} is {value!r}; allowed are True and False")
    return bool(value)


def refuse_test_split(split: str, what: str) -> None:
    """Complain when a test split is asked of data that has none."""
    if check_split(split) == "test":
        raise InvalidValueError(f"split is 'test', but {what} is not divided into training and test images")


def check_split(split: str) -> str:
    """The split, one of train and test."""
    if split not in ("train", "test"):
        raise InvalidValueError(f"split is {split!r}; allowed are 'train' and 'test'")
    return split


def _shortened(values: list[int], most: int = 20) -> str:
    return str(values) if len(values) <= most else f"{str(values[:most])[:-1]}, ...] ({len(values)} classes)"
