"""CFDM: the closed-form denoiser smoothed by averaging it over fixed perturbations of its input."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import MAX_SIGMA
from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import require_images
from pspc_rs.denoisers.base import Denoiser
from pspc_rs.denoisers.composite import Empirical
from pspc_rs.progress import Progress
from pspc_rs.reprs import build_repr

_MOST_NOISES = 10**6
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

    Raises:
        InvalidValueError: an argument is out of range.
        DTypeError: an argument is of the wrong type.

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

    def __init__(self, data: ImageSet, smoothing: float = 0.7, num_noises: int = 8, seed: int = 0) -> None:
        super().__init__(require_images(data).shape)
        self.data = data
        self.smoothing = real_number("smoothing", smoothing, least=0, most=MAX_SIGMA)
        self.num_noises = integer("num_noises", num_noises, 1, _MOST_NOISES)
        self.seed = integer("seed", seed, least=0)
        self.noises = smoothing_noises(data.shape, self.num_noises, self.seed)
        self._empirical = Empirical(data)

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, smoothing, number of noises and seed."""
        return {**super().settings, "data": self.data.fingerprint, **self._parameters}

    @property
    def _parameters(self) -> dict[str, Any]:
        return {"smoothing": self.smoothing, "num_noises": self.num_noises, "seed": self.seed}

    def __repr__(self) -> str:
        return build_repr(self, self.data, **self._parameters)

    def _denoise(
        self, z: npt.NDArray[np.floating[Any]], sigmas: npt.NDArray[np.float64], progress: Progress | None
    ) -> npt.NDArray[np.floating[Any]]:
        queries = perturbed(z, sigmas, self.noises, self.smoothing)
        tiled = np.repeat(sigmas, self.num_noises)
        denoised = self._empirical(queries.reshape(-1, *self.shape), tiled, progress=progress)
        mean: npt.NDArray[np.float64] = denoised.reshape(queries.shape).mean(axis=1, dtype=np.float64)
        return mean


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
