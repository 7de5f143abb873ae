"""WebDataset: tar archives in which files of one name and several suffixes are a sample.

`tarfile` reads them: what the library of that name has besides, shuffling, pipes and unpickling, is not wanted here.
"""

import gzip
import io
import math
import os
import re
import tarfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.decode import SUFFIXES, ImageFile
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers.archives import is_junk
from pspc_rs.data.streams import Batch, ImageStream, Item, batches_of, collect
from pspc_rs.errors import DataError, InvalidValueError, warn
from pspc_rs.files import MAX_FILE_BYTES, decode_errors, is_gzip, require_path
from pspc_rs.progress import Progress
from pspc_rs.reprs import a_few

_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
_LABEL = "cls"
_ARRAY = "npy"
_BLOCK = 512
_MIB = 1 << 20
_ENDINGS = (".tar", ".tar.gz", ".tgz")
_MOST_PARTS = 1000


@dataclass
class _Sample:
    """The wanted files of one sample."""

    key: str
    parts: dict[str, bytes]
    done: int


def read_webdataset(
    path: str | os.PathLike[str],
    *,
    image: str | None = None,
    label: str = _LABEL,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | Progress | None = None,
) -> ImageSet:
    """The images of a WebDataset, in their order in the archives.

    A sample is a run of files whose names differ after the first dot only: ``000/7.png``, ``000/7.cls``. Nothing is
    unpickled, and nothing is extracted. All images are held in memory; `pspc_rs.data.save_store` streams them.

    Args:
        path: a tar archive, packed with gzip or not, or a folder of some, which are read in the order of their names.
        image: suffix of the images, such as ``"png"``; ``"npy"`` is an array [C, H, W] of uint8 or floats. None takes
            the only image of a sample, or else its only array.
        label: suffix of the labels, files that hold an integer as text; samples without have no label.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 MiB.

    Returns:
        ImageSet of uint8, or of float32 for arrays of floats, [N, C, H, W].

    Raises:
        DataError: an archive is damaged or truncated, a sample has no image or several, or images or labels differ in
            kind.
        MissingFileError: there is no such file or folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "few-000000.tar")
        ...     with tarfile.open(file, "w") as archive:
        ...         for name, content in [("a.pgm", b"P5 2 2 255 abcd"), ("a.cls", b"7")]:
        ...             member = tarfile.TarInfo(name)
        ...             member.size = len(content)
        ...             archive.addfile(member, io.BytesIO(content))
        ...     read_webdataset(file)
        ImageSet('few-000000', 1 image of [1, 2, 2] uint8, 1 class, xflip=False)
    """
    return collect(webdataset_stream(require_path(path), image, label), xflip, max_size, classes, progress)


