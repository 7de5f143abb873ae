"""Settings of the paper's baselines, CFDM and SNIS, that come closest to a target over all noise levels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import SNIS, Empirical
from pspc_rs.denoisers.cfdm import perturbed, smoothing_noises
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.evaluate import Model, denoise
from pspc_rs.experiments.leaving_out import Sources, check_images, left_out
from pspc_rs.experiments.metrics import mean_squared_error
from pspc_rs.progress import Progress, Steps, renamed_progress


@dataclass(frozen=True)
class Tuned:
    """The settings of least error.

    Attributes:
        best: the settings by name.
        columns: every error that was computed: one column per setting, then sigma, mse and standard_error.
    """

    best: Mapping[str, float]
    columns: Mapping[str, list[Any]]

    def __repr__(self) -> str:
        return f"Tuned({', '.join(f'{name}={value:g}' for name, value in self.best.items())})"


def tune_cfdm(
    data: ImageSet,
    target: Model,
    z: Sequence[NDArray[Any]],
    sigmas: Sequence[float],
    smoothings: Sequence[float],
    *,
    num_noises: int = 8,
    seed: int = 0,
    batch: int = 50,
    sources: Sources | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """The smoothing s and number of noises M of CFDM whose errors have the least geometric mean over levels.

    Args:
        data: the training images.
        target: D(z, sigma).
        z: noisy images of every level.
        sigmas: their noise levels.
        smoothings: s to try.
        num_noises: the largest M; its halves down to 1 are tried too.
        seed: of the noises.
        batch: images at once.
        sources: the images that z were made of, to leave each out of what is made of its z; none if not given.
        progress: called as ``progress(images denoised, images to denoise)``.
    """
    sizes = sorted({max(1, num_noises >> power) for power in range(num_noises.bit_length())})
    errors = cfdm_mse(
        data,
        target,
        z,
        sigmas,
        smoothings=smoothings,
        num_noises=sizes,
        seed=seed,
        batch=batch,
        sources=sources,
        progress=progress,
    )
    index = [(s, m, level) for s in range(len(smoothings)) for m in range(len(sizes)) for level in range(len(sigmas))]
    smoothing, noises = errors.best
    columns: dict[str, list[Any]] = {
        "smoothing": [errors.smoothings[s] for s, _, _ in index],
        "num_noises": [sizes[m] for _, m, _ in index],
        "sigma": [sigmas[level] for _, _, level in index],
        "mse": [float(errors.mse[one]) for one in index],
        "standard_error": [float(errors.standard_error[one]) for one in index],
    }
    return Tuned({"smoothing": smoothing, "num_noises": noises}, columns)


def tune_snis(
    data: ImageSet,
    target: Model,
    z: Sequence[NDArray[Any]],
    sigmas: Sequence[float],
    neighbors: Sequence[int],
    *,
    num_draws: int = 256,
    seed: int = 0,
    batch: int = 50,
    sources: Sources | None = None,
    progress: Progress | None = None,
) -> Tuned:
    """The number of neighbours of SNIS whose errors have the least geometric mean over levels.

    Args:
        data: the training images.
        target: D(z, sigma).
        z: noisy images of every level.
        sigmas: their noise levels.
        neighbors: k to try.
        num_draws: L.
        seed: of the draws.
        batch: images at once.
        sources: the images that z were made of, to leave each out of what is made of its z; none if not given.
        progress: called as ``progress(settings done, settings)``, over all levels; its `describe` gets each one.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("num_neighbors", "sigma", "mse", "standard_error")}
    errors = np.empty((len(neighbors), len(sigmas)))
    steps = Steps(progress, errors.size)
    exclude, of_target = _left_out(data, target, sources)
    for level, (noisy, sigma) in enumerate(zip(z, sigmas, strict=True)):
        wanted = denoise(target, noisy, sigma, batch, name="the target", exclude=of_target)
        for k, num in enumerate(neighbors):
            ours = denoise(SNIS(data, num, num_draws, seed), noisy, sigma, batch, exclude=exclude)
            error = mean_squared_error(ours, wanted)
            errors[k, level] = error.mean
            for name, value in zip(columns, (num, sigma, error.mean, error.standard_error), strict=True):
                columns[name].append(value)
            steps.finish(f"snis {num}, sigma {sigma:.3g}")
    best = int(np.log(errors.clip(min=np.finfo(float).tiny)).mean(axis=1).argmin())
    return Tuned({"num_neighbors": neighbors[best], "num_draws": num_draws}, columns)


