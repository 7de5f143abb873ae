"""MSE and other metrics between denoisers and networks over noise levels, forward and reverse (Figures 2, 7, 15)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import flag, integer, one_of, real_number
from pspc_rs.data import ImageSet
from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.experiments.compare_plan import (
    NOISY_PROCESSES,
    Clean,
    NoisyProcess,
    Plan,
    check_clean,
    of_file,
    other_images,
)
from pspc_rs.experiments.evaluate import Model, denoise
from pspc_rs.experiments.metrics import METRICS, mean_over_images, squared_errors
from pspc_rs.experiments.noisy_sets import (
    NoisyLevels,
    Start,
    check_sampler,
    check_seed,
    check_start,
    file_levels,
    forward_levels,
    positive_levels,
    trajectory_levels,
)
from pspc_rs.experiments.paired import paired_rows
from pspc_rs.experiments.results import COMPARE_KEY, PAIRED_KEY, Row, RunFolder, error_column
from pspc_rs.progress import Progress, describe, renamed_progress
from pspc_rs.provenance import (
    Clock,
    machine_settings,
    settings_key,
)
from pspc_rs.sigmas import edm_sigmas


def compare(
    data: ImageSet,
    targets: Mapping[str, Model | Clean],
    denoisers: Mapping[str, Model],
    outdir: str | Path,
    *,
    sigmas: object = None,
    processes: Sequence[str] = NOISY_PROCESSES,
    n: int = 50,
    seed: int = 0,
    batch: int = 50,
    sampler: str = "heun",
    start: Start = "noise",
    start_scale: float | None = None,
    sigma_range: tuple[float, float] = (0.0, float("inf")),
    leave_one_out: bool = False,
    metrics: Sequence[str] = (),
    noise_data: ImageSet | None = None,
    z: str | Path | None = None,
    progress: Progress | None = None,
    report: Callable[[float, float, str], object] | None = None,
) -> list[Row]:
    """The MSE between denoisers and target networks at noise levels, one row per process, target, denoiser and level.

    E |D(z) - T(z)|^2 in [-1, 1] pixel units, mean over pixels and n images, with its standard error over images, as in
    Figure 7 of Niedoba et al. 2025. Forward z are noisy images of the data (`forward_noisy`), reverse z lie on
    trajectories of the target itself (`save_reverse`). Rows are written level by level to ``mse.csv`` in ``outdir``,
    under a key of all settings, which ``settings.json`` holds in full; seconds go to ``times.csv``. Rows that are
    there already are not computed again: a stopped run continues, and another run adds to the table. Several runs may
    write to one folder at once; ``results.sqlite`` holds the rows of all. Further metrics go to ``metrics.csv``, one
    per row, under the same keys.

    Args:
        data: the images of the forward process.
        targets: networks D(z, sigma) by name, or "clean" for the clean images behind z of the forward process.
        denoisers: denoisers or networks D(z, sigma) by name.
        outdir: folder of the run, made if need be.
        sigmas: descending noise levels, the EDM grid of 18 levels if not given; a final 0 is ignored.
        processes: "forward", "reverse", or both.
        n: noisy images per level, at least 2.
        seed: of the noisy images, 0 .. 2^32 - 1.
        batch: images at once.
        sampler: of the trajectories: "heun", "euler" or "dpmpp_2m".
        start: where trajectories start: at "noise" at the first level of the grid, or at noisy "data" at the first
            level in the range, for networks that are not good above it.
        start_scale: standard deviation of the noise that trajectories start at; that of the first level if None.
        sigma_range: lowest and highest level to compare at.
        leave_one_out: denoise z made of image n as if n were not in the data set, its flip neither. For the forward
            process alone. Targets and denoisers that hold the images must be able to leave one out; networks and
            functions are called as ever.
        metrics: names of `METRICS` to compute beside the MSE. "r2", "pearson_r" and "pixel_r2" need targets that are
            not flat.
        noise_data: images to add noise to, and to start trajectories at with ``start="data"``, in place of ``data``:
            such as held-out ones, as a noisy training image at small sigma is explained by itself.
        z: in place of both processes, noisy images from a file [levels, N, C, H, W], as `save_forward` and
            `save_reverse` write it, the first n of every level; their process is then "file".
        progress: called as ``progress(images done, images)``; its `describe` gets what is being worked on.
        report: deprecated; the earlier name of ``progress``, called as ``report(done, total, what)``.

    Returns:
        The rows of these settings, in the order of the table; the table itself may hold more. A further metric stands
        in a column of its name, its standard error beside it, as in "r2" and "r2_error". "difference" is a row's MSE
        less that of the best denoiser of the call at that level, "reference", and "difference_error" its standard error
        over images, which all denoisers share: where errors go up and down together it is far below those of both.

    Raises:
        InvalidValueError: an argument is out of range, a model returned NaN, or one cannot leave an image out.
        ShapeError: a model returned another shape.
        DataError: the folder holds another table.
        OutputError: a file cannot be written.

    Example:
        >>> import tempfile
        >>> images = ImageSet(np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = compare(
        ...         images, {"zero": lambda z, sigma: 0 * z}, {"one": lambda z, sigma: 0 * z + 1}, folder,
        ...         sigmas=[2.0, 1.0], processes=["forward"], n=4)
        >>> [(row["sigma"], row["mse"], row["standard_error"]) for row in rows]
        [(2.0, 1.0, 0.0), (1.0, 1.0, 0.0)]
    """
    progress = renamed_progress(progress, "report", report, ("done", "total", "what"))
    plan = Plan(
        data,
        targets=_named("targets", targets),
        denoisers=_named("denoisers", denoisers),
        sigmas=tuple(positive_levels(edm_sigmas() if sigmas is None else sigmas)),
        processes=_processes(processes),
        n=integer("n", n, least=2),
        seed=check_seed(seed),
        batch=integer("batch", batch),
        sampler=check_sampler(sampler),
        start=check_start(start),
        start_scale=None if start_scale is None else real_number("start_scale", start_scale, above=0),
        sigma_range=_range(sigma_range),
        leave_one_out=flag("leave_one_out", leave_one_out),
        metrics=_metrics(metrics),
        noise_data=other_images(data, noise_data),
        z=None if z is None else Path(z),
    )
    if plan.z is not None:
        plan = of_file(plan)
    if plan.leave_one_out and plan.noise_data is not None:
        raise InvalidValueError("leave_one_out is on, and z are made of other images than those of the data")
    if plan.leave_one_out and plan.processes != ("forward",):
        raise InvalidValueError(
            f"leave_one_out is on, and processes are {', '.join(plan.processes)}; allowed is forward alone, as z of "
            "trajectories are made of no image of the data"
        )
    check_clean(plan)
    if not plan.levels:
        low, high = plan.sigma_range
        raise InvalidValueError(f"no level of the grid lies in the range {low:g} to {high:g}; take a wider one")
    for name in targets.keys() & denoisers.keys():
        if not plan.same(name):
            raise InvalidValueError(f"{name!r} names both a target and another denoiser; give them two names")
    _ = plan.left_out  # refuses models before anything is written
    return _Comparison(plan, RunFolder(Path(outdir)), progress).run()


class _Comparison:
    """One call of `compare`: what is pending, and the loop over it."""

    def __init__(self, plan: Plan, folder: RunFolder, progress: Progress | None) -> None:
        self.plan = plan
        self.folder = folder
        self.progress = progress
        self.done = 0
        self.made_with = machine_settings()
        self.keys = {
            (process, target, denoiser): self._key(process, target, denoiser)
            for process in plan.processes
            for target in plan.targets
            for denoiser in plan.denoisers
        }
        pending = [
            self._lacking(process, targets, level) for process, targets in self._sources() for level in plan.levels
        ]
        self.total = plan.n * sum(len(lacking) + len(_needed(lacking)) for lacking in pending)

    def run(self) -> list[Row]:
        """Computes what is missing and returns all rows."""
        for process, targets in self._sources():
            if any(self._lacking(process, targets, level) for level in self.plan.levels):
                noisy = self._noisy(process, targets[0])
                for level in self.plan.levels:
                    self._level(process, targets, level, noisy)
        wanted = {self._row_key(*names, level) for names in self.keys for level in self.plan.levels}
        if self.done < self.total:  # another run in the folder did some of the work
            self._tell(self.total)
        rows = {key: dict(row) for row in self.folder.mse if (key := _key_of(row)) in wanted}
        self._pair(rows)
        for row in self.folder.metrics:
            name = str(row["metric"])
            if name in self.plan.metrics and _key_of(row) in rows:
                rows[_key_of(row)] |= {name: row["value"], error_column(name): row["standard_error"]}
        return list(rows.values())

    def _pair(self, rows: dict[tuple[str | int | float, ...], dict[str, Any]]) -> None:
        """Adds the differences to the best denoiser to rows, and to their table."""
        own_errors = self._errors_by_name(rows)
        found: list[Row] = []
        for (process, target, level), errors in own_errors.items():
            if len(errors) < 2:
                continue
            keys = {name: self.keys[process, target, name] for name in errors}
            others = [name for name in errors if not self.plan.is_target(name, target)]
            row = {"process": process, "target": target, "level": level, "sigma": self.plan.sigmas[level]}
            found += paired_rows({**row, "n": self.plan.n}, keys, errors, others)
        for one in found:
            rows[_key_of(one)] |= {
                "reference": one["reference"],
                "difference": one["difference"],
                "difference_error": one["standard_error"],
            }
        missing = [row for row in found if tuple(row[name] for name in PAIRED_KEY) not in self.folder.paired]
        if missing:
            self.folder.paired.add(*missing)

    def _errors_by_name(self, rows: Iterable[tuple[str | int | float, ...]]) -> dict[tuple[Any, ...], dict[str, Any]]:
        """The errors of single images, where they were kept, by process, target and level, and by denoiser."""
        errors: dict[tuple[Any, ...], dict[str, Any]] = {}
        for process, target, denoiser, key, level in rows:
            own = self.folder.image_errors.read(str(key), int(level), self.plan.n)
            if own is not None:
                errors.setdefault((process, target, level), {})[str(denoiser)] = own
        return errors

    def _sources(self) -> list[tuple[NoisyProcess, list[str]]]:
        """Every set of z, with the targets that share it: all of them in the forward process."""
        plan = self.plan
        reverse: list[tuple[NoisyProcess, list[str]]] = [("reverse", [name]) for name in plan.targets]
        shared: list[tuple[NoisyProcess, list[str]]] = [("forward", list(plan.targets)), ("file", list(plan.targets))]
        return [one for one in shared + reverse if one[0] in plan.processes]

    def _key(self, process: NoisyProcess, target: str, denoiser: str) -> str:
        settings = self.plan.row_settings(process, target, denoiser)
        self.folder.remember(settings_key(settings), {**settings, "made_with": self.made_with})
        return settings_key(settings)

    def _row_key(self, process: NoisyProcess, target: str, denoiser: str, level: int) -> tuple[str | int, ...]:
        return process, target, denoiser, self.keys[process, target, denoiser], level

    def _lacking(self, process: NoisyProcess, targets: list[str], level: int) -> dict[str, list[str]]:
        """The targets against which a row is missing, by denoiser."""
        missing = {
            denoiser: [one for one in targets if not self._is_there(self._row_key(process, one, denoiser, level))]
            for denoiser in self.plan.denoisers
        }
        return {denoiser: found for denoiser, found in missing.items() if found}

    def _is_there(self, key: tuple[str | int, ...]) -> bool:
        """Whether a row is there with every metric."""
        further = all((*key, metric) in self.folder.metrics for metric in self.plan.metrics)
        return further and key in self.folder.mse

    def _noisy(self, process: NoisyProcess, target: str) -> NoisyLevels:
        """Z of every level."""
        plan = self.plan
        if plan.z is not None:
            return file_levels(plan.z, plan.data.shape, len(plan.sigmas), plan.n)
        if process == "forward":
            return forward_levels(plan.noisy_images, plan.sigmas, plan.n, plan.seed)
        levels = plan.sigmas[plan.first : plan.levels[-1] + 1]
        settings = {**plan.settings(process, target), "levels": levels}
        what = f"trajectories of {target}"
        self._tell(self.done, what)
        return trajectory_levels(
            self.folder.noisy(target, settings_key(settings)),
            cast(Model, plan.targets[target]),
            plan.noisy_images,
            plan.sigmas,
            plan.n,
            inside=plan.levels,
            seed=plan.seed,
            sampler=plan.sampler,
            start=plan.start,
            start_scale=plan.start_scale,
            batch=plan.batch,
            settings=settings,
            record={"target": target, "sampler": plan.sampler, "seed": plan.seed},
            progress=lambda done, of: self._tell(self.done, f"{what}, {done} of {of}"),
        )

    def _level(self, process: NoisyProcess, targets: list[str], level: int, noisy: NoisyLevels) -> None:
        lacking = self._lacking(process, targets, level)
        if not lacking:
            return
        z = noisy[level]
        outputs = {name: self._denoised(name, self.plan.targets[name], z, level, process) for name in _needed(lacking)}
        for denoiser, against in lacking.items():
            clock = Clock()
            ours = self._denoised(denoiser, self.plan.denoisers[denoiser], z, level, process)
            rows, further, times = [], [], []
            for target in against:
                row = dict(zip(COMPARE_KEY, self._row_key(process, target, denoiser, level), strict=True))
                where: dict[str, str | int | float] = {"sigma": self.plan.sigmas[level], "n": self.plan.n}
                errors = squared_errors(ours, outputs[target])
                self.folder.image_errors.keep(str(row["settings"]), level, errors)
                value, error = mean_over_images(errors)
                rows.append({**row, **where, "mse": value, "standard_error": error})
                for metric in self.plan.metrics:
                    value, error = METRICS[metric].compute(ours, outputs[target])
                    further.append({**row, "metric": metric, **where, "value": value, "standard_error": error})
                times.append({**row, "seconds": round(clock.seconds, 4)})
            self.folder.times.add(*times)
            if further:
                self.folder.metrics.add(*further)
            self.folder.mse.add(*rows)

    def _denoised(
        self, name: str, model: Model | Clean, z: NDArray[Any], level: int, process: str
    ) -> NDArray[np.float32]:
        if isinstance(model, str):
            self.done += len(z)
            return self.plan.clean
        sigma, before = self.plan.sigmas[level], self.done
        self._tell(before, f"{process}, sigma {sigma:.3g}, {name}")
        progress = self.progress and (lambda images, of: self._tell(before + images))
        exclude = self.plan.left_out[name]
        outputs = denoise(model, z, sigma, self.plan.batch, name=name, exclude=exclude, progress=progress)
        self.done = before + len(z)
        return outputs

    def _tell(self, done: int, what: str = "") -> None:
        if what:
            describe(self.progress, what)
        if self.progress is not None:
            self.progress(done, self.total)


def _needed(lacking: Mapping[str, Sequence[str]]) -> list[str]:
    """The targets against which some row is missing."""
    return list(dict.fromkeys(target for targets in lacking.values() for target in targets))


Named = TypeVar("Named", bound=Mapping[str, Any])


def _named(kind: str, models: Named) -> Named:
    if not models:
        raise InvalidValueError(f"there are no {kind}; at least one is needed")
    return models


def _processes(processes: Sequence[str]) -> tuple[NoisyProcess, ...]:
    chosen = tuple(process for process in NOISY_PROCESSES if process in processes)
    if isinstance(processes, str) or not chosen or len(chosen) != len(set(processes)):
        raise InvalidValueError(f"processes are {processes!r}; allowed are some of {', '.join(NOISY_PROCESSES)}")
    return chosen


def _metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """The further metrics, each once; the MSE is there anyway."""
    if isinstance(metrics, str):
        raise DTypeError(f"metrics are {metrics!r:.80}; allowed are lists of {', '.join(METRICS)}")
    return tuple(dict.fromkeys(name for one in metrics if (name := one_of("a metric", one, METRICS)) != "mse"))


def _key_of(row: Row) -> tuple[str | int | float, ...]:
    return tuple(row[name] for name in COMPARE_KEY)


def _range(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    top = high if high == float("inf") else real_number("the range's upper end", high)
    return real_number("the range's lower end", low), top
