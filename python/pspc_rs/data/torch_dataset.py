"""Arrays out of a torch Dataset, or anything else with a length and items."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import as_numpy
from pspc_rs.checks import real_number
from pspc_rs.data.decode import pixels_of
from pspc_rs.data.image_arrays import channels_first
from pspc_rs.data.labels import class_labels
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, ShapeError
from pspc_rs.progress import Progress, reporting


def read_items(
    dataset: Any,
    most: int | None,
    value_range: tuple[float, float] | None,
    what: str,
    progress: bool | Progress | None,
    *,
    channels_last: bool | None = None,
    classes_needed: bool = False,
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """The images [N, C, H, W] and labels of the first `most` items; `ImageSet.from_torch` says what items may be.

    Raises:
        DataError, DTypeError, InvalidValueError, ShapeError: see `ImageSet.from_torch`.

    Example:
        >>> images, labels = read_items([(np.zeros((1, 2, 2), np.uint8), 7)], None, None, "one", False)
        >>> images.shape, labels
        ((1, 1, 2, 2), array([7]))
    """
    length = _length(dataset)
    total = length if most is None else min(most, length)
    if total == 0:
        raise DataError(f"{what} is empty; at least one image is needed")
    first, label = _item(dataset, 0, channels_last)
    images = np.empty((total, *first.shape), first.dtype)
    images[0] = first
    labels = [label]
    with reporting(progress, "img", f"reading {what}", total) as report:
        report(1, total)
        for index in range(1, total):
            image, label = _item(dataset, index, channels_last)
            _check_alike(image, first, index)
            images[index] = image
            labels.append(label)
            report(index + 1, total)
    if value_range is not None:
        images = _rescaled(images, value_range)
    missing = sum(label is None for label in labels)
    if missing == total:
        return images, None
    if missing:
        raise DataError(f"{what} gives labels for some images only; item {_first_none(labels)} has none")
    return images, class_labels(labels, total, f"the labels of {what}", needed=classes_needed)


def _length(dataset: Any) -> int:
    """The number of items.

    Raises:
        DTypeError: it is no map-style data set.
    """
    is_other = isinstance(dataset, Mapping | str | bytes | np.ndarray)
    if is_other or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DTypeError(f"data is a {type(dataset).__name__}; a data set needs __len__ and __getitem__ by position")
    return len(dataset)


def _first_none(labels: list[Any]) -> int:
    return next(index for index, label in enumerate(labels) if label is None)


def _item(dataset: Any, index: int, channels_last: bool | None) -> tuple[NDArray[Any], Any]:
    item = dataset[index]
    parts = item if isinstance(item, tuple | list) and item else (item,)
    return _as_image(parts[0], index, channels_last), parts[1] if len(parts) > 1 else None


def _as_image(image: Any, index: int, channels_last: bool | None) -> NDArray[Any]:
    what = f"item {index}"
    if hasattr(image, "getbands") and hasattr(image, "mode"):
        return pixels_of(image, what)
    array = as_numpy(image, what)
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise ShapeError(f"{what} has shape {array.shape}; allowed are [C, H, W] and [H, W]")
    first: NDArray[Any] = channels_first(array[None], channels_last, f"images such as {what}")[0]
    return first


def _check_alike(image: NDArray[Any], first: NDArray[Any], index: int) -> None:
    if image.shape != first.shape:
        raise ShapeError(f"item {index} has shape {image.shape}; expected is {first.shape}, as the first has")
    if image.dtype != first.dtype:
        raise DTypeError(f"item {index} has dtype {image.dtype}; expected is {first.dtype}, as the first has")


def _rescaled(images: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.float32]:
    if not isinstance(value_range, list | tuple) or len(value_range) != 2:
        raise DTypeError(f"value_range is {value_range!r:.80}; allowed are two numbers, the lower one first")
    low, high = (real_number("an end of value_range", end) for end in value_range)
    if low >= high:
        raise InvalidValueError(f"value_range is {value_range}; allowed are two finite numbers, the lower one first")
    if images.dtype.kind != "f":
        raise DTypeError(f"value_range is given, but the images have dtype {images.dtype}; it is for floats only")
    if not (images.min() >= low and images.max() <= high):
        raise InvalidValueError(f"pixels run from {images.min()} to {images.max()}, outside value_range {value_range}")
    scaled: NDArray[np.float32] = ((images - low) / (high - low) * 2 - 1).astype(np.float32)
    return scaled
