"""The progress bar of long commands."""

import sys
from typing import TYPE_CHECKING, Any

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
