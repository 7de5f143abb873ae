"""How local a network is: how much of its heat maps lies in a square around each output pixel (Figures 3 and 6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.figures import axes_of, check_levels, label_curves, new_figure, sigma_label, spread_evenly
from pspc_rs.sigmas import check_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER_SHARES = (0.5, 0.75, 0.95)
"""The shares of the mass that the paper's figure shows."""

_MAX_MAPS = 8
_LINES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class MassSides:
    """Sides of the centred squares that hold given shares of the heat maps' mass.

    Attributes:
        sigmas: noise levels, descending, [levels].
        shares: shares of the mass, [shares].
        sides: side in pixels of the smallest square centred on each output pixel that holds the share, odd numbers,
            int64 [levels, shares, H, W]; squares are cut at the image's border and may be larger than the image.

    Example:
        >>> mass_sides(np.ones((1, 3, 3, 3, 3)), [1.0], [0.2, 0.9]).mean
        array([[3.        , 4.77777778]])
    """

    sigmas: NDArray[np.float64]
    shares: tuple[float, ...]
    sides: NDArray[np.int64]

    def __repr__(self) -> str:
        height, width = self.sides.shape[2:]
        return f"MassSides({len(self.sigmas)} levels, shares {self.shares}, {height} x {width} pixels)"

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean side over output pixels, [levels, shares]."""
        mean: NDArray[np.float64] = self.sides.mean(axis=(2, 3))
        return mean

    def table(self) -> dict[str, list[Any]]:
        """The curves as columns: sigma, and for every share the mean side and its 10th and 90th percentile."""
        columns: dict[str, list[Any]] = {"sigma": self.sigmas.tolist()}
        low, high = np.percentile(self.sides, [10, 90], axis=(2, 3))
        for index, share in enumerate(self.shares):
            for name, values in (("mean", self.mean), ("p10", low), ("p90", high)):
                columns[f"side_{share:g}_{name}"] = values[:, index].tolist()
        return columns


def mass_sides(heatmaps: NDArray[Any], sigmas: object, shares: Sequence[float] = PAPER_SHARES) -> MassSides:
    """For every level and output pixel, the side of the centred square that holds a share of the heat map.

    Niedoba et al. 2025, Figure 3. Of output pixel (y, x), the square of side 2 r + 1 holds the input pixels (v, u) with
    max(|v - y|, |u - x|) <= r; the smallest r is taken at which the sum inside is at least the share of the whole sum.

    Args:
        heatmaps: non-negative numbers [levels, H, W, H, W], indexed [level, y, x]; one level at a time is read.
        sigmas: noise level of each, descending.
        shares: numbers above 0 and below 1.

    Raises:
        ShapeError: the maps have other axes, or another number of levels than sigmas.
        InvalidValueError: a share is out of range, or a map is negative, NaN or zero everywhere.

    Example:
        >>> maps = np.ones((1, 3, 3, 3, 3))
        >>> mass_sides(maps, [1.0], [0.2]).sides[0, 0]
        array([[3, 3, 3],
               [3, 3, 3],
               [3, 3, 3]])
    """
    grid = _checked(heatmaps, sigmas)
    wanted = np.array([float(share) for share in shares])
    if wanted.size == 0 or not ((wanted > 0) & (wanted < 1)).all():
        raise InvalidValueError(f"shares are {wanted.tolist()}; allowed are numbers above 0 and below 1")
    sides = np.stack([_level_sides(np.asarray(level, np.float64), wanted) for level in heatmaps])
    return MassSides(grid, tuple(wanted.tolist()), sides)


def _checked(heatmaps: NDArray[Any], sigmas: object) -> NDArray[np.float64]:
    shape = heatmaps.shape
    if len(shape) != 5 or shape[1:3] != shape[3:]:
        raise ShapeError(f"heat maps have shape {list(shape)}; needed is [levels, H, W, H, W]")
    grid = check_grid(sigmas)
    grid = grid[grid > 0]
    if len(grid) != len(heatmaps):
        raise ShapeError(f"there are heat maps of {len(heatmaps)} levels for {len(grid)} sigmas above 0")
    return grid


def _level_sides(maps: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sides [shares, H, W] of one level's maps [H, W, H, W]."""
    height, width = maps.shape[:2]
    totals = maps.sum(axis=(2, 3))
    if not np.isfinite(totals).all() or maps.min() < 0 or totals.min() <= 0:
        raise InvalidValueError("heat maps must be finite and non-negative, each with a positive sum")
    rows, columns = np.arange(height), np.arange(width)
    across = np.abs(columns[:, None] - columns)  # [x, u]
    reach = max(height, width)
    sides = np.empty((len(shares), height, width), np.int64)
    for y in range(height):
        distance = np.maximum(np.abs(rows - y)[None, :, None], across[:, None, :])  # [x, v, u]
        bins = distance + reach * columns[:, None, None]
        mass = np.bincount(bins.ravel(), maps[y].ravel(), minlength=width * reach).reshape(width, reach)
        inside = mass.cumsum(axis=1)
        # Relative to the last running sum, so that rounding cannot leave a share unreached.
        radius = (inside[None] < shares[:, None, None] * inside[None, :, -1:]).sum(axis=2)
        sides[:, y] = 2 * radius + 1
    return sides


