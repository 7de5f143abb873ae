"""Image files in folders and ZIP archives as a stream: in batches, with bounded memory."""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.decode import ImageFile
from pspc_rs.data.readers.image_files import folder_images, zip_images
from pspc_rs.data.streams import Batch, ImageStream, Item, batches_of
from pspc_rs.files import open_zip, read_limited, read_member


def folder_stream(path: Path) -> ImageStream:
    """The images below a folder, in the order and with the labels of `read_folder`.

    Raises:
        DataError: see `read_folder`.
    """
    names, labels = folder_images(path, needed=False)

    def batches(start: int) -> Iterator[Batch]:
        yield from _batches(names, labels, start, path.name, lambda name: _folder_file(path / name))

    return ImageStream(path.name, len(names), batches)


def zip_stream(path: Path) -> ImageStream:
    """The images of an archive, in the order and with the labels of `read_edm_zip`.

    Raises:
        DataError: see `read_edm_zip`.
    """
    with open_zip(path) as archive:
        names, _, labels = zip_images(archive, path, needed=False)

    def batches(start: int) -> Iterator[Batch]:
        with _opened(path) as image_file:
            yield from _batches(names, labels, start, path.stem, image_file)

    return ImageStream(path.stem, len(names), batches)


def _batches(
    names: list[str],
    labels: NDArray[np.int64] | None,
    start: int,
    what: str,
    image_file: Callable[[str], ImageFile],
) -> Iterator[Batch]:
    items = (
        Item(image_file(names[index]), None if labels is None else int(labels[index]), index + 1, names[index])
        for index in range(start, len(names))
    )
    return batches_of(items, what)


def _folder_file(path: Path) -> ImageFile:
    return ImageFile(str(path), partial(read_limited, path))


@contextmanager
def _opened(path: Path) -> Iterator[Callable[[str], ImageFile]]:
    with open_zip(path) as archive:
        _, members, _ = zip_images(archive, path, needed=False)
        yield lambda name: _zip_file(archive, path, name, members[name])


def _zip_file(archive: zipfile.ZipFile, path: Path, name: str, member: zipfile.ZipInfo) -> ImageFile:
    return ImageFile(f"{path}, member {name}", partial(read_member, archive, member))
