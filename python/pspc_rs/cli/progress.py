"""The progress bar of long commands."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pspc_rs.cli.front import Interrupted

if TYPE_CHECKING:
    from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0


def progress_bar(total: int, unit: str, what: str, done: int = 0) -> "tqdm[Any]":
    """A bar on stderr; where that is no terminal, a line every ten seconds or so."""
    from tqdm import tqdm

    interval = 0.1 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES
    return tqdm(
        total=total, initial=done, unit=unit, desc=what, mininterval=interval, maxinterval=interval, file=sys.stderr
    )


@contextmanager
def ticking(unit: str, what: str) -> Iterator[Callable[[int, int, str], object]]:
    """A bar moved by ``tick(done, total, what)``; Ctrl-C becomes a message that says how to go on."""
    try:
        with progress_bar(0, unit, what) as bar:

            def tick(done: int, total: int, what: str) -> None:
                bar.total = total
                bar.set_description(what, refresh=False)
                bar.update(done - bar.n)

            yield tick
    except KeyboardInterrupt as error:
        raise Interrupted("Interrupted; what is done is kept, the same command goes on") from error
