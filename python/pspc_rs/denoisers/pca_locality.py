"""PCA-locality: components that compare on the values which the Wiener filter of the data couples."""

import math
import warnings
from collections.abc import Hashable, Iterator
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.base import Float64, Floats
from pspc_rs.denoisers.filtered import FilteredDenoiser
from pspc_rs.denoisers.filters import Filters
from pspc_rs.denoisers.orbit import Orbit
from pspc_rs.denoisers.selection import Selection
from pspc_rs.errors import DataError, InvalidValueError
from pspc_rs.posterior import PosteriorPart
from pspc_rs.progress import Progress, part_of

Normalise: TypeAlias = Literal["input", "output"]
"""Which of the two diagonal entries of the Wiener filter an entry is divided by."""

Maximum: TypeAlias = Literal["global", "row"]
"""Whether entries are compared with the largest of all, or with that of the same output."""

_FLOOR = 1e-6
_CONSTANT = 1e-12


class PCALocality(FilteredDenoiser):
    """The posterior mean of every value, given the values to which the Wiener filter of the data couples it.

    With v and U the eigenvalues and eigenvectors of the data's covariance (divisor N - 1), W = U diag(v / (v +
    sigma^2)) U^T. Output value m compares on the values n where |W_mn| / W_nn (``normalise="input"``; / W_mm for
    ``"output"``) is at least ``threshold`` times its maximum. Values of different channels are not tied. Lukoianov et
    al., "Locality in image diffusion models emerges from data statistics", arXiv 2509.09672.

    The masks come from all images, whatever counts in a call. Values that are constant over the data are left out of W
    and come back as they are; diagonal entries below 1e-6 count as 1. Where a nearly constant value owns the global
    maximum, masks may come out empty, which means equal weights: a warning says so, and ``maximum="row"`` has no such
    masks.

    Args:
        data: the training images.
        threshold: the share of the maximum, above 0 and up to 1; .05 in the paper for CIFAR-10, .02 for 64 x 64 images.
        normalise: "input" (the authors) or "output".
        maximum: "global" (the authors) or "row".
        average_chunks: None, or so many images: the mean of the posterior means of consecutive chunks of the data, each
            of equal weight (the authors' weighted streaming softmax), instead of the posterior mean over all.
        source: see `Empirical`.
        device: ``"cpu"`` or ``"auto"``.
        temperature: see `Empirical`.
        conditional: see `Empirical`.

    Raises:
        InvalidValueError: a threshold out of range, another way to normalise or maximum, or a chunk below 1.
        DataError: fewer than two images.
        CudaError: a GPU is asked for.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (100, 1, 6, 6), dtype=np.uint8)
        >>> pspc.PCALocality(pspc.ImageSet(images), threshold=0.1)(np.zeros((2, 1, 6, 6)), [0.5, 2.0]).shape
        (2, 1, 6, 6)
    """

    _most_levels = 4

    def __init__(
        self,
        data: ImageSet,
        threshold: float = 0.05,
        *,
        normalise: Normalise = "input",
        maximum: Maximum = "global",
        average_chunks: int | None = None,
        source: Orbit | None = None,
        device: str = "cpu",
        temperature: float = 1.0,
        conditional: bool = False,
    ) -> None:
        super().__init__(data, source=source, device=device, temperature=temperature, conditional=conditional)
        self.threshold = real_number("threshold", threshold, above=0, most=1)
        if normalise not in get_args(Normalise):
            raise InvalidValueError(f"normalise is {normalise!r}; allowed are 'input' and 'output'")
        if maximum not in get_args(Maximum):
            raise InvalidValueError(f"maximum is {maximum!r}; allowed are 'global' and 'row'")
        if len(data) < 2:
            raise DataError(f"the data set has {len(data)} image; a covariance needs two")
        self.normalise, self.maximum = normalise, maximum
        self.average_chunks = None if average_chunks is None else integer("average_chunks", average_chunks, 1)
        # A mean over chunks is no posterior mean, of which there would be closed forms.
        self._has_derivatives = self.average_chunks is None

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, temperature and source, and what decides the masks."""
        own = {"threshold": self.threshold, "normalise": self.normalise, "maximum": self.maximum}
        return {**super().settings, **own, "average_chunks": self.average_chunks}

    def __repr__(self) -> str:
        return self._repr_with(f"threshold {self.threshold:g}", self.normalise, self.maximum)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: all but the objects of the engine and what the data give again."""
        return {name: value for name, value in super().__getstate__().items() if name != "_eigen"}

    @cached_property
    def _eigen(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Eigenvalues and eigenvectors of the covariance, and which values vary."""
        dim = math.prod(self.shape)
        mean, total = np.zeros(dim), np.zeros((dim, dim))
        count, size = len(self.data), max(1, (64 << 20) // (8 * dim))
        starts = range(0, count, size)
        for start in starts:
            mean += self._rows(start, min(count, start + size)).sum(axis=0)
        mean /= count
        for start in starts:
            centred = self._rows(start, min(count, start + size)) - mean
            total += centred.T @ centred
        covariance = total / (count - 1)
        varies = np.diag(covariance) >= _CONSTANT * max(np.diag(covariance).max(), np.finfo(np.float64).tiny)
        values, vectors = np.linalg.eigh(covariance)
        return values.clip(min=0), vectors, varies

    def _rows(self, start: int, stop: int) -> npt.NDArray[np.float64]:
        images = self.data.images
        stored, num = np.arange(start, stop) % self.data.num_stored, self.data.num_stored
        rows = images[stored].astype(np.float64)
        rows[np.arange(start, stop) >= num] = rows[np.arange(start, stop) >= num][..., ::-1]
        if images.dtype == np.uint8:
            rows = rows / 127.5 - 1
        return rows.reshape(stop - start, -1)

    def wiener(self, sigma: float) -> npt.NDArray[np.float64]:
        """The Wiener filter W of the data at a noise level, float64 [values, values]; zero at constant values.

        Example:
            >>> import numpy as np, pspc_rs as pspc
            >>> data = pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
            >>> pspc.PCALocality(data).wiener(1.0)  # the variance is 2
            array([[0.66666667]])
        """
        values, vectors, varies = self._eigen
        found: npt.NDArray[np.float64] = (
            vectors * (values / (values + real_number("sigma", sigma, above=0) ** 2))
        ) @ vectors.T
        found[~varies] = 0
        found[:, ~varies] = 0
        return found

    def value_masks(self, sigma: float) -> npt.NDArray[np.bool_]:
        """Which values every output value compares on, bool [values, values], in the order channel, row, column."""
        ratios, (_, _, varies) = np.abs(self.wiener(sigma)), self._eigen
        diagonal = np.diag(ratios).copy()
        floored = diagonal < _FLOOR
        diagonal[floored] = 1
        ratios[np.diag_indices_from(ratios)] = diagonal
        ratios /= diagonal if self.normalise == "input" else diagonal[:, None]
        counted = np.where(varies[:, None] & varies, ratios, 0)
        most = counted.max(initial=0) if self.maximum == "global" else counted.max(axis=1, initial=0, keepdims=True)
        masks: npt.NDArray[np.bool_] = (ratios >= self.threshold * most) & (ratios > 0)
        return masks

    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        return [float(sigma) for sigma in sigmas]

    def _filters(self, level: Hashable) -> Filters:
        sigma = level if isinstance(level, float) else 1.0
        masks = self.value_masks(sigma)
        empty = int((~masks.any(axis=1)).sum())
        if empty:
            warnings.warn(
                f"{empty} of {len(masks)} masks are empty at sigma {sigma:g}: their values are plain means. A value "
                "that hardly varies owns the maximum; maximum='row' has no empty masks",
                stacklevel=2,
            )
        rows = _core.Weights.rows(masks.astype(np.float64), per_value=True)
        return Filters(rows, _core.Weights.places(per_value=True), self._views())

    def _masks(self, level: Hashable) -> npt.NDArray[np.bool_]:
        """The pixels of which some channel counts."""
        sigma = level if isinstance(level, float) else 1.0
        masks = self.value_masks(sigma)
        pixels: npt.NDArray[np.bool_] = np.logical_or.reduce(masks.reshape(-1, *self.shape), axis=1)
        return pixels

    def _denoise(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        if self.average_chunks is None:
            return super()._denoise(z, sigmas, selection, progress)
        chunks = list(self._chunks(self.average_chunks, selection, len(z)))
        total, counts = np.zeros(z.shape), np.zeros(len(z))
        for number, (queries, chosen) in enumerate(chunks):
            share = part_of(progress, number, 1, len(chunks))
            total[queries] += super()._denoise(z[queries], sigmas[queries], chosen, share)
            counts[queries] += 1
        mean: npt.NDArray[np.float32] = (total / counts[:, None, None, None]).astype(np.float32)
        return mean

    def _chunks(
        self, size: int, selection: Selection | None, batch: int
    ) -> Iterator[tuple[npt.NDArray[np.intp], Selection]]:
        """Consecutive images, so many at a time, with the queries for which some of them count."""
        num = self.data.num_stored
        counted = np.ones((batch, num), bool)
        if selection is not None:
            counted[:] = False
            for query in range(batch):
                counted[query, selection.images_of(query, num)] = True
        for start in range(0, num, size):
            images = np.arange(start, min(num, start + size), dtype=np.uint32)
            queries = np.flatnonzero(counted[:, images].any(axis=1))
            left_out = [images[~counted[query, images]] for query in queries]
            if len(queries):
                yield queries, Selection([images], np.zeros(len(queries), np.intp), left_out)

    def _posteriors(self, *args: Any, **kwargs: Any) -> list[PosteriorPart]:
        if self.average_chunks is not None:
            raise InvalidValueError(
                f"average_chunks is {self.average_chunks}, and a mean of posterior means is none; posterior needs None"
            )
        return super()._posteriors(*args, **kwargs)
