"""Settings of the paper's baselines, CFDM and SNIS, that come closest to a target over all noise levels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.denoisers import SNIS
from pspc_rs.experiments.cfdm_grid import cfdm_mse
from pspc_rs.experiments.evaluate import denoised, mean_squared_error

Tick = Callable[[int, int, str], object]
"""Called as ``tick(done, total, what)``."""


@dataclass(frozen=True)
class Tuned:
    """The settings of least error.

    Attributes:
        best: the settings by name.
        columns: every error that was computed: a column a setting, sigma, mse and standard_error.
    """

    best: Mapping[str, float]
    columns: Mapping[str, list[Any]]


def tune_cfdm(
    data: ImageSet,
    target: Callable[..., Any],
    z: Sequence[NDArray[Any]],
    sigmas: Sequence[float],
    smoothings: Sequence[float],
    *,
    num_noises: int = 8,
    seed: int = 0,
    batch: int = 50,
    tick: Tick | None = None,
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
        tick: called as work goes on.
    """
    sizes = sorted({max(1, num_noises >> power) for power in range(num_noises.bit_length())})
    total = sum(len(level) for level in z) * (1 + len(smoothings) * max(sizes))
    count = None if tick is None else lambda images: tick(round(images), total, "cfdm")
    errors = cfdm_mse(
        data, target, z, sigmas, smoothings=smoothings, num_noises=sizes, seed=seed, batch=batch, count=count
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
    target: Callable[..., Any],
    z: Sequence[NDArray[Any]],
    sigmas: Sequence[float],
    neighbors: Sequence[int],
    *,
    num_draws: int = 256,
    seed: int = 0,
    batch: int = 50,
    tick: Tick | None = None,
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
        tick: called as work goes on.
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("num_neighbors", "sigma", "mse", "standard_error")}
    errors = np.empty((len(neighbors), len(sigmas)))
    for level, (noisy, sigma) in enumerate(zip(z, sigmas, strict=True)):
        wanted = denoised(target, noisy, sigma, batch, name="the target", count=lambda images: None)
        for k, num in enumerate(neighbors):
            ours = denoised(SNIS(data, num, num_draws, seed), noisy, sigma, batch, count=lambda images: None)
            error = mean_squared_error(ours, wanted)
            errors[k, level] = error.mean
            for name, value in zip(columns, (num, sigma, error.mean, error.standard_error), strict=True):
                columns[name].append(value)
            if tick is not None:
                tick(level * len(neighbors) + k + 1, errors.size, f"snis {num}, sigma {sigma:.3g}")
    best = int(np.log(errors.clip(min=np.finfo(float).tiny)).mean(axis=1).argmin())
    return Tuned({"num_neighbors": neighbors[best], "num_draws": num_draws}, columns)
