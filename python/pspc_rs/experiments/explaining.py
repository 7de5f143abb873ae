"""What a denoised image is made of: maps of its posteriors, the training patches behind it, and copies."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import to_numpy
from pspc_rs.checks import integer, one_of, shown
from pspc_rs.denoisers import PosteriorComposite
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.figures import check_levels, spread_evenly
from pspc_rs.experiments.nearest import NearestImages, nearest_images
from pspc_rs.experiments.noisy_sets import DETERMINISTIC_SAMPLERS
from pspc_rs.posterior import Posterior
from pspc_rs.progress import Progress, Steps, describe
from pspc_rs.samplers import SAMPLERS
from pspc_rs.sigmas import check_grid

Floats = NDArray[np.floating[Any]]

MOST_SHOWN = 64
"""So many training patches are kept for a position at most."""

_POSITIONS_PER_SIDE = 3
_LEVELS = 4
_MASKS_AT_ONCE = 512


@dataclass(frozen=True)
class Explanation:
    """What the posteriors say of noisy images of one noise level.

    Attributes:
        sigma: the noise level.
        num_components: K, the number of windows or masks.
        z: the noisy images, [batch, C, H, W].
        denoised: D(z, sigma), float32 [batch, C, H, W].
        effective_images: exp(entropy), the mean over the components at a pixel, float64 [batch, H, W].
        variance: posterior variance, float64 [batch, C, H, W]; see `Posterior.variance`.
        attribution: the share of each training image in all components, float64 [batch, N]; the sum over images is 1.
        positions: the pixels whose components are looked at, (y, x), int64 [positions, 2].
        components: the component at each position, int64 [positions], in the order of ``masks_at``.
        masks: their masks, bool [positions, H, W].
        position_images: exp(entropy) of these components, float64 [batch, positions].
        top_index: the images of their heaviest atoms, int64 [batch, positions, top]; -1 where there are no more.
        top_view: which view of the image, int64 [batch, positions, top]: 0 as stored, 1 mirrored.
        top_weight: their weights, float64 [batch, positions, top].
        nearest: the training images nearest to the denoised images.

    Example:
        >>> import pspc_rs as pspc
        >>> D = pspc.Empirical(pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8)))
        >>> explain(D, np.array([[[[-0.1, 0.1]]]]), 1.0).effective_images.round(2)
        array([[[1.96, 1.96]]])
    """

    sigma: float
    num_components: int
    z: Floats
    denoised: Floats
    effective_images: NDArray[np.float64]
    variance: NDArray[np.float64]
    attribution: NDArray[np.float64]
    positions: NDArray[np.int64]
    components: NDArray[np.int64]
    masks: NDArray[np.bool_]
    position_images: NDArray[np.float64]
    top_index: NDArray[np.int64]
    top_view: NDArray[np.int64]
    top_weight: NDArray[np.float64]
    nearest: NearestImages

    def __repr__(self) -> str:
        return f"Explanation(sigma {self.sigma:g}, {len(self.z)} images, {self.num_components} components)"


@dataclass(frozen=True)
class Way:
    """What the posteriors say of sampling runs, step by step.

    Attributes:
        sigmas: the noise level of each step, descending.
        denoised: D(z, sigma) of each step, float32 [steps, batch, C, H, W].
        attribution: the shares of each training image summed over the steps, float64 [batch, N]; the sum over images is
            the number of steps.
        leading: the training image of the largest share at each step, int64 [steps, batch].
        leading_share: its share, float64 [steps, batch].
        samples: where the runs end, [batch, C, H, W].
        nearest: the training images nearest to the samples.
        shown: the steps that are explained in full.
        levels: their explanations.

    Example:
        >>> import pspc_rs as pspc
        >>> D = pspc.Empirical(pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8)))
        >>> way = explain_trajectory(D, np.array([[[[-0.1, 0.1]]]]), [2.0, 0.1, 0.0], shown=[0])
        >>> way.leading.ravel(), way.samples.round(1).ravel()
        (array([0, 0]), array([-1.,  1.]))
    """

    sigmas: NDArray[np.float64]
    denoised: NDArray[np.float32]
    attribution: NDArray[np.float64]
    leading: NDArray[np.int64]
    leading_share: NDArray[np.float64]
    samples: Floats
    nearest: NearestImages
    shown: tuple[int, ...]
    levels: tuple[Explanation, ...]

    def __repr__(self) -> str:
        return f"Way({len(self.sigmas)} steps, {len(self.samples)} samples)"


def explain(
    denoiser: PosteriorComposite,
    z: Any,
    sigma: float,
    *,
    at: Sequence[tuple[int, int]] | None = None,
    top: int = 5,
    class_labels: Any = None,
    exclude: Any = None,
    progress: Progress | None = None,
) -> Explanation:
    """What the posteriors of a denoiser say of noisy images: maps, shares of training images, and the patches behind.

    `save_explanations` writes it as a page to look at. Everything is exact, over all training images.

    Args:
        denoiser: `Empirical`, `PSPCSquare`, `PSPCFlex` or another `PosteriorComposite`.
        z: noisy images [batch, C, H, W] in [-1, 1] units.
        sigma: their noise level.
        at: the pixels (y, x) at which training patches are looked up: the component there whose bounding box has its
            middle nearest to the pixel. A grid of 3 x 3 if not given.
        top: how many training patches, at most 64.
        class_labels: see `Denoiser.__call__`.
        exclude: training images that do not count, such as those that z were made of; see `Denoiser.__call__`.
        progress: called as ``progress(done, total)`` after each of three stages; its `describe` gets which one.

    Raises:
        InvalidValueError: another denoiser, a pixel outside the images, or see `Denoiser.__call__`.
        ShapeError, DTypeError: see `Denoiser.__call__`.

    Example:
        >>> import pspc_rs as pspc
        >>> data = pspc.load("digits", progress=False)
        >>> z = data.batch([3]) + 0.5 * np.random.default_rng(0).standard_normal((1, 1, 8, 8))
        >>> found = explain(pspc.PSPCSquare(data, patch_sizes=5), z, 0.5, at=[(4, 4)])
        >>> found
        Explanation(sigma 0.5, 1 images, 16 components)
        >>> found.top_index.shape, found.masks[0].sum().item(), found.attribution.sum().round(6).item()
        ((1, 1, 5), 25, 1.0)
    """
    check_explains(denoiser)
    positions = _positions(at, denoiser.shape)
    most = integer("top", top, 1, MOST_SHOWN)
    steps = Steps(progress, 3)
    noisy = to_numpy(z, "z")
    describe(progress, f"sigma {sigma:.3g}, posteriors")
    posterior = denoiser.posterior(noisy, sigma, most, class_labels, exclude=exclude)
    steps.finish(f"sigma {sigma:.3g}, maps")
    masks = denoiser.masks_at(sigma)
    components = np.array([component_at(masks, y, x) for y, x in positions.tolist()], np.int64)
    denoised, variance = np.asarray(posterior.denoised), posterior.variance.astype(np.float64)
    steps.finish(f"sigma {sigma:.3g}, nearest images")
    nearest = nearest_images(denoiser.data, denoised, class_labels=class_labels, exclude=exclude)
    steps.finish()
    return Explanation(
        sigma=float(sigma),
        num_components=posterior.num_components,
        z=noisy,
        denoised=denoised,
        effective_images=pixel_means(posterior.effective_images, masks),
        variance=variance,
        attribution=shares_of(posterior),
        positions=positions,
        components=components,
        masks=masks[components],
        position_images=posterior.effective_images[:, components],
        top_index=posterior.top_index[:, components],
        top_view=posterior.top_view[:, components],
        top_weight=posterior.top_weight[:, components],
        nearest=nearest,
    )


def explain_trajectory(
    denoiser: PosteriorComposite,
    z_init: Any,
    sigmas: object,
    *,
    sampler: str = "heun",
    shown: Sequence[int] | None = None,
    at: Sequence[tuple[int, int]] | None = None,
    top: int = 5,
    class_labels: Any = None,
    exclude: Any = None,
    progress: Progress | None = None,
) -> Way:
    """What the posteriors of a denoiser say of its own sampling runs, from noise to samples.

    Args:
        denoiser: see `explain`.
        z_init: initial states [batch, C, H, W], already scaled by the first sigma.
        sigmas: descending noise levels that end in 0.
        sampler: "heun", "euler" or "dpmpp_2m"; with "heun" the first of the two calls of a step counts.
        shown: the steps that are explained in full; four, evenly spread, if not given.
        at: see `explain`.
        top: see `explain`.
        class_labels: see `explain`.
        exclude: see `explain`.
        progress: called as ``progress(done, total)``; its `describe` gets what is being worked on.

    Raises:
        InvalidValueError: noise levels that do not end in 0, an unknown sampler or step, or see `explain`.
        ShapeError, DTypeError: see `explain`.

    Example:
        >>> import pspc_rs as pspc
        >>> data = pspc.load("digits", progress=False)
        >>> noise = pspc.samplers.initial_noise(2, data.shape, 5.0)
        >>> way = explain_trajectory(pspc.PSPCSquare(data, patch_sizes=5), noise, [5.0, 1.0, 0.2, 0.0], shown=[1])
        >>> way, way.levels
        (Way(3 steps, 2 samples), (Explanation(sigma 1, 2 images, 16 components),))
        >>> way.attribution.sum(axis=1).round(6)
        array([3., 3.])
    """
    check_explains(denoiser)
    grid = check_grid(sigmas)
    if len(grid) < 2 or grid[-1] != 0:
        raise InvalidValueError("sigmas do not end in 0, so there would be no samples; append 0")
    solve = SAMPLERS[one_of("sampler", sampler, DETERMINISTIC_SAMPLERS)]
    levels = grid[:-1]
    chosen = check_levels("shown", spread_evenly(len(levels), _LEVELS) if shown is None else shown, len(levels))
    _positions(at, denoiser.shape)  # refuses pixels before the work
    steps = Steps(progress, len(levels) + 3 * len(chosen) + 1)
    given = {"class_labels": class_labels, "exclude": exclude}
    states, denoised, shares = [], [], []

    def keep(step: dict[str, Any]) -> None:
        shares.append(shares_of(denoiser.posterior(step["x"], step["sigma"], 1, class_labels, exclude=exclude)))
        states.append(to_numpy(step["x"], "x"))
        denoised.append(to_numpy(step["denoised"], "denoised").astype(np.float32))
        steps.finish(f"sampling, sigma {step['sigma']:.3g}")

    samples = to_numpy(solve(denoiser, z_init, grid, extra_args=given, callback=keep), "samples")
    levels_found = tuple(
        explain(denoiser, states[one], float(levels[one]), at=at, top=top, progress=_counted(steps), **given)
        for one in chosen
    )
    nearest = nearest_images(denoiser.data, samples, **given)
    steps.finish()
    every = np.stack(shares)
    return Way(
        sigmas=levels,
        denoised=np.stack(denoised),
        attribution=every.sum(axis=0),
        leading=every.argmax(axis=2),
        leading_share=every.max(axis=2),
        samples=samples,
        nearest=nearest,
        shown=tuple(chosen),
        levels=levels_found,
    )


def check_explains(denoiser: object) -> None:
    """Refuses a denoiser without posteriors over training images, or with more maps of them than a page can show.

    Raises:
        InvalidValueError: it has none, or sees images under other maps than a flip.

    Example:
        >>> check_explains(print)
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: a builtin_function_or_method has no posteriors over training images to
        explain; allowed are Empirical, PSPCSquare and PSPCFlex
    """
    if not isinstance(denoiser, PosteriorComposite):
        raise InvalidValueError(
            f"a {type(denoiser).__name__} has no posteriors over training images to explain; allowed are Empirical, "
            "PSPCSquare and PSPCFlex"
        )
    if denoiser.source is not None and denoiser.num_views > 1 + denoiser.data.xflip:
        raise InvalidValueError(
            f"{type(denoiser).__name__} sees every image under {denoiser.num_views} maps, whose patches a page cannot "
            "show; allowed are denoisers that see images as they are, and flipped"
        )


def _counted(steps: Steps) -> Callable[[int, int], object]:
    """The progress of `explain` as further steps of a longer work."""
    return lambda done, total: steps.finish()


def _positions(at: Sequence[tuple[int, int]] | None, shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """Pixels, checked; a grid if there are none."""
    _, height, width = shape
    if at is None:
        rows, columns = (_spread(side) for side in (height, width))
        return np.array([(y, x) for y in rows for x in columns], np.int64)
    positions = np.asarray(at)
    if positions.ndim != 2 or positions.shape[1] != 2 or not len(positions):
        raise ShapeError(f"at is {at!r:.80}; allowed are pixels (y, x), at least one")
    checked = []
    for y, x in positions.tolist():
        row, column = integer("y", y, None), integer("x", x, None)
        if not (0 <= row < height and 0 <= column < width):
            raise InvalidValueError(
                f"at holds the pixel ({shown(row)}, {shown(column)}); allowed are y from 0 to {height - 1} and x from "
                f"0 to {width - 1}"
            )
        checked.append((row, column))
    return np.array(checked, np.int64)


def _spread(side: int) -> list[int]:
    """Up to three pixels, in the middle of the thirds of a side."""
    number = min(_POSITIONS_PER_SIDE, side)
    return [math.floor(side * (2 * third + 1) / (2 * number)) for third in range(number)]


def component_at(masks: NDArray[np.bool_], y: int, x: int) -> int:
    """The component that covers a pixel and whose bounding box has its middle nearest; the first of several."""
    covering = np.flatnonzero(masks[:, y, x])
    middles = np.array([_middle(masks[one]) for one in covering])
    return int(covering[np.square(middles - (y, x)).sum(axis=1).argmin()])


def _middle(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The middle pixel of a mask's bounding box, the later one of two."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0] + rows[-1] + 1) // 2, int(columns[0] + columns[-1] + 1) // 2


def pixel_means(values: NDArray[np.float64], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of numbers of components [batch, K] over the components at each pixel, [batch, H, W]."""
    flat = masks.reshape(len(masks), -1)
    total = np.zeros((len(values), flat.shape[1]))
    for start in range(0, len(flat), _MASKS_AT_ONCE):
        part = slice(start, start + _MASKS_AT_ONCE)
        total += values[:, part] @ flat[part].astype(np.float64)
    means: NDArray[np.float64] = (total / flat.sum(axis=0)).reshape(len(values), *masks.shape[1:])
    return means


def shares_of(posterior: Posterior) -> NDArray[np.float64]:
    """The share of each training image in all components, [batch, N]; the sum over images is 1."""
    shares: NDArray[np.float64] = posterior.attribution() / posterior.num_components
    return shares
