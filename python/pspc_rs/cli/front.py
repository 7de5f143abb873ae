"""The group of all commands: spelling of options, exceptions as messages and exit codes, progress, Ctrl-C."""

import contextlib
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from pspc_rs import __version__
from pspc_rs.cli.commands import VERBOSE, Group, verbose_option
from pspc_rs.cli.streams import drop_what_cannot_be_written, open_closed_streams
from pspc_rs.denoisers import Network
from pspc_rs.errors import NetworkError, PspcError, PspcWarning
from pspc_rs.progress import ProgressBar
from pspc_rs.signals import Stopped, stop_number, stop_signals

KEPT = "what is done is kept, run the same command to continue"
"""What commands say that go on where they were."""

_SIGNALLED = 128


class Failure(click.ClickException):
    """An error as one line on stderr, as far as that can be written.

    Args:
        message: the line.
        code: the exit code.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self._code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """The exit code of the program."""
        return self._code

    def show(self, file: Any = None) -> None:
        """Prints the message on stderr."""
        with contextlib.suppress(OSError):
            super().show(file)


class Interrupted(Failure):
    """The user pressed Ctrl-C, or a signal asked the run to stop; the message says what is kept.

    Args:
        stop: the exception of the signal.
        kept: the end of the message: what is kept, and how to continue.
    """

    def __init__(self, stop: KeyboardInterrupt, kept: str = "") -> None:
        how = f"Interrupted by {stop}" if isinstance(stop, Stopped) else "Interrupted"
        super().__init__(f"{how}; {kept}" if kept else how, _SIGNALLED + stop_number(stop))

    def show(self, file: Any = None) -> None:
        """Prints the message on stderr."""
        with contextlib.suppress(OSError):
            click.echo(self.message, file=file, err=file is None)


class CommandGroup(Group):
    """A group of commands whose exceptions end in one line on stderr.

    The exit code is 1, 2 for usage, and 128 and the number of the signal for Ctrl-C (130), SIGTERM (143) and SIGHUP.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a command in a process of its own."""
        open_closed_streams()
        try:
            return super().main(*args, **kwargs)
        finally:
            drop_what_cannot_be_written()

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        try:
            with _notes(), stop_signals():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interrupted(stop) from stop
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click ends these itself, a closed pipe without a word
        except Exception as error:
            verbose = VERBOSE in ctx.meta
            if verbose:
                with contextlib.suppress(OSError):
                    click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
            raise Failure(_message(error, "" if verbose else "; --verbose shows where")) from error


def _message(error: Exception, where: str) -> str:
    """An exception in one line.

    Args:
        error: the exception.
        where: the end of the line for an exception that is not one of ours, or whose cause is none.
    """
    text = " ".join(str(error).split())
    if isinstance(error, NetworkError):
        return f"{text}{where}"
    if isinstance(error, PspcError):
        return text
    raised = f"{type(error).__name__}: {text}" if text else type(error).__name__
    network = _network_of(error)
    if network is not None:
        return f"{network!r} raised {raised}{where}"
    # torch has no exception of its own for the memory of the CPU.
    if isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text:
        return f"memory ran out{f': {text}' if text else ''}{where}"
    return text if isinstance(error, OSError) else f"{raised}{where}"


def _network_of(error: Exception) -> Network | None:
    """The network in whose evaluation memory ran out; other exceptions there are a `NetworkError`."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        caller = frame.f_locals.get("self")
        if isinstance(caller, Network):
            return caller
    return None


@contextmanager
def _notes() -> Iterator[None]:
    """Shows a `PspcWarning` as one line, without the place in the code."""
    with warnings.catch_warnings():
        original = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, PspcWarning):
                with contextlib.suppress(OSError):
                    click.echo(f"Note: {' '.join(str(message).split())}", err=True)
            else:
                original(message, category, *place, **options)

        warnings.showwarning = show
        yield


@contextmanager
def interruptible_bar(unit: str, what: str, kept: str, *, smoothing: float = 0.3) -> Iterator[ProgressBar]:
    """A progress bar for long work; Ctrl-C becomes a message that says what is kept.

    Args:
        unit: what is counted.
        what: what is being worked on.
        kept: the end of the message: what is kept, and how to continue.
        smoothing: see `ProgressBar`.
    """
    try:
        with ProgressBar(unit, what, smoothing=smoothing) as bar:
            yield bar
    except KeyboardInterrupt as stop:
        raise Interrupted(stop, kept) from stop


def _spelling(name: str) -> str:
    """One spelling for options and choices: --t_idx is --t-idx, --S_churn is --s-churn."""
    return name.replace("_", "-").lower()


@click.group(
    cls=CommandGroup,
    context_settings={
        "token_normalize_func": _spelling,
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
    params=[verbose_option()],
)
@click.version_option(__version__, prog_name="pspc-rs")
def main() -> None:
    """Exact, training-free diffusion denoisers: denoise, sample, compare.

    Options may be written with dashes or underscores: --t-idx is --t_idx.
    """
