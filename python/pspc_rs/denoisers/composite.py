"""The engine's denoisers: posterior mean composites, which differ only in the windows they use at a noise level."""

import copy
from abc import abstractmethod
from collections.abc import Hashable
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pspc_rs import _core, cuda
from pspc_rs.arrays import check_dtype, check_image_shape, import_torch, sigma_vector
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import require_images
from pspc_rs.denoisers.base import Denoiser
from pspc_rs.progress import Progress, part_of
from pspc_rs.reprs import build_repr

_OF_THE_ENGINE = frozenset({"_bank", "_windows", "_engines", "_engine"})


class PosteriorComposite(Denoiser):
    """D(z)(p) = mean over windows k at p of sum_n w_kn x_n(p), w_kn the posterior of image n given window k of z.

    Niedoba et al., "Towards a Mechanistic Explanation of Diffusion Model Generalization", ICML 2025, eq. 11. The
    engine scans every image and leaves out only weights that float32 could not show; the bits of the result depend
    neither on the number of threads nor on the other queries of a batch.

    With ``device="cuda"`` the same is computed on an NVIDIA GPU (``"cuda:1"``: the second one; ``"auto"``: a GPU if one
    can be used). A torch tensor that lies on a GPU is denoised there whatever the device, on torch's current stream and
    without waiting: its numbers are not checked first, and a query with numbers that are not finite comes back as NaN.

    Attributes:
        data: the training images.
        device: where numpy arrays and CPU tensors are denoised.
    """

    can_compute_on_gpu = True
    _engine_checks_z = True

    def __init__(self, data: ImageSet, device: str = "cpu") -> None:
        super().__init__(require_images(data).shape)
        self.data = data
        self.device = device
        self._start_engine()

    def _start_engine(self) -> None:
        self._bank = _core.Bank(self.data.images)
        self._windows: dict[Hashable, _core.Components] = {}
        self._engines: dict[int | None, _core.Engine] = {}
        self._engine = self._engine_on(cuda.resolve(self.device))

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: all but the objects of the engine, which are made again from the data on arrival."""
        return {name: value for name, value in vars(self).items() if name not in _OF_THE_ENGINE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start_engine()

    def __copy__(self) -> Self:
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        # Filled at the first use of a level or GPU, by each copy for itself.
        other._windows, other._engines = dict(self._windows), dict(self._engines)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with arrays of its own, but the same images, which never change."""
        other = copy.copy(self)
        memo[id(self)] = other
        own = {name: copy.deepcopy(value, memo) for name, value in self.__getstate__().items()}
        vars(other).update(own)
        return other

    @property
    def settings(self) -> dict[str, Any]:
        """The class and the fingerprint of the data."""
        return {**super().settings, "data": self.data.fingerprint}

    def __repr__(self) -> str:
        return build_repr(self, self.data, device=self.device)

    @abstractmethod
    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        """What decides the windows at each of some noise levels, which have been checked."""

    @abstractmethod
    def _build_windows(self, level: Hashable) -> _core.Components:
        """The windows of a level; called once per level."""

    def windows_at(self, sigma: float) -> _core.Components:
        """The windows in use at a noise level."""
        return self._windows_of(self._level(sigma))

    def _level(self, sigma: float) -> Hashable:
        return self._levels(sigma_vector(sigma, 1))[0]

    def _windows_of(self, level: Hashable) -> _core.Components:
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
        # A copy: a progress callback, or another thread, may change the caller's array while the engine works.
        z = np.array(z, dtype=np.float64 if z.dtype == np.float64 else np.float32, order="C")
        xflip, groups = self.data.xflip, self._groups(sigmas, progress)
        if len(groups) == 1:
            windows, _, share = groups[0]
            return self._engine.composite(windows, z, sigmas.tolist(), xflip, share)
        denoised = np.empty(z.shape, np.float32)
        for windows, queries, share in groups:
            denoised[queries] = self._engine.composite(windows, z[queries], sigmas[queries].tolist(), xflip, share)
        return denoised

    def _denoise_on_gpu(self, z: Any, sigma: Any, progress: Progress | None) -> Any:
        check_image_shape(tuple(z.shape), self.shape)
        sigmas = sigma_vector(sigma, z.shape[0])
        torch = import_torch("a tensor")
        check_dtype(z)
        # Numbers narrower than float32 are widened and, at the end, rounded once.
        wide = z.dtype == torch.float64
        given = z.detach().to(torch.float64 if wide else torch.float32).contiguous()
        denoised = torch.empty_like(given)
        engine = self._engine_on(z.device.index)
        with torch.cuda.device(z.device):
            stream = torch.cuda.current_stream().cuda_stream
            for windows, queries, share in self._groups(sigmas, progress):
                whole = len(queries) == len(given)
                part = given if whole else given[queries]
                out = denoised if whole else torch.empty_like(part)
                levels = sigmas[queries].tolist()
                engine.composite_at(
                    windows, part.data_ptr(), wide, levels, self.data.xflip, out.data_ptr(), wide, stream, share
                )
                if not whole:
                    denoised[queries] = out
        return denoised.to(z.dtype)

    def _groups(
        self, sigmas: npt.NDArray[np.float64], progress: Progress | None
    ) -> list[tuple[_core.Components, list[int], Progress | None]]:
        """The queries by their windows, with the progress of each group."""
        groups: dict[_core.Components, list[int]] = {}
        for query, level in enumerate(self._levels(sigmas)):
            groups.setdefault(self._windows_of(level), []).append(query)
        if progress is None:
            return [(windows, queries, None) for windows, queries in groups.items()]
        parts: list[tuple[_core.Components, list[int], Progress | None]] = []
        before = 0
        for windows, queries in groups.items():
            parts.append((windows, queries, part_of(progress, before, len(queries), len(sigmas))))
            before += len(queries)
        return parts

    def _engine_on(self, ordinal: int | None) -> _core.Engine:
        """The engine on a GPU, to which the images are copied once; on the CPU if there is no number."""
        if ordinal not in self._engines:
            self._engines[ordinal] = cuda.engine(self._bank, ordinal)
        return self._engines[ordinal]


class Empirical(PosteriorComposite):
    """The empirical (optimal) denoiser: the posterior mean over whole training images.

    D(z, sigma) = sum_n w_n x_n, w = softmax_n(-|z - x_n|^2 / (2 sigma^2)); Niedoba et al. 2025, eq. 6-7. It is the
    minimiser of the denoising loss over the training set, and samples nothing but training images.

    Args:
        data: the training images.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``; see `PosteriorComposite`.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
        >>> D = pspc.Empirical(data)
        >>> D(np.array([[[[-0.8, 0.9]]]]), sigma=0.1)
        array([[[[-1.,  1.]]]])
    """

    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        return ["full"] * len(sigmas)

    def _build_windows(self, level: Hashable) -> _core.Components:
        _, height, width = self.shape
        return _core.Components.full(height, width)
