"""The progress bar of the readers and writers."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

_WORTH_SHOWING = 2000


def progress_bar(total: int, what: str, progress: bool | None) -> "tqdm[Any]":
    """A bar over `total` images; None shows it only on a terminal and for more than 2000 images."""
    from tqdm import tqdm

    shown = total > _WORTH_SHOWING and sys.stderr.isatty() if progress is None else progress
    return tqdm(total=total, desc=what, unit="img", disable=not shown)
