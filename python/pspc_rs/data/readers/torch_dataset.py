"""Images out of a torch Dataset, or anything else with a length and items."""

import operator
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import integer
from pspc_rs.data.arrays import as_numpy
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.progress import progress_bar
from pspc_rs.data.readers.decode import pixels_of
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, ShapeError


def read_torch_dataset(
    dataset: Any,
    *,
    value_range: tuple[float, float] | None = None,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | None = None,
    name: str | None = None,
) -> ImageSet:
    """The images of a map-style torch `Dataset`: anything with ``__len__`` and ``__getitem__``.

    Each item is an image or a tuple that starts with (image, label). An image is a Pillow image, or a tensor or array
    [C, H, W] or [H, W] of uint8 or floats. Items are asked for once, in order; torch itself is not imported.

    Args:
        dataset: the data set.
        value_range: (low, high) of float pixels, mapped linearly to [-1, 1]: (0, 1) is what torchvision's ``ToTensor``
            gives. None takes floats as they are.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`; without `classes` no further item is asked for.
        classes: labels to keep.
        progress: show a progress bar; None shows it on a terminal, for more than 2000 images.
        name: what messages call the data set; None takes the name of its class.

    Returns:
        ImageSet of uint8 [N, C, H, W], or of float32 if the items are floats.

    Raises:
        DataError: there are no items, or only some have labels.
        DTypeError: images of mixed or other types, labels that are no integers.
        InvalidValueError: pixels outside `value_range`, an unknown class.
        ShapeError: images of mixed shapes.

    Example:
        >>> import numpy as np
        >>> items = [(np.full((1, 2, 2), 0.25, np.float32), label) for label in (3, 4)]
        >>> read_torch_dataset(items, value_range=(0, 1)).images[0, 0, 0]
        array([-0.5, -0.5], dtype=float32)
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DTypeError(f"data is a {type(dataset).__name__}; a data set needs __len__ and __getitem__")
    count = None if max_size is None else integer("max_size", max_size)
    # Which items belong to a class is known only after asking for them all.
    num = len(dataset) if count is None or classes is not None else min(count, len(dataset))
    called = type(dataset).__name__ if name is None else name
    if num == 0:
        raise DataError(f"{called} is empty; at least one image is needed")
    first, label = _item(dataset, 0)
    images = np.empty((num, *first.shape), first.dtype)
    images[0] = first
    labels = [label]
    with progress_bar(num, f"reading {called}", progress) as bar:
        bar.update(1)
        for index in range(1, num):
            image, label = _item(dataset, index)
            _check_alike(image, first, index)
            images[index] = image
            labels.append(label)
            bar.update(1)
    if None in labels and any(label is not None for label in labels):
        raise DataError(f"{called} gives labels for some images only; item {labels.index(None)} has none")
    held = images if value_range is None else _rescaled(images, value_range)
    return ImageSet(held, None if None in labels else labels, xflip, name=called).select(max_size, classes)


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
