"""Decoded pixels of image archives, kept in the cache folder: a second reading maps them into memory.

An entry belongs to one state of one archive: its path, size and time, and a checksum of its directory, which holds the
checksums of all members. So an archive that was changed is decoded anew, even where its size and time are the same.
Files appear under their names once they lie complete on the disk; processes may read, write and remove at once.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pspc_rs import _core
from pspc_rs.errors import DataError, InvalidValueError, OutputError, warn
from pspc_rs.extras import import_extra
from pspc_rs.files import cache_dir, decode_errors, replacing

LIMIT_VARIABLE = "PSPC_CACHE_GB"
"""Names the environment variable that bounds what decoded pixels take in all, in GB of 10^9 bytes; 0 keeps none."""

DEFAULT_LIMIT_GB = 4.0

# Counts up when the entries of earlier versions do not fit any more.
_FORMAT = 1

# Fewer pixels are decoded as fast as they are mapped.
_LEAST_BYTES = 1 << 24

_PIXELS, _LABELS = ".npy", ".labels.npy"


@dataclass(frozen=True)
class Decoded:
    """All images of an archive in the order of their names, uint8 [N, C, H, W], and their labels, [N] or None."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None


class PixelCache:
    """The entry of an archive in the cache folder, as the archive is at this moment.

    Args:
        path: the archive, which exists.
        directory: the bytes of its directory.

    Raises:
        InvalidValueError: the variable `PSPC_CACHE_GB` is no number from 0 on.
    """

    def __init__(self, path: Path, directory: bytes) -> None:
        self._path = path
        self._limit = _limit_bytes()
        self._state = _state(path, directory)

    def __repr__(self) -> str:
        return f"PixelCache({str(self._path)!r})"

    def read(self) -> Decoded | None:
        """What is kept for the archive, the pixels mapped and read-only; None if nothing is, or the cache is off."""
        if not self._limit:
            return None
        try:
            return _read(self._entry())
        except OutputError:  # there is no cache folder
            return None

    def keep(self, decoded: Decoded) -> None:
        """Writes an entry, unless the images are few, or more than the cache may hold, or the archive was changed.

        Entries of earlier states of the archive are removed, and those used longest ago if all together take too much.
        Where the folder cannot be written, a `PspcWarning` says so once.
        """
        if not _LEAST_BYTES <= decoded.images.nbytes <= self._limit or self._now() != self._state:
            return
        try:
            entry = self._entry()
            if _read(entry) is not None:
                # Another process was faster; on Windows its file, once mapped, could not be replaced.
                return
            labels = np.empty(0, np.int64) if decoded.labels is None else decoded.labels
            # An entry counts once its pixels are there.
            _write(entry.with_name(entry.name + _LABELS), labels)
            _write(entry.with_name(entry.name + _PIXELS), decoded.images)
            _tidy(entry, self._limit)
        except OutputError as error:
            _warn_once(error)

    def _entry(self) -> Path:
        """The path of the entry without its endings: a part for the archive, a part for its state."""
        place, state = (
            hashlib.sha256(text).hexdigest()[:32] for text in (os.fsencode(self._path.resolve()), self._state)
        )
        return cache_dir() / "pixels" / f"{place}-{state}"

    def _now(self) -> bytes | None:
        archive = _core.PlainZip.open(self._path)
        return None if archive is None else _state(self._path, archive.directory())


def _state(path: Path, directory: bytes) -> bytes:
    """What tells one state of an archive from others, and what decoded it."""
    pillow = import_extra("PIL", "a picture", "").__version__
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    words = f"{_FORMAT} {pillow} {found.st_size} {found.st_mtime_ns} {hashlib.sha256(directory).hexdigest()}"
    return words.encode()


def _limit_bytes() -> int:
    """The most bytes of all entries."""
    text = os.environ.get(LIMIT_VARIABLE, "")
    try:
        limit = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise InvalidValueError(f"{LIMIT_VARIABLE} is {text!r}; allowed are numbers from 0 on, in GB")
    return int(limit * 1e9)


def _read(entry: Path) -> Decoded | None:
    pixels = entry.with_name(entry.name + _PIXELS)
    try:
        with decode_errors(pixels):
            images = np.load(pixels, mmap_mode="r", allow_pickle=False)
            labels = np.load(entry.with_name(entry.name + _LABELS), allow_pickle=False)
    except DataError:
        return None
    fit = images.dtype == np.uint8 and images.ndim == 4 and images.flags.c_contiguous and images.size
    if not fit or labels.dtype != np.int64 or labels.shape not in ((0,), images.shape[:1]):
        return None
    with contextlib.suppress(OSError):
        # When it was used last, for `_tidy`.
        os.utime(pixels)
    return Decoded(images, labels if len(labels) else None)


def _write(path: Path, array: NDArray[np.generic]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def _tidy(entry: Path, limit: int) -> None:
    """Removes other entries of the same archive, and those used longest ago until all take at most `limit` bytes."""
    place = entry.name.partition("-")[0]
    with contextlib.suppress(OSError):
        others = [path for path in _entries(entry.parent) if path != entry]
        for other in others:
            if other.name.startswith(f"{place}-"):
                _remove(other)
        held = _bytes_of(entry)
        for other in sorted((path for path in others if _bytes_of(path)), key=_last_used, reverse=True):
            held += _bytes_of(other)
            if held > limit:
                _remove(other)


def _entries(folder: Path) -> Iterator[Path]:
    """The entries in a folder, without their endings."""
    names = {path.name for path in folder.iterdir() if path.name.endswith(_PIXELS) and not path.name.startswith(".")}
    return (folder / name for name in sorted({name.removesuffix(_LABELS).removesuffix(_PIXELS) for name in names}))


def _files_of(entry: Path) -> list[Path]:
    """The files of an entry, the one without which it does not count first."""
    return [entry.with_name(entry.name + ending) for ending in (_PIXELS, _LABELS)]


def _bytes_of(entry: Path) -> int:
    return sum(path.stat().st_size for path in _files_of(entry) if path.exists())


def _last_used(entry: Path) -> float:
    try:
        return _files_of(entry)[0].stat().st_mtime
    except OSError:
        return 0.0


def _remove(entry: Path) -> None:
    for path in _files_of(entry):
        # Another process may have removed it; on Windows none that is mapped can be.
        with contextlib.suppress(OSError):
            path.unlink()


_warned: list[str] = []


def _warn_once(error: OutputError) -> None:
    if not _warned:
        _warned.append(str(error))
        warn(f"decoded images are not kept for the next time: {error}. cache=False avoids this warning")
