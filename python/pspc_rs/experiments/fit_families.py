"""Families of candidates that a schedule is fitted over: one denoiser per candidate value, on shared data."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs import _core
from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import PosteriorComposite, masks_from_maps
from pspc_rs.denoisers.filters import Windows
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.progress import Progress
from pspc_rs.schedules import FULL, PatchSchedule, Side, ThresholdSchedule

_SIDES = (3, 5, 7, 9, 11, 15, 19, 23, 27, 35, 43, 51)
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
        entropy = self._composite.posterior(z, sigma, top=1, exclude=exclude, progress=progress).entropy
        means: NDArray[np.float64] = entropy.mean(axis=1)
        return means

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
    """A composite whose windows are set by its user; they are kept for as long as the same ones are used."""

    def __init__(self, data: ImageSet) -> None:
        super().__init__(data)
        self._key: Hashable = None

    def use(self, key: Hashable, windows: Windows) -> None:
        """Sets the windows of the calls that follow; windows of another key are dropped."""
        self._windows = {key: windows}
        self._key = key

    def _levels(self, sigmas: NDArray[np.float64]) -> list[Hashable]:
        return [self._key] * len(sigmas)

    def _build_windows(self, level: Hashable) -> Windows:
        return self._windows[level]


def odd_sides(height: int, width: int) -> list[Side]:
    """Every odd side from 1 that is smaller than the image, and "full".

    Example:
        >>> odd_sides(8, 6)
        [1, 3, 5, 'full']
    """
    return [*range(1, min(height, width), 2), FULL]


class Sides(Family):
    """PSPC-Square with one side for all windows.

    Args:
        data: the training images.
        sides: candidates, 1 to the shorter side of the image or "full"; odd sides in growing steps and "full" if not
            given. In tables the full image is its longer side.

    Raises:
        InvalidValueError: a side that does not fit, or none.

    Example:
        >>> Sides(ImageSet(np.zeros((2, 1, 8, 8), np.uint8))).values
        (3.0, 5.0, 7.0, 8.0)
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
        side, (height, width) = self._side(value), (self._data.height, self._data.width)
        windows = (
            _core.Components.full(height, width)
            if isinstance(side, str)
            else _core.Components.square(height, width, side)
        )
        self._composite.use(side, windows)

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
        thresholds: candidates above 0 and up to 1; tenths if not given. 1 is the whole image.

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
    ) -> None:
        height, width = data.height, data.width
        expected = (len(sigmas), height, width, height, width)
        if heatmaps.shape != expected:
            raise ShapeError(
                f"heat maps have shape {list(heatmaps.shape)}; needed is {list(expected)} for these levels"
            )
        chosen = _THRESHOLDS if thresholds is None else thresholds
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
        return {"family": self.name, "data": self._data.fingerprint, "heatmaps_sha256": digest.hexdigest()}

    def _use(self, value: float, sigma: float) -> None:
        level, (height, width) = self._sigmas.index(sigma), (self._data.height, self._data.width)
        if value == 1:
            windows = _core.Components.full(height, width)
        else:
            masks = masks_from_maps(np.asarray(self._heatmaps[level]), value)
            windows = _core.Components.masks(masks.reshape(-1, height, width))
        self._composite.use((level, value), windows)

    def schedule(
        self, values: Sequence[float], sigmas: Sequence[float], name: str, provenance: dict[str, Any]
    ) -> ThresholdSchedule:
        """The schedule of these thresholds."""
        size = (self._data.height, self._data.width)
        return ThresholdSchedule(tuple(values), tuple(sigmas), size, name, provenance=provenance)
