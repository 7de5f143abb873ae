"""What kind of data set a path is, judged by its content."""

import zipfile
from pathlib import Path, PurePosixPath
from typing import Literal

from pspc_rs.data.readers.cifar import find_batch
from pspc_rs.data.readers.decode import SUFFIXES
from pspc_rs.data.readers.files import damage_named, is_gzip, open_file, open_zip
from pspc_rs.data.readers.idx import IMAGES_MAGIC, find_images
from pspc_rs.data.readers.npz import NPY_MAGIC
from pspc_rs.errors import DataError

Kind = Literal["edm_zip", "folder", "cifar10", "idx", "npz", "npy"]

_TAR_MAGIC = b"ustar"
_TAR_MAGIC_AT = 257


def kind_of(path: Path) -> Kind:
    """The format of an existing file or folder.

    Raises:
        DataError: it is none of the known formats.
    """
    return _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)


def _kind_of_folder(path: Path) -> Kind:
    if any(find_batch(path, name) for name in ("data_batch_1", "test_batch")):
        return "cifar10"
    if any(find_images(path, split) for split in ("train", "test")):
        return "idx"
    return "folder"


def _kind_of_file(path: Path) -> Kind:
    with damage_named(path):
        if zipfile.is_zipfile(path):
            return _kind_of_zip(path)
        with open_file(path) as stream:
            start = stream.read(512)
        packed = is_gzip(path)
    if start[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        return "cifar10"
    if start.startswith(IMAGES_MAGIC):
        return "idx"
    if start.startswith(NPY_MAGIC) and not packed:
        return "npy"
    hint = "; for a single image give its folder" if path.suffix.lower() in SUFFIXES else ""
    raise DataError(
        f"{path} is no known kind of data set (it starts with {start[:8].hex(' ') or 'nothing'}){hint}; known are EDM "
        "archives (ZIP of images), folders of images, CIFAR-10 archives, IDX files (MNIST), .npy and .npz"
    )


def _kind_of_zip(path: Path) -> Kind:
    with open_zip(path) as archive:
        suffixes = {PurePosixPath(name).suffix.lower() for name in archive.namelist()}
    return "npz" if ".npy" in suffixes and not suffixes & SUFFIXES else "edm_zip"
