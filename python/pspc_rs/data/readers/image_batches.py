"""Image files in folders and ZIP archives as a stream: in batches, with bounded memory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.decode import ImageFiles, decode_images
from pspc_rs.data.readers.archives import FolderImages, ZipArchive, ZipImages
from pspc_rs.data.readers.image_files import folder_images, zip_images
from pspc_rs.data.streams import Batch, ImageStream, batch_size


def folder_stream(path: Path) -> ImageStream:
    """The images below a folder, in the order and with the labels of `read_folder`.

    Raises:
        DataError: see `read_folder`.
    """
    names, labels = folder_images(path, needed=False)

    def batches(start: int) -> Iterator[Batch]:
        return _batches(names, labels, start, path.name, lambda chosen: FolderImages(path, chosen))

    return ImageStream(path.name, len(names), batches)


def zip_stream(path: Path) -> ImageStream:
    """The images of an archive, in the order and with the labels of `read_edm_zip`.

    Raises:
        DataError: see `read_edm_zip`.
    """
    with ZipArchive(path) as archive:
        names, members, labels = zip_images(archive, needed=False)

    def batches(start: int) -> Iterator[Batch]:
        with ZipArchive(path) as archive:
            yield from _batches(
                names,
                labels,
                start,
                path.stem,
                lambda chosen: ZipImages(archive, [members[name] for name in chosen]),
            )

    return ImageStream(path.stem, len(names), batches)


def _batches(
    names: list[str],
    labels: NDArray[np.int64] | None,
    start: int,
    what: str,
    files_of: Callable[[list[str]], ImageFiles],
) -> Iterator[Batch]:
    size = 1
    while start < len(names):
        chosen = names[start : start + size]
        images = decode_images(files_of(chosen), what, progress=False)
        stop = start + len(chosen)
        yield Batch(images, None if labels is None else labels[start:stop], stop)
        start, size = stop, batch_size(images[0])