@dataclass(frozen=True)
class CFDMErrors:
    """The MSE of CFDM for a grid of settings.

    Attributes:
        smoothings: s, [S].
        num_noises: M, [M].
        sigmas: noise levels, [levels].
        mse: mean over pixels and images of |D - T|^2, float64 [S, M, levels].
        standard_error: of that mean over images, [S, M, levels].

    Example:
        >>> CFDMErrors((0.5, 0.7), (8,), (1.0,), np.array([[[0.2]], [[0.1]]]), np.zeros((2, 1, 1))).best
        (0.7, 8)
    """

    smoothings: tuple[float, ...]
    num_noises: tuple[int, ...]
    sigmas: tuple[float, ...]
    mse: NDArray[np.float64]
    standard_error: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"CFDMErrors(smoothings {self.smoothings}, num_noises {self.num_noises}, {len(self.sigmas)} levels)"

    @property
    def best(self) -> tuple[float, int]:
        """The s and M whose MSE is least in the geometric mean over levels; it spans orders of magnitude."""
        means = np.log(self.mse.clip(min=np.finfo(float).tiny)).mean(axis=2)
        s, m = np.unravel_index(int(means.argmin()), means.shape)
        return self.smoothings[s], self.num_noises[m]


def cfdm_mse(
    data: ImageSet,
    target: Model,
    z: Sequence[NDArray[Any]],
    sigmas: Sequence[float],
    *,
    smoothings: Sequence[float],
    num_noises: Sequence[int] = (8,),
    seed: int = 0,
    batch: int = 50,
    sources: Sources | None = None,
    progress: Progress | None = None,
    count: Callable[[int], object] | None = None,
) -> CFDMErrors:
    """The MSE of `CFDM` against a target for every smoothing s, number of noises M and noise level.

    The noises of a small M are the first ones of a larger M, so that all M cost as much as the largest.

    Args:
        data: the training images of CFDM.
        target: network or denoiser D(z, sigma).
        z: noisy images of every level, each [N, C, H, W] with N at least 2.
        sigmas: the noise level of each.
        smoothings: s to try.
        num_noises: M to try.
        seed: seed of the noises.
        batch: images at once.
        sources: the images that z were made of, to leave each out of what is made of its z; none if not given.
        progress: called as ``progress(images denoised, images to denoise)``.
        count: deprecated; the earlier name of ``progress``, called as ``count(images denoised)``.

    Raises:
        InvalidValueError: an argument is out of range or empty, or there are not as many levels as sets of z.

    Example:
        >>> import pspc_rs as pspc
        >>> data = ImageSet(np.random.default_rng(0).integers(0, 256, (20, 1, 3, 3), dtype=np.uint8))
        >>> z = np.random.default_rng(1).standard_normal((4, 1, 3, 3))
        >>> errors = cfdm_mse(data, pspc.CFDM(data, 0.5, 4), [z], [1.0], smoothings=[0.1, 0.5], num_noises=[2, 4])
        >>> errors.best
        (0.5, 4)
    """
    progress = renamed_progress(progress, "count", count, ("done",))
    if not (len(z) and len(smoothings) and len(num_noises)) or len(z) != len(sigmas):
        raise InvalidValueError(
            f"there are {len(z)} sets of z, {len(sigmas)} levels, {len(smoothings)} smoothings and {len(num_noises)} "
            "numbers of noises; needed is at least one of each, and one set of z per level"
        )
    sizes = [integer("num_noises", num) for num in num_noises]
    scales = [real_number("smoothing", smoothing) for smoothing in smoothings]
    empirical = Empirical(data)
    exclude, of_target = _left_out(data, target, sources)
    noises = smoothing_noises(data.shape, max(sizes), seed)
    errors = np.empty((2, len(scales), len(sizes), len(sigmas)))
    images = _Images(progress, sum(map(len, z)) * (1 + len(scales) * max(sizes)))
    for level, (noisy, sigma) in enumerate(zip(z, sigmas, strict=True)):
        part = images.part(len(noisy))
        wanted = denoise(target, noisy, sigma, batch, name="the target", exclude=of_target, progress=part)
        for s, smoothing in enumerate(scales):
            total = np.zeros(noisy.shape)
            for m, noise in enumerate(noises, start=1):
                moved = perturbed(noisy, np.full(len(noisy), sigma), noise[None], smoothing)[:, 0]
                part = images.part(len(noisy))
                total += denoise(empirical, moved, sigma, batch, name="CFDM", exclude=exclude, progress=part)
                for index in (i for i, size in enumerate(sizes) if size == m):
                    errors[:, s, index, level] = mean_squared_error(total / m, wanted)
    return CFDMErrors(tuple(scales), tuple(sizes), tuple(sigmas), errors[0], errors[1])


def _left_out(data: ImageSet, target: Model, sources: Sources | None) -> tuple[Any, Any]:
    """What denoisers of the data and the target leave out of each z."""
    if sources is None:
        return None, None
    check_images("the baseline", data, sources)
    return sources.indices, left_out("the target", target, sources)


class _Images:
    """The images of several calls counted together."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._started = progress, total, 0

    def part(self, size: int) -> Progress | None:
        """The progress of the next call, which denoises this many images."""
        before = self._started
        self._started += size
        progress, total = self._progress, self._total
        return progress and (lambda done, of: progress(before + done, total))
