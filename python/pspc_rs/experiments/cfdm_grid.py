"""The error of CFDM for many settings at once, to choose those that come closest to a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import Empirical
from pspc_rs.denoisers.cfdm import perturbed, smoothing_noises
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.evaluate import Count, denoised, mean_squared_error


@dataclass(frozen=True)
class CFDMErrors:
    """The MSE of CFDM for a grid of settings.

    Attributes:
        smoothings: s, [S].
        num_noises: M, [M].
        sigmas: noise levels, [levels].
        mse: mean over pixels and images of |D - T|^2, float64 [S, M, levels].
        standard_error: of that mean over images, [S, M, levels].
    """

    smoothings: tuple[float, ...]
    num_noises: tuple[int, ...]
    sigmas: tuple[float, ...]
    mse: NDArray[np.float64]
    standard_error: NDArray[np.float64]

    @property
    def best(self) -> tuple[float, int]:
        """The s and M whose MSE is least in the geometric mean over levels; it spans orders of magnitude."""
        means = np.log(self.mse.clip(min=np.finfo(float).tiny)).mean(axis=2)
        s, m = np.unravel_index(int(means.argmin()), means.shape)
        return self.smoothings[s], self.num_noises[m]


def cfdm_mse(
    data: ImageSet,
    target: Callable[..., Any],
    z: Sequence[NDArray[Any]],
    sigmas: Sequence[float],
    *,
    smoothings: Sequence[float],
    num_noises: Sequence[int] = (8,),
    seed: int = 0,
    batch: int = 50,
    count: Count | None = None,
) -> CFDMErrors:
    """The MSE of `CFDM` against a target for every smoothing s, number of noises M and noise level.

    The noises of a small M are the first ones of a larger M, so that all M cost as much as the largest.

    Args:
        data: the training images of CFDM.
        target: network or denoiser D(z, sigma).
        z: noisy images of every level, each [N, C, H, W], at least two.
        sigmas: the noise level of each.
        smoothings: s to try.
        num_noises: M to try.
        seed: seed of the noises.
        batch: images at once.
        count: called with the number of denoised images so far.

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
    if not (len(z) and len(smoothings) and len(num_noises)) or len(z) != len(sigmas):
        raise InvalidValueError(
            f"there are {len(z)} sets of z, {len(sigmas)} levels, {len(smoothings)} smoothings and {len(num_noises)} "
            "numbers of noises; needed is at least one of each, and a set of z a level"
        )
    sizes = [integer("num_noises", num) for num in num_noises]
    scales = [real_number("smoothing", smoothing) for smoothing in smoothings]
    empirical = Empirical(data)
    noises = smoothing_noises(data.shape, max(sizes), seed)
    errors = np.empty((2, len(scales), len(sizes), len(sigmas)))
    done = _Sum(count)
    for level, (noisy, sigma) in enumerate(zip(z, sigmas, strict=True)):
        wanted = denoised(target, noisy, sigma, batch, name="the target", count=done.part())
        for s, smoothing in enumerate(scales):
            total = np.zeros(noisy.shape)
            for m, noise in enumerate(noises, start=1):
                moved = perturbed(noisy, np.full(len(noisy), sigma), noise[None], smoothing)[:, 0]
                total += denoised(empirical, moved, sigma, batch, name="CFDM", count=done.part())
                for index in (i for i, size in enumerate(sizes) if size == m):
                    errors[:, s, index, level] = mean_squared_error(total / m, wanted)
    return CFDMErrors(tuple(scales), tuple(sizes), tuple(sigmas), errors[0], errors[1])


class _Sum:
    """Counts of several calls as one."""

    def __init__(self, count: Count | None) -> None:
        self._count = count
        self._before = self._now = 0.0

    def part(self) -> Count:
        self._before += self._now
        self._now = 0.0
        return self._tell

    def _tell(self, images: float) -> None:
        self._now = images
        if self._count is not None:
            self._count(self._before + images)
