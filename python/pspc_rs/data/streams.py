"""Images of a source that may be larger than memory, as batches in order."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.decode import ImageFile, ListedFiles, decode_images
from pspc_rs.data.image_arrays import chunks
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.latents import Scaling
from pspc_rs.errors import DataError
from pspc_rs.progress import Progress, reporting

BATCH_BYTES = 1 << 24
"""About so many bytes of pixels are in a batch."""

_MOST_FILES = 1024


class Batch(NamedTuple):
    """Images that follow each other in a source.

    Attributes:
        images: uint8 or floats, [n, C, H, W].
        labels: n integers; None where the source has none.
        done: how far the source is read after them, of `ImageStream.total`.
    """

    images: NDArray[Any]
    labels: NDArray[np.int64] | None
    done: int


@dataclass(frozen=True)
class ImageStream:
    """The images of a source, read in order and once.

    Attributes:
        name: what messages call the source.
        total: how much there is to read, in `unit`.
        batches: the batches from the image with a given index on; each holds one image at least.
        unit: what `total` and `Batch.done` count.
        scaling: how latents were scaled; None for pictures, and where that is unknown.
    """

    name: str
    total: int
    batches: Callable[[int], Iterator[Batch]]
    unit: str = "img"
    scaling: Scaling | None = None


def stream_of(data: ImageSet) -> ImageStream:
    """The stored images of a data set as a stream.

    Example:
        >>> stream = stream_of(ImageSet(np.zeros((3, 1, 2, 2), np.uint8), [4, 5, 6]))
        >>> [(batch.images.shape, batch.labels.tolist(), batch.done) for batch in stream.batches(1)]
        [((2, 1, 2, 2), [5, 6], 3)]
    """

    def batches(start: int) -> Iterator[Batch]:
        images, labels = data.images[start:], None if data.labels is None else data.labels[start:]
        for part in chunks(images):
            stop = min(part.stop, len(images))
            yield Batch(images[part], None if labels is None else labels[part], start + stop)

    return ImageStream(data.name, data.num_stored, batches, scaling=data.scaling)


def collect(
    stream: ImageStream,
    xflip: bool,
    max_size: int | None,
    classes: Collection[int] | None,
    progress: bool | Progress | None,
) -> ImageSet:
    """The images of a stream in memory; see `ImageSet.select` for the choice.

    Raises:
        DataError: there are no images, or they differ in shape or type.
        InvalidValueError: see `ImageSet.select`.
    """
    found: list[Batch] = []
    enough = None if classes is not None else max_size
    with reporting(progress, stream.unit, f"reading {stream.name}", stream.total) as report:
        for batch in stream.batches(0):
            check_alike(batch, found[0] if found else batch, sum(len(one.images) for one in found), stream.name)
            found.append(batch)
            report(batch.done, stream.total)
            if enough is not None and sum(len(one.images) for one in found) >= enough:
                break
    if not found:
        raise DataError(f"{stream.name} holds no images")
    images = np.concatenate([batch.images for batch in found])
    labels = [batch.labels for batch in found if batch.labels is not None]
    joined = np.concatenate(labels) if labels else None
    return ImageSet(images, joined, xflip, name=stream.name, channels_last=False).select(max_size, classes)


def check_alike(batch: Batch, first: Batch, start: int, what: object) -> None:
    """Refuses a batch whose images are of another shape or type than the first, or have labels where that has none.

    Args:
        batch: the batch.
        first: one of those before.
        start: index of its first image.
        what: the source, for messages.

    Raises:
        DataError: they differ.
    """
    found, expected = batch.images, first.images
    if found.shape[1:] != expected.shape[1:] or found.dtype != expected.dtype:
        raise DataError(
            f"{what}, images from {start} on: they are {found.dtype} {list(found.shape[1:])}; expected are "
            f"{expected.dtype} {list(expected.shape[1:])}, as the first image is"
        )
    if (batch.labels is None) != (first.labels is None):
        raise DataError(f"{what} has labels for some images only; the images from {start} on differ from the first")


def batch_size(image: NDArray[Any]) -> int:
    """How many images like this one are in a batch."""
    return min(max(1, BATCH_BYTES // image.nbytes), _MOST_FILES)


class Item(NamedTuple):
    """One image of a source.

    Attributes:
        image: a file of an image, or an array [C, H, W] of uint8 or floats.
        label: its class; None without.
        done: how far the source is read after it.
        name: what messages call it.
    """

    image: ImageFile | NDArray[Any]
    label: int | None
    done: int
    name: str


def batches_of(items: Iterator[Item], name: str) -> Iterator[Batch]:
    """Batches of single images: of one first, then of as many as `BATCH_BYTES` hold.

    Args:
        items: the images, all files or all arrays.
        name: the source, for messages.

    Raises:
        DataError: see `decode_images`; images of a batch differ in shape or type; or only some have labels.
    """
    pending: list[Item] = []
    size = 1
    for one in items:
        pending.append(one)
        if len(pending) == size:
            batch = _decoded(pending, name)
            yield batch
            size, pending = batch_size(batch.images[0]), []
    if pending:
        yield _decoded(pending, name)


def _decoded(items: list[Item], name: str) -> Batch:
    labels = [item.label for item in items if item.label is not None]
    if labels and len(labels) != len(items):
        lacking = next(item.name for item in items if item.label is None)
        raise DataError(f"{name} has labels for some images only; {lacking} has none")
    files = [item.image for item in items if isinstance(item.image, ImageFile)]
    images = decode_images(ListedFiles(files), name, progress=False) if files else _stacked(items)
    return Batch(images, np.array(labels, np.int64) if labels else None, items[-1].done)


def _stacked(items: list[Item]) -> NDArray[Any]:
    arrays = [item.image for item in items if isinstance(item.image, np.ndarray)]
    first = arrays[0]
    for array, item in zip(arrays, items, strict=True):
        if array.shape != first.shape or array.dtype != first.dtype:
            raise DataError(
                f"{item.name} is {array.dtype} {list(array.shape)}; expected is {first.dtype} {list(first.shape)}, as "
                f"{items[0].name} is"
            )
    return np.stack(arrays)
