"""The IDX files of MNIST and its relatives."""

import math
import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.arrays import check_split
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers.files import check_announced, damage_named, existing, is_gzip, open_file, read_u8
from pspc_rs.errors import DataError, InvalidValueError, MissingFileError

IMAGES_MAGIC = b"\x00\x00\x08\x03"
"""First bytes of an IDX file of bytes with three axes."""

_LABELS_MAGIC = b"\x00\x00\x08\x01"
_PREFIXES = {"train": ("train",), "test": ("t10k", "test")}
_ENDINGS = ("-images-idx3-ubyte", "-images.idx3-ubyte")
_PACKED = ("", ".gz")


def read_idx(
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
) -> ImageSet:
    """The grey images of an IDX file (MNIST, Fashion-MNIST, EMNIST, KMNIST), with the labels found beside it.

    An image file that is not compressed is mapped into memory, not loaded.

    Args:
        path: the file of images (packed with gzip or not), or the folder it lies in. The labels are looked for under
            the same name with ``images`` and ``idx3`` replaced by ``labels`` and ``idx1``; without such a file the set
            has no labels.
        split: for a folder, ``"train"`` (``train-images-idx3-ubyte``) or ``"test"`` (``t10k-...`` or ``test-...``).
            A file is taken as it is, but ``"test"`` is refused where its name does not say so.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.

    Returns:
        ImageSet of uint8 [N, 1, H, W].

    Raises:
        DataError: the header does not fit the file, the file is damaged, or there is not one label per image.
        InvalidValueError: an unknown split or class.
        MissingFileError: there is no such file, or no IDX file in the folder.

    Example:
        >>> import pathlib, struct, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "tiny", "train-images-idx3-ubyte")
        ...     file.parent.mkdir()
        ...     _ = file.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 2, 5, 4) + bytes(40))
        ...     read_idx(file.parent)
        ImageSet('tiny-train', 2 images of [1, 5, 4] uint8, no labels, xflip=False)
    """
    file = _images_file(existing(path), check_split(split))
    images = _read(file, IMAGES_MAGIC)
    labels_file = _labels_beside(file)
    labels = None if labels_file is None else _read(labels_file, _LABELS_MAGIC)
    if labels is not None and len(labels) != len(images):
        raise DataError(f"{labels_file} holds {len(labels)} labels, but {file} holds {len(images)} images")
    name = f"{file.resolve().parent.name}-{file.name.split('-images')[0]}"
    return ImageSet(images, labels, xflip, name=name).select(max_size, classes)


def _images_file(source: Path, split: str) -> Path:
    if not source.is_dir():
        if split == "test" and not source.name.startswith(_PREFIXES[split]):
            raise InvalidValueError(
                f"split is 'test', but {source} does not start with {' or '.join(_PREFIXES[split])}"
            )
        return source
    file = find_images(source, split)
    if file is None:
        names = " or ".join(prefix + _ENDINGS[0] for prefix in _PREFIXES[split])
        raise MissingFileError(f"{source} holds no {names}, packed with gzip or not")
    return file


def find_images(folder: Path, split: str) -> Path | None:
    """The file of images of a split in a folder, unpacked before packed."""
    candidates = (
        folder / (prefix + ending + packed) for prefix in _PREFIXES[split] for ending in _ENDINGS for packed in _PACKED
    )
    return next((file for file in candidates if file.is_file()), None)


def _labels_beside(file: Path) -> Path | None:
    stem = file.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    candidates = (file.with_name(stem + packed) for packed in _PACKED)
    return next((labels for labels in candidates if labels.is_file() and labels != file), None)


def _read(file: Path, magic: bytes) -> NDArray[np.uint8]:
    with damage_named(file):
        size = file.stat().st_size
        with open_file(file) as stream:
            shape = _read_shape(stream, magic, file)
            start = 4 + 4 * len(shape)
            if is_gzip(file):
                check_announced(start + math.prod(shape), size, file)
                return read_u8(stream, shape, file)
        if size != start + math.prod(shape):
            raise DataError(f"{file} announces {list(shape)} bytes after {start}, but has {size} bytes in all")
        return np.memmap(file, np.uint8, "r", offset=start, shape=shape)


def _read_shape(stream: BinaryIO, magic: bytes, file: Path) -> tuple[int, ...]:
    axes = magic[3]
    header = stream.read(4 + 4 * axes)
    if len(header) < 4 + 4 * axes or header[:4] != magic:
        raise DataError(f"{file} starts with {header[:4].hex(' ')}; expected is an IDX header, {magic.hex(' ')}")
    shape: tuple[int, ...] = struct.unpack(f">{axes}I", header[4:])
    if 0 in shape:
        raise DataError(f"{file} announces an empty array of shape {list(shape)}")
    return shape
