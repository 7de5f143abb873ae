"""Fitting a schedule: a candidate for every noise level, by its error against a target or its posteriors' entropy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite
from pspc_rs.checks import flag, integer, one_of
from pspc_rs.errors import InvalidValueError, ScheduleError, ShapeError
from pspc_rs.experiments.evaluate import Model, denoise
from pspc_rs.experiments.figures import axes_of, draw_curves, label_curves
from pspc_rs.experiments.fit_families import Family
from pspc_rs.experiments.fit_rules import FallenEntropy, Measure, Rule, find_rule
from pspc_rs.experiments.leaving_out import Sources, left_out
from pspc_rs.experiments.metrics import METRICS, MeanError, mean_over_images, mean_squared_error
from pspc_rs.experiments.noisy_sets import NoisyLevels, positive_levels
from pspc_rs.experiments.results import Kind, ResultTable, Row
from pspc_rs.progress import Progress, Steps, renamed_progress
from pspc_rs.provenance import model_settings, settings_key, versions
from pspc_rs.schedules import FULL, PatchSchedule, Schedule, ThresholdSchedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Target = Model | Sequence[NDArray[Any]]
"""A denoiser D(z, sigma), or its outputs, [levels, n, C, H, W]: such as the clean images behind z."""

Outside = Schedule[Any] | float | str | None
"""The values of levels that are not fitted: another schedule's, one value, or the nearest fitted level's (None)."""

ERRORS = ("composite", "patch")
"""Of which images errors are taken: of composites, or of the posterior means of single windows."""

_KEY = ("settings", "family", "sigma", "value")
_KEY_COLUMNS: Mapping[str, Kind] = {"settings": str, "family": str, "sigma": float, "value": float}


@dataclass(frozen=True)
class Fit:
    """A fitted schedule and the curves that it follows.

    Attributes:
        family: "side" or "threshold".
        rule: how candidates were chosen, with its numbers.
        sigmas: the levels that were fitted, descending.
        values: candidates, ascending.
        best: the candidate taken at each level.
        curves: the mean squared error against the target or the mean entropy in nats, whatever the rule looks at,
            [levels, candidates]; NaN for candidates that it did not come to.
        standard_error: of these means over images, [levels, candidates].
        schedule: the candidates of all levels of the whole grid.

    Example:
        >>> schedule = PatchSchedule((7, 3), sigmas=(2.0, 0.5), image_size=(8, 8))
        >>> curves = np.array([[0.3, 0.2], [0.1, 0.4]])
        >>> fit = Fit("side", find_rule("error", None, 9), (2.0, 0.5), (3, 7), (7, 3), curves, 0 * curves, schedule)
        >>> fit.measure, fit.chosen
        ('mse', array([0.2, 0.1]))
    """

    family: str
    rule: Rule
    sigmas: tuple[float, ...]
    values: tuple[float, ...]
    best: tuple[float, ...]
    curves: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    schedule: PatchSchedule | ThresholdSchedule

    def __repr__(self) -> str:
        how = "" if self.rule.name == "error" else f" by {self.rule.name}"
        return f"Fit({self.schedule.name!r}, {len(self.values)} {self.family}s at {len(self.sigmas)} levels{how})"

    @property
    def measure(self) -> Measure:
        """What the curves are of, "mse" or "entropy"."""
        return self.rule.measure

    @property
    def mse(self) -> NDArray[np.float64]:
        """The curves of a fit to a target.

        Raises:
            InvalidValueError: the fit was made by the posteriors' entropy.
        """
        if self.measure != "mse":
            raise InvalidValueError(f"the rule was {self.rule.name!r}, which measures no errors; see curves")
        return self.curves

    @cached_property
    def chosen(self) -> NDArray[np.float64]:
        """The measure of the candidate taken at each level, [levels]."""
        return self.curves[np.arange(len(self.best)), [self.values.index(value) for value in self.best]]


def fit_schedule(
    family: Family,
    target: Target | None,
    noisy: Sequence[NDArray[Any]],
    sigmas: object,
    table: Path,
    *,
    rule: str = "error",
    error: str = "composite",
    fraction: float | None = None,
    name: str = "fitted",
    fit_range: tuple[float, float] = (0.0, math.inf),
    outside: Outside = None,
    batch: int = 50,
    leave_one_out: bool = False,
    record: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    tick: Callable[[int, int, str], object] | None = None,
) -> Fit:
    """The schedule of the candidates that a rule finds, one per noise level.

    - "error": at each level the mean squared error mean |D_v(z, sigma) - target(z, sigma)|^2 of every candidate v over
      the noisy images and their pixels; the least wins. Errors that agree to 1 part in 10^5, as at tiny sigma where
      every composite returns z's own image, count as equal: then the smallest side or threshold wins.
    - "greedy": the same errors, from the lowest noise level up: a level begins with the candidate of the level below
      (the first with the smallest), and goes on to the next larger one for as long as the error falls, by more than 1
      part in 10^5. Candidates never shrink as noise grows, and few errors are computed.
    - "entropy": no target. The smallest candidate whose posteriors over the images, given its windows, have a mean
      entropy over windows and noisy images of at most fraction ln N nats; the largest if none has. N is the number of
      images that count, flips among them, less those left out: all of the data. Entropy falls as windows grow, so that
      larger candidates are not computed.

    Every number is a row of a table, written when it is known: a later call with the same table and settings takes it
    from there.

    Args:
        family: the candidates, `Sides` or `Thresholds`.
        target: D(z, sigma), or outputs [levels, n, C, H, W] to compare with, such as clean images; None for "entropy".
        noisy: noisy images [levels, n, C, H, W] of the whole grid, n at least 2: an array, memory map or sequence.
        sigmas: descending noise levels; a final 0 is ignored.
        table: the CSV file, with its database beside it (see `ResultTable`); made, or continued. Errors and entropies
            are tables of different columns, so give each a file of its own.
        rule: "error", "greedy" or "entropy".
        error: of which images the rules "error" and "greedy" take the error. "composite": of the composites themselves.
            "patch": of the posterior means of single squares, before they are averaged over windows that overlap, as in
            the figures that the published sides were read from (`patch_errors`); for `Sides`, every image counts, and
            it takes s^2 times as long.
        fraction: of "entropy", above 0 and below 1; 0.8 if not given.
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
            Candidates that the rule does not come to count as done at the end of their level.
        tick: deprecated; the earlier name of ``progress``, called as ``tick(done, total, what)``.

    Raises:
        InvalidValueError: an error of another name, or of patches for masks, with ``leave_one_out`` or for "entropy";
            no level in the range, outputs that are not finite, fewer than two noisy images, an image is
            to be left out that is not known or by a target that cannot, an unknown rule, a fraction out of range or for
            another rule, or a target is missing, or given to "entropy".
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
    left_alone = flag("leave_one_out", leave_one_out)
    found = find_rule(rule, fraction, family.num_atoms(leave_one_out=left_alone))
    of_patches = one_of("error", error, ERRORS) == "patch"
    if of_patches and (left_alone or found.measure == "entropy"):
        raise InvalidValueError("error is 'patch', which neither leave_one_out nor the rule 'entropy' goes with")
    settings = {**family.settings, **_target_settings(found, target), **dict(record or {})}
    if of_patches:
        settings["error"] = error
    sources = _sources(family, noisy) if left_alone else None
    if sources is not None:
        settings["leave_one_out"] = True
        if callable(target):
            left_out("the target", target, sources)  # refuses a target before anything is computed
    columns = {**_KEY_COLUMNS, found.measure: float, "standard_error": float, "n": int}
    results = ResultTable(table, columns, _KEY)
    candidates = _Candidates(
        family,
        found,
        target,
        noisy,
        grid,
        results,
        settings_key(settings),
        integer("batch", batch),
        sources,
        of_patches,
    )
    best = candidates.choose(levels, progress)
    curves, errors = candidates.curves(levels)
    everywhere, how = _filled(family, grid, best, outside)
    kept = {
        "sigma": [grid[level] for level in levels],
        found.measure: curves.tolist(),
        "standard_error": errors.tolist(),
    }
    limits = [grid[levels[-1]], grid[levels[0]]]
    provenance = {
        "fitted": {**settings, **found.settings, "candidates": list(family.values), "fit_range": limits},
        "outside": how,
        "made_with": versions(),
        "curves": {what: _without_nan(numbers) for what, numbers in kept.items()},
    }
    schedule = family.schedule(everywhere, grid, name, provenance)
    taken = tuple(best[level] for level in levels)
    return Fit(
        family.name, found, tuple(grid[level] for level in levels), family.values, taken, curves, errors, schedule
    )


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


