"""PSPC-Flex: posterior composites over one mask per output pixel, cut from heat maps or given."""

import hashlib
from collections.abc import Hashable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.arrays import as_numpy, is_array, real_array
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.denoisers.masks import FloatArray, covering_masks
from pspc_rs.denoisers.orbit import Orbit
from pspc_rs.errors import DataError, DTypeError, MissingFileError, ScheduleError, ShapeError
from pspc_rs.outputs import open_array
from pspc_rs.schedules import MaskSizes, ThresholdSchedule, resolve_threshold_schedule
from pspc_rs.sigmas import Nearest


class PSPCFlex(PosteriorComposite):
    """The composite of the posterior means of one mask per output pixel.

    At each level the mask of an output pixel is the smallest set of highest-valued pixels of its heat map whose share
    of the map's sum is at least the level's threshold; the posterior mean counts for every pixel of the mask, not only
    the output pixel. Niedoba et al. 2025, sec. 5.2. A threshold of 1 is the empirical denoiser. A pixel that
    no mask has is put into its own, see `covering_masks`.

    Args:
        data: the training images.
        heatmaps: non-negative array, or `.npy` file (read by memory map), [levels, H, W, H, W]: entry
            [level, y, x] is the map over input pixels of output pixel (y, x).
        thresholds: a published schedule by name (``"cifar10"``), a `ThresholdSchedule`, the JSON file of one, a number
            for every sigma, or one number in (0, 1] per level.
        sizes: what a threshold is a share of: "mass", of each map's sum, as published, or "equal", of the pixels of the
            image, so that all masks of a level have one size; see `masks_from_maps`. One threshold gives masks of few
            and of many pixels by mass, where parts of the images hardly vary. None takes what the schedule says, and
            "mass" for numbers.
        masks: instead of heat maps: bool array [components, H, W], used at every sigma.
        sigmas: noise levels of ``thresholds``, descending; the EDM grid of that length if not given.
        nearest: how a sigma between levels picks one: by ``"linear"`` distance, as published, or by ``"log"``.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``; see `PosteriorComposite`.
        temperature: see `Empirical`.
        conditional: see `Empirical`.
        source: see `Empirical`.

    Raises:
        ShapeError: heat maps or masks that do not fit the images.
        InvalidValueError: negative or NaN heat maps, other sizes, an empty mask, a temperature that is not positive and
            finite.
        DataError: conditional, but the data have no labels.
        CoverageError: a pixel that none of the given masks covers.
        ScheduleError: no thresholds, sizes that are not those of the schedule or beside masks, thresholds
            made for another image size, or one level and another number of maps.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 6), dtype=np.uint8)
        >>> halves = np.zeros((2, 4, 6), bool)
        >>> halves[0, :, :4] = halves[1, :, 2:] = True
        >>> F = pspc.PSPCFlex(pspc.ImageSet(images), masks=halves)
        >>> F
        PSPCFlex(ImageSet('array', 50 images of [1, 4, 6] uint8, no labels, xflip=False), 2 masks, device='cpu')
        >>> F(np.zeros((1, 1, 4, 6)), 0.5).dtype
        dtype('float64')
    """

    def __init__(
        self,
        data: ImageSet,
        *,
        heatmaps: str | Path | FloatArray | None = None,
        thresholds: float | str | Path | Sequence[float] | ThresholdSchedule | None = None,
        sizes: MaskSizes | None = None,
        masks: npt.NDArray[np.bool_] | None = None,
        sigmas: Any = None,
        nearest: Nearest | None = None,
        device: str = "cpu",
        temperature: float = 1.0,
        conditional: bool = False,
        source: Orbit | None = None,
    ) -> None:
        super().__init__(data, device, temperature=temperature, conditional=conditional, source=source)
        self.schedule: ThresholdSchedule | None = None
        self.heatmaps: FloatArray | None = None
        self._source: npt.NDArray[Any]
        if (masks is None) == (heatmaps is None):
            raise ScheduleError("PSPCFlex needs either heatmaps= with thresholds=, or masks=")
        if masks is not None:
            if sizes is not None:
                raise ScheduleError(f"sizes are {sizes!r}, and masks are given; sizes are for masks cut from heat maps")
            self._source = self._checked_masks(masks)
            self._windows_of("masks")
            return
        if thresholds is None:
            raise ScheduleError("PSPCFlex needs thresholds= with its heat maps: a name, a number or one per level")
        maps = _open_maps(heatmaps)
        if isinstance(thresholds, int | float):
            thresholds = [thresholds] * len(maps)
        self.schedule = resolve_threshold_schedule(
            thresholds, image_size=(data.height, data.width), sigmas=sigmas, nearest=nearest, sizes=sizes
        )
        self.heatmaps = self._checked_maps(maps, self.schedule)
        self._source = self.heatmaps

    @property
    def settings(self) -> dict[str, Any]:
        """The class, fingerprint, temperature (if not 1), schedule, and a checksum of the heat maps or masks."""
        schedule = None if self.schedule is None else self.schedule.numbers
        return {**super().settings, "schedule": schedule, "maps_sha256": self._checksum}

    def __repr__(self) -> str:
        maps = f"{len(self._source)} masks" if self.schedule is None else repr(self.schedule)
        return self._repr_with(maps)

    @cached_property
    def _checksum(self) -> str:
        digest = hashlib.sha256(f"{self._source.shape} {self._source.dtype}".encode())
        for part in self._source:
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    def _checked_masks(self, masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        try:
            masks = np.asarray(masks)
        except ValueError as error:
            raise ShapeError(f"masks are not rectangular: {error}") from error
        _, height, width = self.shape
        if masks.ndim != 3 or masks.shape[1:] != (height, width):
            raise ShapeError(f"masks have shape {list(masks.shape)}, expected [components, {height}, {width}]")
        if masks.dtype != np.bool_:
            raise DTypeError(f"masks have dtype {masks.dtype}, expected bool")
        # A copy whose bytes are 0 and 1, as those of foreign memory need not be.
        checked: npt.NDArray[np.bool_] = masks.view(np.uint8) != 0
        return checked

    def _checked_maps(self, maps: FloatArray, schedule: ThresholdSchedule) -> FloatArray:
        _, height, width = self.shape
        expected = (len(schedule.sigmas), height, width, height, width)
        if maps.shape != expected:
            raise ShapeError(
                f"heat maps have shape {list(maps.shape)}, expected {list(expected)} for "
                f"{len(schedule.sigmas)} levels of {height} x {width} images"
            )
        if maps.dtype.kind not in "biuf":
            raise DTypeError(f"heat maps have dtype {maps.dtype}; allowed are real numbers")
        return maps

    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        if self.schedule is None:
            return ["masks"] * len(sigmas)
        thresholds = self.schedule.thresholds
        return ["full" if thresholds[index] == 1 else index for index in self.schedule.indices(sigmas)]

    def _build_windows(self, level: Hashable) -> _core.Components:
        _, height, width = self.shape
        return _core.Components.full(height, width) if level == "full" else _core.Components.masks(self._masks(level))

    def _masks(self, level: Hashable) -> npt.NDArray[np.bool_]:
        if level == "masks":
            return self._source
        if self.schedule is None or self.heatmaps is None or not isinstance(level, int):
            return super()._masks(level)
        return covering_masks(self.heatmaps[level], self.schedule.thresholds[level], self.schedule.sizes)


def _open_maps(heatmaps: str | Path | FloatArray | None) -> FloatArray:
    if not isinstance(heatmaps, str | Path):
        return np.atleast_1d(as_numpy(heatmaps, "heatmaps") if is_array(heatmaps) else real_array("heatmaps", heatmaps))
    path = Path(heatmaps)
    if not path.is_file():
        raise MissingFileError(f"there is no heat-map file {str(heatmaps)!r}")
    try:
        return open_array(path)
    except DataError as error:
        raise DataError(f"cannot read heat maps: {error}") from error
