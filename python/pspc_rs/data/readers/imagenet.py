"""Downsampled ImageNet (Chrabaszcz et al. 2017) as distributed: batches of rows of pixels in .npz files."""

import math
import os
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import one_of
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers.array_files import read_npy_header, read_npz_array
from pspc_rs.data.streams import BATCH_BYTES, Batch, ImageStream, collect
from pspc_rs.errors import DataError, InvalidValueError
from pspc_rs.files import check_member, decode_errors, open_zip, require_path
from pspc_rs.progress import Progress
from pspc_rs.reprs import a_few

NUM_CLASSES = 1000
"""Labels in the files run from 1 to this."""

_TRAIN = re.compile(r"train_data_batch_(\d+)\.npz")
_TEST = "val_data.npz"


@dataclass(frozen=True)
class _File:
    """One batch of the release: where it lies, the number of its images, and their side."""

    path: Path
    count: int
    side: int


def read_imagenet(
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | Progress | None = None,
) -> ImageSet:
    """Downsampled ImageNet, 1,281,167 training and 50,000 validation images of 64 x 64, 32 x 32, 16 x 16 or 8 x 8.

    The labels 1 .. 1000 of the files become 0 .. 999. All images are held in memory, 15.7 GB of them at 64 x 64;
    `pspc_rs.data.save_store` streams them.

    Args:
        path: the folder of ``train_data_batch_1.npz``, ``train_data_batch_2.npz``, ... and ``val_data.npz``, or one of
            these files.
        split: ``"train"``, or ``"test"`` for the validation images; a file is taken as it is.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep, out of 0 .. 999.
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.

    Returns:
        ImageSet of uint8 [N, 3, side, side] with labels.

    Raises:
        DataError: a batch is missing or damaged, or holds something else.
        InvalidValueError: an unknown split or class.
        MissingFileError: there is no such file or folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     batch = {"data": np.zeros((2, 3 * 8 * 8), np.uint8), "labels": [1, 1000]}
        ...     np.savez(Path(folder, "train_data_batch_1.npz"), **batch)
        ...     read_imagenet(folder).labels
        array([  0, 999])
    """
    return collect(imagenet_stream(require_path(path), split), xflip, max_size, classes, progress)


def imagenet_stream(path: Path, split: str) -> ImageStream:
    """Downsampled ImageNet as a stream; see `read_imagenet`.

    Raises:
        DataError: a batch is missing, or holds something else.
        InvalidValueError: an unknown split.
    """
    one_of("split", split, ("train", "test"))
    files = [_described(file) for file in (_files_in(path, split) if path.is_dir() else [path])]
    other = next((file for file in files if file.side != files[0].side), None)
    if other is not None:
        raise DataError(f"{other.path} holds images of side {other.side}; the first has side {files[0].side}")
    name = f"imagenet-{files[0].side}-{split}" if path.is_dir() else path.stem
    return ImageStream(name, sum(file.count for file in files), lambda start: _batches(files, start))


def has_imagenet(folder: Path) -> bool:
    """Whether a folder holds batches of the release."""
    return (folder / "train_data_batch_1.npz").is_file() or (folder / _TEST).is_file()


def is_imagenet(path: Path, members: Collection[str]) -> bool:
    """Whether an .npz file is a batch of the release: rows of pixels "data", and "labels".

    Args:
        path: the file.
        members: the names of its members.
    """
    if not {"data.npy", "labels.npy"} <= set(members):
        return False
    with open_zip(path) as archive, _opened(archive, path) as (_, shape, dtype):
        return len(shape) == 2 and dtype == np.uint8 and _side(shape[1]) is not None


def _files_in(folder: Path, split: str) -> list[Path]:
    if split == "test":
        if not (folder / _TEST).is_file():
            raise InvalidValueError(f"split is 'test', but {folder} has no {_TEST}")
        return [folder / _TEST]
    with decode_errors(folder):
        found = {int(match[1]): path for path in folder.iterdir() if (match := _TRAIN.fullmatch(path.name))}
    missing = sorted(set(range(1, max(found, default=1) + 1)) - set(found))
    if missing:
        raise DataError(f"{folder} lacks {a_few([f'train_data_batch_{number}.npz' for number in missing])}")
    return [found[number] for number in sorted(found)]


def _described(path: Path) -> _File:
    with open_zip(path) as archive, _opened(archive, path) as (_, shape, dtype):
        side = _side(shape[1]) if len(shape) == 2 else None
        if side is None or dtype != np.uint8:
            raise DataError(
                f"{path}: data is {dtype} {list(shape)}; expected is uint8 [images, 3 * side * side], as in the release"
            )
        return _File(path, shape[0], side)


def _side(columns: int) -> int | None:
    side = math.isqrt(columns // 3)
    return side if side and 3 * side * side == columns else None


@contextmanager
def _opened(archive: zipfile.ZipFile, path: Path) -> Iterator[tuple[BinaryIO, tuple[int, ...], "np.dtype[np.generic]"]]:
    """The stream of the rows of pixels, after its header; the shape and type that this announces."""
    what = f"{path}, array data"
    with decode_errors(what):
        member = archive.getinfo("data.npy")
        check_member(member, what)
        with archive.open(member) as opened:
            stream = cast(BinaryIO, opened)
            shape, fortran, dtype = read_npy_header(stream, what)
            size = math.prod(shape) * dtype.itemsize
            if fortran or stream.tell() + size != member.file_size:
                raise DataError(f"{what} announces {size} bytes, but has {member.file_size}, or is in Fortran order")
            yield stream, shape, dtype


def _batches(files: list[_File], start: int) -> Iterator[Batch]:
    before = 0
    for file in files:
        if start < before + file.count:
            yield from _file_batches(file, max(0, start - before), before)
        before += file.count


def _file_batches(file: _File, start: int, before: int) -> Iterator[Batch]:
    with open_zip(file.path) as archive, _opened(archive, file.path) as (stream, (_, row), _):
        labels = _labels(archive, file)
        with decode_errors(file.path):
            stream.seek(stream.tell() + start * row)
        step = max(1, BATCH_BYTES // row)
        for first in range(start, file.count, step):
            stop = min(first + step, file.count)
            with decode_errors(file.path):
                data = stream.read((stop - first) * row)
            if len(data) != (stop - first) * row:
                raise DataError(f"{file.path} ends within image {first + len(data) // row}")
            images = np.frombuffer(data, np.uint8).reshape(-1, 3, file.side, file.side)
            yield Batch(images, labels[first:stop], before + stop)


def _labels(archive: zipfile.ZipFile, file: _File) -> NDArray[np.int64]:
    labels = read_npz_array(archive, "labels")
    if labels.shape != (file.count,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{file.path}: labels are {labels.dtype} {list(labels.shape)}; expected are {file.count} integers"
        )
    if labels.min() < 1 or labels.max() > NUM_CLASSES:
        raise DataError(
            f"{file.path}: labels run from {labels.min()} to {labels.max()}; allowed are 1 .. {NUM_CLASSES}"
        )
    return labels.astype(np.int64) - 1
