"""Files written so that nobody sees half of one: under a temporary name, flushed to the disk, then renamed.

A temporary file is locked for as long as its writer lives, so that the next process that writes into the folder can
remove what a killed one has left behind, and nothing else.
"""

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pspc_rs.errors import OutputError, PspcError

if sys.platform != "win32":
    import fcntl

_MAX_NAME_BYTES = 180
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})[0-9a-f]{16}\.tmp", re.DOTALL)
_SECONDS_UNTIL_OLD = 24 * 3600.0
_CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)

_swept: set[Path] = set()
"""The folders in which this process has looked for leftovers."""


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` to write to; renamed to it at the end, removed if anything goes wrong.

    Missing parent folders are made. The path is that of an empty file with a name that nobody can guess. When the
    block ends, the file lies on the disk, so that a power cut does not lose it. Leftovers of killed processes in the
    same folder are removed.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "deep", "a.txt")
        ...     with replacing(path) as temporary:
        ...         _ = temporary.write_text("done")
        ...     path.read_text()
        'done'
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        with _temporary_file(target) as temporary:
            yield temporary
            flush(temporary)
            temporary.replace(target)
            flush(target.parent)
    except PspcError:
        raise
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error


def temporary_path(target: Path) -> Path:
    """A hidden path beside a file or folder that no other process or thread uses, and nobody can guess.

    Example:
        >>> temporary_path(Path("out", "a.npy")) == temporary_path(Path("out", "a.npy"))
        False
    """
    # Most file systems allow 255 bytes.
    name = os.fsencode(target.name)[:_MAX_NAME_BYTES].decode("utf-8", "ignore")
    return target.with_name(f".{name}.{_HOST}{secrets.token_hex(8)}.tmp")


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, lie on the disk, where the system can say so.

    Raises:
        OSError: the disk reports an error.
    """
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    except OSError:
        # Windows does not open folders.
        if is_folder:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files of killed processes from a folder, once per process.

    Those of this machine are removed if nobody holds their lock; those of other machines and containers, whose locks
    may not be seen here, if they are a day old besides. What cannot be removed stays.
    """
    if folder in _swept:
        return
    _swept.add(folder)
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            found = _TEMPORARY.fullmatch(path.name)
            if found is not None and not path.is_symlink():
                _remove_if_left(path, is_local=found[1] == _HOST)


def _remove_if_left(path: Path, *, is_local: bool) -> None:
    with contextlib.suppress(OSError):
        if not path.is_file():
            return
        is_old = time.time() - path.stat().st_mtime > _SECONDS_UNTIL_OLD
        if sys.platform == "win32":
            # There a file that is open cannot be removed.
            if is_old:
                path.unlink()
            return
        descriptor = os.open(path, os.O_RDWR)
        try:
            locked = _locked(descriptor)
            if is_old if locked is None else locked and (is_local or is_old):
                path.unlink()
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool | None:
    """Locks an open file: whether that was done, or None on file systems that cannot. False: another holds the lock."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def _temporary_file(target: Path) -> Iterator[Path]:
    """The path of a new, empty, locked file, which is removed at the end if it is still there."""
    path, descriptor = _new_file(target)
    try:
        yield path
    finally:
        if descriptor is not None:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()


def _new_file(target: Path) -> tuple[Path, int | None]:
    while True:
        path = temporary_path(target)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if sys.platform == "win32":
            # There a file that is open cannot be renamed.
            os.close(descriptor)
            return path, None
        # Another process may have taken it for a leftover before it was locked.
        if _locked(descriptor) is not False and path.exists():
            return path, descriptor
        os.close(descriptor)
