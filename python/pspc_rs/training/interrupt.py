"""Ctrl-C at a moment when the state of a run is whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruptions:
    """Turns SIGINT and SIGTERM into KeyboardInterrupt, but not while a step is being taken.

    Signals are handled by Python's main thread alone; in another thread nothing is changed.

    Attributes:
        received: the signal that came, None before it does.

    Example:
        >>> interruptions = Interruptions()
        >>> with interruptions.handled(), interruptions.deferred():
        ...     pass
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferring = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Within this, the signals are handled here."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        earlier = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this, a signal only takes effect at the end."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.received is not None:
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if not self._deferring:
            raise KeyboardInterrupt
