"""Arrays of images, labels and indices as an `ImageSet` takes them: checked, and copied only where necessary."""

from collections.abc import Collection, Iterator
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import as_numpy
from pspc_rs.checks import flag, integer
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, ShapeError, warn

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""Images as they are stored: uint8 bytes u for pixels u / 127.5 - 1, or the pixels themselves in float32."""

Choice: TypeAlias = slice | NDArray[np.int64]
"""Which stored images are chosen: a slice where that is possible, because slicing copies nothing."""

MAX_MAGNITUDE = 1e6
"""Largest magnitude of a float pixel: squared distances of larger ones exceed the precision of float32."""

MAX_LOG_PRIOR = 1e6
"""Largest magnitude of the log weight of an image."""

_CHUNK_BYTES = 1 << 24


def chunks(array: NDArray[Any]) -> Iterator[slice]:
    """Slices of the first axis that cover `array` in pieces of about 16 MiB."""
    step = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    return (slice(start, start + step) for start in range(0, len(array), step))


def as_stored(
    images: object, labels: object, channels_last: bool | None = None
) -> tuple[Pixels, NDArray[np.int64] | None]:
    """Images and labels, checked and read-only.

    Args:
        images: [N, C, H, W] or [N, H, W], uint8 or floats.
        labels: N integers, or None.
        channels_last: the images are [N, H, W, C]; None refuses those that look so.

    Returns:
        C-contiguous uint8 or float32 [N, C, H, W], copied only from other layouts and dtypes, and an int64 copy [N].

    Raises:
        DataError: there is no image.
        DTypeError: another type of pixels or labels.
        InvalidValueError: a pixel is not finite or beyond 1e6, or a label does not fit into int64.
        ShapeError: axes that are no images, or not one label per image.

    Example:
        >>> pixels, labels = as_stored(np.zeros((2, 4, 4)), [0, 1])
        >>> pixels.shape, pixels.dtype, labels
        ((2, 1, 4, 4), dtype('float32'), array([0, 1]))
    """
    pixels = _as_pixels(images, channels_last)
    return pixels, None if labels is None else _as_labels(labels, len(pixels))


def _as_pixels(images: object, channels_last: bool | None) -> Pixels:
    array = _with_channels(channels_first(as_numpy(images, "images"), channels_last, "images"))
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


def channels_first(
    array: NDArray[Any], channels_last: bool | None, what: object, *, guess: bool = False
) -> NDArray[Any]:
    """The images with their channels in front, [N, C, H, W]; other numbers of axes are left to other checks.

    Args:
        array: images of any shape.
        channels_last: whether they are [N, H, W, C]; None if nobody has said so.
        what: what messages call them.
        guess: with None, take images that can hardly be anything else as [N, H, W, C], with a `PspcWarning`.

    Raises:
        DTypeError: channels_last is not a flag.
        ShapeError: channels_last is True and there are not four axes; or it is None and the images look like
            [N, H, W, C].

    Example:
        >>> channels_first(np.zeros((2, 8, 9, 3)), True, "images").shape
        (2, 3, 8, 9)
    """
    if channels_last is not None and flag("channels_last", channels_last):
        if array.ndim != 4:
            raise ShapeError(f"{what} have shape {array.shape}; with channels_last they need four axes, [N, H, W, C]")
        return array.transpose(0, 3, 1, 2)
    if channels_last is not None or array.ndim != 4 or not array.shape[3] <= 4 < min(array.shape[1:3]):
        return array
    found = f"{what} have shape {array.shape}, which looks like [N, H, W, C]"
    if not (guess and _is_surely_last(array.shape)):
        raise ShapeError(
            f"{found}; channels_last=True has them transposed to [N, C, H, W], channels_last=False takes them as that"
        )
    warn(f"{found} and is taken so; channels_last=True says so without this warning, False says [N, C, H, W]")
    return array.transpose(0, 3, 1, 2)


def _is_surely_last(shape: tuple[int, ...]) -> bool:
    """Colour or square images: eight or more channels of so narrow images are hardly ever met."""
    _, height, width, channels = shape
    return min(height, width) >= 8 and (channels == 3 or height == width)


def _with_channels(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise ShapeError(f"images have shape {array.shape}; allowed are [N, C, H, W] and, for grey images, [N, H, W]")
    if len(array) == 0:
        raise DataError(f"the data set is empty: images have shape {array.shape}; at least one image is needed")
    if 0 in array.shape:
        raise ShapeError(f"images have shape {array.shape}; channels, height and width must be at least 1")
    return array


def _checked_floats(array: NDArray[Any]) -> NDArray[np.float32]:
    native = array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous and array.flags.aligned
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


def _as_labels(labels: object, num: int) -> NDArray[np.int64]:
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


def as_log_prior(log_prior: object, num: int) -> NDArray[np.float64]:
    """A log weight per image as a float64 copy.

    Raises:
        DTypeError: they are not real numbers.
        InvalidValueError: one is NaN, infinite or beyond 1e6 in magnitude.
        ShapeError: they are not one per image.

    Example:
        >>> as_log_prior([0, -1], 2)
        array([ 0., -1.])
    """
    array = _flat_or_array(log_prior, "log_prior")
    if array.shape != (num,):
        raise ShapeError(f"log_prior has shape {array.shape}; {num} images need one of shape ({num},)")
    if array.dtype.kind not in "iuf":
        raise DTypeError(f"log_prior has dtype {array.dtype}; allowed are real numbers, one per image")
    held = array.astype(np.float64)
    bad = ~(np.abs(held) <= MAX_LOG_PRIOR)
    if bad.any():
        image = int(bad.argmax())
        raise InvalidValueError(
            f"log_prior is {held[image]} for image {image}; allowed are finite numbers of at most {MAX_LOG_PRIOR:g} in "
            "magnitude (to leave images out, use exclude= or a subset)"
        )
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
    """Indices of `num` images as int64 from 0 up; negative ones count from the end.

    Raises:
        DTypeError: they are not integers.
        InvalidValueError: one is out of range.
        ShapeError: they have several axes.

    Example:
        >>> as_indices([0, -1], 5)
        array([0, 4])
    """
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
    """The chosen images as a slice if they follow each other, else as indices.

    Raises:
        DataError: no image is chosen.
        DTypeError, InvalidValueError, ShapeError: see `as_indices`.

    Example:
        >>> as_choice([2, 3], 5), as_choice([3, 2], 5)
        (slice(2, 4, None), array([3, 2]))
    """
    if isinstance(indices, slice):
        indices = range(*indices.indices(num))
    positions = as_indices(indices, num)
    if positions.size == 0:
        raise DataError(f"no image is chosen out of {num}; a data set needs at least one")
    if np.all(np.diff(positions) == 1):
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def choose(num: int, labels: NDArray[np.int64] | None, max_size: int | None, classes: Collection[int] | None) -> Choice:
    """The first `max_size` images out of those whose label is in `classes`.

    Raises:
        DataError: classes are given, labels are not.
        DTypeError: a class or `max_size` is not an integer.
        InvalidValueError: a class that no image has, or `max_size` below 1.

    Example:
        >>> choose(4, np.array([1, 0, 1, 0]), 1, [0])
        slice(1, 2, None)
    """
    limit = num if max_size is None else integer("max_size", max_size)
    if classes is None:
        return slice(0, min(limit, num))
    if not isinstance(classes, Collection) or isinstance(classes, str | bytes):
        raise DTypeError(f"classes are {classes!r:.80}; allowed is a list or set of integers")
    if labels is None:
        raise DataError("classes were asked for, but the data set has no labels")
    wanted = {integer("each class", label, least=None) for label in classes}
    present = {int(label) for label in np.unique(labels)}
    if not wanted or not wanted <= present:
        raise InvalidValueError(
            f"classes are {sorted(wanted)}; allowed is a non-empty choice from {_shortened(sorted(present))}"
        )
    return as_choice(np.flatnonzero(np.isin(labels, list(wanted)))[:limit], num)


def _shortened(values: list[int], most: int = 20) -> str:
    return str(values) if len(values) <= most else f"{str(values[:most])[:-1]}, ...] ({len(values)} classes)"
