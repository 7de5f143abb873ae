"""Progress of long work: the one protocol that every long call of the package reports by, and the bar that shows it.

A long call takes ``progress``, a function called as ``progress(done, total)`` with two integers, ``done`` growing up to
``total``. An exception raised by it stops the work. A progress that also has a method ``describe(what)``, as
`ProgressBar` has, gets in words what is being worked on. Where a call also takes True and False, `reporting` turns them
into such a function.
"""

import contextlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self, TypeAlias

from pspc_rs.errors import DTypeError
from pspc_rs.reprs import build_repr

Progress: TypeAlias = Callable[[int, int], object]
"""Called as ``progress(done, total)``."""

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BEFORE_FIRST_LINE = 0.01
_WORTH_SHOWING = 2000


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


@contextmanager
def reporting(progress: bool | Progress | None, unit: str, what: str, total: int) -> Iterator[Progress]:
    """The progress function that a caller asked for, for as long as the work lasts.

    Args:
        progress: True for a `ProgressBar`, False for silence, or a progress function. None is True on a terminal or in
            a notebook and for a total above 2000, else False.
        unit: what is counted: "img".
        what: what is being worked on.
        total: how much there is.

    Raises:
        DTypeError: progress is none of these.

    Example:
        >>> with reporting(lambda done, total: print(done, "of", total), "img", "reading", 3) as report:
        ...     report(1, 3)
        1 of 3
    """
    if callable(progress):
        yield progress
    elif progress is True or (progress is None and total > _WORTH_SHOWING and (on_terminal() or in_notebook())):
        with ProgressBar(unit, what, total=total) as bar:
            yield bar
    elif progress is None or progress is False:
        yield lambda done, total: None
    else:
        raise DTypeError(f"progress is {progress!r}; allowed are True, False and functions progress(done, total)")


class _Stderr:
    """stderr as far as there is one that can be written to: a progress that cannot be shown does not end the work.

    Args:
        lines: write every state of the bar as a line, for files.
    """

    def __init__(self, lines: bool) -> None:
        self._lines = lines

    def write(self, text: str) -> None:
        if self._lines:
            text = text.replace("\r", "").strip()
            text = f"{text}\n" if text else ""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "ascii"


def on_terminal() -> bool:
    """Whether stderr is a terminal; False where there is no stderr, too.

    Example:
        >>> isinstance(on_terminal(), bool)
        True
    """
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def in_notebook() -> bool:
    """Whether this runs in a notebook that can show a bar: in a Jupyter kernel, with ipywidgets installed.

    Example:
        >>> in_notebook()
        False
    """
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    return hasattr(shell, "kernel") and find_spec("ipywidgets") is not None


class ProgressBar:
    """A progress that is shown as a bar on stderr; where that is no terminal, as a line every ten seconds or so.

    In a notebook it is a bar of ipywidgets where these are installed.

    Args:
        unit: what is counted: "img".
        what: what is being worked on.
        total: how much there is; every call of the bar says it again.
        done: how much of it was done before.
        shown: False for a bar that stays invisible.
        scale: how many of the counts of a call make a unit: 1000 for thousandths.
        smoothing: weight of the newest speed in the time left; 0 takes the mean speed, for work of uneven pace.
        delay: seconds before it is shown; work that takes less shows nothing.

    Example:
        >>> with ProgressBar("img", "reading", shown=False) as progress:
        ...     progress(3, 10)
        ...     progress
        ProgressBar('reading', 3 of 10 img)
    """

    def __init__(
        self,
        unit: str,
        what: str,
        *,
        total: int = 0,
        done: int = 0,
        shown: bool = True,
        scale: int = 1,
        smoothing: float = 0.3,
        delay: float = 0.0,
    ) -> None:
        notebook = in_notebook()
        tqdm: Any = importlib.import_module("tqdm.auto" if notebook else "tqdm").tqdm

        terminal = notebook or on_terminal()
        self._delay = delay
        interval = 0.1 if terminal else _SECONDS_BETWEEN_LINES
        self._scale = scale
        self._unit = unit
        self._what = what
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            desc=what,
            mininterval=interval,
            maxinterval=interval,
            smoothing=smoothing,
            # In a file, the first line is not about nothing.
            delay=delay if terminal else max(delay, _SECONDS_BEFORE_FIRST_LINE),
            dynamic_ncols=terminal,
            file=_Stderr(lines=not terminal),
            disable=not shown,
        )
        self._done = done

    def __call__(self, done: int, total: int) -> None:
        """Moves the bar to ``done`` of ``total``."""
        units = done // self._scale
        self._bar.total = total // self._scale
        self._bar.update(units - self._done)
        self._done = units

    def __repr__(self) -> str:
        return build_repr(self, repr(self._what), f"{self._done} of {self._bar.total} {self._unit}")

    def describe(self, what: str) -> None:
        """Shows in words what is being worked on."""
        self._what = what
        self._bar.set_description(what, refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.delay = self._delay
        self._bar.close()


class Steps:
    """Counts finished steps of one kind and reports each.

    Args:
        progress: what is told; None for nothing.
        total: number of steps.
        done: steps that are done already.

    Example:
        >>> steps = Steps(lambda done, total: print(done, total), 3, done=1)
        >>> steps.finish("sigma 0.3")
        2 3
    """

    def __init__(self, progress: Progress | None, total: int, done: int = 0) -> None:
        self._progress = progress
        self.total = total
        self.done = done

    def __repr__(self) -> str:
        return f"Steps({self.done} of {self.total})"

    def finish(self, what: str = "") -> None:
        """Counts one step; ``what`` says in words which one it was."""
        self.done += 1
        if what:
            describe(self._progress, what)
        if self._progress is not None:
            self._progress(self.done, self.total)

    def reach(self, done: int) -> None:
        """Counts and reports steps that turned out not to be needed, if so many are not done yet."""
        if done > self.done:
            self.done = done
            if self._progress is not None:
                self._progress(done, self.total)


class EarlierProgress:
    """A function of an earlier protocol as a progress.

    Args:
        function: what the caller gave.
        arguments: which arguments it takes, and in which order: some of "done", "total" and "what".

    Example:
        >>> progress = EarlierProgress(print, ("what", "done"))
        >>> describe(progress, "sigma 0.3")
        >>> progress(1, 2)
        sigma 0.3 1
    """

    def __init__(self, function: Callable[..., object], arguments: tuple[str, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._what = ""

    def __repr__(self) -> str:
        return f"EarlierProgress({self._function!r}, {self._arguments!r})"

    def __call__(self, done: int, total: int) -> None:
        """Calls the function with its own arguments."""
        given = {"done": done, "total": total, "what": self._what}
        self._function(*(given[name] for name in self._arguments))

    def describe(self, what: str) -> None:
        """Keeps the words for the next call."""
        self._what = what


def renamed_progress(
    progress: Progress | None, name: str, function: Callable[..., object] | None, arguments: tuple[str, ...]
) -> Progress | None:
    """The progress of a call whose parameter had another name and protocol, which still works but is deprecated.

    Args:
        progress: what the caller gave as ``progress``.
        name: the earlier name of the parameter.
        function: what the caller gave under the earlier name.
        arguments: what that function takes; see `EarlierProgress`.
    """
    if function is None:
        return progress
    warnings.warn(
        f"{name}= is deprecated; write progress=, a function called as progress(done, total)",
        DeprecationWarning,
        stacklevel=3,
    )
    return EarlierProgress(function, arguments)
