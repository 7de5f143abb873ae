"""MSE between denoisers and networks over noise levels, forward and reverse (Figures 2, 7, 15)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.evaluate import denoised, mean_squared_error
from pspc_rs.experiments.noisy import (
    Model,
    Start,
    check_start,
    checked_sampler,
    checked_seed,
    forward_noisy,
    save_reverse,
)
from pspc_rs.experiments.run_folder import RunFolder
from pspc_rs.experiments.settings import data_settings, model_settings, settings_key
from pspc_rs.experiments.table import Row
from pspc_rs.provenance import Clock
from pspc_rs.samplers import noise_source
from pspc_rs.sigmas import check_grid, edm_sigmas

Process: TypeAlias = Literal["forward", "reverse"]
Report: TypeAlias = Callable[[float, float, str], object]
"""Called as report(images done, images in all, what comes next)."""

PROCESSES: tuple[Process, ...] = ("forward", "reverse")


@dataclass(frozen=True)
class Plan:
    """What `compare` compares; the arguments of `compare` are described there."""

    data: ImageSet
    targets: Mapping[str, Model]
    denoisers: Mapping[str, Model]
    sigmas: tuple[float, ...]
    processes: tuple[Process, ...]
    n: int
    seed: int
    batch: int
    sampler: str
    start: Start
    sigma_range: tuple[float, float]

    @cached_property
    def levels(self) -> list[int]:
        """Indices of the levels of the grid that lie in the range."""
        low, high = self.sigma_range
        return [index for index, sigma in enumerate(self.sigmas) if low <= sigma <= high]

    @property
    def first(self) -> int:
        """The level at which trajectories begin: that of the grid if they start at noise alone."""
        return 0 if self.start == "noise" else self.levels[0]

    def settings(self, process: Process, target: str) -> dict[str, Any]:
        """Everything that decides the numbers against a target, besides the denoiser."""
        settings = {
            "process": process,
            "sigmas": self.sigmas,
            "n": self.n,
            "seed": self.seed,
            "batch": self.batch,
            "noise": f"{noise_source()} generator",
            **data_settings(self.data),
            "target": self._models[target],
        }
        if process == "reverse":
            settings |= {"sampler": self.sampler, "start": self.start, "first_level": self.first}
        return settings

    def row_settings(self, process: Process, target: str, denoiser: str) -> dict[str, Any]:
        """Everything that decides the numbers of a row, besides its level."""
        return {**self.settings(process, target), "denoiser": self._models[denoiser]}

    @cached_property
    def _models(self) -> dict[str, dict[str, Any]]:
        return {name: model_settings(model) for name, model in {**self.targets, **self.denoisers}.items()}


def compare(
    data: ImageSet,
    targets: Mapping[str, Model],
    denoisers: Mapping[str, Model],
    outdir: str | Path,
    *,
    sigmas: object = None,
    processes: Sequence[str] = PROCESSES,
    n: int = 256,
    seed: int = 0,
    batch: int = 50,
    sampler: str = "heun",
    start: Start = "noise",
    sigma_range: tuple[float, float] = (0.0, float("inf")),
    report: Report | None = None,
) -> list[Row]:
    """The MSE between denoisers and target networks at noise levels, one row a process, target, denoiser and level.

    E |D(z) - T(z)|^2 in [-1, 1] pixel units, mean over pixels and n images, with its standard error over images, as in
    Figure 7 of Niedoba et al. 2025. Forward z are noisy images of the data (`forward_noisy`), reverse z lie on
    trajectories of the target itself (`save_reverse`). Rows are written level by level to ``mse.csv`` in ``outdir``,
    under a key of all settings, which ``settings.json`` holds in full; seconds go to ``times.csv``. Rows that are
    there already are not computed again: a stopped run goes on, and another run adds to the table.

    Args:
        data: the images of the forward process.
        targets: networks D(z, sigma) by name.
        denoisers: denoisers or networks D(z, sigma) by name.
        outdir: folder of the run, made if need be.
        sigmas: descending noise levels, the EDM grid of 18 if not given; a final 0 plays no part.
        processes: "forward", "reverse", or both.
        n: noisy images a level, at least 2.
        seed: of the noisy images, 0 .. 2^32 - 1.
        batch: images at once.
        sampler: of the trajectories: "heun", "euler" or "dpmpp_2m".
        start: where trajectories start: at "noise" at the first level of the grid, or at noisy "data" at the first
            level in the range, for networks that are not good above it.
        sigma_range: lowest and highest level to compare at.
        report: called as work goes on.

    Returns:
        The rows of these settings, in the order of the table; the table itself may hold more.

    Raises:
        InvalidValueError: an argument is out of range, or a model returned NaN.
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
    plan = Plan(
        data,
        targets=_named("targets", targets),
        denoisers=_named("denoisers", denoisers),
        sigmas=tuple(level for level in _grid(sigmas) if level > 0),
        processes=_processes(processes),
        n=integer("n", n, least=2),
        seed=checked_seed(seed),
        batch=integer("batch", batch),
        sampler=checked_sampler(sampler),
        start=start,
        sigma_range=_range(sigma_range),
    )
    check_start(start)
    if not plan.levels:
        low, high = plan.sigma_range
        raise InvalidValueError(f"no level of the grid lies in the range {low:g} to {high:g}; take a wider one")
    for name in targets.keys() & denoisers.keys():
        if model_settings(targets[name]) != model_settings(denoisers[name]):
            raise InvalidValueError(f"{name!r} names both a target and another denoiser; give them two names")
    return _Comparison(plan, RunFolder(Path(outdir)), report or (lambda done, total, what: None)).run()