def mass_figure(sides: MassSides, *, ax: "Axes | None" = None) -> "Figure":
    """The curves of `mass_sides`: mean side over output pixels by noise level, with the 10th to 90th percentile.

    Args:
        sides: as `mass_sides` returns them.
        ax: axes of matplotlib to draw on; those of a new figure if not given.

    Raises:
        DTypeError: ax is something else.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> figure = mass_figure(MassSides(np.array([2.0, 1.0]), (0.5,), np.full((2, 1, 4, 4), 3)))
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [3.0, 3.0]
    """
    figure, axis = axes_of(ax, 5, 3.4)
    label_curves(axis, "side of the square (pixels)", logarithmic_y=False)
    low, high = np.percentile(sides.sides, [10, 90], axis=(2, 3))
    for index, share in enumerate(sides.shares):
        axis.plot(sides.sigmas, sides.mean[:, index], marker="o", markersize=3, label=f"{100 * share:g} % of the mass")
        axis.fill_between(sides.sigmas, low[:, index], high[:, index], alpha=0.15, linewidth=0)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8)
    return figure


def overlaid_mass_figure(sides: Mapping[str, MassSides], *, ax: "Axes | None" = None) -> "Figure":
    """The mean sides of several networks' heat maps in one figure: a colour per network, a line style per share.

    Args:
        sides: as `mass_sides` returns them, by name.
        ax: axes of matplotlib to draw on; those of a new figure if not given.

    Raises:
        DTypeError: ax is something else.
        InvalidValueError: there are none.
        MissingDependencyError: matplotlib is not installed.
    """
    if not sides:
        raise InvalidValueError("there are no heat maps to draw")
    figure, axis = axes_of(ax, 5.6, 3.4)
    label_curves(axis, "side of the square (pixels)", logarithmic_y=False)
    for colour, (name, one) in enumerate(sides.items()):
        for style, share in enumerate(one.shares):
            label = f"{name}, {100 * share:g} %"
            line = _LINES[style % len(_LINES)]
            axis.plot(one.sigmas, one.mean[:, style], color=f"C{colour % 10}", linestyle=line, linewidth=1, label=label)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def mask_figure(
    heatmaps: NDArray[Any],
    masks: NDArray[np.bool_],
    sigmas: Sequence[float],
    pixels: Sequence[tuple[int, int]],
) -> "Figure":
    """The outlines of masks over the heat maps that they were cut from, one row per pixel, one column per level.

    Figure 6 of Niedoba et al. 2025.

    Args:
        heatmaps: of some levels and output pixels, [levels, pixels, H, W], each scaled to its own largest value.
        masks: bool, in the same shape.
        sigmas: the noise level of each.
        pixels: (y, x) of each.

    Raises:
        ShapeError: the shapes do not fit each other.
        MissingDependencyError: matplotlib is not installed.
    """
    if heatmaps.shape != masks.shape or heatmaps.shape[:2] != (len(sigmas), len(pixels)):
        raise ShapeError(
            f"heat maps have shape {list(heatmaps.shape)}, masks {list(masks.shape)}; needed is "
            f"[{len(sigmas)}, {len(pixels)}, H, W] for both"
        )
    figure = new_figure(1.3 * len(sigmas), 1.35 * len(pixels) + 0.3)
    axes = figure.subplots(len(pixels), len(sigmas), squeeze=False)
    for row, (y, x) in enumerate(pixels):
        for column, sigma in enumerate(sigmas):
            axis = axes[row, column]
            shown = np.asarray(heatmaps[column, row], np.float64)
            axis.imshow(shown, cmap="magma", vmin=0, vmax=max(float(shown.max()), 1e-30), interpolation="nearest")
            for line in _outline(masks[column, row]):
                axis.plot(*line, color="#3fd0ff", linewidth=0.9)
            axis.plot(x, y, marker="+", color="white", markersize=4, markeredgewidth=0.7)
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(sigma_label(float(sigma)), fontsize=8)
    return figure


