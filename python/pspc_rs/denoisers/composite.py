"""The engine's denoisers: posterior mean composites, which differ only in the windows they use at a noise level."""

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.base import Denoiser, Progress


class PosteriorComposite(Denoiser):
    """D(z)(p) = mean over windows k at p of sum_n w_kn x_n(p), w_kn the posterior of image n given window k of z.

    Niedoba et al., "Towards a Mechanistic Explanation of Diffusion Model Generalization", ICML 2025, eq. 11. The
    engine scans every image and leaves out only weights that float32 could not show; the bits of the result depend
    neither on the number of threads nor on the other queries of a batch.
    """

    def __init__(self, data: ImageSet) -> None:
        super().__init__(data.shape)
        self.data = data
        self._bank = _core.Bank(data.images)
        self._windows: dict[Hashable, _core.Windows] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The class and the fingerprint of the data."""
        return {**super().settings, "data": self.data.fingerprint}

    @abstractmethod
    def _level(self, sigma: float) -> Hashable:
        """What decides the windows at this noise level."""

    @abstractmethod
    def _build_windows(self, level: Hashable) -> _core.Windows:
        """The windows of a level; called once a level."""

    def windows_at(self, sigma: float) -> _core.Windows:
        """The windows in use at a noise level."""
        level = self._level(sigma)
        if level not in self._windows:
            self._windows[level] = self._build_windows(level)
        return self._windows[level]

    def masks_at(self, sigma: float) -> npt.NDArray[np.bool_]:
        """The same windows as masks, bool [windows, height, width]."""
        return self._masks(self._level(sigma))

    def _masks(self, level: Hashable) -> npt.NDArray[np.bool_]:
        """The windows of a level as masks; the full image, unless a denoiser says otherwise."""
        del level
        return np.ones((1, *self.shape[1:]), np.bool_)

    def _denoise(
        self, z: npt.NDArray[np.floating[Any]], sigmas: npt.NDArray[np.float64], progress: Progress | None
    ) -> npt.NDArray[np.float32]:
        z = np.ascontiguousarray(z, dtype=np.float64 if z.dtype == np.float64 else np.float32)
        groups: dict[_core.Windows, list[int]] = {}
        for query, sigma in enumerate(sigmas.tolist()):
            groups.setdefault(self.windows_at(sigma), []).append(query)
        denoised = np.empty(z.shape, np.float32)
        before = 0
        for windows, queries in groups.items():
            share = _share(progress, before, len(queries), len(z))
            denoised[queries] = _core.composite(
                self._bank, windows, z[queries], sigmas[queries].tolist(), self.data.xflip, share
            )
            before += len(queries)
        return denoised


def _share(progress: Progress | None, before: int, queries: int, batch: int) -> Progress | None:
    """Progress of one group of queries as progress of the whole batch, in thousandths of a query."""
    if progress is None:
        return None
    return lambda done, total: progress(1000 * before + 1000 * queries * done // total, 1000 * batch)


class Empirical(PosteriorComposite):
    """The empirical (optimal) denoiser: the posterior mean over whole training images.

    D(z, sigma) = sum_n w_n x_n, w = softmax_n(-|z - x_n|^2 / (2 sigma^2)); Niedoba et al. 2025, eq. 6-7. It is the
    minimiser of the denoising loss over the training set, and samples nothing but training images.

    Args:
        data: the training images.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
        >>> D = pspc.Empirical(data)
        >>> D(np.array([[[[-0.8, 0.9]]]]), sigma=0.1)
        array([[[[-1.,  1.]]]])
    """

    def _level(self, sigma: float) -> Hashable:
        return "full"

    def _build_windows(self, level: Hashable) -> _core.Windows:
        _, height, width = self.shape
        return _core.Windows.full(height, width)
