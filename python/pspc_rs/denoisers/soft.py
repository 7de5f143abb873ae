"""Soft windows: components that compare on all pixels, the nearer ones the more."""

import math
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.arrays import real_array
from pspc_rs.checks import real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.filtered import FilteredDenoiser
from pspc_rs.denoisers.filters import Filters
from pspc_rs.denoisers.orbit import Orbit
from pspc_rs.errors import InvalidValueError, ScheduleError
from pspc_rs.sigmas import Nearest, check_grid, check_nearest, edm_sigmas, nearest_index

Response: TypeAlias = float | Literal["same", "centre"]
"""How a soft window answers: as it compares, for its own pixel alone, or by a width of its own."""

_MOST_CHANGE = 1e-6
"""Taps end where all that is cut off changes no logit by more, for pixels within four sigma of the data's range."""

_NARROWEST = 1e-3


class SoftPSPC(FilteredDenoiser):
    """Soft windows: a component around every pixel q, with precision exp(-|p - q|^2 / (2 b^2)) at pixel p.

    It answers by the same weights (``response="same"``), for its own pixel (``"centre"``), or by those of another
    width. Windows are cut by the border only; their tails end where they change no output by more than about 1e-6.
    Filtered Posterior Mean Collections, arXiv 2605.24192.

    Args:
        data: the training images.
        widths: b in pixels, one for every sigma, or one per level of ``sigmas``.
        response: "same", "centre", or a width in pixels.
        sigmas: noise levels of several widths, descending; the EDM grid of that length if not given.
        nearest: how a sigma between levels picks one: by ``"linear"`` or ``"log"`` distance.
        source: see `Empirical`.
        device: ``"cpu"`` or ``"auto"``.
        temperature: see `Empirical`.
        conditional: see `Empirical`.

    Raises:
        InvalidValueError: a width that is not positive and finite, or another response.
        ScheduleError: not as many widths as noise levels.
        CudaError: a GPU is asked for.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (100, 3, 8, 8), dtype=np.uint8)
        >>> pspc.SoftPSPC(pspc.ImageSet(images), widths=1.5)(np.zeros((1, 3, 8, 8)), 0.5).shape
        (1, 3, 8, 8)
    """

    def __init__(
        self,
        data: ImageSet,
        widths: float | Sequence[float],
        *,
        response: Response = "same",
        sigmas: Any = None,
        nearest: Nearest = "linear",
        source: Orbit | None = None,
        device: str = "cpu",
        temperature: float = 1.0,
        conditional: bool = False,
    ) -> None:
        super().__init__(data, source=source, device=device, temperature=temperature, conditional=conditional)
        given = real_array("widths", widths).ravel().tolist()
        self.widths = tuple(real_number("width", width, above=_NARROWEST) for width in given)
        if sigmas is None:
            sigmas = [1.0] if len(self.widths) == 1 else edm_sigmas(len(self.widths), include_zero=False)
        self.sigmas = tuple(level for level in check_grid(sigmas).tolist() if level > 0)
        if len(self.sigmas) != len(self.widths):
            raise ScheduleError(f"widths has {len(self.widths)} entries for {len(self.sigmas)} noise levels above 0")
        check_nearest(nearest)
        self.nearest = nearest
        if isinstance(response, str) and response not in ("same", "centre"):
            raise InvalidValueError(f"response is {response!r}; allowed are 'same', 'centre' and a width in pixels")
        self.response = response if isinstance(response, str) else real_number("response", response, above=_NARROWEST)

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, temperature and source, the widths and the response."""
        own = {"widths": list(self.widths), "sigmas": list(self.sigmas), "nearest": self.nearest}
        return {**super().settings, **own, "response": self.response}

    def __repr__(self) -> str:
        widths = f"width {self.widths[0]:g}" if len(self.widths) == 1 else f"{len(self.widths)} widths"
        return self._repr_with(widths, f"response {self.response}")

    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        scale = np.log if self.nearest == "log" else np.asarray
        found = nearest_index(scale(sigmas), scale(np.array(self.sigmas)))
        widths = [self.widths[index] for index in found.tolist()]
        effective = sigmas * math.sqrt(self.temperature)
        return [(width, self._taps_needed(width, sigma)) for width, sigma in zip(widths, effective, strict=True)]

    @cached_property
    def _span(self) -> float:
        """From the least to the largest pixel."""
        return 2.0 if self.data.dtype == np.uint8 else float(np.ptp(self.data.images))

    def _taps_needed(self, width: float, sigma: float) -> int:
        """So many taps on each side, the middle one among them."""
        # What a pixel may add to a logit.
        most = self.shape[0] * (self._span + 4 * sigma) ** 2 / (2 * sigma**2)
        taps = _taps(width, max(self.shape[1:]))
        whole = 2 * taps.sum() - 1
        inside = 2 * np.cumsum(taps) - 1
        enough = np.flatnonzero(most * (whole**2 - inside**2) <= _MOST_CHANGE)
        return int(enough[0]) + 1 if len(enough) else len(taps)

    def _filters(self, level: Hashable) -> Filters:
        width, count = level if isinstance(level, tuple) else (self.widths[0], max(self.shape[1:]))
        precision = _core.Weights.taps(_taps(width, count))
        if self.response == "same":
            return Filters(precision, precision, self._views())
        if self.response == "centre":
            return Filters(precision, _core.Weights.places(per_value=False), self._views())
        taps = _taps(float(self.response), max(self.shape[1:]))
        return Filters(precision, _core.Weights.taps(taps[: max(1, int((taps > 1e-12).sum()))]), self._views())

    def _masks(self, level: Hashable) -> npt.NDArray[np.bool_]:
        _, height, width = self.shape
        reach = level[1] - 1 if isinstance(level, tuple) else max(height, width)
        y, x = np.indices((height, width)).reshape(2, -1)
        near: npt.NDArray[np.bool_] = (np.abs(y[:, None] - y) <= reach) & (np.abs(x[:, None] - x) <= reach)
        return near.reshape(-1, height, width)


def _taps(width: float, count: int) -> npt.NDArray[np.float64]:
    taps: npt.NDArray[np.float64] = np.exp(-(np.arange(count) ** 2) / (2 * width**2))
    return taps
