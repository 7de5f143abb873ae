"""Seeded normal noise: what samplers start from, and what stochastic ones add at each step."""

import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs import _core
from pspc_rs.arrays import check_finite, check_like, copy_of, is_torch, like, to_numpy
from pspc_rs.checks import image_shape, in_order, integer, one_of, real_number
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.extras import import_extra
from pspc_rs.reprs import a_few, build_repr

Noise: TypeAlias = int | Callable[[Any], Any]
"""A seed, or a function like torch.randn_like that returns standard normal noise shaped like its argument."""

Generator: TypeAlias = Literal["auto", "torch", "numpy"]
"""The library whose generator draws the initial noise."""

_GENERATORS = ("auto", "torch", "numpy")
_MAX_SEED = 2**64 - 1

# What the variable that limits torch to older instructions may say.
_VECTORISED = ("avx2", "avx512")


def initial_noise(
    n: int, shape: Sequence[int], sigma_max: float = 80.0, seed: int = 0, *, generator: Generator = "auto"
) -> NDArray[np.float32]:
    """Normal noise of standard deviation sigma_max, float32 [n, channels, height, width], to start samplers from.

    With torch it is one batch of ``torch.randn`` from a CPU generator, the numbers that the scripts published with the
    PSPC and EDM papers start from with that seed; without torch, one batch of ``numpy.random.default_rng(seed)``. On
    Linux with AVX2 the core draws torch's numbers, bit for bit, and torch is not imported.

    Args:
        n: number of samples.
        shape: (channels, height, width).
        sigma_max: first noise level, in pixel units.
        seed: 0 .. 2^64 - 1.
        generator: "torch", "numpy", or "auto" for torch if it is installed; ``noise_source`` says which.

    Raises:
        InvalidValueError: an argument is out of range.
        ShapeError: shape does not have three lengths.
        DTypeError: an argument is of the wrong type.
        MissingDependencyError: torch was asked for and is not installed.

    Example:
        >>> initial_noise(2, (3, 32, 32)).shape
        (2, 3, 32, 32)
    """
    level = real_number("sigma_max", sigma_max, above=0)
    size = (integer("n", n), *image_shape(shape))
    return _normals(_checked_seed(seed), noise_source(generator))(size) * np.float32(level)


def noise_source(generator: Generator = "auto") -> str:
    """The library that draws initial noise, "torch" or "numpy": for "auto" torch, if it is installed.

    Raises:
        DTypeError: generator is not a string.
        InvalidValueError: generator is none of "auto", "torch", "numpy".

    Example:
        >>> noise_source("numpy")
        'numpy'
    """
    library = one_of("generator", generator, _GENERATORS)
    if library == "auto":
        return "torch" if importlib.util.find_spec("torch") else "numpy"
    return library


