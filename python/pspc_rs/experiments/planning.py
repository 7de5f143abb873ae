"""What a run will cost: time, memory and traffic per noise level, from a cost model and a short measurement."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import MAX_SIGMA, MIN_SIGMA
from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.progress import Progress, Steps
from pspc_rs.provenance import peak_memory

STATE_BYTES = 16
"""Bytes that describe the posterior of one component of a query: a shift and a sum, both float64."""

EVIDENCE_BYTES = 8
"""Bytes of the log evidence of one component of a query, a float64."""

SUM_BYTES = 8
"""Bytes of one value of a query's sum, a float64."""

PASSES = 2
"""How often the images are read in a call: for the posteriors, and for the means under them."""

_MOST_QUERIES = 64
_FIRST_IMAGES = 512
_GROWTH = 4

Build = Callable[[ImageSet], PosteriorComposite]
"""Makes the denoiser of some images."""


@dataclass(frozen=True)
class Workload:
    """One call of a denoiser: the images, the queries, and the processes that share the images.

    Attributes:
        images: N, stored images.
        views: how many times every image counts: 2 with flips.
        shape: (C, H, W) of every image.
        itemsize: bytes of a stored value: 1, or 4 for floats.
        queries: how many images are denoised at once.
        ranks: how many processes share the images.

    Example:
        >>> work = Workload(1_281_167, 2, (3, 64, 64), 1, 64, 4)
        >>> work.images_per_rank, work.image_bytes, work.sum_bytes
        (320292, 3935748096, 6291456)
        >>> work.evidence_bytes(58 * 58), work.pairs
        (1722368, 40997376)
    """

    images: int
    views: int
    shape: tuple[int, int, int]
    itemsize: int
    queries: int
    ranks: int

    @property
    def images_per_rank(self) -> int:
        """Stored images of the rank that has most."""
        return -(-self.images // self.ranks)

    @property
    def image_bytes(self) -> int:
        """Bytes of images that a rank maps into memory."""
        return self.images_per_rank * math.prod(self.shape) * self.itemsize

    @property
    def pairs(self) -> int:
        """Pairs of an image, as it is seen, and a query, for each rank."""
        return self.images_per_rank * self.views * self.queries

    @property
    def sum_bytes(self) -> int:
        """Bytes of the sums that the second pass ends with, which the ranks add up."""
        return SUM_BYTES * self.queries * math.prod(self.shape)

    @property
    def query_bytes(self) -> int:
        """Bytes of the noisy images and of the denoised ones, float32."""
        return 2 * 4 * self.queries * math.prod(self.shape)

    def state_bytes(self, components: int) -> int:
        """Bytes of the states that the first pass ends with."""
        return STATE_BYTES * self.queries * components

    def evidence_bytes(self, components: int) -> int:
        """Bytes of the log evidence that follows from the states, which every rank sends to the others."""
        return EVIDENCE_BYTES * self.queries * components


@dataclass(frozen=True)
class LevelCost:
    """What one call costs at a noise level.

    Attributes:
        sigma: the noise level.
        components: windows, masks or pixels that each have a posterior.
        seconds_per_pair: measured, for an image as it is seen and a query, both passes.
        seconds: of the call, with the images in memory and without the network.
        evidence_bytes: of log evidence, which every rank sends; 0 where one process has all images.
        sum_bytes: of the sums that the ranks add up; 0 where one process has all images.
        memory_bytes: of every process, besides the images it maps and the program.

    Example:
        >>> level_cost(Workload(1000, 1, (3, 8, 8), 1, 10, 1), 1.0, 36, 1e-6).memory_bytes
        36480
    """

    sigma: float
    components: int
    seconds_per_pair: float
    seconds: float
    evidence_bytes: int
    sum_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a run will cost.

    Attributes:
        work: the call that is made at every level.
        levels: what it costs at each.
        sample_images: the most images that the rate was measured on.
        program_bytes: memory of this process after the measurement without its images; None where that is unknown.

    Example:
        >>> work = Workload(1000, 1, (3, 8, 8), 1, 10, 1)
        >>> levels = tuple(level_cost(work, sigma, 36, 1e-6) for sigma in (1.0, 0.1))
        >>> round(Plan(work, levels, 1000, None).seconds, 9)
        0.02
    """

    work: Workload
    levels: tuple[LevelCost, ...]
    sample_images: int
    program_bytes: int | None

    @property
    def seconds(self) -> float:
        """Of one call at every level."""
        return sum(level.seconds for level in self.levels)


def level_cost(work: Workload, sigma: float, components: int, seconds_per_pair: float) -> LevelCost:
    """The cost of a call by the model: time is in proportion to the pairs, traffic to queries, components and values.

    Example:
        >>> cost = level_cost(Workload(1000, 1, (3, 8, 8), 1, 10, 2), 1.0, 36, 1e-6)
        >>> round(cost.seconds, 9), cost.evidence_bytes, cost.sum_bytes, cost.memory_bytes
        (0.005, 2880, 15360, 36480)
    """
    states, sums = work.state_bytes(components), work.sum_bytes
    shared = work.ranks > 1
    return LevelCost(
        sigma=sigma,
        components=components,
        seconds_per_pair=seconds_per_pair,
        seconds=seconds_per_pair * work.pairs,
        evidence_bytes=work.evidence_bytes(components) if shared else 0,
        sum_bytes=sums if shared else 0,
        memory_bytes=states + sums + work.query_bytes,
    )


def plan(
    build: Build,
    data: ImageSet,
    sigmas: Sequence[float],
    queries: int,
    ranks: int = 1,
    *,
    seconds: float = 6.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Plan:
    """What calls of a denoiser will cost, by its rate on this machine, measured on evenly spaced images of the data.

    The rate is that of a process with the threads that this one has; ranks that share a machine share its cores. It is
    measured with up to 64 queries, since many at once take less time each.

    Args:
        build: makes the denoiser of some images.
        data: the training images.
        sigmas: noise levels.
        queries: how many images are denoised at once.
        ranks: how many processes share the images.
        seconds: about so long is measured, over all levels.
        seed: of the noise of the queries.
        progress: called as ``progress(done, total)`` with levels.

    Raises:
        InvalidValueError: a number is out of range.
        PspcError: the denoiser cannot be made.

    Example:
        >>> import pspc_rs as pspc
        >>> data = pspc.ImageSet(np.arange(64 * 50, dtype=np.uint8).reshape(50, 1, 8, 8))
        >>> found = plan(lambda part: pspc.PSPCSquare(part, patch_sizes=3), data, [1.0], queries=4, seconds=0.01)
        >>> [level.components for level in found.levels], found.work.pairs, found.seconds > 0
        ([36], 200, True)
    """
    levels = [real_number("each sigma", sigma, least=MIN_SIGMA, most=MAX_SIGMA) for sigma in sigmas]
    ranks, queries = integer("ranks", ranks), integer("queries", queries)
    budget = real_number("seconds", seconds, above=0) / max(1, len(levels))
    rng, taken = np.random.default_rng(seed), min(queries, _MOST_QUERIES)
    clean = data.batch(rng.integers(0, len(data), taken))
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    sample, steps = _Sample(build, data), Steps(progress, len(levels))
    views = sample.first.num_views
    work = Workload(data.num_stored, views, data.shape, data.dtype.itemsize, queries, ranks)
    costs = []
    for sigma in levels:
        z = clean + np.float32(sigma) * noise
        components = int(sample.first.posterior(z[:1], sigma, top=1).entropy.shape[1])
        rate = sample.seconds_per_image(z, sigma, budget) / (views * taken)
        costs.append(level_cost(work, sigma, components, rate))
        steps.finish(f"sigma {sigma:.3g}")
    used = peak_memory()
    program = None if used is None else max(0, used - 2 * sample.largest * data.images[0].nbytes)
    return Plan(work, tuple(costs), sample.largest, program)


class _Sample:
    """Denoisers of evenly spaced images of the data, more and more of them.

    Attributes:
        largest: the most images so far.
    """

    def __init__(self, build: Build, data: ImageSet) -> None:
        self._build = build
        self._data = data
        self._models: dict[int, PosteriorComposite] = {}
        self.largest = 0

    def __repr__(self) -> str:
        return f"_Sample({self._data!r}, {sorted(self._models)})"

    @property
    def first(self) -> PosteriorComposite:
        """The denoiser of the smallest sample."""
        return self.model(min(_FIRST_IMAGES, self._data.num_stored))

    def model(self, images: int) -> PosteriorComposite:
        """The denoiser of so many images."""
        if images not in self._models:
            chosen = np.linspace(0, self._data.num_stored - 1, images).round().astype(np.int64)
            self._models[images] = self._build(self._data.subset(chosen))
            self.largest = max(self.largest, images)
        return self._models[images]

    def seconds_per_image(self, z: NDArray[np.float32], sigma: float, budget: float) -> float:
        """Seconds per stored image of a call, of the sample that takes about the budget; the better of two calls."""
        images, most = min(_FIRST_IMAGES, self._data.num_stored), self._data.num_stored
        spent = self._timed(images, z, sigma)
        while spent < budget / _GROWTH and images < most:
            images = min(images * _GROWTH, most)
            spent = self._timed(images, z, sigma)
        return min(spent, self._timed(images, z, sigma)) / images

    def _timed(self, images: int, z: NDArray[np.float32], sigma: float) -> float:
        model = self.model(images)
        start = time.perf_counter()
        model(z, sigma)
        return time.perf_counter() - start
