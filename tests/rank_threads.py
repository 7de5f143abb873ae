"""Ranks that are threads of one process, for tests of what ranks compute together."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import pspc_rs as pspc
from pspc_rs.denoisers import PosteriorComposite
from pspc_rs.ranks import Float64, Ranks

Array = npt.NDArray[Any]


class RankThreads(Ranks):
    """A rank that is a thread: what `Ranks` says through torch, the threads say through a shared list."""

    def __init__(self, number: int, slots: list[Any], barrier: threading.Barrier) -> None:
        self.number, self.count = number, len(slots)
        self._slots, self._barrier = slots, barrier

    def gather(self, numbers: Float64) -> Float64:
        self._slots[self.number] = np.array(numbers, np.float64)
        self._barrier.wait(30)
        gathered = np.stack(self._slots)
        self._barrier.wait(30)
        return gathered

    def sum(self, numbers: Float64) -> Float64:
        total: Float64 = self.gather(numbers).sum(axis=0)
        return total


FAMILY: dict[str, Callable[[pspc.ImageSet], PosteriorComposite]] = {
    "empirical": pspc.Empirical,
    "masks": lambda data: pspc.PSPCFlex(data, masks=np.stack([np.tri(*data.shape[1:]), np.ones(data.shape[1:])]) > 0),
    "ls": lambda data: pspc.LS(data, window_sizes=3),
    "els": lambda data: pspc.ELS(data, window_sizes=1),
    "bbels": lambda data: pspc.BBELS(data, window_sizes=3),
    "soft": lambda data: pspc.SoftPSPC(data, 0.8),
    "soft, centre": lambda data: pspc.SoftPSPC(data, 0.8, response="centre"),
    "orbit": lambda data: pspc.PSPCSquare(data, patch_sizes=2, source=pspc.Orbit(yflip=True)),
    "pca": lambda data: pspc.PCALocality(data, 0.3, maximum="row"),
}
"""The members of the family but for squares."""

SIGMAS = [0.3, 1.0, 0.05]


def problem() -> tuple[pspc.ImageSet, Array]:
    """Images and noisy images for ranks that are processes."""
    random = np.random.default_rng(0)
    data = pspc.ImageSet(random.integers(0, 256, (101, 3, 8, 8), dtype=np.uint8), xflip=True)
    return data, data.batch([0, 50, 100]) + 0.3 * random.standard_normal((3, 3, 8, 8))


def derivatives_of(D: PosteriorComposite, z: Array) -> dict[str, Array]:
    """Products with the Jacobian and variances."""
    return {
        "jvp": np.asarray(D.jvp(z, SIGMAS, z)[1]),
        "vjp": np.asarray(D.vjp(z, SIGMAS, z)[1]),
        "variance": np.asarray(D.posterior(z, SIGMAS).variance),
    }


def on_ranks(D: PosteriorComposite, count: int, call: Callable[[PosteriorComposite, int], Any]) -> list[Any]:
    """What a call of a denoiser gives on each of some ranks, or the exception that it ends with."""
    slots: list[Any] = [None] * count
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        own = copy.copy(D)
        own._ranks, own.can_compute_on_gpu = RankThreads(number, slots, barrier), False
        own._start_engine()
        try:
            results[number] = call(own, number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
