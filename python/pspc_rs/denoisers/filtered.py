"""Filtered denoisers: composites whose components have a query precision and response weights of their own."""

from abc import abstractmethod
from collections.abc import Hashable

from pspc_rs.data import ImageSet
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.denoisers.filters import Filters, Windows, build_filter, views_of
from pspc_rs.denoisers.orbit import Orbit, Views


class FilteredDenoiser(PosteriorComposite):
    """D(z)(d) = sum_k rho_k(d) sum_a w_ka y_a(d) / sum_k rho_k(d), a filtered posterior mean collection.

    w_ka is in proportion to pi_a exp(-sum_d lambda_k(d) (z(d) - y_a(d))^2 / (2 T sigma^2)): component k compares by its
    *query precision* lambda_k, answers by its *response weights* rho_k, and sees the images y_a of a *source
    distribution*, the data under the maps of an `Orbit`. Filtered Posterior Mean Collections, arXiv 2605.24192.
    Everything is computed on the CPU: posteriors and derivatives in float64, denoised images in float32 where it
    serves. Labels, left-out images, priors, temperatures, posteriors and derivatives are as in `PosteriorComposite`.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> D = pspc.SoftPSPC(pspc.ImageSet(np.zeros((2, 1, 4, 4), np.uint8)), widths=1.5)
        >>> isinstance(D, FilteredDenoiser), D.masks_at(1.0).shape
        (True, (16, 4, 4))
    """

    _most_levels: int | None = None
    """How many levels are kept; all if None. Where every sigma is a level of its own, they would take much memory."""

    def __init__(
        self,
        data: ImageSet,
        *,
        source: Orbit | None = None,
        device: str = "cpu",
        temperature: float = 1.0,
        conditional: bool = False,
    ) -> None:
        source = Orbit() if source is None else source
        super().__init__(data, device, temperature=temperature, conditional=conditional, source=source)

    @abstractmethod
    def _filters(self, level: Hashable) -> Filters:
        """The components of a level; called once per level."""

    def _build_windows(self, level: Hashable) -> Windows:
        return build_filter(self.shape, self._filters(level))

    def _windows_of(self, level: Hashable) -> Windows:
        windows = super()._windows_of(level)
        while self._most_levels is not None and len(self._windows) > self._most_levels:
            del self._windows[next(iter(self._windows))]
        return windows

    def _seen_as(self, level: Hashable) -> Windows:
        return self._build_windows(level)

    def _views(self) -> Views:
        return views_of(self.data, self.source)
