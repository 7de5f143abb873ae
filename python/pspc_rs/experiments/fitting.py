"""Fitting a schedule: at every noise level, the candidate whose composite is nearest to a target denoiser."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite
from pspc_rs.checks import flag, integer
from pspc_rs.errors import InvalidValueError, ScheduleError, ShapeError
from pspc_rs.experiments.evaluate import Model, denoise
from pspc_rs.experiments.figures import draw_curves, log_axes, new_figure
from pspc_rs.experiments.fit_families import Family
from pspc_rs.experiments.leaving_out import Sources, left_out
from pspc_rs.experiments.metrics import METRICS, mean_squared_error
from pspc_rs.experiments.noisy_sets import NoisyLevels, positive_levels
from pspc_rs.experiments.results import Kind, ResultTable
from pspc_rs.progress import Progress, Steps, renamed_progress
from pspc_rs.provenance import model_settings, settings_key, versions
from pspc_rs.schedules import FULL, PatchSchedule, Schedule, ThresholdSchedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Target = Model | Sequence[NDArray[Any]]
"""A denoiser D(z, sigma), or its outputs, [levels, n, C, H, W]: such as the clean images behind z."""

Outside = Schedule[Any] | float | str | None
"""The values of levels that are not fitted: another schedule's, one value, or the nearest fitted level's (None)."""

_COLUMNS: Mapping[str, Kind] = {
    "settings": str,
    "family": str,
    "sigma": float,
    "value": float,
    "mse": float,
    "standard_error": float,
    "n": int,
}
_KEY = ("settings", "family", "sigma", "value")
# Composites that agree to float32 rounding differ by less than this share of their error.
_TIE = 1e-5


@dataclass(frozen=True)
class Fit:
    """A fitted schedule and the curves that it follows.

    Attributes:
        family: "side" or "threshold".
        sigmas: the levels that were fitted, descending.
        values: candidates, ascending.
        mse: mean squared error against the target, [levels, candidates].
        standard_error: of that mean over images, [levels, candidates].
        schedule: the candidate of least error at every level of the whole grid.
    """

    family: str
    sigmas: tuple[float, ...]
    values: tuple[float, ...]
    mse: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    schedule: PatchSchedule | ThresholdSchedule

    def __repr__(self) -> str:
        return f"Fit({self.schedule.name!r}, {len(self.values)} {self.family}s at {len(self.sigmas)} levels)"


def fit_schedule(
    family: Family,
    target: Target,
    noisy: Sequence[NDArray[Any]],
    sigmas: object,
    table: Path,
    *,
    name: str = "fitted",
    fit_range: tuple[float, float] = (0.0, math.inf),
    outside: Outside = None,
    batch: int = 50,
    leave_one_out: bool = False,
    record: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    tick: Callable[[int, int, str], object] | None = None,
) -> Fit:
    """The schedule whose composite denoiser is nearest to a target at every noise level.

    At each level the mean squared error mean |D_v(z, sigma) - target(z, sigma)|^2 of every candidate v over the noisy
    images and their pixels; the least wins. Errors that agree to 1 part in 10^5, as at tiny sigma where every
    composite returns z's own image, count as equal: then the smallest side or threshold wins. Every error is a row of
    a table, written when it is known: a later call with the same table and settings takes it from there.

    Args:
        family: the candidates, `Sides` or `Thresholds`.
        target: D(z, sigma), or outputs [levels, n, C, H, W] to compare with, such as clean images.
        noisy: noisy images [levels, n, C, H, W] of the whole grid, n at least 2: an array, memory map or sequence.
        sigmas: descending noise levels; a final 0 is ignored.
        table: the CSV file, with its database beside it (see `ResultTable`); made, or continued.
        name: of the schedule.
        fit_range: (lowest, highest) noise level to fit, those that the target is good for.
        outside: the values of the other levels; see `Outside`.
        batch: images at once.
        leave_one_out: denoise z made of image n as if n were not in the data set, its flip neither. For noisy images of
            the family's own data (`noisy_sets.forward_levels`), and targets that can leave an image out or hold none:
            clean images, networks and functions.
        record: where the noisy images and the target come from; kept with the schedule, and part of what tells one fit
            from another in the table.
        progress: called as ``progress(candidates done, candidates)``, over all levels; its `describe` gets each one.
        tick: deprecated; the earlier name of ``progress``, called as ``tick(done, total, what)``.

    Raises:
        InvalidValueError: no level in the range, outputs that are not finite, fewer than two noisy images, or an image
            is to be left out that is not known or by a target that cannot.
        ShapeError: noisy images or target outputs of another shape.
        ScheduleError: ``outside`` is for other images or of another kind.
        DataError: the file holds another table, or is damaged.

    Example:
        >>> import tempfile, pspc_rs as pspc
        >>> from pspc_rs.experiments.fit_families import Sides
        >>> data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8))
        >>> known = pspc.PSPCSquare(data, patch_sizes=[7, 3], sigmas=[2.0, 0.5])
        >>> z = np.random.default_rng(1).normal(size=(2, 4, 1, 8, 8)).astype(np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fit_schedule(Sides(data), known, z, [2.0, 0.5], Path(folder, "fit.csv")).schedule.patch_sizes
        (7, 3)
    """
    progress = renamed_progress(progress, "tick", tick, ("done", "total", "what"))
    grid = positive_levels(sigmas)
    if len(noisy) != len(grid):
        raise ShapeError(f"there are noisy images of {len(noisy)} levels for {len(grid)} sigmas above 0")
    levels = _levels_in(grid, fit_range)
    settings = {**family.settings, "target": _target_settings(target), **dict(record or {})}
    sources = _sources(family, noisy) if flag("leave_one_out", leave_one_out) else None
    if sources is not None:
        settings["leave_one_out"] = True
        if callable(target):
            left_out("the target", target, sources)  # refuses a target before anything is computed
    results = ResultTable(table, _COLUMNS, _KEY)
    key = settings_key(settings)
    computed = _CandidateErrors(family, target, noisy, grid, results, key, integer("batch", batch), sources)
    computed.run(levels, progress)
    mse, errors = computed.curves(levels)
    best = [family.values[index] for index in _least(mse)]
    everywhere, how = _filled(family, grid, dict(zip(levels, best, strict=True)), outside)
    provenance = {
        "fitted": {**settings, "candidates": list(family.values), "fit_range": [grid[levels[-1]], grid[levels[0]]]},
        "outside": how,
        "made_with": versions(),
        "curves": {"sigma": [grid[level] for level in levels], "mse": mse.tolist(), "standard_error": errors.tolist()},
    }
    schedule = family.schedule(everywhere, grid, name, provenance)
    return Fit(family.name, tuple(grid[level] for level in levels), family.values, mse, errors, schedule)


def _sources(family: Family, noisy: Sequence[NDArray[Any]]) -> Sources:
    """The images that noisy images were made of, which must be those of the family."""
    sources = noisy.sources if isinstance(noisy, NoisyLevels) else None
    if sources is None:
        raise InvalidValueError(
            "leave_one_out is on, but it is not known which images of the data z are made of; allowed are noisy images "
            "of the data, as noisy_sets.forward_levels makes them"
        )
    if sources.fingerprint != family.settings.get("data"):
        raise InvalidValueError(
            f"leave_one_out is on, but z are not made of the images of {family!r}; allowed are noisy images of its data"
        )
    return sources


def _levels_in(grid: list[float], fit_range: tuple[float, float]) -> list[int]:
    low, high = fit_range
    levels = [level for level, sigma in enumerate(grid) if low <= sigma <= high]
    if not levels:
        raise InvalidValueError(f"no noise level lies in {low:g} to {high:g}; they are {grid[-1]:g} to {grid[0]:g}")
    return levels


def _target_settings(target: Target) -> object:
    return model_settings(target) if callable(target) else "given outputs"


def _least(mse: NDArray[np.float64]) -> list[int]:
    """The first candidate of least error at every level."""
    least = mse.min(axis=1, keepdims=True)
    return [int(index) for index in (mse <= least * (1 + _TIE)).argmax(axis=1)]


@dataclass(frozen=True)
class _CandidateErrors:
    """The errors of every candidate at every level; noisy images and targets are made for missing rows only."""

    family: Family
    target: Target
    noisy: Sequence[NDArray[Any]]
    grid: list[float]
    results: ResultTable
    settings: str
    batch: int
    sources: Sources | None

    def key(self, level: int, value: float) -> tuple[str, str, float, float]:
        return self.settings, self.family.name, self.grid[level], value

    def run(self, levels: list[int], progress: Progress | None) -> None:
        """Computes the rows that are missing."""
        steps = Steps(progress, len(levels) * len(self.family.values))
        for level in levels:
            missing = [value for value in self.family.values if self.key(level, value) not in self.results]
            steps.done += len(self.family.values) - len(missing)
            wanted = self._target(level) if missing else None
            for value in missing:
                self.results.add(self._row(level, value, wanted))
                steps.finish(f"{self.family.name} {value:g}, sigma {self.grid[level]:.3g}")

    def curves(self, levels: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Errors and their standard errors, [levels, candidates]."""
        rows = {tuple(row[name] for name in _KEY): row for row in self.results}
        table = [[rows[self.key(level, value)] for value in self.family.values] for level in levels]
        mse, errors = (np.array([[row[name] for row in line] for line in table]) for name in ("mse", "standard_error"))
        return mse.astype(np.float64), errors.astype(np.float64)

    def _target(self, level: int) -> NDArray[np.float32]:
        z, sigma = self.noisy[level], self.grid[level]
        if callable(self.target):
            exclude = None if self.sources is None else left_out("the target", self.target, self.sources)
            return denoise(self.target, z, sigma, self.batch, name="the target", exclude=exclude)
        wanted = np.asarray(self.target[level], np.float32)
        if wanted.shape != z.shape:
            raise ShapeError(f"the target has shape {list(wanted.shape)} at sigma {sigma:g}; needed is {list(z.shape)}")
        check_finite("the target", wanted)
        return wanted

    def _row(self, level: int, value: float, wanted: Any) -> dict[str, Any]:
        z, sigma = self.noisy[level], self.grid[level]
        exclude = None if self.sources is None else self.sources.indices
        ours = denoise(
            lambda part, _, **given: self.family.denoise(value, part, sigma, **given),
            z,
            sigma,
            self.batch,
            exclude=exclude,
        )
        error = mean_squared_error(ours, wanted)
        numbers = {"mse": error.mean, "standard_error": error.standard_error, "n": len(z)}
        named = dict(zip(_KEY, self.key(level, value), strict=True))
        return {**named, **numbers}


def _filled(
    family: Family, grid: list[float], best: dict[int, float], outside: Outside
) -> tuple[list[float], dict[str, Any]]:
    """One value per level of the whole grid, and where the values of levels that were not fitted come from."""
    missing = [level for level in range(len(grid)) if level not in best]
    if not missing:
        return [best[level] for level in range(len(grid))], {}
    how: dict[str, Any] = {"sigmas": [grid[level] for level in missing]}
    if isinstance(outside, Schedule):
        given = _values_of(family, grid, outside)
        how |= {"values_from": f"schedule {outside.name!r}", "origin": dict(outside.provenance)}
    elif outside is None:
        given = [_of_nearest(best, level) for level in range(len(grid))]
        how["values_from"] = "the nearest fitted level"
    else:
        given = [max(family.values) if outside == FULL else float(outside)] * len(grid)
        how["values_from"] = str(outside)
    return [best.get(level, given[level]) for level in range(len(grid))], how


def _of_nearest(best: dict[int, float], level: int) -> float:
    return best[min(best, key=lambda one: abs(one - level))]


def _values_of(family: Family, grid: list[float], schedule: Schedule[Any]) -> list[float]:
    size = family.schedule([family.values[0]] * len(grid), grid, "size", {}).image_size
    if schedule.kind != {"side": "patch", "threshold": "threshold"}[family.name] or schedule.image_size != size:
        raise ScheduleError(
            f"schedule {schedule.name!r} is of kind {schedule.kind!r} for images of {schedule.image_size}; needed is "
            f"one of {family.name}s for {size}"
        )
    return [float(max(size)) if value == FULL else float(value) for value in schedule.at(grid)]


def fit_figure(fit: Fit) -> "Figure":
    """The curves of a fit: error of every candidate over the noise level, with the least of each level marked.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(6.2, 4)
    axis = log_axes(figure, f"{METRICS['mse'].title}, against the target")
    curves = {f"{fit.family} {value:g}": fit.mse[:, index] for index, value in enumerate(fit.values)}
    draw_curves(axis, fit.sigmas, curves)
    shown = np.where(fit.mse > 0, fit.mse, np.nan)  # an exact target leaves errors of 0
    axis.plot(
        fit.sigmas,
        shown.min(axis=1),
        color="crimson",
        linestyle="none",
        marker="o",
        markerfacecolor="none",
        label="least",
    )
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
