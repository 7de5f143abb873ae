"""The standard streams of a command: closed ones, as of daemons and cron jobs, and ones that cannot be written."""

import contextlib
import io
import os
import sys


def open_closed_streams() -> None:
    """Puts the null device where stdin, stdout or stderr is closed.

    Otherwise the first file that is opened would get the number of the stream, and messages would end up in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w"), encoding="utf-8"))


def drop_what_cannot_be_written() -> None:
    """Lets go of text that a full disk or a closed pipe did not take: Python would fail with it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
