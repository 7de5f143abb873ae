"""Locks of outputs: one holder at a time, in threads and processes; nothing is left behind."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import names
from lock_holders import add_one, hold
from pspc_rs.errors import OutputError
from pspc_rs.locks import OutputLock

SPAWN = multiprocessing.get_context("spawn")


def in_thread(work: Callable[[], None]) -> BaseException | None:
    """What the work raises in a thread of its own, where a lock of this one does not count as its own."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return raised[0] if raised else None


def test_a_second_holder_is_refused_and_told_what_is_in_use(tmp_path: Path) -> None:
    lock = OutputLock(tmp_path / "lock", "out.npy")
    with lock:
        error = in_thread(OutputLock(tmp_path / "lock", "out.npy").acquire)
    assert isinstance(error, OutputError)
    assert str(error) == "out.npy is being written by another run; wait for its end, or choose another folder"
    assert names(tmp_path) == []
    assert in_thread(OutputLock(tmp_path / "lock", "out.npy").acquire) is None


def test_the_same_thread_may_hold_it_twice(tmp_path: Path) -> None:
    with OutputLock(tmp_path / "a" / "lock", "a"):
        with OutputLock(tmp_path / "a" / "lock", "a"):
            pass
        assert isinstance(in_thread(OutputLock(tmp_path / "a" / "lock", "a").acquire), OutputError)
    assert names(tmp_path) == []


def test_folders_that_were_there_or_hold_something_stay(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with OutputLock(tmp_path / "old" / "new" / "lock", "a"):
        pass
    assert names(tmp_path / "old") == []
    with OutputLock(tmp_path / "old" / "new" / "lock", "a"):
        (tmp_path / "old" / "new" / "output").touch()
    assert names(tmp_path / "old" / "new") == ["output"]
    (tmp_path / "own").mkdir()
    with OutputLock(tmp_path / "own" / "lock", "a", own_folder=True):
        pass
    assert names(tmp_path) == ["old"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"out\.npy cannot be written"):
        OutputLock(tmp_path / "file" / "lock", "out.npy").acquire()


def test_a_killed_holder_gives_it_back_and_a_waiting_one_gets_it(tmp_path: Path) -> None:
    holder = SPAWN.Process(target=hold, args=(tmp_path / "lock",))
    holder.start()
    end = time.monotonic() + 60
    while not (tmp_path / "held").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(OutputError, match="is being written"):
        OutputLock(tmp_path / "lock", "a").acquire()
    lock = OutputLock(tmp_path / "lock", "a")
    lock.acquire(wait=True, waiting=holder.kill)
    holder.join(60)
    lock.release()
    assert names(tmp_path) == ["held"]


def test_only_one_of_many_processes_is_inside(tmp_path: Path) -> None:
    num, rounds = 4, 25
    workers = [SPAWN.Process(target=add_one, args=(tmp_path / "deep" / "lock", rounds)) for _ in range(num)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * num
    assert int((tmp_path / "count").read_text()) == num * rounds
    assert names(tmp_path) == ["count"]
