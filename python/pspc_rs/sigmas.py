"""Noise levels: published grids, and which level of a grid a given sigma belongs to."""

import math
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import real_array
from pspc_rs.checks import in_order, integer, one_of, real_number
from pspc_rs.errors import InvalidValueError, ShapeError

Nearest: TypeAlias = Literal["linear", "log"]
"""How the distance between noise levels is measured: |sigma - s| or |log sigma - log s|."""


def edm_sigmas(
    num_steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
    *,
    include_zero: bool = True,
) -> NDArray[np.float64]:
    """Descending noise levels float64 [num_steps + 1], sigma_max .. sigma_min and a final 0.

    s_i = (sigma_max^(1/rho) + i / (num_steps - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho, i = 0 .. num_steps - 1;
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, eq. 5. The first and last
    level are sigma_max and sigma_min to the last bit; a single step has the level sigma_max alone.

    Args:
        num_steps: number of noise levels, at least 1: 18 for CIFAR-10, 40 for FFHQ and AFHQv2 at 64 x 64.
        sigma_min: last level above zero, in pixel units.
        sigma_max: first level, in pixel units, above sigma_min.
        rho: positive; larger values put more levels near sigma_min.
        include_zero: whether the final 0 of samplers is appended; without it the shape is [num_steps].

    Raises:
        DTypeError: an argument is not a number.
        InvalidValueError: an argument is out of range, or the levels come so close that two are equal.

    Example:
        >>> edm_sigmas(3).round(4)
        array([8.0000e+01, 2.5152e+00, 2.0000e-03, 0.0000e+00])
    """
    num_steps, low, high = check_range(num_steps, sigma_min, sigma_max)
    rho = real_number("rho", rho, above=0)
    ramp = np.linspace(0.0, 1.0, num_steps)
    with np.errstate(over="ignore", invalid="ignore"):
        first, last = np.array([high, low]) ** (1 / rho)
        levels: NDArray[np.float64] = (first + ramp * (last - first)) ** rho
    levels[-1], levels[0] = low, high
    if not (np.diff(levels) < 0).all():
        raise InvalidValueError(
            f"{num_steps} levels from sigma_max {high:g} to sigma_min {low:g} with rho {rho:g} cannot be told apart; "
            "take fewer steps, a wider range or a moderate rho"
        )
    return np.append(levels, 0.0) if include_zero else levels


def log_sigmas(
    num_steps: int = 150, sigma_min: float = 0.01, sigma_max: float = 100.0, *, include_zero: bool = False
) -> NDArray[np.float64]:
    """Descending noise levels evenly spaced in log sigma, float64 [num_steps]; by default those of Figure 2.

    Niedoba et al., "Towards a Mechanistic Explanation of Diffusion Model Generalization", 2025.

    Args:
        num_steps: number of noise levels, at least 1; a single one is sigma_max.
        sigma_min: last level, in pixel units.
        sigma_max: first level, in pixel units, above sigma_min.
        include_zero: append a final 0, as for samplers.

    Raises:
        DTypeError: an argument is not a number.
        InvalidValueError: an argument is out of range, or the levels come so close that two are equal.

    Example:
        >>> log_sigmas(3).tolist()
        [100.0, 1.0, 0.01]
    """
    num_steps, low, high = check_range(num_steps, sigma_min, sigma_max)
    levels = np.exp(np.linspace(math.log(high), math.log(low), num_steps))
    levels[-1], levels[0] = low, high
    if not (np.diff(levels) < 0).all():
        raise InvalidValueError(
            f"{num_steps} levels from sigma_max {high:g} to sigma_min {low:g} cannot be told apart; take fewer steps "
            "or a wider range"
        )
    return np.append(levels, 0.0) if include_zero else levels


def cosine20_sigmas() -> tuple[float, ...]:
    """The 19 noise levels of Kamb and Ganguli (arXiv 2412.20292), descending: tan(pi i / 40.32), i = 19 .. 1.

    At i = 0 of their 20 steps there is no noise and nothing is done.

    Example:
        >>> [round(level, 4) for level in cosine20_sigmas()[::9]]
        [11.0339, 0.9876, 0.0781]
    """
    return tuple(math.tan(math.pi * i / 40.32) for i in range(19, 0, -1))


