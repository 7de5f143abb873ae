"""Figures on disk: a PNG to look at, a PDF to print, and the numbers behind both."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pspc_rs.errors import InvalidValueError
from pspc_rs.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(
    stem: Path,
    figure: "Figure",
    numbers: Mapping[str, object],
    table: Mapping[str, Sequence[object]] | None = None,
) -> list[Path]:
    """Writes ``stem.png``, ``stem.pdf`` and ``stem.npz``, and the table, if there is one, as ``stem.csv``.

    The same figure gives the same bytes: no dates are written.

    Args:
        stem: path without a suffix.
        figure: the figure.
        numbers: arrays by name, what the figure shows.
        table: columns by name, all equally long.

    Returns:
        The files written.

    Raises:
        OutputError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> from pspc_rs.experiments.drawing import new_figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = save_figure(Path(folder, "a"), new_figure(1, 1), {"x": [1, 2]}, {"x": [1, 2]})
        ...     [path.name for path in files]
        ['a.png', 'a.pdf', 'a.npz', 'a.csv']
    """
    written = []
    for suffix, metadata in ((".png", None), (".pdf", {"CreationDate": None})):
        with replacing(_with_suffix(stem, suffix)) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
        # Laid out once is enough, and the most expensive part.
        figure.set_layout_engine("none")
        written.append(_with_suffix(stem, suffix))
    with replacing(_with_suffix(stem, ".npz")) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {name: np.asarray(values) for name, values in numbers.items()}
        np.savez(file, **arrays)
    written.append(_with_suffix(stem, ".npz"))
    if table is not None:
        save_table(_with_suffix(stem, ".csv"), table)
        written.append(_with_suffix(stem, ".csv"))
    return written


def save_table(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Writes a CSV file with one column an entry.

    Raises:
        InvalidValueError: the columns are not equally long.
        OutputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_table(Path(folder, "a.csv"), {"sigma": [1.0, 0.5], "side": [5, 3]})
        ...     Path(folder, "a.csv").read_text().split()
        ['sigma,side', '1.0,5', '0.5,3']
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidValueError(f"the columns of {path.name} have {lengths} entries; the numbers must be equal")
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(_plain(values) for values in columns.values()), strict=True))


def _plain(values: Sequence[object]) -> list[object]:
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _with_suffix(stem: Path, suffix: str) -> Path:
    """The stem with a suffix added; a dot in it (sigma_0.3) is no suffix to replace."""
    return stem.with_name(stem.name + suffix)
