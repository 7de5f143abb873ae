"""CFDM: the closed-form denoiser smoothed by averaging it over fixed perturbations of its input."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import MAX_SIGMA
from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import require_images
from pspc_rs.denoisers.base import Denoiser, Float64, Floats
from pspc_rs.denoisers.empirical import Empirical
from pspc_rs.denoisers.selection import Selection, select
from pspc_rs.progress import Progress, part_of
from pspc_rs.reprs import build_repr

_MOST_NOISES = 10**6
_NUMBERS_AT_ONCE = 1 << 24
_STREAM = 0xCFD3  # keeps these noises apart from all others that are drawn with the same seed


class CFDM(Denoiser):
    """The smoothed closed-form denoiser: the mean of the empirical denoiser over perturbed inputs.

    D(z, sigma) = 1/M sum_m D_opt(z + s (1 + sigma) eps_m, sigma), with D_opt the empirical denoiser and eps_1 .. eps_M
    fixed normal noises; Scarvelis et al., "Closed-Form Diffusion Models", 2023 (arXiv 2310.12395). It samples
    barycentres of training images. Neither s nor M was published by Niedoba et al. 2025, who use it as a baseline:
    `pspc_rs.experiments.cfdm_mse` finds those of least error against a network.

    Args:
        data: the training images.
        smoothing: s, 0 or more; 0 is the empirical denoiser.
        num_noises: M, at least 1; a query costs as much as M queries of the empirical denoiser.
        seed: seed of the noises, drawn with numpy's default generator.
        conditional: see `Empirical`.

    Raises:
        InvalidValueError: an argument is out of range.
        DTypeError: an argument is of the wrong type.
        DataError: conditional, but the data have no labels.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
        >>> D = pspc.CFDM(data, smoothing=0.5, num_noises=64)
        >>> D  # doctest: +ELLIPSIS
        CFDM(ImageSet('array', 2 images of ...), smoothing=0.5, num_noises=64, seed=0)
        >>> halfway = D(np.array([[[[-0.2, 0.2]]]]), sigma=0.1)  # the empirical denoiser says [-1, 1]
        >>> bool(-0.9 < halfway[0, 0, 0, 0] < -0.1)
        True
    """

    _has_derivatives = True

    def __init__(
        self,
        data: ImageSet,
        smoothing: float = 0.7,
        num_noises: int = 8,
        seed: int = 0,
        *,
        conditional: bool = False,
    ) -> None:
        super().__init__(require_images(data).shape)
        self.data = data
        self.smoothing = real_number("smoothing", smoothing, least=0, most=MAX_SIGMA)
        self.num_noises = integer("num_noises", num_noises, 1, _MOST_NOISES)
        self.seed = integer("seed", seed, least=0)
        self.noises = smoothing_noises(data.shape, self.num_noises, self.seed)
        self._empirical = Empirical(data, conditional=conditional)
        self.label_dim = self._empirical.label_dim

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, smoothing, number of noises and seed."""
        return {**super().settings, "data": self.data.fingerprint, **self._parameters}

    @property
    def _parameters(self) -> dict[str, Any]:
        return {"smoothing": self.smoothing, "num_noises": self.num_noises, "seed": self.seed}

    def __repr__(self) -> str:
        return build_repr(self, self.data, **self._parameters, **({"conditional": True} if self.label_dim else {}))

    def _select(self, class_labels: Any, exclude: Any, batch: int) -> Selection | None:
        return select(type(self).__name__, self.data, class_labels, exclude, batch)

    def _denoise(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None
    ) -> npt.NDArray[np.floating[Any]]:
        queries, tiled, chosen = self._perturbed(z, sigmas, selection, slice(None))
        denoised = self._empirical._denoise(queries, tiled, chosen, progress)
        mean: Float64 = denoised.reshape(len(z), self.num_noises, *self.shape).mean(axis=1, dtype=np.float64)
        return mean

    def _derivative(
        self,
        z: Floats,
        sigmas: Float64,
        selection: Selection | None,
        v: Float64,
        progress: Progress | None,
        *,
        transposed: bool,
    ) -> tuple[Floats, Floats]:
        denoised, products = np.zeros(z.shape), np.zeros(v.shape)
        for part, share in self._parts(v.size, progress):
            queries, tiled, chosen = self._perturbed(z, sigmas, selection, part)
            num = part.stop - part.start
            found, of_part = self._empirical._derivative(
                queries, tiled, chosen, np.repeat(v, num, axis=1), share, transposed=transposed
            )
            denoised += found.reshape(len(z), num, *self.shape).sum(axis=1, dtype=np.float64)
            products += of_part.reshape(len(v), len(z), num, *self.shape).sum(axis=2, dtype=np.float64)
        return denoised / self.num_noises, products / self.num_noises

    def _divergence(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None
    ) -> tuple[Floats, Float64]:
        queries, tiled, chosen = self._perturbed(z, sigmas, selection, slice(None))
        denoised, divergence = self._empirical._divergence(queries, tiled, chosen, progress)
        mean = denoised.reshape(len(z), self.num_noises, *self.shape).mean(axis=1, dtype=np.float64)
        return mean, divergence.reshape(len(z), self.num_noises).mean(axis=1)

    def _perturbed(
        self, z: Floats, sigmas: Float64, selection: Selection | None, part: slice
    ) -> tuple[Floats, Float64, Selection | None]:
        """The queries of some of the noises, those of an image one after another, with their levels and images."""
        noises = self.noises[part]
        queries = perturbed(z, sigmas, noises, self.smoothing).reshape(-1, *self.shape)
        copies = np.repeat(np.arange(len(z)), len(noises))
        return queries, sigmas[copies], None if selection is None else selection.of(copies)

    def _parts(self, size: int, progress: Progress | None) -> Iterator[tuple[slice, Progress | None]]:
        """The noises in parts for which copies of so many numbers fit into memory, with the progress of each."""
        step = max(1, _NUMBERS_AT_ONCE // max(1, size))
        for start in range(0, self.num_noises, step):
            stop = min(start + step, self.num_noises)
            yield slice(start, stop), part_of(progress, start, stop - start, self.num_noises)


def smoothing_noises(shape: tuple[int, int, int], num: int, seed: int) -> npt.NDArray[np.float32]:
    """The fixed noises eps_m, float32 [num, C, H, W]; more noises of a seed begin with those of fewer.

    Example:
        >>> bool((smoothing_noises((1, 2, 2), 3, 0)[:2] == smoothing_noises((1, 2, 2), 2, 0)).all())
        True
    """
    random = np.random.default_rng([seed, _STREAM])
    return random.standard_normal((num, *shape), dtype=np.float32)


def perturbed(
    z: npt.NDArray[np.floating[Any]],
    sigmas: npt.NDArray[np.float64],
    noises: npt.NDArray[np.float32],
    smoothing: float,
) -> npt.NDArray[np.floating[Any]]:
    """The queries z + s (1 + sigma) eps_m, [B, M, C, H, W], float64 if z is, else float32.

    Args:
        z: noisy images [B, C, H, W].
        sigmas: noise level of each, [B].
        noises: eps, [M, C, H, W].
        smoothing: s.
    """
    dtype = np.float64 if z.dtype == np.float64 else np.float32
    scale = np.asarray(smoothing * (1 + sigmas), dtype).reshape(-1, 1, 1, 1, 1)
    queries: npt.NDArray[np.floating[Any]] = z[:, None] + scale * noises.astype(dtype)
    return queries
