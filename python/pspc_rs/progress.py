"""Progress of long work: the one protocol that every long call of the package reports by, and the bar that shows it.

A long call takes ``progress``, a function called as ``progress(done, total)`` with two integers, ``done`` growing up to
``total``. An exception raised by it stops the work. A progress that also has a method ``describe(what)``, as
`ProgressBar` has, is told in words what is being worked on.
"""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:
    pass

Progress: TypeAlias = Callable[[int, int], object]
"""Called as ``progress(done, total)``."""

_SECONDS_BETWEEN_LINES = 10.0


def describe(progress: Progress | None, what: str) -> None:
    """Tells a progress that can show it what is being worked on.

    Example:
        >>> describe(lambda done, total: None, "sigma 0.3")
    """
    tell = getattr(progress, "describe", None)
    if tell is not None:
        tell(what)


def part_of(progress: Progress | None, start: int, size: int, total: int) -> Progress | None:
    """The progress of a part as progress of the whole, in thousandths of a unit.

    Args:
        progress: of the whole; None stays None.
        start: units before the part.
        size: units of the part.
        total: units of the whole.

    Example:
        >>> part = part_of(lambda done, total: print(done, total), 2, 4, 10)
        >>> part(1, 2)
        4000 10000
    """
    if progress is None:
        return None
    return lambda done, whole: progress(1000 * start + 1000 * size * done // whole, 1000 * total)


class ProgressBar:
    """A progress that is shown as a bar on stderr; where that is no terminal, as a line every ten seconds or so.

    Args:
        unit: what is counted: "img".
        what: what is being worked on.
        total: how much there is; every call of the bar says it again.
        done: how much of it was done before.
        shown: False for a bar that stays invisible.
        scale: how many of the counts of a call make a unit: 1000 for thousandths.

    Example:
        >>> with ProgressBar("img", "reading", shown=False) as progress:
        ...     progress(3, 10)
    """

    def __init__(
        self, unit: str, what: str, *, total: int = 0, done: int = 0, shown: bool = True, scale: int = 1
    ) -> None:
        from tqdm import tqdm

        interval = 0.1 if sys.stderr.isatty() else _SECONDS_BETWEEN_LINES
        self._scale = scale
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=done,
            unit=unit,
            desc=what,
            mininterval=interval,
            maxinterval=interval,
            file=sys.stderr,
            disable=not shown,
        )
        self._done = done

    def __call__(self, done: int, total: int) -> None:
        """Moves the bar to ``done`` of ``total``."""
        units = done // self._scale
        self._bar.total = total // self._scale
        self._bar.update(units - self._done)
        self._done = units

    def describe(self, what: str) -> None:
        """Shows in words what is being worked on."""
        self._bar.set_description(what, refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
