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
from pspc_rs.checks import real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.denoisers.orbit import Orbit
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingFileError, ScheduleError, ShapeError
from pspc_rs.outputs import open_array
from pspc_rs.schedules import ThresholdSchedule, resolve_threshold_schedule
from pspc_rs.sigmas import Nearest

FloatArray = npt.NDArray[np.floating[Any]]


class PSPCFlex(PosteriorComposite):
    """The composite of the posterior means of one mask per output pixel.

    At each level the mask of an output pixel is the smallest set of highest-valued pixels of its heat map whose share
    of the map's sum is at least the level's threshold; the posterior mean counts for every pixel of the mask, not only
    the output pixel. Niedoba et al. 2025, sec. 5.2. A threshold of 1 is the empirical denoiser.

    Args:
        data: the training images.
        heatmaps: non-negative array, or `.npy` file (read by memory map), [levels, H, W, H, W]: entry
            [level, y, x] is the map over input pixels of output pixel (y, x).
        thresholds: a published schedule by name (``"cifar10"``), a `ThresholdSchedule`, the JSON file of one, a number
            for every sigma, or one number in (0, 1] per level.
        masks: instead of heat maps: bool array [components, H, W], used at every sigma.
        sigmas: noise levels of ``thresholds``, descending; the EDM grid of that length if not given.
        nearest: how a sigma between levels picks one: by ``"linear"`` distance, as published, or by ``"log"``.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``; see `PosteriorComposite`.
        temperature: see `Empirical`.
        conditional: see `Empirical`.
        source: see `Empirical`.

    Raises:
        ShapeError: heat maps or masks that do not fit the images.
        InvalidValueError: negative, NaN or all-zero heat maps, an empty mask, a temperature that is not positive and
            finite.
        DataError: conditional, but the data have no labels.
        CoverageError: a pixel that no mask covers.
        ScheduleError: no thresholds, thresholds made for another image size, or one level and another number of maps.

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
            self._source = self._checked_masks(masks)
            self._windows_of("masks")
            return
        if thresholds is None:
            raise ScheduleError("PSPCFlex needs thresholds= with its heat maps: a name, a number or one per level")
        maps = _open_maps(heatmaps)
        if isinstance(thresholds, int | float):
            thresholds = [thresholds] * len(maps)
        self.schedule = resolve_threshold_schedule(
            thresholds, image_size=(data.height, data.width), sigmas=sigmas, nearest=nearest
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
        masks = masks_from_maps(self.heatmaps[level], self.schedule.thresholds[level])
        return masks.reshape(-1, *self.shape[1:])


def masks_from_maps(heatmaps: FloatArray, threshold: float) -> npt.NDArray[np.bool_]:
    """The masks of one level: the smallest set of highest values of each map that has ``threshold`` of its sum.

    Values are sorted ascending (stable) and a pixel is kept where the cumulative share up to and including it is at
    least 1 - threshold, as published. Niedoba et al. 2025, sec. 5.2.

    Args:
        heatmaps: non-negative numbers [..., H, W], each map with a positive sum.
        threshold: share of the sum to keep, in (0, 1].

    Returns:
        bool array of the shape of ``heatmaps``.

    Raises:
        DTypeError: the threshold is not a number.
        InvalidValueError: a threshold outside (0, 1]; negative, NaN, infinite or all-zero maps.

    Example:
        >>> import numpy as np
        >>> masks_from_maps(np.array([[[1.0, 5.0], [3.0, 1.0]]]), 0.75)
        array([[[False,  True],
                [ True, False]]])
    """
    threshold = real_number("threshold", threshold, above=0, most=1)
    maps = np.asarray(heatmaps)
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1]).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = flat.sum(axis=1)
    if not np.isfinite(sums).all() or flat.min() < 0 or sums.min() <= 0:
        raise InvalidValueError("heat maps must be finite and non-negative, each with a positive sum")
    order = np.argsort(flat, axis=1, kind="stable")
    shares = np.take_along_axis(flat, order, axis=1).cumsum(axis=1) / sums[:, None]
    # The published thresholds are float32 numbers, and 1 - threshold is formed in float32.
    kept = shares >= np.float32(1) - np.float32(threshold)
    kept[:, -1] = True
    masks: npt.NDArray[np.bool_] = np.empty(kept.shape, bool)
    np.put_along_axis(masks, order, kept, axis=1)
    return masks.reshape(maps.shape)


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