class _Comparison:
    """One call of `compare`: what is pending, and the loop over it."""

    def __init__(self, plan: Plan, folder: RunFolder, report: Report) -> None:
        self.plan = plan
        self.folder = folder
        self.report = report
        self.done = 0.0
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
        return [row for row in self.folder.mse if tuple(row[name] for name in self.folder.mse.key) in wanted]

    def _sources(self) -> list[tuple[Process, list[str]]]:
        """Every set of z, with the targets that share it: all of them in the forward process."""
        plan = self.plan
        reverse: list[tuple[Process, list[str]]] = [("reverse", [name]) for name in plan.targets]
        forward: list[tuple[Process, list[str]]] = [("forward", list(plan.targets))]
        return [one for one in forward + reverse if one[0] in plan.processes]

    def _key(self, process: Process, target: str, denoiser: str) -> str:
        settings = self.plan.row_settings(process, target, denoiser)
        self.folder.remember(settings_key(settings), settings)
        return settings_key(settings)

    def _row_key(self, process: Process, target: str, denoiser: str, level: int) -> tuple[str | int, ...]:
        return process, target, denoiser, self.keys[process, target, denoiser], level

    def _lacking(self, process: Process, targets: list[str], level: int) -> dict[str, list[str]]:
        """The targets against which a row is missing, by denoiser."""
        missing = {
            denoiser: [one for one in targets if self._row_key(process, one, denoiser, level) not in self.folder.mse]
            for denoiser in self.plan.denoisers
        }
        return {denoiser: found for denoiser, found in missing.items() if found}

    def _noisy(self, process: Process, target: str) -> Callable[[int], NDArray[Any]]:
        """A function that returns z of a level."""
        plan = self.plan
        if process == "forward":
            return lambda level: forward_noisy(plan.data, plan.n, plan.sigmas[level], plan.seed)
        levels = plan.sigmas[plan.first : plan.levels[-1] + 1]
        output = self.folder.noisy(target, settings_key({**plan.settings(process, target), "levels": levels}))
        self.report(self.done, self.total, f"trajectories of {target}")
        save_reverse(
            output,
            plan.targets[target],
            plan.data.shape,
            levels,
            plan.n,
            seed=plan.seed,
            sampler=plan.sampler,
            batch=plan.batch,
            start_data=plan.data if plan.start == "data" else None,
            resume=True,
            record={"target": target, "sampler": plan.sampler, "seed": plan.seed},
            tick=lambda done, of: self.report(self.done, self.total, f"trajectories of {target}, {done} of {of}"),
        )
        stored = np.load(output, mmap_mode="r")
        return lambda level: np.array(stored[level - plan.first])

    def _level(self, process: Process, targets: list[str], level: int, noisy: Callable[[int], NDArray[Any]]) -> None:
        lacking = self._lacking(process, targets, level)
        if not lacking:
            return
        z = noisy(level)
        outputs = {name: self._denoised(name, self.plan.targets[name], z, level, process) for name in _needed(lacking)}
        for denoiser, against in lacking.items():
            clock = Clock()
            ours = self._denoised(denoiser, self.plan.denoisers[denoiser], z, level, process)
            rows, times = [], []
            for target in against:
                error = mean_squared_error(ours, outputs[target])
                row = dict(zip(self.folder.mse.key, self._row_key(process, target, denoiser, level), strict=True))
                sigma = self.plan.sigmas[level]
                rows.append(
                    {**row, "sigma": sigma, "n": self.plan.n, "mse": error.mean, "standard_error": error.standard_error}
                )
                times.append({**row, "seconds": round(clock.seconds, 4)})
            self.folder.times.add(*times)
            self.folder.mse.add(*rows)

    def _denoised(self, name: str, model: Model, z: NDArray[Any], level: int, process: str) -> NDArray[np.float32]:
        sigma = self.plan.sigmas[level]
        what, before = f"{process}, sigma {sigma:.3g}, {name}", self.done
        self.report(before, self.total, what)
        outputs = denoised(model, z, sigma, self.plan.batch, name=name, count=partial(self._count, before, what))
        self.done = before + len(z)
        return outputs

    def _count(self, before: float, what: str, images: float) -> None:
        self.report(before + images, self.total, what)


def _needed(lacking: Mapping[str, Sequence[str]]) -> list[str]:
    """The targets against which some row is missing."""
    return list(dict.fromkeys(target for targets in lacking.values() for target in targets))


def _grid(sigmas: object) -> list[float]:
    levels: list[float] = (edm_sigmas() if sigmas is None else check_grid(sigmas)).tolist()
    return levels


def _named(kind: str, models: Mapping[str, Model]) -> Mapping[str, Model]:
    if not models:
        raise InvalidValueError(f"there are no {kind}; at least one is needed")
    return models


def _processes(processes: Sequence[str]) -> tuple[Process, ...]:
    chosen = tuple(process for process in PROCESSES if process in processes)
    if isinstance(processes, str) or not chosen or len(chosen) != len(set(processes)):
        raise InvalidValueError(f"processes are {processes!r}; allowed are some of {', '.join(PROCESSES)}")
    return chosen


def _range(limits: tuple[float, float]) -> tuple[float, float]:
    low, high = limits
    top = high if high == float("inf") else real_number("the range's upper end", high)
    return real_number("the range's lower end", low), top
