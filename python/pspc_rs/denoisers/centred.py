"""Denoisers that see a square around every pixel: the local score machine and its equivariant kin."""

import itertools
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.filtered import FilteredDenoiser
from pspc_rs.denoisers.filters import Filters
from pspc_rs.denoisers.orbit import Orbit, Views, shift
from pspc_rs.denoisers.square import sides_given
from pspc_rs.errors import InvalidValueError
from pspc_rs.schedules import PatchSchedule, resolve_centred_schedule
from pspc_rs.sigmas import Nearest

EquivariantSource: TypeAlias = Literal["wrapped", "inside"]
"""Which patches an equivariant denoiser knows: all places of images that wrap round, or those fully inside."""

Sides: TypeAlias = int | str | Sequence[int | str] | None


class CentredDenoiser(FilteredDenoiser):
    """A component per pixel: it compares on the square centred there, and answers for that pixel alone.

    Components are in the order of the pixels, row by row.

    Attributes:
        schedule: the side of the square at every noise level.
    """

    def __init__(
        self,
        data: ImageSet,
        schedule: str | Path | PatchSchedule | None = None,
        *,
        patch_sizes: Sides = None,
        window_sizes: Sides = None,
        sigmas: Any = None,
        scale_to: int | None = None,
        nearest: Nearest | None = None,
        orbit: Orbit | None = None,
        device: str = "cpu",
        temperature: float = 1.0,
        conditional: bool = False,
    ) -> None:
        super().__init__(data, source=orbit, device=device, temperature=temperature, conditional=conditional)
        sides = sides_given(type(self).__name__, schedule, patch_sizes, window_sizes)
        self.schedule = resolve_centred_schedule(
            sides, (data.height, data.width), sigmas=sigmas, scale_to=scale_to, nearest=nearest
        )
        for side in dict.fromkeys(self.schedule.patch_sizes):
            self._check_side(side)

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, temperature and source, and the numbers of the schedule."""
        return {**super().settings, "schedule": self.schedule.numbers}

    def __repr__(self) -> str:
        return self._repr_with(self.schedule)

    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        return [self.schedule.patch_sizes[index] for index in self.schedule.indices(sigmas)]

    def _check_side(self, side: int | str) -> None:
        """Refuses a side that the denoiser has no meaning for."""

    def _side(self, level: Hashable) -> int:
        """The side of a level in pixels; "full" is one that holds the image from every pixel."""
        return level if isinstance(level, int) else 2 * max(self.shape[1:]) - 1

    def _masks(self, level: Hashable) -> npt.NDArray[np.bool_]:
        _, height, width = self.shape
        y, x = np.indices((height, width)).reshape(2, -1)
        reach = self._side(level) // 2
        near = [self._distance(at, size) <= reach for at, size in ((y, height), (x, width))]
        return (near[0] & near[1]).reshape(-1, height, width)

    @staticmethod
    def _distance(at: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
        """How far pixels lie apart along an axis."""
        del size
        apart: npt.NDArray[np.int64] = np.abs(at[:, None] - at)
        return apart

    @abstractmethod
    def _filters(self, level: Hashable) -> Filters: ...


class LS(CentredDenoiser):
    """The local score machine: every pixel by the posterior given the square around it.

    A component compares on the k x k pixels centred at its pixel, as far as they are inside the image, with the same
    place of all images, and answers for that pixel. With the largest side, 2 max(H, W) - 1 or "full", it is the
    empirical denoiser. Kamb and Ganguli, "An analytic theory of creativity in convolutional diffusion models", arXiv
    2412.20292.

    Args:
        data: the training images.
        schedule: a published schedule by name (``"cifar10"``), a `PatchSchedule`, or the JSON file of one; its sides
            are those of the squares.
        patch_sizes: instead of a schedule: one odd side for every sigma, or one per level of ``sigmas``.
        window_sizes: another name of ``patch_sizes``.
        sigmas: noise levels of ``patch_sizes``, descending; the EDM grid of that length if not given.
        scale_to: adapts a schedule made for another image size to images of this side.
        nearest: how a sigma between levels picks one: by ``"linear"`` or ``"log"`` distance.
        source: the maps under which it sees the images; as they are if not given.
        device: ``"cpu"`` or ``"auto"``.
        temperature: see `Empirical`.
        conditional: see `Empirical`.

    Raises:
        ScheduleError: no schedule, or one made for another image size.
        InvalidValueError: an even side, or one larger than 2 max(H, W) - 1.
        CudaError: a GPU is asked for.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (100, 3, 8, 8), dtype=np.uint8)
        >>> D = pspc.LS(pspc.ImageSet(images), window_sizes=[15, 5, 3], sigmas=[10.0, 1.0, 0.1])
        >>> D(np.zeros((2, 3, 8, 8), np.float32), sigma=[3.0, 0.2]).shape
        (2, 3, 8, 8)
    """

    def __init__(
        self,
        data: ImageSet,
        schedule: str | Path | PatchSchedule | None = None,
        *,
        source: Orbit | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data, schedule, orbit=source, **options)

    def _filters(self, level: Hashable) -> Filters:
        boxes = _core.Weights.boxes(self._side(level), wraps=False)
        return Filters(boxes, _core.Weights.places(per_value=False), self._views())


class ELS(CentredDenoiser):
    """The equivariant local score machine: patches of every place of all images count at every pixel.

    The square around a pixel of z goes on at the opposite border. With ``source="wrapped"`` it is compared with every
    place of images that wrap round, too, as in the theory: with k = H = W that is the empirical denoiser of all
    circular shifts. With ``"inside"`` it is compared with the patches that lie fully inside an image, as in the
    authors' program.
    Kamb and Ganguli, arXiv 2412.20292. "full" in a schedule is the largest odd side that fits.

    Args:
        data: the training images.
        schedule: see `LS`.
        patch_sizes: see `LS`; sides up to the shorter side of the image.
        window_sizes: another name of ``patch_sizes``.
        sigmas: see `LS`.
        scale_to: see `LS`.
        nearest: see `LS`.
        source: ``"wrapped"`` or ``"inside"``.
        orbit: further maps under which it sees the images, before places are chosen.
        device: see `LS`.
        temperature: see `Empirical`.
        conditional: see `Empirical`.

    Raises:
        InvalidValueError: an even side, one larger than the image, or another source; and see `LS`.
        ScheduleError, CudaError: see `LS`.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.stack([np.zeros((1, 6, 6), np.uint8), np.full((1, 6, 6), 255, np.uint8)])
        >>> D = pspc.ELS(pspc.ImageSet(images), window_sizes=3)
        >>> D(np.full((1, 1, 6, 6), 0.2), 0.1).round(3).max()
        np.float64(1.0)
    """

    def __init__(
        self,
        data: ImageSet,
        schedule: str | Path | PatchSchedule | None = None,
        *,
        source: EquivariantSource = "wrapped",
        **options: Any,
    ) -> None:
        if source not in get_args(EquivariantSource):
            raise InvalidValueError(f"source is {source!r}; allowed are 'wrapped' and 'inside'")
        self.places = source
        super().__init__(data, schedule, **options)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of `LS`, and which patches count."""
        return {**super().settings, "places": self.places}

    def _check_side(self, side: int | str) -> None:
        _, height, width = self.shape
        if isinstance(side, int) and side > min(height, width):
            raise InvalidValueError(
                f"window side is {side}, but patches of {height} x {width} images have sides up to {min(height, width)}"
            )

    def _side(self, level: Hashable) -> int:
        side = min(self.shape[1:])
        return level if isinstance(level, int) else side - 1 + side % 2

    @property
    def num_views(self) -> int:
        """The maps of the orbit, each at every place."""
        return super().num_views * self.shape[1] * self.shape[2]

    @staticmethod
    def _distance(at: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
        apart: npt.NDArray[np.int64] = np.abs(at[:, None] - at)
        return np.minimum(apart, size - apart)

    def _filters(self, level: Hashable) -> Filters:
        _, height, width = self.shape
        side = self._side(level)
        shifts = list(np.ndindex(height, width))
        views = _shifted(self._views(), shifts, (height, width), wraps=True)
        boxes, places = _core.Weights.boxes(side, wraps=True), _core.Weights.places(per_value=False)
        if self.places == "wrapped":
            return Filters(boxes, places, views)
        # The patch at pixel p under shift s is that of the image at p + s.
        seen = np.array(
            [
                np.outer(*(_inside(n, side, s) for n, s in zip((height, width), one, strict=True))).ravel()
                for one in shifts
            ]
        )
        return Filters(boxes, places, views, np.repeat(seen, len(self._views()), axis=0))


class BBELS(CentredDenoiser):
    """The equivariant local score machine that knows the border: places with the same overlap with it count.

    z and images go on as zeros beyond the border. A pixel whose square lies inside is compared with all such places of
    all images; one nearer to an edge with the places as near to it; a corner with the same corner. With k >= H, W it is
    `LS`. Kamb and Ganguli, arXiv 2412.20292; equal overlap is counted for each of the four sides.

    Args:
        data: the training images.
        schedule: see `LS`.
        patch_sizes: see `LS`.
        window_sizes: another name of ``patch_sizes``.
        sigmas: see `LS`.
        scale_to: see `LS`.
        nearest: see `LS`.
        orbit: see `ELS`.
        device: see `LS`.
        temperature: see `Empirical`.
        conditional: see `Empirical`.

    Raises:
        ScheduleError, InvalidValueError, CudaError: see `LS`.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (10, 1, 6, 6), dtype=np.uint8)
        >>> pspc.BBELS(pspc.ImageSet(images), window_sizes=3)(np.zeros((1, 1, 6, 6)), 0.5).shape
        (1, 1, 6, 6)
    """

    @property
    def num_views(self) -> int:
        """The maps of the orbit, each at every shift; fewer where squares are large."""
        return super().num_views * (2 * self.shape[1] - 1) * (2 * self.shape[2] - 1)

    def _filters(self, level: Hashable) -> Filters:
        side, sizes = self._side(level), self.shape[1:]
        axes = [_same_overlap(size, side) for size in sizes]
        shifts = [(dy, dx) for dy, dx in itertools.product(axes[0], axes[1])]
        views = _shifted(self._views(), shifts, sizes, wraps=False)
        seen = np.array([np.outer(axes[0][dy], axes[1][dx]).ravel() for dy, dx in shifts])
        seen = np.repeat(seen, len(self._views()), axis=0)
        boxes = _core.Weights.boxes(side, wraps=False)
        return Filters(boxes, _core.Weights.places(per_value=False), views, seen)


def _shifted(views: Views, shifts: Sequence[tuple[int, ...]], sizes: tuple[int, int], *, wraps: bool) -> Views:
    """Every map followed by every shift (dy, dx) that brings the pixel at p + (dy, dx) to p."""
    maps = [one.reshape(sizes) for one in views]
    border: Any = "wrap" if wraps else "zero"
    return np.stack([shift(one, -dy, -dx, border).ravel() for dy, dx in shifts for one in maps])


def _inside(size: int, side: int, by: int) -> npt.NDArray[np.bool_]:
    """Whether the patch at every place along an axis, shifted around by so much, lies inside."""
    at = (np.arange(size) + by) % size
    return (at >= side // 2) & (at < size - side // 2)


def _same_overlap(size: int, side: int) -> dict[int, npt.NDArray[np.bool_]]:
    """By shift along an axis: at which places the square misses as much at either end as at the shifted place."""
    at = np.arange(size)
    missing = np.stack([np.maximum(side // 2 - at, 0), np.maximum(at + side // 2 - size + 1, 0)], axis=1)
    found: dict[int, npt.NDArray[np.bool_]] = {}
    for by in range(1 - size, size):
        inside = (at + by >= 0) & (at + by < size)
        same = inside & (missing == missing[(at + by) % size]).all(axis=1)
        if same.any():
            found[by] = same
    return found
