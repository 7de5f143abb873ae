"""Schedules of several data sets and networks in one figure (Figures 10 to 12 of Niedoba et al. 2025)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.figures import axes_of, label_curves
from pspc_rs.schedules import FULL, PatchSchedule, Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def schedule_table(schedules: Mapping[str, Schedule[Any]]) -> dict[str, list[Any]]:
    """One row per schedule and noise level: name, kind, sigma, value, and the value as a share of the image's side.

    "full" is the shorter side of the image; a threshold is a share already.

    Raises:
        InvalidValueError: there are no schedules.

    Example:
        >>> from pspc_rs import patch_schedule
        >>> table = schedule_table({"cifar10": patch_schedule("cifar10")})
        >>> table["value"][6:9], table["share"][8]
        ([32, 23, 15], 0.46875)
    """
    if not schedules:
        raise InvalidValueError("there are no schedules; give at least one")
    table: dict[str, list[Any]] = {"schedule": [], "kind": [], "sigma": [], "value": [], "share": []}
    for name, schedule in schedules.items():
        side = min(schedule.image_size)
        for sigma, given in zip(schedule.sigmas, schedule.at(list(schedule.sigmas)), strict=True):
            value = side if given == FULL else given
            row = (name, schedule.kind, sigma, value, value / side if schedule.kind == PatchSchedule.kind else value)
            for column, entry in zip(table.values(), row, strict=True):
                column.append(entry)
    return table


def schedule_figure(schedules: Mapping[str, Schedule[Any]], *, ax: "Axes | None" = None) -> "Figure":
    """One curve per schedule over the noise level: the side of windows in units of the image's, or the threshold.

    Args:
        schedules: all of one kind, by name.
        ax: axes of matplotlib to draw on; those of a new figure if not given.

    Raises:
        DTypeError: ax is something else.
        InvalidValueError: there are none, or of both kinds.
        MissingDependencyError: matplotlib is not installed.
    """
    table = schedule_table(schedules)
    if len(set(table["kind"])) > 1:
        raise InvalidValueError("schedules are of window sides and of thresholds; draw each kind by itself")
    sides = table["kind"][0] == PatchSchedule.kind
    figure, axis = axes_of(ax, 5.6, 3.4)
    label = "side of the window / side of the image" if sides else "threshold"
    label_curves(axis, label, logarithmic_y=False)
    for index, name in enumerate(schedules):
        rows = [row for row, owner in enumerate(table["schedule"]) if owner == name]
        sigmas, shares = ([table[column][row] for row in rows] for column in ("sigma", "share"))
        axis.plot(sigmas, shares, color=f"C{index % 10}", marker=".", linewidth=1, drawstyle="steps-mid", label=name)
    axis.set_ylim(0, 1.05)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
