"""Processes that hold locks, for tests."""

import time
from pathlib import Path

from pspc_rs.locks import OutputLock


def hold(path: Path) -> None:
    """Holds a lock until the process is killed, and says so by a file."""
    with OutputLock(path, path):
        path.with_name("held").touch()
        time.sleep(300)


def add_one(path: Path, rounds: int) -> None:
    """Counts in a file beside the lock's folder, without any care but for the lock."""
    count = path.parent.parent / "count"
    for _ in range(rounds):
        lock = OutputLock(path, path, own_folder=True)
        lock.acquire(wait=True)
        found = int(count.read_text()) if count.exists() else 0
        time.sleep(0.0005)
        count.write_text(str(found + 1))
        lock.release()