def _outline(mask: NDArray[np.bool_]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The edges between pixels inside and outside a mask, as pairs of x and pairs of y."""
    padded = np.pad(mask, 1).astype(np.int8)
    across, down = np.argwhere(np.diff(padded, axis=1)), np.argwhere(np.diff(padded, axis=0))
    lines = [((x - 0.5, x - 0.5), (y - 1.5, y - 0.5)) for y, x in across.tolist()]
    return lines + [((x - 1.5, x - 0.5), (y - 0.5, y - 0.5)) for y, x in down.tolist()]


def pixel_map_figure(
    heatmaps: NDArray[Any], sigmas: object, pixel: tuple[int, int] | None = None, levels: Sequence[int] | None = None
) -> "Figure":
    """The heat maps of one output pixel at several noise levels, each scaled to its own largest value (Figure 6).

    Args:
        heatmaps: non-negative numbers [levels, H, W, H, W].
        sigmas: noise level of each, descending.
        pixel: (y, x); the centre if not given.
        levels: indices of the levels to show; up to eight, evenly spread, if not given.

    Raises:
        ShapeError: the maps have other axes, or another number of levels than sigmas.
        InvalidValueError: a pixel outside the image, or a level that is not there.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> len(pixel_map_figure(np.ones((2, 3, 3, 3, 3)), [1.0, 0.1], pixel=(0, 2)).axes)
        2
    """
    grid = _checked(heatmaps, sigmas)
    height, width = heatmaps.shape[1:3]
    y, x = (height // 2, width // 2) if pixel is None else pixel
    if not (0 <= y < height and 0 <= x < width):
        raise InvalidValueError(f"pixel is ({y}, {x}); allowed are (0, 0) to ({height - 1}, {width - 1})")
    chosen = check_levels("levels", spread_evenly(len(grid), _MAX_MAPS) if levels is None else levels, len(grid))
    figure = new_figure(1.3 * len(chosen), 1.7)
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    for axis, level in zip(axes, chosen, strict=True):
        axis.imshow(np.asarray(heatmaps[level, y, x], np.float64), cmap="magma", vmin=0, interpolation="nearest")
        axis.plot(x, y, marker="+", color="white", markersize=5, markeredgewidth=0.8)
        axis.set(xticks=[], yticks=[])
        axis.set_title(sigma_label(float(grid[level])), fontsize=8)
    return figure
