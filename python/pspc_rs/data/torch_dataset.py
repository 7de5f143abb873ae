"""Arrays out of a torch Dataset, or anything else with a length and items."""

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import as_numpy
from pspc_rs.data.decode import pixels_of
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, ShapeError
from pspc_rs.progress import Progress, reporting


def read_items(
    dataset: Any, most: int | None, value_range: tuple[float, float] | None, what: str, progress: bool | Progress | None
) -> tuple[NDArray[Any], list[int] | None]:
    """The images and labels of the first `most` items; `ImageSet.from_torch` says what items may be.

    Raises:
        DataError, DTypeError, InvalidValueError, ShapeError: see `ImageSet.from_torch`.

    Example:
        >>> images, labels = read_items([(np.zeros((1, 2, 2), np.uint8), 7)], None, None, "one", False)
        >>> images.shape, labels
        ((1, 1, 2, 2), [7])
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DTypeError(f"data is a {type(dataset).__name__}; a data set needs __len__ and __getitem__")
    total = len(dataset) if most is None else min(most, len(dataset))
    if total == 0:
        raise DataError(f"{what} is empty; at least one image is needed")
    first, label = _item(dataset, 0)
    images = np.empty((total, *first.shape), first.dtype)
    images[0] = first
    labels = [label]
    with reporting(progress, "img", f"reading {what}", total) as report:
        report(1, total)
        for index in range(1, total):
            image, label = _item(dataset, index)
            _check_alike(image, first, index)
            images[index] = image
            labels.append(label)
            report(index + 1, total)
    known = [label for label in labels if label is not None]
    if known and len(known) < total:
        raise DataError(f"{what} gives labels for some images only; item {labels.index(None)} has none")
    return images if value_range is None else _rescaled(images, value_range), known or None


def _item(dataset: Any, index: int) -> tuple[NDArray[Any], int | None]:
    item = dataset[index]
    parts = item if isinstance(item, tuple | list) and item else (item,)
    label = parts[1] if len(parts) > 1 else None
    return _as_image(parts[0], index), None if label is None else _as_label(label, index)


def _as_image(image: Any, index: int) -> NDArray[Any]:
    if hasattr(image, "getbands") and hasattr(image, "mode"):
        return pixels_of(image, f"item {index}")
    array = as_numpy(image, f"item {index}")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise ShapeError(f"item {index} has shape {array.shape}; allowed are [C, H, W] and [H, W]")
    return array


def _as_label(label: Any, index: int) -> int:
    try:
        return operator.index(label)
    except TypeError as error:
        raise DTypeError(f"the label of item {index} is {label!r}; allowed are integers") from error


def _check_alike(image: NDArray[Any], first: NDArray[Any], index: int) -> None:
    if image.shape != first.shape:
        raise ShapeError(f"item {index} has shape {image.shape}; expected is {first.shape}, as the first has")
    if image.dtype != first.dtype:
        raise DTypeError(f"item {index} has dtype {image.dtype}; expected is {first.dtype}, as the first has")


def _rescaled(images: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.float32]:
    low, high = value_range
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InvalidValueError(f"value_range is {value_range}; allowed are two finite numbers, the lower one first")
    if images.dtype.kind != "f":
        raise DTypeError(f"value_range is given, but the images have dtype {images.dtype}; it is for floats only")
    if not (images.min() >= low and images.max() <= high):
        raise InvalidValueError(f"pixels run from {images.min()} to {images.max()}, outside value_range {value_range}")
    scaled: NDArray[np.float32] = ((images - low) / (high - low) * 2 - 1).astype(np.float32)
    return scaled
