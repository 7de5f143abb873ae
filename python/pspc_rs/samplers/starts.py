"""Starts of samplers at a middle noise level: the exact path of a Gaussian denoiser from the highest level to there."""

from typing import Any, Protocol

from pspc_rs.arrays import Array
from pspc_rs.checks import in_order, real_number
from pspc_rs.samplers.noise import Generator, initial_noise


class ExactPath(Protocol):
    """A denoiser whose probability flow ODE has a known solution, as `Gaussian` is."""

    shape: tuple[int, int, int]

    def jump(self, z: Array, sigma_from: Any, sigma_to: float) -> Array:
        """Noisy images at another noise level on the same path."""


def gaussian_start(
    gaussian: ExactPath,
    n: int,
    sigma: float,
    *,
    sigma_max: float = 80.0,
    seed: int = 0,
    generator: Generator = "auto",
    x_init: Any = None,
) -> Any:
    """Noisy images at a noise level, to start any sampler from: noise at sigma_max, then `Gaussian.jump` down to sigma.

    No step is taken and no model called. With the same seed, samplers that start at sigma_max without the jump have the
    same initial noise.

    Args:
        gaussian: a `Gaussian` denoiser.
        n: number of images.
        sigma: where the jump ends, above 0 and up to sigma_max.
        sigma_max: noise level of the initial noise.
        seed: see `initial_noise`.
        generator: see `initial_noise`.
        x_init: initial states [n, channels, height, width], already scaled by sigma_max, in place of drawn ones.

    Returns:
        States [n, channels, height, width]: float32 arrays, or like x_init.

    Raises:
        InvalidValueError: an argument is out of range, or sigma is above sigma_max.
        ShapeError, DTypeError: see `initial_noise` and `Gaussian.jump`.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8))
        >>> G, D = pspc.Gaussian(data, cache=False), pspc.PSPCSquare(data, patch_sizes=3)
        >>> x = gaussian_start(G, 2, 3.0, generator="numpy")
        >>> pspc.samplers.sample_heun(D, x, pspc.edm_sigmas(10, sigma_max=3.0)).shape
        (2, 1, 8, 8)
    """
    level = real_number("sigma", sigma, above=0)
    highest = real_number("sigma_max", sigma_max, above=0)
    in_order("sigma", level, "sigma_max", highest)
    if x_init is None:
        x_init = initial_noise(n, gaussian.shape, highest, seed, generator=generator)
    return gaussian.jump(x_init, highest, level)
