"""PSPC-Square: posterior composites over all square windows of a side that depends on sigma."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.denoisers.filters import Windows
from pspc_rs.denoisers.orbit import Orbit
from pspc_rs.errors import ScheduleError
from pspc_rs.schedules import PatchSchedule, resolve_patch_schedule
from pspc_rs.sigmas import Nearest


class PSPCSquare(PosteriorComposite):
    """The composite of the posterior means of all s x s windows, s chosen by the noise level.

    Every window that fits the image (no padding) has its own posterior over the training patches at the same place;
    a pixel is the mean over all windows that contain it. Niedoba et al. 2025, sec. 5.1, eq. 11. A window as large as
    the image is the empirical denoiser.

    Args:
        data: the training images.
        schedule: a published schedule by name (``"cifar10"``), a `PatchSchedule`, or the JSON file of one.
        patch_sizes: instead of a schedule: one side for every sigma, or one side per level of ``sigmas``.
        window_sizes: another name of ``patch_sizes``.
        sigmas: noise levels of ``patch_sizes``, descending; the EDM grid of that length if not given.
        scale_to: adapts a schedule made for another image size to images of this side.
        nearest: how a sigma between levels picks one: by ``"linear"`` distance, as published, or by ``"log"``.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``; see `PosteriorComposite`.
        temperature: see `Empirical`.
        conditional: see `Empirical`.
        source: see `Empirical`.

    Raises:
        ScheduleError: no schedule, or one made for another image size.
        InvalidValueError: a side that is larger than the image, or a temperature that is not positive and finite.
        DataError: conditional, but the data have no labels.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (100, 3, 8, 8), dtype=np.uint8)
        >>> D = pspc.PSPCSquare(pspc.ImageSet(images), patch_sizes=[8, 5, 3], sigmas=[10.0, 1.0, 0.1])
        >>> D  # doctest: +ELLIPSIS
        PSPCSquare(ImageSet(...), PatchSchedule('custom', 3 levels from sigma 10 to 0.1, ...), device='cpu')
        >>> D(np.zeros((2, 3, 8, 8), np.float32), sigma=[3.0, 0.2]).shape
        (2, 3, 8, 8)
    """

    def __init__(
        self,
        data: ImageSet,
        schedule: str | Path | PatchSchedule | None = None,
        *,
        patch_sizes: int | Sequence[int | str] | None = None,
        window_sizes: int | Sequence[int | str] | None = None,
        sigmas: Any = None,
        scale_to: int | None = None,
        nearest: Nearest | None = None,
        device: str = "cpu",
        temperature: float = 1.0,
        conditional: bool = False,
        source: Orbit | None = None,
    ) -> None:
        super().__init__(data, device, temperature=temperature, conditional=conditional, source=source)
        self.schedule = resolve_patch_schedule(
            sides_given("PSPCSquare", schedule, patch_sizes, window_sizes),
            image_size=(data.height, data.width),
            sigmas=sigmas,
            scale_to=scale_to,
            nearest=nearest,
        )
        for side in dict.fromkeys(self.schedule.patch_sizes):
            self._windows_of(side)

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, a temperature other than 1, and the numbers of the schedule."""
        return {**super().settings, "schedule": self.schedule.numbers}

    def __repr__(self) -> str:
        return self._repr_with(self.schedule)

    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        return [self.schedule.patch_sizes[index] for index in self.schedule.indices(sigmas)]

    def _build_windows(self, level: Hashable) -> Windows:
        _, height, width = self.shape
        if isinstance(level, int):
            return _core.Components.square(height, width, level)
        return _core.Components.full(height, width)

    def _masks(self, level: Hashable) -> npt.NDArray[np.bool_]:
        if not isinstance(level, int):
            return super()._masks(level)
        _, height, width = self.shape
        corners = list(np.ndindex(height - level + 1, width - level + 1))
        masks = np.zeros((len(corners), height, width), np.bool_)
        for mask, (top, left) in zip(masks, corners, strict=True):
            mask[top : top + level, left : left + level] = True
        return masks


def sides_given(name: str, schedule: object, patch_sizes: object, window_sizes: object) -> object:
    """The one of three arguments by which a windowed denoiser is told its sides.

    Args:
        name: the denoiser, for messages.
        schedule: a name, a `PatchSchedule` or a file.
        patch_sizes: a side, or one per noise level.
        window_sizes: the same by another name.

    Raises:
        ScheduleError: none is given, or more than one.

    Example:
        >>> sides_given("LS", None, None, [5, 3])
        [5, 3]
    """
    given = [one for one in (schedule, patch_sizes, window_sizes) if one is not None]
    if len(given) != 1:
        raise ScheduleError(
            f"{name} needs either schedule= (a name, a PatchSchedule or a file) or patch_sizes=, also called "
            f"window_sizes= (a side, or one per noise level), got schedule={schedule!r}, patch_sizes={patch_sizes!r} "
            f"and window_sizes={window_sizes!r}"
        )
    return given[0]
