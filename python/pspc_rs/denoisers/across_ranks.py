"""`EngineAcrossRanks`: an engine over the images of several ranks, each of which has a part of them.

A composite takes the ranks two exchanges besides a check that all compute the same: the log evidence of every query and
component after the first pass, from which every rank knows the share of its own images in the sums of weights; and the
sums of what the images of each rank add to the denoised images. Both are float64. Derivatives take a third exchange
between these two, of the means of products of images and directions, and variances one after them, of moments.
"""

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.denoisers.filters import Windows
from pspc_rs.errors import InvalidValueError, PspcError
from pspc_rs.progress import Progress, part_of
from pspc_rs.ranks import Float64, Ranks

Indices = npt.NDArray[np.uint32]

_FAILED = -1
"""What a rank that failed says in the place of its number of components."""


class EngineAcrossRanks:
    """What `_core.Engine` computes, over the images of all ranks; every rank makes the same calls and gets the same.

    Args:
        engine: of the images of this rank.
        ranks: the ranks.
        part: which images of the data set these are.
        num_images: how many there are on all ranks.
        on_gpu: whether the engine is on a GPU; those of all ranks must be, or none.
    """

    def __init__(
        self, engine: _core.Engine, ranks: Ranks, part: range, num_images: int, *, on_gpu: bool = False
    ) -> None:
        self._engine, self._ranks, self._part, self._num_images = engine, ranks, part, num_images
        self._on_gpu = np.array(on_gpu)

    def __repr__(self) -> str:
        return f"EngineAcrossRanks({self._engine!r}, {self._ranks!r})"

    def composite(
        self,
        components: Windows,
        z: Any,
        sigma: list[float],
        flips: bool,
        progress: Progress | None = None,
        *,
        images: Indices | None = None,
        left_out: Sequence[Indices] | None = None,
    ) -> npt.NDArray[np.float32]:
        """See `_core.Engine.composite`."""
        call = _Call(self._ranks, self._part, z, sigma, [self._on_gpu], images=images, left_out=left_out)
        found = call.first_pass(self._engine.rank_evidence, components, flips, part_of(progress, 0, 1, 2))
        return call.summed(found, part_of(progress, 1, 1, 2)).astype(np.float32)

    def evidence(
        self,
        components: Windows,
        z: Any,
        sigma: list[float],
        flips: bool,
        progress: Progress | None = None,
        *,
        images: Indices | None = None,
        left_out: Sequence[Indices] | None = None,
    ) -> "PosteriorsAcrossRanks":
        """See `_core.Engine.evidence`."""
        call = _Call(self._ranks, self._part, z, sigma, [self._on_gpu], images=images, left_out=left_out)
        found = call.first_pass(self._engine.evidence, components, flips, progress)
        return PosteriorsAcrossRanks(call, found, self._num_images, self._engine, components)

    def tell_failure(self) -> None:
        """Ends the call that the others make and this rank cannot."""
        with suppress(PspcError):
            self._ranks.gather(np.array([_FAILED, 0, 0], np.float64))

    def jvp(
        self,
        components: Windows,
        z: Any,
        sigma: list[float],
        flips: bool,
        *,
        v: Float64,
        transposed: bool,
        progress: Progress | None = None,
        images: Indices | None = None,
        left_out: Sequence[Indices] | None = None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `_core.Engine.jvp`."""
        further = [self._on_gpu, v, np.array(transposed)]
        call = _Call(self._ranks, self._part, z, sigma, further, images=images, left_out=left_out)
        found = call.first_pass(self._engine.evidence, components, flips, part_of(progress, 0, 1, 3))
        own = np.ascontiguousarray(v[:, call.queries])
        means = call.sums(
            found,
            [(len(v), None, call.log_shares.shape[1])],
            lambda found: [np.exp(call.shares) * found.mean_products(own, transposed, part_of(progress, 1, 1, 3))],
        )[0]
        of_queries = np.ascontiguousarray(means[:, call.queries])
        image, plane = (None, *z.shape[1:]), (None, *z.shape[2:])
        denoised, along, residuals = call.sums(
            found,
            [image, (len(v), *image), (len(v), *plane)],
            lambda found: found.rank_derivatives(call.shares, own, transposed, of_queries, part_of(progress, 2, 1, 3)),
        )
        along -= residuals[:, :, None] * denoised
        return denoised.astype(np.float32), along.astype(np.float32)


class _Call:
    """A batch of queries of the same components; all ranks have the same ones, and the same `further` numbers."""

    def __init__(
        self,
        ranks: Ranks,
        part: range,
        z: Any,
        sigma: list[float],
        further: Sequence[npt.NDArray[Any]],
        *,
        images: Indices | None,
        left_out: Sequence[Indices] | None,
    ) -> None:
        self.ranks, self.part, self.z, self.sigma, self._further = ranks, part, z, sigma, further
        self._images = None if images is None else _inside(images, part)
        self._left_out = None if left_out is None else [_inside(of_query, part) for of_query in left_out]
        among = np.arange(len(part), dtype=np.uint32) if self._images is None else self._images
        left = [among[:0]] * len(sigma) if self._left_out is None else self._left_out
        # Queries for which an image of this rank counts; the engine refuses others.
        self.queries = [query for query in range(len(sigma)) if len(np.setdiff1d(among, left[query], True))]
        self.log_evidence: Float64 = np.zeros((0, 0))
        self.log_shares: Float64 = np.zeros((0, 0))

    def first_pass(
        self, evidence: Callable[..., Any], components: Windows, flips: bool, progress: Progress | None
    ) -> Any:
        """What one of the engine's first passes finds on this rank, None without images; and the shares of the rank."""
        try:
            found = self._evidence(evidence, components, flips, progress)
        except Exception:
            # The others wait for this rank.
            with suppress(PspcError):
                self._agree(_FAILED)
            raise
        counts = self._agree(0 if found is None else found.log_evidence.shape[1])
        logs = np.full((len(self.sigma), int(counts.max())), -np.inf)
        if found is not None:
            logs[self.queries] = found.log_evidence
        of_ranks = self.ranks.gather(logs)
        with np.errstate(divide="ignore"):
            most = of_ranks.max(axis=0)
            total = np.log(np.exp(of_ranks - most).sum(axis=0))
        self.log_evidence = most + total
        # Rounding may leave a share a little above one.
        self.log_shares = np.minimum(logs - most - total, 0)
        return found

    def _evidence(
        self, evidence: Callable[..., Any], components: Windows, flips: bool, progress: Progress | None
    ) -> Any:
        if not self.queries:
            return None
        left_out = None if self._left_out is None else [self._left_out[query] for query in self.queries]
        if left_out is not None and not any(map(len, left_out)):
            left_out = None
        sigma = [self.sigma[query] for query in self.queries]
        z = np.ascontiguousarray(self.z[self.queries])
        return evidence(components, z, sigma, flips, progress, images=self._images, left_out=left_out)

    def _agree(self, count: int) -> Float64:
        """The numbers of components on every rank: none on one without images, `_FAILED` on one that failed.

        Raises:
            PspcError: a rank failed.
            InvalidValueError: ranks have different queries or components.
        """
        checksum = 0
        for numbers in (np.array(self.sigma), self.z, *self._further):
            checksum = zlib.crc32(np.ascontiguousarray(numbers).tobytes(), checksum)
        told = self.ranks.gather(np.array([count, checksum, len(self.sigma)], np.float64))
        if count == _FAILED:
            return told[:, 0]
        failed = np.flatnonzero(told[:, 0] == _FAILED)
        if len(failed):
            raise PspcError(f"rank {failed[0]} of {self.ranks.count} failed; it says why itself")
        counts = told[:, 0]
        if (told[:, 1:] != told[0, 1:]).any() or len(np.unique(counts[counts > 0])) > 1:
            raise InvalidValueError(
                "the ranks have different noisy images, noise levels, components or kinds of devices; "
                "all must make the same calls"
            )
        return counts

    def summed(self, found: Any, progress: Progress | None) -> Float64:
        """The sums over the ranks of what their images add to the denoised images.

        Raises:
            PspcError: another rank failed.
        """
        shape = (None, *self.z.shape[1:])
        return self.sums(found, [shape], lambda found: [found.contribution(self.shares, progress)])[0]

    def sums(
        self, found: Any, shapes: Sequence[tuple[int | None, ...]], compute: Callable[[Any], Sequence[Float64]]
    ) -> list[Float64]:
        """The sums over the ranks of arrays.

        Args:
            found: what the first pass found on this rank, None without images.
            shapes: those of the arrays, with None for the queries.
            compute: makes what this rank adds of what it found, for the queries for which an image of it counts.

        Raises:
            PspcError: another rank failed.
        """
        own = [np.zeros([len(self.sigma) if size is None else size for size in shape]) for shape in shapes]
        try:
            if found is not None:
                for array, shape, added in zip(own, shapes, compute(found), strict=True):
                    array[tuple(self.queries if size is None else slice(None) for size in shape)] = added
        except Exception:
            with suppress(PspcError):
                self.ranks.sum(np.full(sum(array.size for array in own), np.nan))
            raise
        total = self.ranks.sum(np.concatenate([array.ravel() for array in own]))
        if np.isnan(total).any():
            raise PspcError(f"another rank of {self.ranks.count} failed; it says why itself")
        parts = np.split(total, np.cumsum([array.size for array in own])[:-1])
        return [part.reshape(array.shape) for part, array in zip(parts, own, strict=True)]

    @property
    def shares(self) -> Float64:
        """The logarithms of the shares of this rank, for the queries for which an image of it counts."""
        return np.ascontiguousarray(self.log_shares[self.queries])


class PosteriorsAcrossRanks:
    """What `_core.Posteriors` says, of the images of all ranks; every rank asks the same and gets the same."""

    def __init__(
        self,
        call: _Call,
        found: "_core.Posteriors | None",
        num_images: int,
        engine: _core.Engine,
        components: Windows,
    ) -> None:
        self._call, self._num_images, self._own = call, num_images, found
        self._engine, self._components = engine, components
        self._found = None if found is None else found.shared(call.shares)

    def __repr__(self) -> str:
        return f"PosteriorsAcrossRanks({self._own!r}, {self._call.ranks!r})"

    @property
    def log_evidence(self) -> Float64:
        """See `_core.Posteriors.log_evidence`."""
        return self._call.log_evidence

    def statistics(
        self, top: int, progress: Progress | None = None
    ) -> tuple[Float64, npt.NDArray[np.int64], npt.NDArray[np.int64], Float64]:
        """See `_core.Posteriors.statistics`."""
        call = self._call
        shape = call.log_shares.shape
        # Entropy, then image, view and weight of the heaviest.
        own = np.zeros((*shape, 1 + 3 * top))
        own[..., 1 : 1 + top] = -1
        if self._found is not None:
            entropy, image, view, weight = self._found.statistics(top, progress)
            whole = np.where(image < 0, -1, image + call.part.start)
            own[call.queries] = np.concatenate([entropy[..., None], whole, view, weight], axis=-1)
        of_ranks = call.ranks.gather(own)
        images, views, weights = (
            np.concatenate(of_ranks[..., 1 + i * top : 1 + (i + 1) * top], axis=-1) for i in range(3)
        )
        order = np.argsort(-weights, axis=-1, kind="stable")[..., :top]
        images, views, weights = (np.take_along_axis(one, order, axis=-1) for one in (images, views, weights))
        return of_ranks[..., 0].sum(axis=0), images.astype(np.int64), views.astype(np.int64), weights

    def attribution(self, progress: Progress | None = None) -> Float64:
        """See `_core.Posteriors.attribution`."""
        call = self._call
        all_images = np.zeros((len(call.sigma), self._num_images))
        if self._found is not None:
            own = self._found.attribution(progress)
            all_images[call.queries, call.part.start : call.part.stop] = own
        return call.ranks.sum(all_images)

    def composite(self, progress: Progress | None = None) -> npt.NDArray[np.float32]:
        """See `_core.Posteriors.composite`."""
        return self._call.summed(self._own, progress).astype(np.float32)

    def variance(self, progress: Progress | None = None) -> tuple[Float64, Float64]:
        """See `_core.Posteriors.variance`."""
        call, own = self._call, self._own
        denoised = call.summed(own, part_of(progress, 0, 1, 3))
        moments = call.sums(
            own,
            [(None, self._engine.num_moments(self._components))],
            lambda own: [own.rank_moments(call.shares, denoised[call.queries], part_of(progress, 1, 2, 3))],
        )[0]
        return self._engine.variance_of_moments(self._components, moments)


def _inside(indices: Indices, part: range) -> Indices:
    """Those of some ascending indices of images that lie in a part, counted from its first image."""
    low, high = np.searchsorted(indices, [part.start, part.stop])
    return (indices[low:high] - np.uint32(part.start)).astype(np.uint32)


def range_of_all(images: npt.NDArray[Any], ranks: Ranks) -> tuple[float, float] | None:
    """The least and the largest pixel of the float images of all ranks, from which every rank takes its units."""
    if images.dtype == np.uint8:
        return None
    of_ranks = ranks.gather(np.array([images.min(), images.max()], np.float64))
    return float(of_ranks[:, 0].min()), float(of_ranks[:, 1].max())
