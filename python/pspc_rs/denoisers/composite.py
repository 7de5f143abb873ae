"""The engine's denoisers: posterior mean composites, which differ only in the windows they use at a noise level."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from pspc_rs import _core, cuda
from pspc_rs.arrays import (
    MAX_SIGMA,
    MIN_SIGMA,
    Array,
    check_dtype,
    check_image_shape,
    import_torch,
    sigma_vector,
)
from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import require_images
from pspc_rs.denoisers.across_ranks import EngineAcrossRanks, range_of_all
from pspc_rs.denoisers.base import Denoiser, Float64, Floats
from pspc_rs.denoisers.filters import Windows, checked_source, filter_of_masks, on_cpu, source_settings, views_of
from pspc_rs.denoisers.gradients import uncompiled
from pspc_rs.denoisers.orbit import Orbit
from pspc_rs.denoisers.selection import Selection, label_dim, select
from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.posterior import MOST_TOP, Posterior, PosteriorPart
from pspc_rs.progress import Progress, part_of
from pspc_rs.ranks import Ranks
from pspc_rs.reprs import build_repr

_OF_THE_ENGINE = frozenset({"_bank", "_windows", "_engines", "_engine"})


class Part(NamedTuple):
    """Queries of a batch that the engine takes in one call: of the same windows, counting the same images.

    Attributes:
        windows: the windows.
        queries: indices in the batch.
        choice: ``images`` and ``left_out`` of the engine's calls; empty where every image counts.
        progress: of the whole batch.
        before: number of queries in the parts before this one.
        total: number of queries in the batch.
    """

    windows: Windows
    queries: list[int]
    choice: dict[str, Any]
    progress: Progress | None
    before: int
    total: int

    @property
    def is_whole(self) -> bool:
        """Whether the part is the batch, in its order."""
        return self.queries == list(range(self.total))

    def share(self, stage: int = 0, stages: int = 1) -> Progress | None:
        """The progress of one of some stages of the work on this part."""
        size = len(self.queries)
        return part_of(self.progress, stages * self.before + stage * size, size, stages * self.total)


class PosteriorComposite(Denoiser):
    """D(z)(p) = mean over windows k at p of sum_n w_kn x_n(p), w_kn the posterior of image n given window k of z.

    w_kn is in proportion to pi_n exp(-|z - x_n|^2 / (2 T sigma^2)) with the distance inside the window, T the
    temperature (1) and pi_n the prior weight of the image (1, unless the data have a ``log_prior``). Niedoba et al.,
    "Towards a Mechanistic Explanation of Diffusion Model Generalization", ICML 2025, eq. 11. The engine scans every
    image and leaves out only weights that float32 could not show; the bits of the result depend neither on the number
    of threads nor on the other queries of a batch.

    With ``device="cuda"`` the same is computed on an NVIDIA GPU (``"cuda:1"``: the second one; ``"auto"``: a GPU if one
    can be used). A torch tensor that lies on a GPU is denoised there whatever the device, on torch's current stream and
    without waiting: its numbers are not checked first, and a query with numbers that are not finite comes back as NaN.
    Posteriors and derivatives are computed on ``device``, wherever a tensor lies; their results lie beside it.

    With ``source=`` an `Orbit`, every image counts under each of its maps; that is computed on the CPU.

    Attributes:
        data: the training images.
        source: the maps under which the images are seen, None for the images as they are.
        device: where numpy arrays and CPU tensors are denoised.
        temperature: T.

    Example:
        >>> import pspc_rs as pspc
        >>> D = pspc.PSPCSquare(pspc.ImageSet(np.zeros((2, 1, 8, 8), np.uint8)), patch_sizes=5)
        >>> isinstance(D, PosteriorComposite), D.masks_at(1.0).shape
        (True, (16, 8, 8))
    """

    can_compute_on_gpu = True
    temperature = 1.0
    _engine_checks_z = True
    _has_derivatives = True
    _ranks: Ranks | None = None
    _announce: Callable[..., None] | None = None

    def __init__(
        self,
        data: ImageSet,
        device: str = "cpu",
        *,
        temperature: float = 1.0,
        conditional: bool = False,
        source: Orbit | None = None,
    ) -> None:
        super().__init__(require_images(data).shape)
        self.data = data
        self.source = checked_source(source)
        self.device = device if source is None else on_cpu(type(self).__name__, source, device)
        if source is not None:
            views_of(data, source)
        # Components of a filter are computed on the CPU.
        self.can_compute_on_gpu = source is None
        self.temperature = real_number("temperature", temperature, above=0)
        self.label_dim = label_dim(conditional, data)
        self._start_engine()

    def _start_engine(self) -> None:
        images, prior, part = self.data.images, self.data.log_prior, self._own_images
        own = slice(part.start, part.stop)
        pixel_range = None if self._ranks is None else range_of_all(images[own], self._ranks)
        self._bank = _core.Bank(images[own], None if prior is None else prior[own], pixel_range)
        self._windows: dict[Hashable, Windows] = {}
        self._engines: dict[int | None, _core.Engine | EngineAcrossRanks] = {}
        resolve = cuda.resolve if self._ranks is None else cuda.resolve_on_rank
        self._engine = self._engine_on(resolve(self.device))

    @property
    def _own_images(self) -> range:
        """The images of the engine of this process."""
        num = self.data.num_stored
        return range(num) if self._ranks is None else self._ranks.share(num)

    def across(self, group: Any = None) -> Self:
        """The same denoiser, computed by several processes together, each of which takes a part of the images.

        Every process, called a rank, has the whole data set, which may be memory-mapped: its engine reads its own part
        alone. All ranks must make the same calls of the result, in the same order and with the same arguments, and all
        get the same answer, bit by bit. It differs from that of one process by less than 1e-6 of the reach of the data.
        Denoised images, posteriors, variances, derivatives, labels, left-out images and the rest are as ever. A call
        takes three exchanges, or four, see docs/ranks.md. Ranks compute on CPUs, or all of them on GPUs, in float64;
        where `device` has no number, the ranks of a machine take its GPUs in turn, by ``LOCAL_RANK``.

        Args:
            group: a process group of ``torch.distributed``; None for all processes that torchrun started.

        Raises:
            MissingDependencyError: torch is missing.
            InvalidValueError: no process group has been started, or there are fewer images than ranks.
            CudaError: the GPU of this rank cannot be used.
            DTypeError: the group is something else.

        Example:
            >>> import pspc_rs as pspc, torch.distributed as dist
            >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
            >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
            >>> D = pspc.Empirical(data).across(dist.group.WORLD)
            >>> D(np.array([[[[0.0, 0.1]]]], np.float32), sigma=1.0).round(2)
            array([[[[-0.1,  0.1]]]], dtype=float32)
            >>> dist.destroy_process_group()
        """
        ranks = Ranks(group)
        if self.data.num_stored < ranks.count:
            raise InvalidValueError(f"{self.data!r} has fewer images than there are ranks, {ranks.count}")
        other = copy.copy(self)
        other._ranks, other.can_compute_on_gpu = ranks, False
        other._start_engine()
        return other

    def announce_calls(self, announce: Callable[..., None]) -> None:
        """Has every call for denoised images announced before it starts, as what `repeat_call` takes.

        So ranks that do not run the same program can make the same calls. Posteriors are refused from then on.

        Args:
            announce: called with the name of a method, and its arguments without the progress.
        """
        self._announce = announce

    def repeat_call(self, method: str, *arguments: Any) -> None:
        """Makes a call that another rank has announced."""
        getattr(self, method)(*arguments)

    def _announce_call(self, method: str, *arguments: Any) -> None:
        if self._announce is not None:
            self._announce(method, *arguments)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle holds: all but the objects of the engine, which are made again from the data on arrival.

        Raises:
            DTypeError: the denoiser is computed by several processes.
        """
        if self._ranks is not None:
            raise DTypeError(f"{type(self).__name__} across ranks cannot be pickled; the denoiser of one process can")
        return self._state()

    def _state(self) -> dict[str, Any]:
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
        memo[id(self._ranks)] = self._ranks
        own = {name: copy.deepcopy(value, memo) for name, value in self._state().items()}
        vars(other).update(own)
        return other

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, a temperature other than 1, and the number of ranks across them."""
        further: dict[str, Any] = {} if self.temperature == 1 else {"temperature": self.temperature}
        if self._ranks is not None:
            further["ranks"] = self._ranks.count
        return {**super().settings, "data": self.data.fingerprint, **further, **source_settings(self.source)}

    def __repr__(self) -> str:
        return self._repr_with()

    def _repr_with(self, *parts: object) -> str:
        """The repr with what a denoiser shows of its windows."""
        further: dict[str, object] = {} if self.temperature == 1 else {"temperature": self.temperature}
        if self.label_dim:
            further["conditional"] = True
        if self.source is not None and self.source.numbers:
            further["source"] = self.source
        if self._ranks is not None:
            further["ranks"] = self._ranks.count
        return build_repr(self, self.data, *parts, device=self.device, **further)

    @abstractmethod
    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        """What decides the windows at each of some noise levels, which have been checked."""

    @abstractmethod
    def _build_windows(self, level: Hashable) -> Windows:
        """The windows of a level; called once per level."""

    def windows_at(self, sigma: float) -> Windows:
        """The windows in use at a noise level."""
        return self._windows_of(self._level(sigma))

    def _level(self, sigma: float) -> Hashable:
        return self._levels(sigma_vector(sigma, 1))[0]

    def _windows_of(self, level: Hashable) -> Windows:
        if level not in self._windows:
            self._windows[level] = self._build_windows(level) if self.source is None else self._seen_as(level)
        return self._windows[level]

    def _seen_as(self, level: Hashable) -> Windows:
        """The windows of a level, with the images under the maps of the source."""
        return filter_of_masks(self.shape, self._masks(level), views_of(self.data, self.source))

    def masks_at(self, sigma: float) -> npt.NDArray[np.bool_]:
        """The same windows as masks, bool [windows, height, width]."""
        return self._masks(self._level(sigma))

    def _masks(self, level: Hashable) -> npt.NDArray[np.bool_]:
        """The windows of a level as masks; the full image, unless a denoiser says otherwise."""
        del level
        return np.ones((1, *self.shape[1:]), np.bool_)

    @uncompiled
    def posterior(
        self,
        z: Array,
        sigma: Any,
        top: int = 5,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        progress: Progress | None = None,
    ) -> Posterior:
        """The posteriors over training images that the denoised images are made from, one per query and component.

        Args:
            z: see ``__call__``.
            sigma: see ``__call__``; the levels of a batch must have the same number of components (windows, masks).
            top: how many of the heaviest images to find for each component, 1 to 65536.
            class_labels: see ``__call__``.
            exclude: see ``__call__``.
            progress: see ``__call__``.

        Returns:
            The posteriors. They keep what the engine found, so that variances, attribution and the denoised images cost
            no second search; numbers are numpy arrays, or tensors where z is one.

        Raises:
            InvalidValueError: the levels have different numbers of components, or see ``__call__``.
            ShapeError, DTypeError: see ``__call__``.
            GradientError: torch wants derivatives.

        Example:
            >>> import pspc_rs as pspc
            >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
            >>> P = pspc.Empirical(data).posterior(np.array([[[[0.0, 0.1]]]]), sigma=1.0, top=1)
            >>> P
            Posterior(1 query, 1 component, top 1 of 2 images)
            >>> P.top_index.item(), P.top_weight.round(3).item(), P.effective_images.round(3).item()
            (0, 0.55, 1.99)
        """
        most = integer("top", top, 1, MOST_TOP)
        noisy, sigmas, selection = self._checked_queries("posterior", z, sigma, class_labels, exclude)
        parts = self._posteriors(noisy, sigmas, selection, progress, stages=2)
        return Posterior(parts, self.data, z, most, self.num_views)

    @property
    def num_views(self) -> int:
        """How many times every image counts, under one map or another."""
        return 1 + self.data.xflip if self.source is None else len(views_of(self.data, self.source))

    def _posteriors(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None, stages: int
    ) -> list[PosteriorPart]:
        """What the engine finds in its first pass, which is one of so many stages of the whole work."""
        if self._announce is not None:
            raise InvalidValueError("posteriors are not computed by the ranks of a command; run it without torchrun")
        parts, found_parts = self._parts_on_all(sigmas, selection, progress), []
        z = _copied(z, parts)
        for part in parts:
            found = self._engine.evidence(*self._arguments(part, z, sigmas), part.share(0, stages), **part.choice)
            found_parts.append(PosteriorPart(part.queries, found, part.share(1, stages)))
        return found_parts

    def _denoise(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None = None
    ) -> npt.NDArray[np.float32]:
        self._announce_call("_denoise", z, sigmas, selection)
        parts = self._parts_on_all(sigmas, selection, progress)
        z = _copied(z, parts)
        denoised = np.empty(z.shape, np.float32)
        for part in parts:
            found = self._engine.composite(*self._arguments(part, z, sigmas), part.share(), **part.choice)
            if part.is_whole:
                return found
            denoised[part.queries] = found
        return denoised

    def _derivative(
        self,
        z: Floats,
        sigmas: Float64,
        selection: Selection | None,
        v: Float64,
        progress: Progress | None,
        *,
        transposed: bool,
    ) -> tuple[Floats, Floats]:
        self._announce_call("_repeat_derivative", z, sigmas, selection, v, transposed)
        parts = self._parts_on_all(sigmas, selection, progress)
        z, denoised, products = _copied(z, parts), np.empty(z.shape, np.float32), np.empty(v.shape, np.float32)
        for part in parts:
            denoised[part.queries], products[:, part.queries] = self._engine.jvp(
                *self._arguments(part, z, sigmas),
                v=np.ascontiguousarray(v[:, part.queries]),
                transposed=transposed,
                progress=part.share(),
                **part.choice,
            )
        return denoised, products

    def _repeat_derivative(
        self, z: Floats, sigmas: Float64, selection: Selection | None, v: Float64, transposed: bool
    ) -> None:
        self._derivative(z, sigmas, selection, v, None, transposed=transposed)

    def _divergence(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None = None
    ) -> tuple[Floats, Float64]:
        self._announce_call("_divergence", z, sigmas, selection)
        parts = self._parts_on_all(sigmas, selection, progress)
        z, denoised, variances = _copied(z, parts), np.empty(z.shape, np.float32), np.empty(len(z))
        for part in parts:
            found = self._engine.evidence(*self._arguments(part, z, sigmas), part.share(0, 3), **part.choice)
            denoised[part.queries] = found.composite(part.share(1, 3))
            variances[part.queries] = found.variance(part.share(2, 3))[0].sum(axis=(1, 2, 3))
        # An output depends on its own input through the windows at the pixel, each by variance / (T sigma^2).
        return denoised, variances / self._effective(sigmas) ** 2

    def _arguments(self, part: Part, z: Floats, sigmas: Float64) -> tuple[Windows, Any, list[float], bool]:
        """What every call of the engine for a part starts with."""
        queries = z if part.is_whole else z[part.queries]
        return part.windows, queries, self._effective(sigmas[part.queries]).tolist(), self.data.xflip

    def _effective(self, sigmas: Float64) -> Float64:
        """The levels sigma sqrt(T), the noise levels at which the posteriors are those of temperature 1."""
        if self.temperature == 1:
            return sigmas
        levels = sigmas * math.sqrt(self.temperature)
        for sigma, level in zip(sigmas, levels, strict=True):
            if not MIN_SIGMA <= level <= MAX_SIGMA:
                raise InvalidValueError(
                    f"sigma is {sigma:g} and temperature is {self.temperature:g}, so that sigma * sqrt(temperature) is "
                    f"{level:g}; allowed are numbers from {MIN_SIGMA:g} to {MAX_SIGMA:g}"
                )
        return levels

    def _select(self, class_labels: Any, exclude: Any, batch: int) -> Selection | None:
        return select(type(self).__name__, self.data, class_labels, exclude, batch)

    def _denoise_on_gpu(self, z: Any, sigma: Any, selection: Selection | None, progress: Progress | None) -> Any:
        check_image_shape(tuple(z.shape), self.shape)
        sigmas = sigma_vector(sigma, z.shape[0])
        torch = import_torch("a tensor")
        check_dtype(z)
        # Numbers narrower than float32 are widened and, at the end, rounded once.
        wide = z.dtype == torch.float64
        given = z.detach().to(torch.float64 if wide else torch.float32).contiguous()
        denoised = torch.empty_like(given)
        engine = cast(_core.Engine, self._engine_on(z.device.index))
        with torch.cuda.device(z.device):
            stream = torch.cuda.current_stream().cuda_stream
            for part in self._parts(sigmas, selection, progress):
                windows, queries, levels, xflip = self._arguments(part, given, sigmas)
                out = denoised if part.is_whole else torch.empty_like(queries)
                places = (queries.data_ptr(), wide, levels, xflip, out.data_ptr(), wide, stream)
                engine.composite_at(cast(_core.Components, windows), *places, part.share(), **part.choice)
                if not part.is_whole:
                    denoised[part.queries] = out
        return denoised.to(z.dtype)

    def _parts(self, sigmas: Float64, selection: Selection | None, progress: Progress | None) -> list[Part]:
        """The queries by their windows and by the images that count, with the progress of each part.

        Those of a part are in order of their noise levels: the engine takes several together, and the work on them is
        that of the one with the most, so that similar ones should meet. The bits are the same in any order.
        """
        groups: dict[tuple[Windows, int], list[int]] = {}
        levels = self._levels(sigmas)
        for query in np.argsort(sigmas, kind="stable").tolist():
            base = 0 if selection is None else int(selection.base_of[query])
            groups.setdefault((self._windows_of(levels[query]), base), []).append(query)
        parts: list[Part] = []
        before = 0
        for (windows, _), queries in groups.items():
            choice: dict[str, Any] = {}
            if selection is not None:
                left_out = [selection.left_out[query] for query in queries]
                choice = {
                    "images": selection.bases[selection.base_of[queries[0]]],
                    "left_out": left_out if any(map(len, left_out)) else None,
                }
            parts.append(Part(windows, queries, choice, progress, before, len(sigmas)))
            before += len(queries)
        return parts

    def _parts_on_all(self, sigmas: Float64, selection: Selection | None, progress: Progress | None) -> list[Part]:
        """`_parts`; where a rank cannot build its windows, the others, which wait for its answer, hear of it."""
        try:
            return self._parts(sigmas, selection, progress)
        except Exception:
            if isinstance(self._engine, EngineAcrossRanks):
                self._engine.tell_failure()
            raise

    def _engine_on(self, ordinal: int | None) -> _core.Engine | EngineAcrossRanks:
        """The engine on a GPU, to which the images are copied once; on the CPU if there is no number."""
        if ordinal not in self._engines:
            engine = cuda.engine(self._bank, ordinal)
            num = self.data.num_stored
            self._engines[ordinal] = (
                engine
                if self._ranks is None
                else EngineAcrossRanks(engine, self._ranks, self._own_images, num, on_gpu=ordinal is not None)
            )
        return self._engines[ordinal]


def _copied(z: Floats, parts: list[Part]) -> Floats:
    """A copy: a progress callback, or another thread, may change the caller's array while the engine works.

    Raises:
        InvalidValueError: a pixel is out of range, and the engine, which checks them, would not know whose it is.
    """
    copy: Floats = np.array(z, dtype=np.float64 if z.dtype == np.float64 else np.float32, order="C")
    if all(part.is_whole for part in parts):
        return copy
    fits = np.abs(copy) <= _core.MAX_Z
    if not fits.all():
        index = np.unravel_index(int(np.argmin(fits)), copy.shape)
        value = "NaN" if np.isnan(copy[index]) else f"{copy[index]:g}"
        raise InvalidValueError(
            f"z holds {value} at {[int(one) for one in index]}; allowed are finite numbers of magnitude up to 1e9"
        )
    return copy