def webdataset_stream(path: Path, image: str | None = None, label: str | None = None) -> ImageStream:
    """The images of a WebDataset as a stream; see `read_webdataset`.

    Raises:
        DataError: there is no archive.
        InvalidValueError: a suffix is none.
    """
    for one in (image, label):
        if one is not None and (not one or one.startswith(".") or "/" in one):
            raise InvalidValueError(f"{one!r} is no suffix of a WebDataset; write it without its dot, such as 'png'")
    files = archives_in(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no tar archives")
    sizes = [file.stat().st_size for file in files]
    name = path.name if path.is_dir() else path.name.partition(".")[0]
    wanted = _Wanted(image, label or _LABEL)

    def batches(start: int) -> Iterator[Batch]:
        return batches_of(_items(files, sizes, wanted, start), name)

    return ImageStream(name, max(1, math.ceil(sum(sizes) / _MIB)), batches, "MiB")


def archives_in(folder: Path) -> list[Path]:
    """The tar archives in a folder, in the order of their names."""
    with decode_errors(folder):
        return sorted(
            path for path in folder.iterdir() if path.name.endswith(_ENDINGS) and not path.name.startswith(".")
        )


def is_image_suffix(name: str) -> bool:
    """Whether the name of a member is that of an image or array of a WebDataset.

    Example:
        >>> is_image_suffix("a/1.rgb.png"), is_image_suffix("a/1.npy"), is_image_suffix("a/1.txt")
        (True, True, False)
    """
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in SUFFIXES or suffix == f".{_ARRAY}"


@dataclass(frozen=True)
class _Wanted:
    """Which files of a sample are wanted."""

    image: str | None
    label: str

    def __contains__(self, suffix: str) -> bool:
        if suffix == self.label:
            return True
        return is_image_suffix(f"x.{suffix}") if self.image is None else suffix == self.image

    def image_of(self, sample: _Sample, what: str) -> tuple[str, bytes]:
        """The image of a sample and its suffix."""
        images = {suffix: data for suffix, data in sample.parts.items() if suffix != self.label}
        pictures = {suffix: data for suffix, data in images.items() if suffix != _ARRAY and not suffix.endswith(".npy")}
        found = pictures or images
        if len(found) != 1:
            has = f"several images, {a_few(sorted(found))}" if found else "no image"
            raise DataError(f"{what} has {has}; the suffix of the one that is wanted can be given (image=, --image)")
        return next(iter(found.items()))


def _items(files: list[Path], sizes: list[int], wanted: _Wanted, start: int) -> Iterator[Item]:
    index, before = 0, 0
    folders: set[str] = set()
    has_labels = False
    for file, size in zip(files, sizes, strict=True):
        for sample in _samples(file, wanted):
            if index >= start:
                yield _item(file, sample, wanted, (before + sample.done) // _MIB)
            index += 1
            has_labels = has_labels or wanted.label in sample.parts
            if len(folders) < 2:
                folders.add(sample.key.rpartition("/")[0])
        before += size
    if len(folders) > 1 and not has_labels:
        warn(
            f"no sample of {a_few([file.name for file in files])} has a label, a file .{wanted.label}; folders in an "
            "archive are not taken for classes, unpack it for those"
        )


def _item(file: Path, sample: _Sample, wanted: _Wanted, done: int) -> Item:
    what = f"{file}, sample {sample.key}"
    suffix, data = wanted.image_of(sample, what)
    text = sample.parts.get(wanted.label)
    label = None if text is None else _label(text, what)
    if suffix == _ARRAY or suffix.endswith(f".{_ARRAY}"):
        return Item(_array(data, what), label, done, what)
    return Item(ImageFile(what, lambda: data), label, done, what)


def _label(text: bytes, what: str) -> int:
    try:
        number = int(text[:40].decode("ascii"))
    except ValueError as error:
        raise DataError(f"{what} has the label {text[:40]!r}; allowed are integers as text") from error
    if not -(2**63) <= number < 2**63:
        raise DataError(f"{what} has the label {number}, which does not fit into 64 bits")
    return number


def _array(data: bytes, what: str) -> NDArray[Any]:
    with decode_errors(what):
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False, max_header_size=10_000)
    if array.ndim != 3 or array.dtype not in (np.uint8, np.float16, np.float32, np.float64):
        raise DataError(f"{what} is {array.dtype} {list(array.shape)}; allowed are [C, H, W] of uint8 or floats")
    return array


def _samples(file: Path, wanted: _Wanted) -> Iterator[_Sample]:
    """The samples of one archive with their wanted files."""
    sample: _Sample | None = None
    with _opened(file) as (archive, end, raw):
        # Not by the iterator, which keeps every member.
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]
            found = _NAME.fullmatch(member.name)
            if found is None or not member.isfile() or is_junk(str(PurePosixPath(member.name))):
                continue
            key, suffix = found[1], found[2].lower()
            if sample is not None and key != sample.key:
                yield sample
                sample = None
            sample = sample or _Sample(key, {}, 0)
            if suffix in wanted:
                if suffix in sample.parts or len(sample.parts) == _MOST_PARTS:
                    raise DataError(f"{file}, sample {key} has the suffix {suffix} twice, or very many suffixes")
                sample.parts[suffix] = _content(archive, member, file)
            sample.done = raw.tell()
        end.check()
    if sample is not None:
        yield sample


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> bytes:
    if member.size > MAX_FILE_BYTES:
        raise DataError(f"{file}, member {member.name} has {member.size} bytes; allowed are at most {MAX_FILE_BYTES}")
    content = archive.extractfile(member)
    data = b"" if content is None else content.read()
    if len(data) != member.size:
        raise DataError(f"{file}, member {member.name} ends after {len(data)} of {member.size} bytes")
    return data


class _Ended:
    """A stream that knows whether it has ended as a tar archive does, with a block of zeros."""

    def __init__(self, stream: BinaryIO, what: Path) -> None:
        self._stream = stream
        self._what = what
        self._tail = b""

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if data:
            self._tail = (self._tail + data)[-_BLOCK:] if len(data) < _BLOCK else data[-_BLOCK:]
        return data

    def check(self) -> None:
        """Reads on to the end.

        Raises:
            DataError: there is no block of zeros.
        """
        while self.read(_MIB):
            pass
        if self._tail != bytes(_BLOCK):
            raise DataError(f"{self._what} is truncated: the end of the tar archive is missing")


@contextmanager
def _opened(file: Path) -> Iterator[tuple[tarfile.TarFile, _Ended, BinaryIO]]:
    with decode_errors(file), ExitStack() as stack:
        raw = stack.enter_context(file.open("rb"))
        stream = stack.enter_context(gzip.GzipFile(fileobj=raw)) if is_gzip(file) else raw
        end = _Ended(cast(BinaryIO, stream), file)
        yield stack.enter_context(tarfile.open(fileobj=cast(BinaryIO, end), mode="r|")), end, raw
