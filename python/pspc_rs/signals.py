"""Signals that ask a run to stop: SIGTERM and SIGHUP end it as Ctrl-C does, through an exception."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

STOP_SIGNALS: tuple[int, ...] = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What a scheduler, a service manager or a lost terminal sends; Windows has no SIGHUP."""


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C asked the run to stop.

    Attributes:
        number: the signal.

    Example:
        >>> Stopped(signal.SIGTERM)
        Stopped('SIGTERM')
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def stop_number(stop: KeyboardInterrupt) -> int:
    """The signal behind an exception: that of a `Stopped`, else SIGINT.

    Example:
        >>> stop_number(KeyboardInterrupt()) == signal.SIGINT
        True
    """
    return stop.number if isinstance(stop, Stopped) else signal.SIGINT


@contextmanager
def stop_signals() -> Iterator[None]:
    """In this context the signals of `STOP_SIGNALS` raise `Stopped`.

    Those that are ignored, as SIGHUP under nohup, or handled by somebody else stay as they are. Signals are handled by
    Python's main thread alone; in another thread nothing is changed.

    Example:
        >>> with stop_signals():
        ...     pass
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in STOP_SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)
