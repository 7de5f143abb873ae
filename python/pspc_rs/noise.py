"""Seeded normal noise: what samplers start from, and what stochastic ones add on the way."""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite, import_torch, is_torch, like, to_numpy
from pspc_rs.checks import integer, real_number
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError

Noise: TypeAlias = int | Callable[[Any], Any]
"""A seed, or a function like torch.randn_like that returns standard normal noise shaped like its argument."""

Generator: TypeAlias = Literal["auto", "torch", "numpy"]
"""The library whose generator draws the initial noise."""

_MAX_SEED = 2**64 - 1


def initial_noise(
    n: int, shape: Sequence[int], sigma_max: float = 80.0, seed: int = 0, *, generator: Generator = "auto"
) -> NDArray[np.float32]:
    """Normal noise of standard deviation sigma_max, float32 [n, channels, height, width], to start samplers from.

    With torch it is one batch of ``torch.randn`` from a CPU generator, the numbers that the scripts published with the
    PSPC and EDM papers start from with that seed; without torch, one batch of ``numpy.random.default_rng(seed)``.

    Args:
        n: number of samples.
        shape: (channels, height, width).
        sigma_max: first noise level, in pixel units.
        seed: 0 .. 2^64 - 1.
        generator: "torch", "numpy", or "auto" for torch if it is installed; ``noise_source`` says which.

    Raises:
        InvalidValueError: an argument is out of range.
        ShapeError: the shape has not three axes.
        DTypeError: an argument is of the wrong type.
        MissingDependencyError: torch was asked for and is not installed.

    Example:
        >>> initial_noise(2, (3, 32, 32)).shape
        (2, 3, 32, 32)
    """
    level = real_number("sigma_max", sigma_max)
    if level <= 0:
        raise InvalidValueError(f"sigma_max is {level:g}; allowed are numbers above 0")
    size = (integer("n", n), *image_shape(shape))
    return _normals(_checked_seed(seed), noise_source(generator))(size) * np.float32(level)


def noise_source(generator: Generator = "auto") -> str:
    """The library that draws initial noise, "torch" or "numpy": for "auto" torch, if it is installed.

    Raises:
        InvalidValueError: generator is none of "auto", "torch", "numpy".

    Example:
        >>> noise_source("numpy")
        'numpy'
    """
    if generator not in ("auto", "torch", "numpy"):
        raise InvalidValueError(f"generator is {generator!r}; allowed are 'auto', 'torch' and 'numpy'")
    if generator == "auto":
        return "torch" if importlib.util.find_spec("torch") else "numpy"
    return generator


def image_shape(shape: object) -> tuple[int, int, int]:
    """The three lengths (channels, height, width), after checking that they are some.

    Raises:
        ShapeError: there are not three of them.
        DTypeError: one is not a whole number.
        InvalidValueError: one is below 1.

    Example:
        >>> image_shape([3, 32, 32])
        (3, 32, 32)
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) != 3:
        raise ShapeError(f"shape is {shape!r}; allowed is (channels, height, width)")
    channels, height, width = (integer("each length of shape", length) for length in shape)
    return channels, height, width


def noise_like(noise: Noise, template: Any) -> Callable[[Any], Any]:
    """A function that returns standard normal noise in the shape, kind, dtype and device of its argument.

    Args:
        noise: a function that does so already, which is checked at every call, or a seed. A seed is drawn from with
            numpy's generator for arrays and torch's CPU generator for tensors, and gives other numbers than
            ``initial_noise`` with that seed: noise added later must not repeat the noise that is there.
        template: array or tensor of the kind that the function will be called with.

    Raises:
        DTypeError: noise is neither.
        InvalidValueError: the seed is out of range.

    Example:
        >>> noise_like(1, np.zeros(1))(np.zeros((2, 3), np.float32)).dtype
        dtype('float32')
    """
    if callable(noise):
        return lambda x: _checked_noise(noise(x), x)
    other = np.random.SeedSequence(_checked_seed(noise)).generate_state(1, np.uint64)
    draw = _normals(int(other[0]), "torch" if is_torch(template) else "numpy")
    return lambda x: like(draw(tuple(x.shape)), x)


def _normals(seed: int, library: str) -> Callable[[tuple[int, ...]], NDArray[np.float32]]:
    """A stream of float32 standard normal numbers: a function of the shape wanted next."""
    if library == "numpy":
        stream = np.random.default_rng(seed)
        return lambda shape: stream.standard_normal(shape, dtype=np.float32)
    torch = import_torch("generator='torch'")
    state = torch.Generator("cpu").manual_seed(seed)
    return lambda shape: to_numpy(torch.randn(shape, generator=state, dtype=torch.float32, device="cpu"))


def _checked_seed(seed: object) -> int:
    number = integer("seed", seed, least=0)
    if number > _MAX_SEED:
        raise InvalidValueError(f"seed is {number}; allowed are 0 to {_MAX_SEED}")
    return number


def _checked_noise(drawn: Any, x: Any) -> Any:
    if is_torch(drawn) != is_torch(x) or not hasattr(drawn, "shape"):
        raise DTypeError(f"noise() returned a {type(drawn).__name__} for a {type(x).__name__}; it must return the same")
    if tuple(drawn.shape) != tuple(x.shape):
        raise ShapeError(f"noise() returned shape {list(drawn.shape)} for {list(x.shape)}; it must be the same")
    check_finite("what noise() returned", drawn)
    return drawn
