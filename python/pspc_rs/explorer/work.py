"""Long work of the explorer: in threads of its own, with progress, given up when nobody waits for it any more."""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from pspc_rs.progress import Progress

Answer = TypeVar("Answer")

_SECONDS_WITHOUT_WAITERS = 3.0
_SECONDS_UNFETCHED = 30.0
_SECONDS_OF_GOODBYE = 0.8


class Abandoned(Exception):  # noqa: N818 - it is no error
    """Nobody waits for the work any more; raised through its progress."""


class Job:
    """Work that is being done.

    Attributes:
        outcome: its answer or its exception, once there is one.
        done: how much is done, of `total`.
        total: how much there is to do.
        what: what is being worked on.
    """

    def __init__(self) -> None:
        self.outcome: Future[Any] = Future()
        self.done, self.total, self.what = 0, 0, ""
        self._lock = threading.Lock()
        self._waiters, self._left, self._stopped = 0, time.monotonic(), False

    def __repr__(self) -> str:
        return f"Job({self.what!r}, {self.done} of {self.total})"

    def __call__(self, done: int, total: int) -> None:
        """Notes the progress.

        Raises:
            Abandoned: nobody waits any more.
        """
        self.done, self.total = done, total
        if self._stopped or self.idle_for() > _SECONDS_WITHOUT_WAITERS:
            raise Abandoned

    @property
    def was_abandoned(self) -> bool:
        """Whether it was given up."""
        return self.outcome.done() and isinstance(self.outcome.exception(), Abandoned)

    def describe(self, what: str) -> None:
        """Notes what is being worked on."""
        self.what = what

    def idle_for(self) -> float:
        """For how many seconds nobody has waited."""
        with self._lock:
            return 0.0 if self._waiters else time.monotonic() - self._left

    def wait(self, seconds: float, still_there: Callable[[], bool]) -> bool:
        """Waits for the outcome; whether there is one.

        Args:
            seconds: how long.
            still_there: whether whoever asked still waits; asked again and again.
        """
        with self._lock:
            self._waiters += 1
        try:
            end = time.monotonic() + seconds
            while not self.outcome.done() and time.monotonic() < end and still_there():
                # Short waits at first: most answers take less than a tenth of a second.
                _wait(self.outcome, min(0.05, seconds))
            return self.outcome.done()
        finally:
            with self._lock:
                self._waiters -= 1
                self._left = time.monotonic()

    def stop(self) -> None:
        """Ends the work at its next progress."""
        self._stopped = True


def _wait(outcome: "Future[Any]", seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        outcome.exception(seconds)


class Work:
    """The jobs of an explorer, one per question at a time.

    Example:
        >>> work = Work()
        >>> job = work.ask("sum", lambda progress: 1 + 2)
        >>> job.wait(10, lambda: True), job.outcome.result()
        (True, 3)
        >>> work.close()
    """

    def __init__(self) -> None:
        self._jobs: dict[Hashable, Job] = {}
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Work({len(self._jobs)} jobs)"

    def ask(self, key: Hashable, compute: Callable[[Progress], Any]) -> Job:
        """The job that answers a question: the one in hand, or a new one.

        Args:
            key: the question.
            compute: answers it; called in a thread of its own.
        """
        with self._lock:
            self._forget_unfetched()
            job = self._jobs.get(key)
            if job is None or job.was_abandoned:
                job = self._jobs[key] = Job()
                thread = threading.Thread(target=_run, args=(job, compute), daemon=True)
                self._threads = [one for one in self._threads if one.is_alive()] + [thread]
                thread.start()
            return job

    def fetched(self, key: Hashable) -> None:
        """Forgets a job whose outcome has been taken."""
        with self._lock:
            self._jobs.pop(key, None)

    def close(self) -> None:
        """Ends all jobs, and waits a moment for their threads."""
        with self._lock:
            jobs, threads = list(self._jobs.values()), self._threads
        for job in jobs:
            job.stop()
        end = time.monotonic() + _SECONDS_OF_GOODBYE
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _forget_unfetched(self) -> None:
        gone = [key for key, job in self._jobs.items() if job.outcome.done() and job.idle_for() > _SECONDS_UNFETCHED]
        for key in gone:
            del self._jobs[key]


def _run(job: Job, compute: Callable[[Progress], Any]) -> None:
    try:
        job.outcome.set_result(compute(job))
    except BaseException as error:  # handed to whoever waits
        job.outcome.set_exception(error)


class Memory:
    """The latest results of long work by key; what several threads ask for is computed once.

    Args:
        size: how many results are kept.

    Example:
        >>> memory = Memory(2)
        >>> memory.get("a", lambda: 1), memory.get("a", lambda: 2)
        (1, 1)
    """

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, threading.Lock()
        self._kept: OrderedDict[Hashable, Future[Any]] = OrderedDict()

    def __repr__(self) -> str:
        return f"Memory({len(self._kept)} of {self._size})"

    def get(self, key: Hashable, compute: Callable[[], Answer]) -> Answer:
        """The result that is kept under a key, or a new one.

        Args:
            key: of the result.
            compute: makes it.
        """
        while True:
            with self._lock:
                found = self._kept.get(key)
                own = found is None
                if found is None:
                    found = self._kept[key] = Future()
                self._kept.move_to_end(key)
                while len(self._kept) > self._size:
                    self._kept.popitem(last=False)
            if own:
                return self._computed(key, found, compute)
            try:
                return cast(Answer, found.result())
            except Abandoned:
                continue  # by another thread, whose user has left

    def _computed(self, key: Hashable, kept: "Future[Any]", compute: Callable[[], Answer]) -> Answer:
        try:
            kept.set_result(compute())
        except BaseException as error:
            with self._lock:
                if self._kept.get(key) is kept:
                    del self._kept[key]
            kept.set_exception(error)
        return cast(Answer, kept.result())
