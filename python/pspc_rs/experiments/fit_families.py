"""Families of candidates that a schedule is fitted over: one denoiser per candidate value, on shared data."""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from pspc_rs import _core
from pspc_rs.checks import integer, one_of, real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import PosteriorComposite
from pspc_rs.denoisers.filters import Windows
from pspc_rs.denoisers.masks import covering_masks, equal_size
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.patches import patch_errors
from pspc_rs.progress import Progress
from pspc_rs.schedules import FULL, MaskSizes, PatchSchedule, Side, ThresholdSchedule

Candidate: TypeAlias = Side | NDArray[np.bool_]
"""What decides the windows of a candidate: the side of squares, "full", or masks."""

_SIDES = (1, 2, 3, 5, 7, 9, 11, 15, 19, 23, 27, 35, 43, 51)
_THRESHOLDS = tuple(round(0.1 * tenths, 1) for tenths in range(1, 11))


class Family(ABC):
    """The candidates of a fit, in ascending order: of two that fit equally well, the first is taken.

    Attributes:
        name: what tables call the candidates' value: "side" or "threshold".
        values: the candidates as numbers.
    """

    name: str
    values: tuple[float, ...]
    _composite: "_Composite"

    def computed_by(self, form: Callable[["_Composite"], "_Composite"]) -> Self:
        """The same candidates, computed by another form of the composite that stands for them all.

        Args:
            form: returns a form that gives the same numbers, such as one across ranks.
        """
        other = copy.copy(self)
        other._composite = form(self._composite)
        return other

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{value:g}' for value in self.values)})"

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What decides the numbers besides the candidate, for records."""

    @abstractmethod
    def _use(self, value: float, sigma: float) -> None:
        """Has the composite use the windows of a candidate at a noise level."""

    def denoise(
        self,
        value: float,
        z: NDArray[Any],
        sigma: float,
        progress: Progress | None = None,
        exclude: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[Any]:
        """D(z, sigma) of a candidate; ``exclude`` are images that do not count, one per noisy image."""
        self._use(value, sigma)
        return self._composite(z, sigma, exclude=exclude, progress=progress)

    def entropy(
        self,
        value: float,
        z: NDArray[Any],
        sigma: float,
        progress: Progress | None = None,
        exclude: NDArray[np.integer[Any]] | None = None,
    ) -> NDArray[np.float64]:
        """The mean entropy of a candidate's posteriors over its windows, in nats, one per noisy image.

        Every image of the data counts; ``exclude`` is that of `denoise`.
        """
        self._use(value, sigma)
        entropy = self._composite.entropy(z, sigma, exclude, progress)
        means: NDArray[np.float64] = entropy.mean(axis=1)
        return means

    def patch_errors(self, value: float, z: NDArray[Any], sigma: float, target: NDArray[Any]) -> NDArray[np.float64]:
        """The mean squared error of a candidate's single windows, one per noisy image; see `patches.patch_errors`.

        Raises:
            InvalidValueError: the candidates are no squares.
        """
        raise InvalidValueError(f"errors of single windows are for sides, not for {self!r}")

    def num_atoms(self, *, leave_one_out: bool = False) -> int:
        """How many images the posteriors are over, flips among them."""
        data = self._composite.data
        return (data.num_stored - leave_one_out) * (1 + data.xflip)

    @abstractmethod
    def schedule(
        self, values: Sequence[float], sigmas: Sequence[float], name: str, provenance: dict[str, Any]
    ) -> PatchSchedule | ThresholdSchedule:
        """The schedule with one candidate per noise level."""


class _Composite(PosteriorComposite):
    """A composite whose windows are set by its user; they are kept for as long as the same ones are used.

    Attributes:
        key: of the candidate in use.
    """

    def __init__(self, data: ImageSet) -> None:
        super().__init__(data)
        self.key: Hashable = None
        self._candidate: Candidate = FULL

    def use(self, key: Hashable, candidate: Candidate) -> None:
        """Sets the candidate of the calls that follow; the windows of the one before are dropped."""
        self._announce_call("use", key, candidate)
        self._windows = {}
        self.key, self._candidate = key, candidate

    def entropy(
        self,
        z: NDArray[Any],
        sigma: float,
        exclude: NDArray[np.integer[Any]] | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """The entropy of the posterior of every window, in nats, [batch, windows]."""
        self._announce_call("entropy", z, sigma, exclude)
        # Announced as a whole: the posterior has none to announce to.
        own = copy.copy(self)
        own._announce = None
        entropy: NDArray[np.float64] = own.posterior(z, sigma, top=1, exclude=exclude, progress=progress).entropy
        return entropy

    def _levels(self, sigmas: NDArray[np.float64]) -> list[Hashable]:
        return [self.key] * len(sigmas)

    def _build_windows(self, level: Hashable) -> Windows:
        del level
        candidate, (_, height, width) = self._candidate, self.shape
        if isinstance(candidate, np.ndarray):
            return _core.Components.masks(candidate)
        if isinstance(candidate, str):
            return _core.Components.full(height, width)
        return _core.Components.square(height, width, candidate)


def odd_sides(height: int, width: int) -> list[Side]:
    """Every odd side from 1 that is smaller than the image, and "full".

    Example:
        >>> odd_sides(8, 6)
        [1, 3, 5, 'full']
    """
    return [*range(1, min(height, width), 2), FULL]


def square_shares(height: int, width: int) -> list[float]:
    """The shares of an image that squares of the usual sides have, and 1: candidates for masks of equal size.

    Example:
        >>> square_shares(4, 4)
        [0.0625, 0.25, 0.5625, 1.0]
    """
    pixels = height * width
    return [*(equal_size(side**2 / pixels, pixels) / pixels for side in _SIDES if side < min(height, width)), 1.0]


class Sides(Family):
    """PSPC-Square with one side for all windows.

    Args:
        data: the training images.
        sides: candidates, 1 to the shorter side of the image or "full"; 1, 2, odd sides in growing steps and "full" if
            not given. In tables the full image is its longer side.

    Raises:
        InvalidValueError: a side that does not fit, or none.

    Example:
        >>> Sides(ImageSet(np.zeros((2, 1, 8, 8), np.uint8))).values
        (1.0, 2.0, 3.0, 5.0, 7.0, 8.0)
    """

    name = "side"

    def __init__(self, data: ImageSet, sides: Sequence[Side] | None = None) -> None:
        shorter, longer = sorted((data.height, data.width))
        chosen = [*(side for side in _SIDES if side < shorter), FULL] if sides is None else list(sides)
        numbers = sorted({longer if side == FULL else integer("side", side) for side in chosen})
        if not numbers or any(number > shorter and number != longer for number in numbers):
            raise InvalidValueError(f'sides are {chosen}; allowed are 1 to {shorter} and "full"')
        self.values = tuple(float(number) for number in numbers)
        self._data, self._composite = data, _Composite(data)

    @property
    def settings(self) -> dict[str, Any]:
        """The family and the fingerprint of the data."""
        return {"family": self.name, "data": self._data.fingerprint}

    def _side(self, value: float) -> Side:
        return FULL if value == max(self._data.height, self._data.width) else int(value)

    def _use(self, value: float, sigma: float) -> None:
        del sigma
        side = self._side(value)
        if self._composite.key != side:
            self._composite.use(side, side)

    def patch_errors(self, value: float, z: NDArray[Any], sigma: float, target: NDArray[Any]) -> NDArray[np.float64]:
        """See `Family.patch_errors`."""
        (found,) = patch_errors(self._data, z, sigma, target, [int(value)])
        return found.errors

    def schedule(
        self, values: Sequence[float], sigmas: Sequence[float], name: str, provenance: dict[str, Any]
    ) -> PatchSchedule:
        """The schedule of these sides."""
        size = (self._data.height, self._data.width)
        sides = tuple(self._side(value) for value in values)
        return PatchSchedule(sides, tuple(sigmas), size, name, provenance=provenance)


class Thresholds(Family):
    """PSPC-Flex with masks cut from heat maps at one threshold.

    Args:
        data: the training images.
        heatmaps: [levels, H, W, H, W].
        sigmas: noise level of each, descending.
        thresholds: candidates above 0 and up to 1; if not given tenths, or for masks of equal size those of squares of
            the sides of `Sides`. 1 is the whole image.
        sizes: what they are shares of, "mass" or "equal"; see `ThresholdSchedule`.

    Raises:
        ShapeError: heat maps that do not fit the images or the noise levels.
        InvalidValueError: a threshold out of range, or none.

    Example:
        >>> data = ImageSet(np.zeros((2, 1, 2, 2), np.uint8))
        >>> family = Thresholds(data, np.ones((1, 2, 2, 2, 2)), [1.0], [1, 0.5])
        >>> family.values
        (0.5, 1.0)
    """

    name = "threshold"

    def __init__(
        self,
        data: ImageSet,
        heatmaps: NDArray[Any],
        sigmas: Sequence[float],
        thresholds: Sequence[float] | None = None,
        *,
        sizes: MaskSizes = "mass",
    ) -> None:
        height, width = data.height, data.width
        self._sizes = cast(MaskSizes, one_of("sizes", sizes, get_args(MaskSizes)))
        expected = (len(sigmas), height, width, height, width)
        if heatmaps.shape != expected:
            raise ShapeError(
                f"heat maps have shape {list(heatmaps.shape)}; needed is {list(expected)} for these levels"
            )
        usual = _THRESHOLDS if sizes == "mass" else square_shares(height, width)
        chosen = usual if thresholds is None else thresholds
        self.values = tuple(sorted({real_number("threshold", one, above=0, most=1) for one in chosen}))
        if not self.values:
            raise InvalidValueError("there are no thresholds; at least one is needed")
        self._data, self._composite = data, _Composite(data)
        self._heatmaps, self._sigmas = heatmaps, [float(sigma) for sigma in sigmas]

    @property
    def settings(self) -> dict[str, Any]:
        """The family, the fingerprint of the data and a checksum of the heat maps."""
        digest = hashlib.sha256()
        for level in self._heatmaps:
            digest.update(np.ascontiguousarray(level).data)
        sizes = {} if self._sizes == "mass" else {"sizes": self._sizes}
        return {"family": self.name, "data": self._data.fingerprint, "heatmaps_sha256": digest.hexdigest(), **sizes}

    def _use(self, value: float, sigma: float) -> None:
        key = level, _ = self._sigmas.index(sigma), value
        if self._composite.key == key:
            return
        maps = self._heatmaps[level]
        self._composite.use(key, FULL if value == 1 else covering_masks(np.asarray(maps), value, self._sizes))

    def schedule(
        self, values: Sequence[float], sigmas: Sequence[float], name: str, provenance: dict[str, Any]
    ) -> ThresholdSchedule:
        """The schedule of these thresholds."""
        size = (self._data.height, self._data.width)
        return ThresholdSchedule(tuple(values), tuple(sigmas), size, name, provenance=provenance, sizes=self._sizes)