def check_range(num_steps: object, sigma_min: object, sigma_max: object) -> tuple[int, float, float]:
    """The number of levels of a grid, its last level above 0 and its first level, in plain Python numbers.

    Raises:
        DTypeError: one of them is not a number.
        InvalidValueError: one is not above 0, or sigma_max is below sigma_min.

    Example:
        >>> check_range(18, np.float32(0.5), 80)
        (18, 0.5, 80.0)
    """
    number = integer("num_steps", num_steps)
    low = real_number("sigma_min", sigma_min, above=0)
    high = real_number("sigma_max", sigma_max, above=0)
    in_order("sigma_min", low, "sigma_max", high)
    return number, low, high


def check_grid(sigmas: object) -> NDArray[np.float64]:
    """A grid of noise levels as float64 [levels], after checking that it is one.

    Args:
        sigmas: list, array or tensor of strictly descending noise levels, the last of which may be 0.

    Raises:
        DTypeError: sigmas are not numbers.
        ShapeError: sigmas have more than one axis or none.
        InvalidValueError: there is no level above 0, or the levels are not finite, not descending or negative.

    Example:
        >>> check_grid([2, 1, 0])
        array([2., 1., 0.])
    """
    grid = real_array("sigmas", sigmas)
    if grid.ndim != 1:
        raise ShapeError(f"sigmas have shape {list(grid.shape)}; allowed is one axis")
    if grid.size == 0:
        raise InvalidValueError("sigmas are empty; at least one noise level above 0 is needed")
    if not (np.isfinite(grid).all() and grid[0] > 0 and grid[-1] >= 0 and (np.diff(grid) < 0).all()):
        raise InvalidValueError(
            f"sigmas are {np.array2string(grid, threshold=20, precision=6)}; allowed are finite, strictly descending "
            "levels above 0, of which the last alone may be 0"
        )
    return grid


@overload
def nearest_level(sigma: float, sigmas: object, mode: Nearest = "linear") -> int: ...
@overload
def nearest_level(sigma: object, sigmas: object, mode: Nearest = "linear") -> Any: ...
def nearest_level(sigma: object, sigmas: object, mode: Nearest = "linear") -> Any:
    """Index of the level of a grid that is nearest to sigma; a tie goes to the larger level.

    argmin_i |sigma - s_i|, as the scripts published with the PSPC paper have it, or argmin_i |log sigma - log s_i|.
    Entries of the grid that are 0 are never chosen.

    Args:
        sigma: positive noise level in pixel units, or an array or tensor of them.
        sigmas: strictly descending grid of noise levels.
        mode: "linear" or "log".

    Returns:
        An int, or an int64 numpy array in the shape of sigma.

    Raises:
        DTypeError: sigma or sigmas are not numbers.
        ShapeError: sigmas have more than one axis.
        InvalidValueError: sigma is not positive and finite, the grid is not one, or the mode is unknown.

    Example:
        >>> nearest_level(3.0, [10.0, 1.0, 0.0]), nearest_level(3.5, [10.0, 1.0, 0.0], mode="log")
        (1, 0)
    """
    check_nearest(mode)
    levels = check_grid(sigmas)
    levels = levels[levels > 0]
    wanted = real_array("sigma", sigma)
    bad = ~(np.isfinite(wanted) & (wanted > 0))
    if bad.any():
        raise InvalidValueError(f"sigma is {wanted[bad][0]}; allowed are finite numbers above 0")
    if mode == "log":
        wanted, levels = np.log(wanted), np.log(levels)
    index = nearest_index(wanted, levels)
    return int(index) if wanted.ndim == 0 else index


def nearest_index(values: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the nearest of some descending levels for every value; a tie goes to the larger level.

    Example:
        >>> nearest_index(np.array([3.0, 0.2]), np.array([10.0, 1.0]))
        array([1, 1])
    """
    index: NDArray[np.int64] = np.abs(values[..., None] - levels).argmin(-1).astype(np.int64)
    return index


def check_nearest(mode: object) -> None:
    """Refuses anything that is not a way to measure the distance between noise levels.

    Raises:
        DTypeError: mode is not a string.
        InvalidValueError: mode is neither "linear" nor "log".

    Example:
        >>> check_nearest("log")
    """
    one_of("nearest", mode, ("linear", "log"))
