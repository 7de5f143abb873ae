"""CIFAR-10 and CIFAR-100 as their authors distribute them: the Python or the binary version, packed or unpacked."""

import os
import tarfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import one_of
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers.plain_pickle import PickledArray, read_plain_pickle
from pspc_rs.data.readers.webdataset import is_image_suffix
from pspc_rs.errors import DataError
from pspc_rs.files import decode_errors, open_file, require_path
from pspc_rs.reprs import a_few

BATCH_SIZE = 10_000
"""Images in each file of CIFAR-10, and in the test file of CIFAR-100."""

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_MAX_MEMBER = 256 << 20
_MAX_TOTAL = 512 << 20
_MOST_MEMBERS_LISTED = 100
_CLASS_NAMES = ("meta", "fine_label_names.txt")


Name: TypeAlias = Literal["cifar10", "cifar100"]
"""The two data sets."""


@dataclass(frozen=True)
class _Kind:
    """One of the two data sets.

    Attributes:
        name: what messages and records call it.
        files: the names of the files of each split; in the binary version with ``.bin``.
        batches: how many times `BATCH_SIZE` images a file of each split holds.
        folders: where the files may lie: also in the subfolder that unpacking makes.
        label_key: the labels in the Python version.
        label_bytes: label bytes of an image in the binary version, of which the last is its class.
        num_classes: labels are below this.
    """

    name: Name
    files: dict[str, tuple[str, ...]]
    batches: dict[str, int]
    folders: tuple[str, ...]
    label_key: str
    label_bytes: int
    num_classes: int

    def paths(self, name: str) -> tuple[str, ...]:
        """Where in a folder a file may lie."""
        return tuple(str(PurePosixPath(folder, name + end)) for folder in self.folders for end in ("", ".bin"))


