"""Any filtered posterior mean: rows of weights for what components compare on and what they answer for."""

import hashlib
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.arrays import as_numpy, is_array
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.filtered import FilteredDenoiser
from pspc_rs.denoisers.filters import Filters
from pspc_rs.denoisers.orbit import Orbit
from pspc_rs.errors import DTypeError, ShapeError

Rows: TypeAlias = npt.NDArray[np.floating[Any]]
Weighting: TypeAlias = Rows | Callable[[float], Rows]


class FilteredPosteriorMean(FilteredDenoiser):
    """D(z)(d) = sum_k rho_k(d) E[x(d) | z, lambda_k] / sum_k rho_k(d), with any weights lambda and rho.

    Component k weighs the squared difference at a pixel, or at a value of a channel, by lambda_k, and answers for it by
    rho_k. A row of zeros in the precision means equal weights; one in the response, a component that is not asked.
    Filtered Posterior Mean Collections, arXiv 2605.24192.

    Args:
        data: the training images.
        precision: lambda, float [components, H, W] or [components, C, H, W], none negative; or a function of sigma.
        response: rho, the same; the precision if not given.
        source: see `Empirical`.
        device: ``"cpu"`` or ``"auto"``.
        temperature: see `Empirical`.
        conditional: see `Empirical`.

    Raises:
        ShapeError: rows that do not fit the images, or not as many of one as of the other.
        InvalidValueError: a negative weight, or NaN.
        CoverageError: a pixel for which no component answers.
        CudaError: a GPU is asked for.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 6), dtype=np.uint8)
        >>> rows = np.random.default_rng(1).uniform(size=(5, 4, 6))
        >>> pspc.FilteredPosteriorMean(pspc.ImageSet(images), precision=rows)(np.zeros((1, 1, 4, 6)), 0.5).shape
        (1, 1, 4, 6)
    """

    _most_levels = 4

    def __init__(
        self,
        data: ImageSet,
        precision: Weighting,
        response: Weighting | None = None,
        *,
        source: Orbit | None = None,
        device: str = "cpu",
        temperature: float = 1.0,
        conditional: bool = False,
    ) -> None:
        super().__init__(data, source=source, device=device, temperature=temperature, conditional=conditional)
        self._precision = self._checked("precision", precision)
        self._response = self._precision if response is None else self._checked("response", response)
        if not callable(self._precision) and not callable(self._response):
            self._windows_of("rows")

    @property
    def settings(self) -> dict[str, Any]:
        """Those of every filtered denoiser, and checksums of the rows, or names of functions."""
        return {**super().settings, "precision": _name(self._precision), "response": _name(self._response)}

    def __repr__(self) -> str:
        parts = [one for one in (self._precision, self._response) if not callable(one)]
        return self._repr_with(f"{len(parts[0])} components" if parts else "rows by sigma")

    def _checked(self, name: str, rows: Any) -> Weighting:
        if callable(rows):
            function: Callable[[float], Rows] = rows
            return function
        if not is_array(rows):
            raise DTypeError(f"{name} is a {type(rows).__name__}; allowed are arrays of floats and functions of sigma")
        values = np.array(as_numpy(rows, name))
        if values.dtype.kind not in "biuf":
            raise DTypeError(f"{name} has dtype {values.dtype}; allowed are real numbers")
        channels, height, width = self.shape
        if (
            values.ndim not in (3, 4)
            or values.shape[1:] not in ((height, width), (channels, height, width))
            or not len(values)
        ):
            raise ShapeError(
                f"{name} has shape {list(values.shape)}; allowed are [components, {height}, {width}] and "
                f"[components, {channels}, {height}, {width}]"
            )
        return values

    def _rows(self, name: str, weighting: Weighting, level: Hashable) -> Rows:
        if not callable(weighting):
            return weighting
        sigma = level if isinstance(level, float) else 1.0
        rows = self._checked(f"{name} at sigma {sigma:g}", weighting(sigma))
        if callable(rows):
            raise DTypeError(f"{name} is a function that gives a function; allowed are arrays of floats")
        return rows

    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        if callable(self._precision) or callable(self._response):
            return [float(sigma) for sigma in sigmas]
        return ["rows"] * len(sigmas)

    def _filters(self, level: Hashable) -> Filters:
        precision = self._rows("precision", self._precision, level)
        same = self._response is self._precision
        response = precision if same else self._rows("response", self._response, level)
        return Filters(_weights(precision), _weights(response), self._views())

    def _masks(self, level: Hashable) -> npt.NDArray[np.bool_]:
        """Which pixels count at all."""
        rows = self._rows("precision", self._precision, level) > 0
        return rows if rows.ndim == 3 else np.logical_or.reduce(rows, axis=1, dtype=np.bool_)


def _weights(rows: Rows) -> _core.Weights:
    return _core.Weights.rows(rows.reshape(len(rows), -1).astype(np.float64), per_value=rows.ndim == 4)


def _name(weighting: Weighting) -> str:
    if callable(weighting):
        return getattr(weighting, "__qualname__", type(weighting).__name__)
    digest = hashlib.sha256(f"{weighting.shape} {weighting.dtype}".encode())
    digest.update(np.ascontiguousarray(weighting).data)
    return digest.hexdigest()
