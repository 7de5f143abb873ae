"""CIFAR-10 as its authors distribute it: the Python or the binary version, packed or unpacked."""

import os
import tarfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import one_of
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers.plain_pickle import PickledArray, read_plain_pickle
from pspc_rs.errors import DataError
from pspc_rs.files import decode_errors, open_file, require_path

BATCH_SIZE = 10_000
"""Images in each file of CIFAR-10."""

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_MAX_MEMBER = 64 << 20
_MAX_TOTAL = 512 << 20

_NAMES = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
_FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-bin")


def _paths(name: str) -> tuple[str, ...]:
    """Where in a folder the file of a batch may lie: also in the subfolder that unpacking makes."""
    return tuple(str(PurePosixPath(folder, name + suffix)) for folder in _FOLDERS for suffix in ("", ".bin"))


CIFAR10_PATHS = (*_paths("data_batch_1"), *_paths("test_batch"))
"""Files of which one at least lies in a folder of CIFAR-10."""


def read_cifar10(
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
) -> ImageSet:
    """The 50,000 training or 10,000 test images of CIFAR-10 (Krizhevsky 2009), in their original order.

    The Python version consists of pickles. They are read by a parser that can run nothing: names other than those of a
    numpy u8 array are refused. Archives are read in memory, never unpacked.

    Args:
        path: ``cifar-10-python.tar.gz`` or ``cifar-10-binary.tar.gz`` (or the bare tar), or the unpacked folder.
        split: ``"train"`` (data_batch_1 .. 5) or ``"test"`` (test_batch).
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep, out of 0 .. 9.

    Returns:
        ImageSet of uint8 [N, 3, 32, 32] with labels.

    Raises:
        DataError: a batch is missing or damaged, or a pickle asks for anything but plain data.
        InvalidValueError: an unknown split or class.
        MissingFileError: there is no such file or folder.

    Example:
        >>> read_cifar10("cifar-10-python.tar.gz", split="test")  # doctest: +SKIP
        ImageSet('cifar10-test', 10000 images of [3, 32, 32] uint8, 10 classes, xflip=False)
    """
    names = _NAMES[one_of("split", split, _NAMES)]
    source = require_path(path)
    batches = _folder_batches(source, names) if source.is_dir() else _archive_batches(source, names)
    missing = [name for name in names if name not in batches]
    if missing:
        raise DataError(f"{source} lacks {', '.join(missing)}; it has {', '.join(sorted(batches)) or 'no batches'}")
    images = np.concatenate([batches[name][0] for name in names])
    labels = np.concatenate([batches[name][1] for name in names])
    return ImageSet(images, labels, xflip, name=f"cifar10-{split}").select(max_size, classes)


_Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def _folder_batches(folder: Path, names: tuple[str, ...]) -> dict[str, _Batch]:
    batches = {}
    for name in names:
        file = next((folder / path for path in _paths(name) if (folder / path).is_file()), None)
        if file is not None:
            with decode_errors(file):
                batches[name] = _parse(file.name, _read_all(file.open("rb"), file.stat().st_size, file), str(file))
    return batches


def _archive_batches(file: Path, names: tuple[str, ...]) -> dict[str, _Batch]:
    batches = {}
    for member_name, data in _members(file, names):
        batches[member_name.removesuffix(".bin")] = _parse(member_name, data, f"{file}, member {member_name}")
    return batches


def _members(file: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    with decode_errors(file), ExitStack() as stack:
        stream = _Limited(stack.enter_context(open_file(file)), file)
        archive = stack.enter_context(tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|"))
        for member in archive:
            name = PurePosixPath(member.name).name
            content = archive.extractfile(member) if name.removesuffix(".bin") in names else None
            if content is not None:
                yield name, _read_all(content, member.size, f"{file}, member {name}")
        # Reading on to the end checks the length and checksum of the compressed stream.
        while stream.read(1 << 20):
            pass


class _Limited:
    """A stream that raises an error before a decompression bomb fills the memory."""

    def __init__(self, stream: BinaryIO, what: Path) -> None:
        self._stream = stream
        self._what = what
        self._left = _MAX_TOTAL

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise DataError(f"{self._what} unpacks to more than {_MAX_TOTAL} bytes, which CIFAR-10 does not")
        return data


def _read_all(stream: IO[bytes], size: int, what: object) -> bytes:
    if size > _MAX_MEMBER:
        raise DataError(f"{what} has {size} bytes; a batch of CIFAR-10 has at most {_MAX_MEMBER}")
    with stream:
        data = stream.read(size)
    if len(data) != size:
        raise DataError(f"{what} ends after {len(data)} of {size} bytes")
    return data


def _parse(name: str, data: bytes, what: str) -> _Batch:
    pixels, labels = _parse_binary(data, what) if name.endswith(".bin") else _parse_python(data, what)
    if pixels.shape != (BATCH_SIZE, _PIXELS) or labels.shape != (BATCH_SIZE,):
        raise DataError(
            f"{what} holds pixels of shape {pixels.shape} and labels of shape {labels.shape}; expected are "
            f"({BATCH_SIZE}, {_PIXELS}) and ({BATCH_SIZE},)"
        )
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{what} holds labels from {labels.min()} to {labels.max()}; allowed are 0 .. 9")
    return pixels.reshape(-1, *_SHAPE), labels


def _parse_binary(data: bytes, what: str) -> _Batch:
    record = 1 + _PIXELS
    if len(data) != BATCH_SIZE * record:
        raise DataError(f"{what} has {len(data)} bytes; expected are {BATCH_SIZE} records of {record}")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _parse_python(data: bytes, what: str) -> _Batch:
    content = read_plain_pickle(data, what)
    if not isinstance(content, dict):
        raise DataError(f"{what} holds a {type(content).__name__}; expected is a dict")
    entries = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    pixels, labels = entries.get("data"), entries.get("labels")
    if not isinstance(pixels, PickledArray) or not isinstance(labels, list):
        raise DataError(f"{what} lacks an array 'data' or a list 'labels'; it has {', '.join(map(str, entries))}")
    if not all(type(label) is int and 0 <= label <= 9 for label in labels):
        raise DataError(f"{what} holds labels other than the integers 0 .. 9")
    with decode_errors(what):
        return pixels.array(), np.array(labels, np.int64)
