"""A denoiser that is another one in every range of noise levels: hybrids, and experiments on where to hand over."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import MAX_SIGMA, MIN_SIGMA, Array, import_torch, is_array, is_torch, like, real_array, sigma_vector
from pspc_rs.checks import real_number
from pspc_rs.denoisers.base import Denoiser
from pspc_rs.denoisers.gradients import uncompiled
from pspc_rs.denoisers.network import Network, ShapeIfKnown
from pspc_rs.errors import DTypeError, GradientError, InvalidValueError, ShapeError
from pspc_rs.posterior import Posterior
from pspc_rs.progress import Progress, part_of

Model: TypeAlias = "Denoiser | Network | Piecewise"

Given: TypeAlias = "Model | Callable[..., Any]"
"""What a part may be given as: a denoiser, or a callable that becomes a `Network`."""

End: TypeAlias = float | None
"""The end of a range of noise levels; None where it is that of the denoiser's own range."""


class Range(NamedTuple):
    """A part of a `Piecewise` denoiser.

    Attributes:
        low: its lowest noise level.
        high: where the next part begins; of the last part, the highest level.
        model: the denoiser or network.
    """

    low: float
    high: float
    model: Model

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}: {self.model!r}"


class Piecewise(ShapeIfKnown):
    """A denoiser or network for every range of noise levels, as one denoiser D(z, sigma).

    The ranges join without gap or overlap. A level at which two meet belongs to the upper one: a part from low to high
    is asked where low <= sigma < high, and the uppermost at its high, too. Levels and ends are compared as float32
    numbers, so that a level is on the same side whether a sampler passes it in single or in double precision.

    Every part gets what `Piecewise` is called with, so that labels, left-out images, torch's derivatives and devices
    are as in the part; what a part cannot do is refused when a level in its range asks for it, by name. A batch may
    hold levels of several parts.

    Args:
        parts: (low, high, model) each, in any order. A model is a `Denoiser`, `Network` or `Piecewise`, or a callable
            as for `Network`. None as the lowest or the highest end is that of the part's own range.

    Attributes:
        parts: the parts as `Range`, upwards.
        sigma_min: the lowest noise level.
        sigma_max: the highest noise level.
        label_dim: number of classes that samplers may ask for; 0 unless all parts have the same.

    Raises:
        InvalidValueError: there is no part, a range is empty, two leave a gap or overlap, or a part is not good for all
            of its range.
        ShapeError: the parts are for images of different shapes.
        DTypeError: a part is not (low, high, model), or its model cannot be called.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8))
        >>> G, D = pspc.Gaussian(data, cache=False), pspc.PSPCSquare(data, patch_sizes=3)
        >>> hybrid = pspc.Piecewise([(0.002, 2.0, D), (2.0, 80.0, G)])
        >>> hybrid.part_at(2.0) is G, hybrid.part_at(1.999) is D
        (True, True)
        >>> pspc.sample(hybrid, 3, "heun", generator="numpy").shape
        (3, 1, 8, 8)
    """

    def __init__(self, parts: Sequence[tuple[End, End, Given]]) -> None:
        self.parts = _joined_ranges([_checked_part(part) for part in _listed(parts)])
        self.sigma_min, self.sigma_max = self.parts[0].low, self.parts[-1].high
        self.shape = _common_shape(self.parts)
        classes: set[int] = {part.model.label_dim for part in self.parts}
        self.label_dim: int = classes.pop() if len(classes) == 1 else 0

    def __repr__(self) -> str:
        return f"Piecewise({', '.join(map(str, self.parts))})"

    @property
    def settings(self) -> dict[str, Any]:
        """The class, and the ranges with what decides the numbers of their parts."""
        parts = [{"sigma_min": low, "sigma_max": high, **model.settings} for low, high, model in self.parts]
        return {"denoiser": type(self).__name__, "parts": parts}

    def part_at(self, sigma: float) -> Model:
        """The denoiser or network that is asked at a noise level.

        Raises:
            InvalidValueError: the level is outside all ranges.
        """
        return self.parts[int(self._indices(sigma_vector(sigma, 1))[0])].model

    def check_sigmas(self, sigmas: npt.NDArray[np.float64]) -> None:
        """Refuses noise levels outside all ranges.

        Raises:
            InvalidValueError: one is; the message names it and the ends.
        """
        with np.errstate(over="ignore"):  # larger numbers are refused as infinity is
            rounded = sigmas.astype(np.float32)
        bad = (rounded < np.float32(self.sigma_min)) | (rounded > np.float32(self.sigma_max))
        if bad.any():
            raise InvalidValueError(
                f"sigma is {sigmas[bad][0]:g}; the parts of this Piecewise are for {self.sigma_min:g} to "
                f"{self.sigma_max:g}"
            )

    def round_sigma(self, sigma: Array) -> Array:
        """The noise levels that the part of each would round to."""
        levels = real_array("sigma", sigma)
        indices = self._indices(levels.ravel()).reshape(levels.shape)
        if len(set(indices.ravel().tolist())) < 2:
            return self.parts[indices.flat[0] if indices.size else 0].model.round_sigma(sigma)
        rounded = np.empty_like(levels)
        for index in np.unique(indices):
            here = indices == index
            given = like(levels[here], sigma) if is_array(sigma) else levels[here]
            rounded[here] = real_array("sigma", self.parts[index].model.round_sigma(cast(Array, given)))
        return like(rounded, sigma) if is_array(sigma) else cast(Array, rounded)

    def to(self, device: Any) -> Self:
        """The denoiser itself, with every part told the device, as ``module.to(device)`` does."""
        for part in self.parts:
            part.model.to(device)
        return self

    def eval(self) -> Self:
        """The denoiser itself, with the modules of its networks in evaluation mode."""
        for part in self.parts:
            part.model.eval()
        return self

    @uncompiled
    def __call__(
        self,
        z: Array,
        sigma: Any,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        force_fp32: bool = False,
        progress: Progress | None = None,
    ) -> Array:
        """The denoised images; see `Denoiser.__call__` and, for networks, `Network.__call__`.

        Args:
            z: noisy images [batch, channels, height, width].
            sigma: noise level, a number or one per image.
            class_labels: None, or one entry per image, as the parts take them.
            exclude: None, or images that do not count; refused by networks.
            force_fp32: passed on.
            progress: called as ``progress(done, total)`` during long calls of denoisers; networks do not report.
        """
        given = {"class_labels": class_labels, "exclude": exclude, "force_fp32": force_fp32 or None}
        denoised, order = self._asked("__call__", z, sigma, given, progress)
        return cast(Array, _merged(denoised, order, 0))

    @uncompiled
    def jvp(
        self,
        z: Array,
        sigma: Any,
        v: Any,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        progress: Progress | None = None,
    ) -> tuple[Array, Array]:
        """D(z, sigma) and J v; see `Denoiser.jvp`.

        Raises:
            GradientError: a part whose level is asked for has no method jvp, as networks have none.
        """
        given = {"class_labels": class_labels, "exclude": exclude}
        return self._products("jvp", z, sigma, given, progress, directions=v)

    @uncompiled
    def vjp(
        self,
        z: Array,
        sigma: Any,
        u: Any,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        progress: Progress | None = None,
    ) -> tuple[Array, Array]:
        """D(z, sigma) and J^T u; see `Denoiser.vjp`.

        Raises:
            GradientError: a part whose level is asked for has no method vjp, as networks have none.
        """
        given = {"class_labels": class_labels, "exclude": exclude}
        return self._products("vjp", z, sigma, given, progress, directions=u)

    @uncompiled
    def divergence(
        self,
        z: Array,
        sigma: Any,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        progress: Progress | None = None,
    ) -> tuple[Array, Array]:
        """D(z, sigma) and its divergence; see `Denoiser.divergence`.

        Raises:
            GradientError: a part whose level is asked for has no method divergence, as networks have none.
        """
        given = {"class_labels": class_labels, "exclude": exclude}
        found, order = self._asked("divergence", z, sigma, given, progress)
        denoised, divergences = zip(*found, strict=True)
        return cast(Array, _merged(denoised, order, 0)), cast(Array, _merged(divergences, order, 0))

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
        """The posteriors over the training images of a part; see `PosteriorComposite.posterior`.

        Raises:
            InvalidValueError: the levels of the batch are of several parts, or their part has no posteriors over
                images.
        """
        given = {"top": top, "class_labels": class_labels, "exclude": exclude}
        ((found,), _) = self._asked("posterior", z, sigma, given, progress)
        return cast(Posterior, found)

    def provides(self, method: str) -> bool:
        """Whether every part has a method of that name.

        Example:
            >>> import pspc_rs as pspc
            >>> Piecewise([(0.1, 1.0, lambda x, sigma: 0 * x)]).provides("divergence")
            False
        """
        models = (part.model for part in self.parts)
        return all(one.provides(method) if isinstance(one, Piecewise) else hasattr(one, method) for one in models)

    def _products(
        self, method: str, z: Any, sigma: Any, given: dict[str, Any], progress: Progress | None, *, directions: Any
    ) -> tuple[Array, Array]:
        found, order = self._asked(method, z, sigma, given, progress, directions=directions)
        denoised, products = zip(*found, strict=True)
        return cast(Array, _merged(denoised, order, 0)), cast(Array, _merged(products, order, -4))

    def _asked(
        self,
        method: str,
        z: Any,
        sigma: Any,
        given: dict[str, Any],
        progress: Progress | None,
        *,
        directions: Any = None,
    ) -> tuple[list[Any], list[npt.NDArray[np.int64]]]:
        """What the parts return for their queries, and the indices of the queries of each."""
        self.check_shape(z)
        batch = len(z)
        indices = self._indices(sigma_vector(sigma, batch))
        # A batch without queries is answered by some part, too.
        used = np.unique(indices).tolist() if batch else [0]
        shares = [(self.parts[index], np.flatnonzero(indices == index)) for index in used]
        for part, _ in shares:
            _check_able(part, method, given)
        if method == "posterior" and len(shares) > 1:
            raise InvalidValueError(
                "the noise levels of the batch are of several parts of a Piecewise, whose posteriors do not belong "
                "together; call posterior for the levels of one part at a time"
            )
        found, before = [], 0
        for part, queries in shares:
            share = _Share(queries, batch, whole=len(shares) == 1)
            arguments = [share.of(z), share.of(sigma)]
            if directions is not None:
                arguments.append(share.of(directions, axis=-4))
            options = {name: share.of(one) for name, one in given.items() if one is not None}
            if progress is not None and not isinstance(part.model, Network):
                options["progress"] = part_of(progress, before, len(queries), batch)
            found.append(getattr(part.model, method)(*arguments, **options))
            before += len(queries)
        return found, [queries for _, queries in shares]

    def _indices(self, sigmas: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """The part of every noise level."""
        self.check_sigmas(sigmas)
        bounds = np.array([part.low for part in self.parts[1:]], np.float32)
        return np.searchsorted(bounds, sigmas.astype(np.float32), side="right").astype(np.int64)


def _listed(parts: object) -> Sequence[Any]:
    if not isinstance(parts, list | tuple):
        raise DTypeError(f"parts are {parts!r:.80}; allowed are lists of (low, high, model)")
    if not parts:
        raise InvalidValueError("there are no parts; at least one (low, high, model) is needed")
    return parts


def _checked_part(part: Any) -> Range:
    """A part with its ends as numbers, and with its model as a denoiser."""
    if not isinstance(part, list | tuple) or len(part) != 3:
        raise DTypeError(f"a part is {part!r:.80}; allowed are (low, high, model)")
    low, high, model = part
    if not callable(model):
        raise DTypeError(f"the model of a part is {model!r:.80}; allowed are denoisers, networks and callables")
    known = model if isinstance(model, Denoiser | Network | Piecewise) else Network(model)
    ends = [
        None if end is None else real_number("the end of a range", end, least=MIN_SIGMA, most=MAX_SIGMA)
        for end in (low, high)
    ]
    if isinstance(known, Network | Piecewise):
        try:
            known.check_sigmas(np.array([end for end in ends if end is not None], np.float64))
        except InvalidValueError as error:
            raise InvalidValueError(f"{known!r} is the part for {_end(low)} to {_end(high)}, but {error}") from error
    bottom = float(known.sigma_min) if ends[0] is None else ends[0]
    top = float(known.sigma_max) if ends[1] is None else ends[1]
    if not np.float32(bottom) < np.float32(top):
        raise InvalidValueError(f"a part is for sigma {bottom:g} to {top:g}; the high end must be above the low one")
    return Range(bottom, top, known)


def _end(end: End) -> str:
    return "its end" if end is None else f"{end:g}"


def _joined_ranges(parts: list[Range]) -> tuple[Range, ...]:
    """The parts upwards, each beginning where the one below ends."""
    ordered = sorted(parts, key=lambda part: (part.low, part.high))
    for below, above in pairwise(ordered):
        if above.low != below.high:
            what = "leave a gap" if above.low > below.high else "overlap"
            raise InvalidValueError(
                f"the parts for sigma {below.low:g} to {below.high:g} and {above.low:g} to {above.high:g} {what}; each "
                "must begin where the one below ends"
            )
    return tuple(ordered)


def _common_shape(parts: Sequence[Range]) -> tuple[int, int, int] | None:
    shapes = {tuple(part.model.shape) for part in parts if part.model.shape is not None}
    if len(shapes) > 1:
        listed = " and ".join(str(list(shape)) for shape in sorted(shapes))
        raise ShapeError(f"the parts are for images of shapes {listed}; they must be the same")
    return cast(tuple[int, int, int], shapes.pop()) if shapes else None


def _check_able(part: Range, method: str, given: dict[str, Any]) -> None:
    """Refuses what a part cannot do."""
    where = f"the part of a Piecewise for sigma {part}"
    if not hasattr(part.model, method):
        if method == "posterior":
            raise InvalidValueError(f"{where}, has no posteriors over images; allowed are parts that have")
        raise GradientError(f"{where}, has no method {method}; allowed are denoisers with derivatives in closed form")
    if given.get("exclude") is not None and isinstance(part.model, Network):
        raise InvalidValueError(f"exclude is given, but {where}, has no images to leave out")


class _Share(NamedTuple):
    """The queries of a batch that one part answers: their indices, the size of the batch, and whether they are all."""

    queries: npt.NDArray[np.int64]
    batch: int
    whole: bool

    def of(self, given: Any, axis: int = 0) -> Any:
        """The entries of these queries; what is for the whole batch, such as a number, stays."""
        if self.whole:
            return given
        if isinstance(given, list | tuple):
            return [given[query] for query in self.queries] if len(given) == self.batch else given
        shape = getattr(given, "shape", ())
        if len(shape) < max(1, -axis) or shape[axis] != self.batch:
            return given
        place: tuple[Any, ...] = (..., self.queries, *[slice(None)] * 3) if axis == -4 else (self.queries,)
        return given[place]


def _merged(found: Sequence[Any], order: Sequence[npt.NDArray[np.int64]], axis: int) -> Any:
    """What the parts returned in the order of the queries."""
    if len(found) == 1:
        return found[0]
    places = np.argsort(np.concatenate(order))
    if is_torch(found[0]):
        torch = import_torch("a tensor")
        return torch.cat(list(found), axis).index_select(axis, torch.from_numpy(places).to(found[0].device))
    return np.concatenate(list(found), axis).take(places, axis)
