"""Curves over the noise level as drawings of a page, and as the tables beside them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pspc_rs.experiments.pages import Table

_WIDTH, _HEIGHT = 640, 335
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 630, 20, 290


@dataclass
class Curve:
    """Numbers of one denoiser or candidate.

    Attributes:
        label: what it is called.
        colour: of its line.
        points: (value, standard error) by noise level; the error is NaN where it is not known.
    """

    label: str
    colour: str
    points: dict[float, tuple[float, float]] = field(default_factory=dict)


def curve_table(caption: str, curves: Sequence[Curve], note: str) -> Table:
    """A table with one row per noise level, one column per curve, and the least value of every row marked.

    Example:
        >>> curves = [Curve("A", "", {1.0: (0.25, 0.012)}), Curve("B", "", {1.0: (0.5, math.nan), 0.1: (1.0, 0.0)})]
        >>> table = curve_table("MSE", curves, "")
        >>> table.rows, sorted(table.marked)
        ([['1', '0.25 ± 0.012', '0.5'], ['0.1', '', '1']], [(0, 1)])
    """
    sigmas = sorted({sigma for curve in curves for sigma in curve.points}, reverse=True)
    rows, marked = [], set()
    for number, sigma in enumerate(sigmas):
        found = [curve.points.get(sigma) for curve in curves]
        rows.append([f"{sigma:.4g}", *("" if point is None else _cell(*point) for point in found)])
        values = {column: point[0] for column, point in enumerate(found, 1) if point is not None}
        if len(values) > 1:
            marked.add((number, min(values, key=values.__getitem__)))
    return Table(caption, ["sigma", *(curve.label for curve in curves)], rows, note=note, marked=frozenset(marked))


def _cell(value: float, error: float) -> str:
    """A value with three digits, and its error, if it is known, with as many decimals.

    Example:
        >>> _cell(0.000219, 0.0000034), _cell(0.0169, 0.0033), _cell(5.2e-8, 1e-9), _cell(1.0, math.nan)
        ('0.000219 ± 0.000003', '0.0169 ± 0.0033', '5.2e-08 ± 1e-09', '1')
    """
    if not error > 0:
        return f"{value:.3g}"
    decimals = 2 - math.floor(math.log10(value)) if 1e-4 <= value < 1e3 else 0
    shown = f"{error:.{decimals}f}" if decimals > 0 else f"{error:.1g}"
    return f"{value:.3g} ± {shown if float(shown) else f'{error:.1g}'}"


def curve_chart(title: str, curves: Sequence[Curve], beside: Iterable[Curve] = ()) -> dict[str, Any] | None:
    """Where lines, bands of one standard error and labels stand, both axes logarithmic; None if nothing is positive.

    Args:
        title: what is spoken.
        curves: what is drawn.
        beside: the curves of charts that stand beside this one: all have the same axes.

    Example:
        >>> chart = curve_chart("MSE", [Curve("A", "#fff", {1.0: (0.1, 0.01), 10.0: (1.0, 0.0), 20.0: (0.0, 0.0)})])
        >>> chart["curves"][0]["points"], [label for _, label in chart["columns"]]
        ('107.5,258.4 582.5,41.7', ['1', '2', '5', '10'])
    """
    logs = [_logarithms(curve) for curve in curves]
    if not any(logs):
        return None
    shown = [point for points in (*logs, *map(_logarithms, beside)) for point in points]
    left, right = _limits([x for x, *_ in shown])
    low, high = _limits([y for _, *heights in shown for y in heights])

    def across(x: float) -> str:
        return f"{_LEFT + (_RIGHT - _LEFT) * (x - left) / (right - left):.1f}"

    def down(y: float) -> float:
        return _TOP + (_BOTTOM - _TOP) * (high - y) / (high - low)

    heights = [(down(math.log10(value)), value) for value in _ticks(low, high)]
    return {
        "title": title,
        "columns": [(across(math.log10(value)), f"{value:g}") for value in _ticks(left, right)],
        "lines": [(f"{y:.1f}", f"{y + 4:.1f}", f"{value:g}") for y, value in heights],
        "curves": [
            {
                "name": curve.label,
                "colour": curve.colour,
                "points": " ".join(f"{across(x)},{down(y):.1f}" for x, _, y, _ in points),
                "band": " ".join(
                    [f"{across(x)},{down(above):.1f}" for x, _, _, above in points]
                    + [f"{across(x)},{down(below):.1f}" for x, below, _, _ in reversed(points)]
                ),
            }
            for curve, points in zip(curves, logs, strict=True)
        ],
    }


def _logarithms(curve: Curve) -> list[tuple[float, float, float, float]]:
    """Noise level, value less its error, value, and value and error, as decades; what is not positive is left out."""
    return sorted(
        (math.log10(sigma), math.log10(max(value - spread, value / 100)), math.log10(value), math.log10(value + spread))
        for sigma, (value, error) in curve.points.items()
        if sigma > 0 and 0 < value < math.inf
        for spread in [error if 0 < error < math.inf else 0.0]
    )


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis in decades, with a margin."""
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), 0.1)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two logarithms, and twice and five times these where there are few."""
    steps = (1,) if high - low > 2 else (1, 2, 5)
    values = [step * 10.0**decade for decade in range(math.floor(low), math.ceil(high)) for step in steps]
    return [value for value in values if low <= math.log10(value) <= high]
