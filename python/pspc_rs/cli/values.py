"""Values of options: text as lists, schedules, pixels and files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click


def input_file() -> click.Path:
    """The type of an option that names a file which must exist."""
    return click.Path(exists=True, dir_okay=False, path_type=Path)


def listed(context: click.Context, option: click.Parameter, value: Sequence[str] | str | None) -> list[str]:
    """The entries of one comma list, of several or of none."""
    texts = [value] if isinstance(value, str) else value or []
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def comma_list(convert: Callable[[str], Any], what: str) -> Callable[..., Any]:
    """The callback of an option that takes a comma list.

    Args:
        convert: makes an entry of its text; raises ValueError where it cannot.
        what: what the entries are, for the message: "integers, such as 0,3,5".
    """

    def read(context: click.Context, option: click.Parameter, value: str | None) -> list[Any] | None:
        if value is None:
            return None
        try:
            return [convert(word.strip()) for word in value.split(",")]
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a comma list of {what}") from error

    return read


def file_name(context: click.Context, option: click.Parameter, value: str) -> str:
    """The callback of an option that names files of the output folder, without their suffix."""
    if value in ("", ".", "..") or any(letter in "/\\:" or not letter.isprintable() for letter in value):
        raise click.BadParameter(f"{value!r} is not the name of a file in --outdir; allowed are names without / and \\")
    return value


def read_pixel(text: str) -> tuple[int, int]:
    """A pixel written as Y,X.

    Raises:
        click.BadParameter: this is not a pixel.
    """
    try:
        y, x = (int(word) for word in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a pixel; write Y,X") from error
    return y, x


def read_sides(
    context: click.Context, option: click.Parameter, value: str | None
) -> int | str | list[int | str] | None:
    """A side or a list of sides if the text is one, else the name or file of a schedule, unchanged."""
    words = [] if value is None else [word.strip() for word in value.split(",")]
    if value is None or not all(word.isdecimal() or word == "full" for word in words):
        return value
    sides: list[int | str] = [int(word) if word.isdecimal() else word for word in words]
    return sides if len(sides) > 1 else sides[0]


def read_shares(context: click.Context, option: click.Parameter, value: str | None) -> float | str | list[float] | None:
    """A threshold or a list of them if the text is one, else the name or file of a schedule, unchanged."""
    if value is None:
        return None
    try:
        thresholds = [float(word) for word in value.split(",")]
    except ValueError:
        return value
    return thresholds if len(thresholds) > 1 else thresholds[0]


def read_parts(
    context: click.Context, option: click.Parameter, value: str | None
) -> list[tuple[str, float | None, float | None]] | None:
    """The denoisers of a comma list WHAT=LOW:HIGH with the ends of their ranges."""
    if value is None:
        return None
    parts = []
    for text in listed(context, option, value):
        what, equals, ends = text.rpartition("=")
        low, colon, high = ends.partition(":")
        if not (what and equals and colon):
            raise click.BadParameter(f"{text!r} is not a part; write WHAT=LOW:HIGH, such as gaussian=2:80")
        try:
            parts.append((what, float(low) if low.strip() else None, float(high) if high.strip() else None))
        except ValueError as error:
            raise click.BadParameter(f"{text!r} has ends that are no numbers; write WHAT=LOW:HIGH") from error
    return parts


def read_shrinkage(context: click.Context, option: click.Parameter, value: str | None) -> float | str | None:
    """A number if the text is one, else the name of a formula, unchanged."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


def read_heatmaps(context: click.Context, option: click.Parameter, value: str | None) -> Path | str | None:
    """A file that exists, or "gaussian", which needs none."""
    return value if value in (None, "gaussian") else Path(str(input_file().convert(value, option, context)))
