"""What the figures are drawn with: matplotlib, brought in when the first one is drawn."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pspc_rs.errors import InvalidValueError, MissingDependencyError
from pspc_rs.images import image_grid

if TYPE_CHECKING:
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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError('figures need matplotlib: pip install "pspc-rs[plot]"') from error
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained")


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
        rows: one list of cells a row; a cell is a batch [batch, channels, height, width] in [-1, 1] units, shown as a
            grid, or None for an empty cell.
        row_labels: what stands left of every row.
        column_labels: what stands above every column.
        cell: width of a cell in inches.
        columns: images in a row of a cell's grid.

    Raises:
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> import numpy as np
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


def log_axes(figure: "Figure", ylabel: str, *, logarithmic_y: bool = True) -> Any:
    """The only axes of a figure of curves over the noise level, which is on a logarithmic axis."""
    axis = figure.subplots()
    axis.set(xscale="log", xlabel="noise level \N{GREEK SMALL LETTER SIGMA}", ylabel=ylabel)
    plain_ticks(axis.xaxis)
    if logarithmic_y:
        axis.set_yscale("log")
        plain_ticks(axis.yaxis)
    axis.grid(alpha=0.3)
    return axis


def plain_ticks(axis: Any) -> None:
    """Labels the decades of a logarithmic axis 0.01, 0.1, 1; formulas for them take a second a figure."""
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
    """Indices of noise levels, after checking that there are such levels.

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


def evenly(num: int, most: int) -> list[int]:
    """At most ``most`` indices below ``num``, spread evenly, the first and last among them.

    Example:
        >>> evenly(18, 4), evenly(3, 8)
        ([0, 6, 11, 17], [0, 1, 2])
    """
    count = min(num, most)
    return [0] if count == 1 else [math.floor(i * (num - 1) / (count - 1) + 0.5) for i in range(count)]