class ImageSeeds:
    """Noise with a seed and a generator for every image, as EDM's program draws it; no image depends on the others.

    The first numbers are the initial noise, the next ones what stochastic samplers add, step by step. With torch they
    are those of a CPU generator per seed, as in EDM's ``generate.py --seeds``; `initial_noise` draws one batch with one
    seed instead, and agrees with it in the first image alone.

    Args:
        seeds: one per image, 0 .. 2^32 - 1; larger ones count modulo 2^32, as there.
        generator: see `initial_noise`.

    Raises:
        InvalidValueError: there are no seeds, or one is out of range.
        DTypeError: one is not an integer.
        MissingDependencyError: torch was asked for and is not installed.

    Example:
        >>> few, many = ImageSeeds([3, 5]), ImageSeeds(range(10))
        >>> bool((few.initial((1, 2, 2)) == many.initial((1, 2, 2))[[3, 5]]).all())
        True
    """

    def __init__(self, seeds: Iterable[int], generator: Generator = "auto") -> None:
        self.seeds = tuple(_checked_seed(seed) for seed in seeds)
        if not self.seeds:
            raise InvalidValueError("there are no seeds; one per image is needed")
        self._library = noise_source(generator)
        self._draws = [_normals(seed % 2**32, self._library) for seed in self.seeds]

    def initial(self, shape: Sequence[int], sigma_max: float = 80.0) -> NDArray[np.float32]:
        """The next noise of every image times sigma_max, float32 [seeds, channels, height, width].

        Args:
            shape: (channels, height, width).
            sigma_max: first noise level, in pixel units.
        """
        level = real_number("sigma_max", sigma_max, above=0)
        return self._next(image_shape(shape)) * np.float32(level)

    def __call__(self, x: Any) -> Any:
        """The next noise of every image in the shape, kind, dtype and device of x."""
        if len(x) != len(self.seeds):
            raise ShapeError(f"there are {len(x)} images for {len(self.seeds)} seeds; allowed is one each")
        return like(self._next(tuple(x.shape[1:])), x)

    def __repr__(self) -> str:
        return build_repr(self, a_few(self.seeds), repr(self._library))

    def _next(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.stack([draw(shape) for draw in self._draws])


def noise_like(noise: Noise, template: Any) -> Callable[[Any], Any]:
    """A function that returns standard normal noise in the shape, kind, dtype and device of its argument.

    Args:
        noise: a function that does so already, whose results are checked, or a seed of numpy's generator (for arrays)
            or torch's CPU generator (for tensors). The numbers differ from those of ``initial_noise`` with that seed,
            so that noise added later does not repeat the initial noise.
        template: an array or tensor, as the function will be called with.

    Raises:
        DTypeError: noise is neither a function nor an integer.
        InvalidValueError: the seed is out of range.

    Example:
        >>> noise_like(1, np.zeros(1))
        SeededNoise(1, 'numpy')
        >>> noise_like(1, np.zeros(1))(np.zeros((2, 3), np.float32)).dtype
        dtype('float32')
    """
    if callable(noise):
        return lambda x: _checked_noise(noise(copy_of(x)), x)
    return SeededNoise(noise, "torch" if is_torch(template) else "numpy")


class SeededNoise:
    """A function that returns the next normal numbers of a seed, like its argument.

    Args:
        seed: 0 .. 2^64 - 1.
        library: whose generator draws, "numpy" or "torch".
    """

    def __init__(self, seed: int, library: str) -> None:
        self._seed = _checked_seed(seed)
        self._library = library
        other_seed = np.random.SeedSequence(self._seed).generate_state(1, np.uint64)
        self._draw = _normals(int(other_seed[0]), library)

    def __call__(self, x: Any) -> Any:
        """Standard normal noise in the shape, kind, dtype and device of x."""
        return like(self._draw(tuple(x.shape)), x)

    def __repr__(self) -> str:
        return build_repr(self, self._seed, repr(self._library))


def _normals(seed: int, library: str) -> Callable[[tuple[int, ...]], NDArray[np.float32]]:
    """A stream of float32 standard normal numbers: called with a shape, it returns the next ones."""
    if library == "numpy":
        stream = np.random.default_rng(seed)
        return lambda shape: stream.standard_normal(shape, dtype=np.float32)
    if _core_draws_as_torch() and importlib.util.find_spec("torch"):
        return _torch_normals(seed)
    torch = import_extra("torch", "generator='torch'", "torch", "generator='numpy' works without it")
    state = torch.Generator("cpu").manual_seed(seed)
    return lambda shape: to_numpy(torch.randn(shape, generator=state, dtype=torch.float32, device="cpu"))


def _torch_normals(seed: int) -> Callable[[tuple[int, ...]], NDArray[np.float32]]:
    """The stream of torch's CPU generator, drawn by the core: importing torch takes seconds."""
    stream = _core.TorchNormals(seed)

    def draw(shape: tuple[int, ...]) -> NDArray[np.float32]:
        numbers = np.empty(shape, np.float32)
        stream.fill(numbers.reshape(-1))
        return numbers

    return draw


def _core_draws_as_torch() -> bool:
    """Whether the core's numbers have the bits of torch's here: those of its AVX2 kernels, as GCC compiles them."""
    has_avx2 = "x86-64-v3" in dict(_core.build_info())["isa_available"]
    return sys.platform == "linux" and has_avx2 and os.environ.get("ATEN_CPU_CAPABILITY", _VECTORISED[0]) in _VECTORISED


def _checked_seed(seed: object) -> int:
    return integer("seed", seed, 0, _MAX_SEED)


def _checked_noise(drawn: Any, x: Any) -> Any:
    check_like("noise()", drawn, x)
    check_finite("what noise() returned", drawn)
    return drawn


@dataclass(frozen=True)
class Churn:
    """Noise that is added before a step, which raises the noise level: Karras et al. 2022, algorithm 2.

    Attributes:
        growth: factor by which the noise level grows, minus 1.
        lowest: lowest noise level at which noise is added.
        highest: highest noise level at which noise is added.
        strength: standard deviation of the added noise, relative to what the growth asks for.
    """

    growth: float
    lowest: float
    highest: float
    strength: float

    @classmethod
    def checked(cls, steps: int, S_churn: object, S_min: object, S_max: object, S_noise: object) -> Self:
        """The churn of so many steps: growth min(S_churn / steps, sqrt(2) - 1) where S_min <= sigma <= S_max.

        Raises:
            DTypeError: an argument is not a number.
            InvalidValueError: an argument is negative, or S_max below S_min.

        Example:
            >>> Churn.checked(10, 1.0, 0.0, float("inf"), 1.003)
            Churn(growth=0.1, lowest=0.0, highest=inf, strength=1.003)
        """
        churn, strength = real_number("S_churn", S_churn, least=0), real_number("S_noise", S_noise, least=0)
        lowest = real_number("S_min", S_min, least=0)
        is_infinite = isinstance(S_max, float | np.floating) and S_max == math.inf
        highest = math.inf if is_infinite else real_number("S_max", S_max, least=0)
        in_order("S_min", lowest, "S_max", highest)
        return cls(min(churn / steps, math.sqrt(2) - 1), lowest, highest, strength)

    def add(
        self,
        x: Any,
        sigma: float,
        draw: Callable[[Any], Any],
        round_sigma: Callable[[float], float] | None = None,
    ) -> tuple[Any, float]:
        """The state with noise added, and its noise level; both unchanged where no noise is added.

        Noise is drawn in either case, as EDM's sampler does, so that a generator gives the same noise at every step
        whatever the range in which noise is added.

        Args:
            x: the state.
            sigma: its noise level.
            draw: returns standard normal noise like its argument.
            round_sigma: the level that the model knows for a raised level.
        """
        noise = draw(x)
        if self.growth == 0 or not self.lowest <= sigma <= self.highest:
            return x, sigma
        raised = (1 + self.growth) * sigma
        if round_sigma is not None:
            raised = float(round_sigma(raised))
        return x + self.strength * math.sqrt(max(raised**2 - sigma**2, 0.0)) * noise, raised