def _target_settings(rule: Rule, target: Target | None) -> dict[str, object]:
    """What identifies the target of a fit; nothing where the rule has none."""
    if rule.measure == "entropy":
        if target is not None:
            raise InvalidValueError(f"the rule is {rule.name!r}, which compares with no target; allowed is None")
        return {}
    if target is None:
        raise InvalidValueError(f"target is None, but the rule {rule.name!r} needs one: a denoiser, or its outputs")
    return {"target": model_settings(target) if callable(target) else "given outputs"}


def _without_nan(numbers: Any) -> Any:
    """Nested lists of numbers with None, which JSON can hold, for NaN."""
    if isinstance(numbers, list):
        return [_without_nan(one) for one in numbers]
    return None if math.isnan(numbers) else numbers


@dataclass(frozen=True)
class _Candidates:
    """What a rule measures of candidates; noisy images and targets are made for missing rows only."""

    family: Family
    rule: Rule
    target: Target | None
    noisy: Sequence[NDArray[Any]]
    grid: list[float]
    results: ResultTable
    settings: str
    batch: int
    sources: Sources | None
    of_patches: bool
    asked: dict[tuple[int, int], Row] = field(default_factory=dict)

    def key(self, level: int, value: float) -> tuple[str, str, float, float]:
        return self.settings, self.family.name, self.grid[level], value

    def choose(self, levels: list[int], progress: Progress | None) -> dict[int, float]:
        """The value that the rule takes at each level; rows that it asks for are computed where they are missing."""
        number = len(self.family.values)
        steps = Steps(progress, len(levels) * number)
        best: dict[int, float] = {}
        last = 0
        for position, level in enumerate(levels[::-1] if self.rule.ascending else levels):
            last = self.rule.choose(self._curve(level, steps), number, last)
            best[level] = self.family.values[last]
            steps.reach((position + 1) * number)
        return best

    def curves(self, levels: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the rule asked for, and its standard errors, [levels, candidates]; NaN elsewhere."""
        curves = np.full((2, len(levels), len(self.family.values)), np.nan)
        for (level, index), row in self.asked.items():
            curves[:, levels.index(level), index] = row[self.rule.measure], row["standard_error"]
        return curves[0], curves[1]

    def _curve(self, level: int, steps: Steps) -> Callable[[int], float]:
        """The measures of a level's candidates, each looked up or computed once."""
        noisy = cache(lambda: self.noisy[level])
        wanted = cache(lambda: self._target(level, noisy()))

        @cache
        def measured(index: int) -> float:
            value = self.family.values[index]
            key = self.key(level, value)
            if key in self.results:
                steps.done += 1
            else:
                found = self._measure(level, value, noisy(), wanted)
                numbers = {self.rule.measure: found.mean, "standard_error": found.standard_error, "n": len(noisy())}
                self.results.add({**dict(zip(_KEY, key, strict=True)), **numbers})
                steps.finish(f"{self.family.name} {value:g}, sigma {self.grid[level]:.3g}")
            self.asked[level, index] = row = self.results[key]
            return float(row[self.rule.measure])

        return measured

    def _target(self, level: int, z: NDArray[Any]) -> NDArray[np.float32]:
        sigma = self.grid[level]
        if callable(self.target):
            exclude = None if self.sources is None else left_out("the target", self.target, self.sources)
            return denoise(self.target, z, sigma, self.batch, name="the target", exclude=exclude)
        wanted = np.asarray(cast(Sequence[NDArray[Any]], self.target)[level], np.float32)
        if wanted.shape != z.shape:
            raise ShapeError(f"the target has shape {list(wanted.shape)} at sigma {sigma:g}; needed is {list(z.shape)}")
        check_finite("the target", wanted)
        return wanted

    def _measure(
        self, level: int, value: float, z: NDArray[Any], wanted: Callable[[], NDArray[np.float32]]
    ) -> MeanError:
        sigma, exclude = self.grid[level], None if self.sources is None else self.sources.indices
        if self.rule.measure == "entropy":
            parts = [slice(start, start + self.batch) for start in range(0, len(z), self.batch)]
            chosen = [None if exclude is None else exclude[part] for part in parts]
            means = [
                self.family.entropy(value, z[part], sigma, exclude=one) for part, one in zip(parts, chosen, strict=True)
            ]
            return mean_over_images(np.concatenate(means))
        target = wanted()
        if self.of_patches:
            return mean_over_images(self.family.patch_errors(value, z, sigma, target))
        ours = denoise(
            lambda part, _, **given: self.family.denoise(value, part, sigma, **given),
            z,
            sigma,
            self.batch,
            exclude=exclude,
        )
        return mean_squared_error(ours, target)


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


def fit_figure(fit: Fit, *, ax: "Axes | None" = None) -> "Figure":
    """The curves of a fit: what was measured of every candidate over the noise level, with the chosen ones marked.

    Args:
        fit: as `fit_schedule` returns it.
        ax: axes of matplotlib to draw on; those of a new figure if not given.

    Raises:
        DTypeError: ax is something else.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> schedule = PatchSchedule((7, 3), sigmas=(2.0, 0.5), image_size=(8, 8))
        >>> curves = np.array([[0.3, 0.2], [0.1, 0.4]])
        >>> fit = Fit("side", find_rule("error", None, 9), (2.0, 0.5), (3, 7), (7, 3), curves, 0 * curves, schedule)
        >>> [line.get_label() for line in fit_figure(fit).axes[0].lines]
        ['side 3', 'side 7', 'chosen']
    """
    figure, axis = axes_of(ax, 6.2, 4)
    errors = fit.measure == "mse"
    label = (
        f"{METRICS['mse'].title}, against the target" if errors else "mean entropy of the windows' posteriors (nats)"
    )
    label_curves(axis, label, logarithmic_y=errors)
    curves = {f"{fit.family} {value:g}": fit.curves[:, index] for index, value in enumerate(fit.values)}
    draw_curves(axis, fit.sigmas, curves)
    if isinstance(fit.rule, FallenEntropy):
        axis.axhline(fit.rule.limit, color="grey", linewidth=1, label=f"{fit.rule.fraction:g} ln N")
    shown = np.where(fit.chosen > 0, fit.chosen, np.nan)  # an exact target leaves errors of 0
    axis.plot(
        fit.sigmas,
        shown,
        color="crimson",
        linestyle="none",
        marker="o",
        markerfacecolor="none",
        label="chosen",
    )
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