_CIFAR10 = _Kind(
    name="cifar10",
    files={"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)},
    batches={"train": 1, "test": 1},
    folders=("", "cifar-10-batches-py", "cifar-10-batches-bin"),
    label_key="labels",
    label_bytes=1,
    num_classes=10,
)
_CIFAR100 = _Kind(
    name="cifar100",
    files={"train": ("train",), "test": ("test",)},
    batches={"train": 5, "test": 1},
    folders=("", "cifar-100-python", "cifar-100-binary"),
    label_key="fine_labels",
    label_bytes=2,
    num_classes=100,
)


_ALL = (_CIFAR10, _CIFAR100)


def folder_format(folder: Path) -> Name | None:
    """Which of the two lies in a folder, or in the subfolder that unpacking makes; None for neither."""
    for kind in _ALL:
        # "train" and "test" are common names, which count only beside the names of the classes.
        is_certain = kind is _CIFAR10 or any((folder / name).is_file() for name in _CLASS_NAMES)
        first = [names[0] for names in kind.files.values()]
        paths = [path for name in first for path in kind.paths(name) if is_certain or "/" in path]
        if any((folder / path).is_file() for path in paths):
            return kind.name
    return None


def tar_format(file: Path) -> Name | Literal["webdataset"]:
    """Which of the two a tar archive is, or else a WebDataset, which has images among its first files.

    Raises:
        DataError: it is damaged, or none of them.
    """
    names = []
    with _opened_tar(file) as (archive, _):
        for member in archive:
            names.append(member.name)
            bare = PurePosixPath(member.name).name.removesuffix(".bin")
            found = (kind.name for kind in _ALL for split in kind.files.values() if member.isfile() and bare in split)
            name = next(found, None)
            if name is not None:
                return name
            if member.isfile() and is_image_suffix(member.name):
                return "webdataset"
            if len(names) == _MOST_MEMBERS_LISTED:
                break
    raise DataError(
        f"{file} is a tar archive of {a_few(names) or 'nothing'}; of tar archives only those of CIFAR-10, CIFAR-100 "
        "and WebDataset are read: unpack it and give the folder"
    )


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
    return _read(_CIFAR10, path, split, xflip).select(max_size, classes)


def read_cifar100(
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
) -> ImageSet:
    """The 50,000 training or 10,000 test images of CIFAR-100 (Krizhevsky 2009), in their original order.

    Labels are the fine ones. The files are read as those of CIFAR-10, see `read_cifar10`.

    Args:
        path: ``cifar-100-python.tar.gz`` or ``cifar-100-binary.tar.gz`` (or the bare tar), or the unpacked folder.
        split: ``"train"`` or ``"test"``.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep, out of 0 .. 99.

    Returns:
        ImageSet of uint8 [N, 3, 32, 32] with labels.

    Raises:
        DataError: a file is missing or damaged, or a pickle asks for anything but plain data.
        InvalidValueError: an unknown split or class.
        MissingFileError: there is no such file or folder.

    Example:
        >>> read_cifar100("cifar-100-python.tar.gz", split="test")  # doctest: +SKIP
        ImageSet('cifar100-test', 10000 images of [3, 32, 32] uint8, 100 classes, xflip=False)
    """
    return _read(_CIFAR100, path, split, xflip).select(max_size, classes)


_Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def _read(kind: _Kind, path: str | os.PathLike[str], split: str, xflip: bool) -> ImageSet:
    names = kind.files[one_of("split", split, kind.files)]
    source, size = require_path(path), BATCH_SIZE * kind.batches[split]
    read = _folder_files(kind, source, names) if source.is_dir() else _archive_files(source, names)
    batches = {name: _parse(kind, file, data, what, size) for name, file, data, what in read}
    missing = [name for name in names if name not in batches]
    if missing:
        raise DataError(f"{source} lacks {', '.join(missing)}; it has {', '.join(sorted(batches)) or 'no batches'}")
    images = np.concatenate([batches[name][0] for name in names])
    labels = np.concatenate([batches[name][1] for name in names])
    return ImageSet(images, labels, xflip, name=f"{kind.name}-{split}")


_File: TypeAlias = tuple[str, str, bytes, str]
"""Name of a batch, name of its file, its bytes, and what messages call it."""


def _folder_files(kind: _Kind, folder: Path, names: tuple[str, ...]) -> Iterator[_File]:
    for name in names:
        file = next((folder / path for path in kind.paths(name) if (folder / path).is_file()), None)
        if file is not None:
            with decode_errors(file):
                yield name, file.name, _read_all(file.open("rb"), file.stat().st_size, file), str(file)


def _archive_files(file: Path, names: tuple[str, ...]) -> Iterator[_File]:
    with _opened_tar(file) as (archive, stream):
        for member in archive:
            member_name = PurePosixPath(member.name).name
            name = member_name.removesuffix(".bin")
            content = archive.extractfile(member) if name in names else None
            if content is not None:
                what = f"{file}, member {member_name}"
                yield name, member_name, _read_all(content, member.size, what), what
        # Reading on to the end checks the length and checksum of the compressed stream.
        while stream.read(1 << 20):
            pass


@contextmanager
def _opened_tar(file: Path) -> Iterator[tuple[tarfile.TarFile, "_Limited"]]:
    """A tar archive, packed with gzip or not, and the stream that it is read from."""
    with decode_errors(file), ExitStack() as stack:
        stream = _Limited(stack.enter_context(open_file(file)), file)
        yield stack.enter_context(tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|")), stream


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
            raise DataError(f"{self._what} unpacks to more than {_MAX_TOTAL} bytes, which CIFAR does not")
        return data


def _read_all(stream: IO[bytes], size: int, what: object) -> bytes:
    if size > _MAX_MEMBER:
        raise DataError(f"{what} has {size} bytes; a file of CIFAR has at most {_MAX_MEMBER}")
    with stream:
        data = stream.read(size)
    if len(data) != size:
        raise DataError(f"{what} ends after {len(data)} of {size} bytes")
    return data


def _parse(kind: _Kind, file_name: str, data: bytes, what: str, size: int) -> _Batch:
    """The images and labels in one file, which must hold `size` of them."""
    is_binary = file_name.endswith(".bin")
    pixels, labels = _parse_binary(kind, data, what, size) if is_binary else _parse_python(kind, data, what)
    if pixels.shape != (size, _PIXELS) or labels.shape != (size,):
        raise DataError(
            f"{what} holds pixels of shape {pixels.shape} and labels of shape {labels.shape}; expected are "
            f"({size}, {_PIXELS}) and ({size},)"
        )
    last = kind.num_classes - 1
    if labels.min() < 0 or labels.max() > last:
        raise DataError(f"{what} holds labels from {labels.min()} to {labels.max()}; allowed are 0 .. {last}")
    return pixels.reshape(-1, *_SHAPE), labels


def _parse_binary(kind: _Kind, data: bytes, what: str, size: int) -> _Batch:
    record = kind.label_bytes + _PIXELS
    if len(data) != size * record:
        raise DataError(f"{what} has {len(data)} bytes; expected are {size} records of {record}")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, kind.label_bytes :], records[:, kind.label_bytes - 1].astype(np.int64)


def _parse_python(kind: _Kind, data: bytes, what: str) -> _Batch:
    content = read_plain_pickle(data, what)
    if not isinstance(content, dict):
        raise DataError(f"{what} holds a {type(content).__name__}; expected is a dict")
    entries = {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    pixels, labels = entries.get("data"), entries.get(kind.label_key)
    if not isinstance(pixels, PickledArray) or not isinstance(labels, list):
        found = a_few(list(entries)) or "nothing"
        raise DataError(f"{what} lacks an array 'data' or a list {kind.label_key!r}; it has {found}")
    if not all(type(label) is int and 0 <= label < kind.num_classes for label in labels):
        raise DataError(f"{what} holds labels other than the integers 0 .. {kind.num_classes - 1}")
    with decode_errors(what):
        return pixels.array(), np.array(labels, np.int64)
