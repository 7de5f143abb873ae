"""What all figures share: drawing with matplotlib, which is imported with the first figure, and saving."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.extras import import_extra
from pspc_rs.files import replacing
from pspc_rs.images import image_grid
from pspc_rs.outputs import save_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this many inches; no window is opened and no global state of matplotlib is touched.

    Raises:
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> new_figure(4, 3).get_size_inches().tolist()
        [4.0, 3.0]
    """
    figure: Figure = import_extra("matplotlib.figure", "a figure", "plot").Figure(
        figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained"
    )
    return figure


def picture_table(
    rows: Sequence[Sequence[NDArray[Any] | None]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    cell: float = 0.8,
    columns: int | None = None,
) -> "Figure":
    """A figure with a picture in every cell of a table; pixels beyond [-1, 1] are clipped, for display only.

    Args:
        rows: one list of cells per row; a cell is a batch [batch, channels, height, width] in [-1, 1] units, shown as a
            grid, or None for an empty cell.
        row_labels: what stands left of every row.
        column_labels: what stands above every column.
        cell: width of a cell in inches.
        columns: images in a row of a cell's grid.

    Raises:
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> figure = picture_table([[np.zeros((1, 1, 4, 4))] * 2], ["sigma 1"], ["network", "PSPC"])
        >>> len(figure.axes)
        2
    """
    num_rows, num_columns = len(row_labels), len(column_labels)
    longest = max((len(label) for label in row_labels), default=0)
    figure = new_figure(cell * num_columns + 0.075 * longest + 0.2, cell * num_rows + 0.4)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    for y, cells in enumerate(rows):
        for x, images in enumerate(cells):
            axis = axes[y, x]
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if images is not None:
                padding = 0 if len(images) == 1 else 1
                grid = image_grid(images, columns=columns, padding=padding)
                axis.imshow(grid, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if y == 0:
                axis.set_title(column_labels[x], fontsize=7)
            if x == 0:
                axis.set_ylabel(row_labels[y], fontsize=7, rotation=0, ha="right", va="center")
    return figure


def axes_of(ax: "Axes | None", width: float, height: float) -> "tuple[Figure, Axes]":
    """The axes to draw on, and their figure: the caller's, or the only ones of a new figure of this many inches.

    Raises:
        DTypeError: ax is no axes of matplotlib.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> figure, axis = axes_of(None, 4, 3)
        >>> axes_of(axis, 9, 9) == (figure, axis)
        True
    """
    if ax is None:
        figure = new_figure(width, height)
        return figure, figure.subplots()
    if not isinstance(ax, import_extra("matplotlib.axes", "a figure", "plot").Axes):
        raise DTypeError(f"ax is {ax!r:.80}; allowed are axes of matplotlib and None")
    owner: Figure = ax.figure
    return owner, ax


def label_curves(axis: Any, ylabel: str, *, logarithmic_y: bool = True) -> None:
    """Labels axes of curves over the noise level, which is on a logarithmic axis."""
    axis.set(xscale="log", xlabel="noise level \N{GREEK SMALL LETTER SIGMA}", ylabel=ylabel)
    plain_ticks(axis.xaxis)
    if logarithmic_y:
        axis.set_yscale("log")
        plain_ticks(axis.yaxis)
    axis.grid(alpha=0.3)


def draw_curves(axis: Any, sigmas: Sequence[float], curves: Mapping[str, NDArray[np.float64]]) -> None:
    """Draws curves over the noise level in colours from dark to light, by label; values of 0 leave a gap."""
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(curves)))
    for colour, (label, values) in zip(colours, curves.items(), strict=True):
        shown = np.where(values > 0, values, np.nan)
        axis.plot(sigmas, shown, color=colour, marker=".", linewidth=1, label=label)


def plain_ticks(axis: Any) -> None:
    """Labels the decades of a logarithmic axis 0.01, 0.1, 1; formulas for them would take a second per figure."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, position: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def sigma_label(sigma: float) -> str:
    """A noise level as text of three digits.

    Example:
        >>> sigma_label(57.5851), sigma_label(0.002)
        ('σ 57.6', 'σ 0.002')
    """
    return f"\N{GREEK SMALL LETTER SIGMA} {sigma:.3g}"


def check_levels(name: str, levels: Iterable[int], num: int) -> list[int]:
    """Indices of noise levels, checked to be below ``num``.

    Raises:
        InvalidValueError: an index is not below ``num``, or there are none.

    Example:
        >>> check_levels("levels", [0, 2], 3)
        [0, 2]
    """
    chosen = [int(level) for level in levels]
    if not chosen or not all(0 <= level < num for level in chosen):
        raise InvalidValueError(f"{name} are {chosen}; allowed are indices 0 to {num - 1}, at least one")
    return chosen


def spread_evenly(num: int, most: int) -> list[int]:
    """At most ``most`` indices below ``num``, spread evenly, the first and last among them.

    Example:
        >>> spread_evenly(18, 4), spread_evenly(3, 8)
        ([0, 6, 11, 17], [0, 1, 2])
    """
    count = min(num, most)
    return [0] if count == 1 else [math.floor(i * (num - 1) / (count - 1) + 0.5) for i in range(count)]


def save_figure(
    stem: Path,
    figure: "Figure",
    numbers: Mapping[str, object],
    table: Mapping[str, Sequence[object]] | None = None,
) -> list[Path]:
    """Writes ``stem.png``, ``stem.pdf``, the numbers behind them as ``stem.npz``, and a table, if any, as ``stem.csv``.

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
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = save_figure(Path(folder, "a"), new_figure(1, 1), {"x": [1, 2]}, {"x": [1, 2]})
        ...     [path.name for path in files]
        ['a.png', 'a.pdf', 'a.npz', 'a.csv']
    """
    written = save_pictures(stem, figure)
    path = _with_suffix(stem, ".npz")
    with replacing(path) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {name: np.asarray(values) for name, values in numbers.items()}
        np.savez(file, **arrays)
    written.append(path)
    if table is not None:
        path = _with_suffix(stem, ".csv")
        save_table(path, table)
        written.append(path)
    return written


def save_pictures(stem: Path, figure: "Figure") -> list[Path]:
    """Writes ``stem.png`` to look at and ``stem.pdf`` to print, and returns their paths; see `save_figure`.

    Raises:
        OutputError: a file cannot be written.
    """
    written = []
    for suffix, metadata in ((".png", None), (".pdf", {"CreationDate": None})):
        path = _with_suffix(stem, suffix)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix[1:], metadata=metadata)
        # One layout is enough; it is the most expensive part.
        figure.set_layout_engine("none")
        written.append(path)
    return written


def _with_suffix(stem: Path, suffix: str) -> Path:
    """The stem with a suffix added; a dot in it (sigma_0.3) does not begin a suffix."""
    return stem.with_name(stem.name + suffix)
