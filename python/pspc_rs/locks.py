"""Locks: one run at a time writes an output, also where several machines share the disk."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pspc_rs.errors import OutputError, PspcError
from pspc_rs.reprs import build_repr

# A run that ends just now gives its lock back within this time.
_PATIENCE_SECONDS = 0.3
_POLL_SECONDS = 0.05
# The holder of a lock may remove its folder between our making it and our opening the lock in it.
_ATTEMPTS = 20
_FOREVER = -1


class OutputLock:
    """The right to write an output, held from `acquire` to `release` or for a ``with`` block.

    A process that ends in any way gives it back. The same thread may hold it several times, as a command does that
    calls a function which takes the lock too. The lock file, and the folders made for it if they are still empty, are
    removed with the last release.

    Args:
        path: the lock file; missing folders are made.
        what: what it is the right to, for messages.
        own_folder: the folder of the lock file belongs to the output, and is removed too if it is empty.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with OutputLock(Path(folder, "new", "lock"), "the output"):
        ...         Path(folder, "new", "lock").exists()
        ...     Path(folder, "new").exists()
        True
        False
    """

    def __init__(self, path: Path, what: object, *, own_folder: bool = False) -> None:
        self.path = path
        self.what = what
        self._lock: Any = None
        # The deepest first.
        self._folders: list[Path] = [path.parent] if own_folder else []

    def __repr__(self) -> str:
        return build_repr(self, repr(str(self.path)), "held" if self._lock is not None else "free")

    def acquire(self, *, wait: bool = False, waiting: Callable[[], object] | None = None) -> None:
        """Takes the lock.

        Args:
            wait: for another run to end; without it, another run is an error.
            waiting: called once if there is another run to wait for.

        Raises:
            OutputError: another run holds it, or the folder cannot be written.
        """
        from filelock import Timeout

        try:
            try:
                self._lock = self._acquired(_PATIENCE_SECONDS)
            except Timeout as error:
                if not wait:
                    raise OutputError(
                        f"{self.what} is being written by another run; wait for its end, or choose another folder"
                    ) from error
                if waiting is not None:
                    waiting()
                self._lock = self._acquired(_FOREVER)
        except PspcError:
            raise
        except (OSError, NotImplementedError) as error:
            raise OutputError(f"{self.what} cannot be written: {error}") from error

    def release(self) -> None:
        """Gives the lock back; nothing happens if it is not held."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        last = lock.lock_counter == 1
        if last:
            # While it is held: whoever opened the file before now finds it removed, and opens another one.
            with contextlib.suppress(OSError):
                self.path.unlink()
        lock.release()
        for folder in self._folders if last else ():
            with contextlib.suppress(OSError):
                folder.rmdir()

    def __enter__(self) -> Self:
        if self._lock is None:
            self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _acquired(self, timeout: float) -> Any:
        """The lock, once it is held."""
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(FileNotFoundError):
                return self._attempt(timeout)
            time.sleep(_POLL_SECONDS)
        return self._attempt(timeout)

    def _attempt(self, timeout: float) -> Any:
        from filelock import FileLock

        made = _make_folders(self.path.parent)
        self._folders = [*made, *(one for one in self._folders if one not in made)]
        lock = FileLock(self.path, is_singleton=True)
        lock.acquire(timeout=timeout, poll_interval=_POLL_SECONDS)
        return lock


def _make_folders(folder: Path) -> list[Path]:
    """Makes a folder and those above it; returns those that were missing, the deepest first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing
