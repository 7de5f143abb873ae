"""The group of all commands: spelling of options, exceptions as messages and exit codes, progress, Ctrl-C."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from pspc_rs import __version__
from pspc_rs.errors import PspcError, PspcWarning
from pspc_rs.progress import ProgressBar

_INTERRUPTED = 130


class Interrupted(click.ClickException):
    """The user pressed Ctrl-C; the message says what is kept."""

    exit_code = _INTERRUPTED

    def show(self, file: Any = None) -> None:
        """Prints the message on stderr."""
        click.echo(self.message, file=file, err=file is None)


class CommandGroup(click.Group):
    """A group of commands whose exceptions end in one line on stderr: exit code 1, 2 for usage, 130 for Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command."""
        try:
            with _notes():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted("Interrupted") from error
        except (PspcError, OSError) as error:
            raise click.ClickException(" ".join(str(error).split())) from error


@contextmanager
def _notes() -> Iterator[None]:
    """Shows a `PspcWarning` as one line, without the place in the code."""
    with warnings.catch_warnings():
        original = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
            if issubclass(category, PspcWarning):
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
    except KeyboardInterrupt as error:
        raise Interrupted(f"Interrupted; {kept}") from error


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
)
@click.version_option(__version__, prog_name="pspc-rs")
def main() -> None:
    """Exact, training-free diffusion denoisers: denoise, sample, compare.

    Options may be written with dashes or underscores: --t-idx is --t_idx.
    """
