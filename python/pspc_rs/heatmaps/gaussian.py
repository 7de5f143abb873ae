"""Heat maps of the Gaussian denoiser in closed form, the first source that needs no network."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.denoisers import Gaussian
from pspc_rs.heatmaps.pixels import Pixels, own_pixel_first
from pspc_rs.schedules import ThresholdSchedule
from pspc_rs.sigmas import check_grid


def gaussian_heatmaps(
    data: ImageSet | Gaussian, sigmas: Any, *, rank: int | None = None, raw: bool = False
) -> NDArray[np.float32]:
    """Heat maps for PSPC-Flex that need no network, float32 [levels, H, W, H, W].

    G(p)(q) = sum_c |W[cp, cq]| with W = U diag(S / (S + sigma^2)) U^T, the rows of the Wiener filter: the derivative of
    the Gaussian denoiser, which does not depend on z, in place of a network's mean over z (Niedoba et al. 2025, eq. 8).

    Args:
        data: the training images, or their Gaussian denoiser.
        sigmas: noise levels, descending; a final 0 is dropped. A `ThresholdSchedule` gives its own, and the maps of
            levels whose threshold is 1, which need none, stay 0.
        rank: keep this many leading directions of the data; all if None.
        raw: leave the maps as they are. Else `own_pixel_first` sees to it that every pixel is in its own mask.

    Raises:
        InvalidValueError: the levels are no grid, or the rank is out of range.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4), dtype=np.uint8)
        >>> data, sigmas = pspc.ImageSet(images), [1.0, 0.1]
        >>> maps = pspc.gaussian_heatmaps(data, sigmas)
        >>> maps.shape
        (2, 4, 4, 4, 4)
        >>> F = pspc.PSPCFlex(data, heatmaps=maps, thresholds=[0.9, 0.5], sigmas=sigmas)
    """
    gaussian = data if isinstance(data, Gaussian) else Gaussian(data, rank)
    levels, wanted = _levels(sigmas)
    _, height, width = gaussian.shape
    pixels = np.arange(height * width)
    maps = np.zeros((len(levels), height, width, height, width), np.float32)
    for index in np.flatnonzero(wanted):
        maps[index] = wiener_rows(gaussian, levels[index], pixels).reshape(maps.shape[1:])
        if not raw:
            maps[index] = own_pixel_first(maps[index])
    return maps


def wiener_rows(gaussian: Gaussian, sigma: float, pixels: Pixels) -> NDArray[np.float32]:
    """Heat maps of some output pixels at one noise level, float32 [P, H, W].

    Args:
        gaussian: the denoiser.
        sigma: the noise level.
        pixels: indices y * W + x, [P].
    """
    channels, height, width = gaussian.shape
    axes = gaussian.axes.reshape(channels, height * width, -1).astype(np.float32)
    gain = (gaussian.variances / (gaussian.variances + sigma**2)).astype(np.float32)
    maps = np.zeros((len(pixels), height * width), np.float32)
    for rows in axes:
        maps += np.abs((rows[pixels] * gain) @ rows.T)
    return maps.reshape(-1, height, width)


def _levels(sigmas: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The noise levels above 0, and of which of them maps are wanted."""
    if isinstance(sigmas, ThresholdSchedule):
        return np.array(sigmas.sigmas), np.array(sigmas.thresholds) < 1
    grid = check_grid(sigmas)
    levels = grid[grid > 0]
    return levels, np.ones(len(levels), bool)
