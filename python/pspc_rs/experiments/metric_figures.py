"""Curves of `compare` over the noise level: the MSE, or any other metric of its rows (Figures 2, 7, 15)."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pspc_rs.checks import one_of
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.display import colours_of, display_name
from pspc_rs.experiments.figures import axes_of, new_figure
from pspc_rs.experiments.metrics import METRICS, Metric
from pspc_rs.experiments.results import Row, error_column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = ("-", "--", ":", "-.")


def mse_figure(rows: Sequence[Row], *, ax: "Axes | None" = None) -> "Figure":
    """The figure of the MSE; see `metric_figure`.

    Example:
        >>> row = {"process": "forward", "target": "net", "denoiser": "pspc_sq", "settings": "0f", "sigma": 1.0}
        >>> figure = mse_figure([{**row, "mse": 0.1, "standard_error": 0.01}])
        >>> [text.get_text() for text in figure.legends[0].texts]
        ['PSPC-Square']
    """
    return metric_figure(rows, ax=ax)


def metric_figure(rows: Sequence[Row], metric: str = "mse", *, ax: "Axes | None" = None) -> "Figure":
    """A figure with one panel per process and target, one curve per denoiser, over a logarithmic noise level.

    Errors are on a logarithmic axis, and one of 0, of a network compared with itself, cannot be shown. Bands are one
    standard error to each side. A denoiser that is there with several settings has several curves.

    Args:
        rows: rows that `compare` returned.
        metric: the column that is drawn, one of `METRICS`.
        ax: axes of matplotlib to draw on, for rows of one process and target; those of a new figure if not given.

    Raises:
        InvalidValueError: there are no rows, they lack the metric, there is none of this name, or axes are given for
            rows of several panels.
        DTypeError: metric is not a string, or ax is something else.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> row = {"process": "forward", "target": "net", "denoiser": "empirical", "settings": "0f", "level": 0}
        >>> figure = metric_figure([{**row, "sigma": 1.0, "n": 2, "mse": 0.1, "standard_error": 0.01}])
        >>> figure.axes[0].get_title(), figure.axes[0].get_ylabel()
        ('forward, against net', 'MSE per value, [-1, 1] pixels')
    """
    chosen = METRICS[one_of("metric", metric, METRICS)]
    if not rows:
        raise InvalidValueError("there are no rows to draw")
    if any(metric not in row for row in rows):
        raise InvalidValueError(f"some rows have no {metric}; call compare with metrics=[{metric!r}]")
    panels = list(dict.fromkeys((str(row["process"]), str(row["target"])) for row in rows))
    figure, axes = _panels(len(panels), ax)
    colours = colours_of(str(row["denoiser"]) for row in rows)
    handles: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=False):
        for label, variant, curve in _curves([row for row in rows if (row["process"], row["target"]) == panel]):
            style = {"color": colours[str(curve[0]["denoiser"])], "linestyle": _LINES[variant % len(_LINES)]}
            handles.setdefault(label, _draw(axis, curve, chosen, style))
        axis.set(title=f"{panel[0]}, against {panel[1]}", xscale="log", xlabel=r"noise level $\sigma$")
        axis.set_yscale("log" if chosen.is_error else "linear")
        axis.grid(alpha=0.3)
    _label_levels(axes[0], [float(row["sigma"]) for row in rows])
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    axes[0].set_ylabel(chosen.title)
    if ax is None:
        figure.legend(handles.values(), handles.keys(), loc="outside right upper", frameon=False)
    else:
        ax.legend(handles.values(), handles.keys(), fontsize=8)
    return figure


def _panels(number: int, ax: "Axes | None") -> "tuple[Figure, Sequence[Axes]]":
    """The axes of so many panels, in rows of two, or the caller's for one."""
    if ax is not None:
        if number > 1:
            raise InvalidValueError(f"ax is for one panel, and the rows are of {number}; choose one process and target")
        figure, axis = axes_of(ax, 0, 0)
        return figure, [axis]
    columns = min(number, 2)
    lines = -(-number // columns)
    figure = new_figure(4.2 * columns + 1.2, 3.4 * lines)
    return figure, list(figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel())


def _label_levels(axis: Any, sigmas: Sequence[float]) -> None:
    """Plain numbers at 1, 2 and 5 times the powers of ten, or at these alone where they are many."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    many = max(sigmas) > 300 * min(sigmas)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if many else (1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _draw(axis: Any, curve: Sequence[Row], metric: Metric, style: dict[str, Any]) -> Any:
    columns = ("sigma", metric.name, error_column(metric.name))
    sigma, value, error = (np.array([row[name] for row in curve], float) for name in columns)
    low = value - error
    if metric.is_error:
        value = np.where(value > 0, value, np.nan)
        low = np.fmax(low, value / 100)
    axis.fill_between(sigma, low, value + error, color=style["color"], alpha=0.2, linewidth=0)
    (line,) = axis.plot(sigma, value, marker=".", **style)
    return line


def _curves(rows: Sequence[Row]) -> list[tuple[str, int, list[Row]]]:
    """Label, number among those of the same denoiser, and rows of every curve; the later ones are numbered."""
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        curves.setdefault((str(row["denoiser"]), str(row["settings"])), []).append(row)
    earlier: Counter[str] = Counter()
    found = []
    for (denoiser, _), curve in curves.items():
        variant = earlier[denoiser]
        label = display_name(denoiser)
        found.append((label if variant == 0 else f"{label} ({variant + 1})", variant, curve))
        earlier[denoiser] += 1
    return found
