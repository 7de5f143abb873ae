"""How good the posterior means of single patches are, by side and noise level (Figures 4 and 14)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import integer, one_of, real_number
from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.evaluate import Model, denoise
from pspc_rs.experiments.figures import axes_of, draw_curves, label_curves
from pspc_rs.experiments.metrics import METRICS
from pspc_rs.experiments.noisy_sets import positive_levels
from pspc_rs.experiments.results import Kind, ResultTable
from pspc_rs.progress import Progress, Steps, describe, part_of, renamed_progress
from pspc_rs.provenance import data_settings, model_settings, settings_key

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

PAPER_SIDES = (3, 5, 7, 9, 11, 15, 19, 23, 27, 32)
"""The sides of the paper's figure, for 32 x 32 images."""

WEIGHINGS = ("windows", "pixels")
"""How the errors of windows become one number: their mean, or the mean over the pixels of the image."""

_COLUMNS: Mapping[str, Kind] = {
    "settings": str,
    "side": int,
    "sigma": float,
    "mse": float,
    "standard_error": float,
    "n": int,
    "windows": int,
    "of_windows": int,
}
_KEY = ("settings", "side", "sigma")
_IMAGES_AT_ONCE = 2048
_STATE_BYTES = 2**27
# exp(-40) of the best weight: a hundred thousand images of it do not show in a float32 sum.
_NEGLIGIBLE = 40.0
# Below this level |x|^2 - 2 z x, divided by sigma^2, needs more digits than float32 has.
_FLOAT64_BELOW = 1.0


@dataclass(frozen=True)
class PatchErrors:
    """The squared errors of patch posterior means of one side.

    Attributes:
        side: side of the patches.
        windows: how many positions were looked at.
        of: how many positions there are.
        errors: mean squared error over patches and their pixels, one per image, float64 [N].

    Example:
        >>> found = PatchErrors(3, windows=36, of=36, errors=np.array([1.0, 3.0]))
        >>> found.mean, found.standard_error
        (2.0, 1.0)
    """

    side: int
    windows: int
    of: int
    errors: Float64

    def __repr__(self) -> str:
        return f"PatchErrors(side {self.side}, {self.windows} of {self.of} windows, mean {self.mean:.4g})"

    @property
    def mean(self) -> float:
        """Mean over images."""
        return float(self.errors.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean over images; 0 for a single one."""
        return float(self.errors.std(ddof=1) / math.sqrt(len(self.errors))) if len(self.errors) > 1 else 0.0


def patch_errors(
    data: ImageSet,
    z: Floats,
    sigma: float,
    target: Floats,
    sides: Sequence[int],
    *,
    max_windows: int | None = None,
    weigh: str = "windows",
    seed: int = 0,
    progress: Progress | None = None,
    tick: Callable[[int, int], object] | None = None,
) -> list[PatchErrors]:
    """How far the posterior mean of every s x s patch is from the target on that patch, for every side s.

    For window k, mu_k(z) = sum_n w_kn x_n with w_kn = softmax_n(-|z_k - x_nk|^2 / (2 sigma^2)), a patch itself; its
    error is the mean of (mu_k - target_k)^2 over the patch. Niedoba et al. 2025, Figures 4 and 14. Every image of the
    data set counts at every window. Unlike a composite, nothing is averaged over windows that overlap.

    Args:
        data: the training images.
        z: noisy images [N, C, H, W].
        sigma: their noise level.
        target: what they are compared with, [N, C, H, W]: a network's or another denoiser's output.
        sides: sides of patches, 1 to the shorter side of the image.
        max_windows: look at no more positions than this, drawn without repetition for every side; all if None.
        weigh: "windows" for the mean over windows, as published: a pixel in the middle is in more windows than one at
            the border, and in how many more depends on the side. "pixels" for the mean over the pixels of the image,
            each with the mean over its windows; where ``max_windows`` leaves pixels without a window, over the others.
        seed: of that draw; the standard error of the mean over images does not tell of it.
        progress: called as ``progress(done, total)``.
        tick: deprecated; the earlier name of ``progress``.

    Returns:
        One entry per side, in their order.

    Raises:
        ShapeError: z or the target do not have the shape of the images.
        InvalidValueError: a side that does not fit, a sigma that is not positive, or weighing by something else.

    Example:
        >>> data = ImageSet(np.zeros((3, 1, 4, 4), np.float32))
        >>> z = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
        >>> [(one.side, one.windows, round(one.mean, 6)) for one in patch_errors(data, z, 1.0, np.ones_like(z), [2, 4])]
        [(2, 9, 1.0), (4, 1, 1.0)]
    """
    progress = renamed_progress(progress, "tick", tick, ("done", "total"))
    level = real_number("sigma", sigma, above=0)
    by_pixel = one_of("weigh", weigh, WEIGHINGS) == "pixels"
    for name, images in (("z", z), ("target", target)):
        if images.shape != (len(z), *data.shape) or len(z) == 0:
            raise ShapeError(f"{name} has shape {list(images.shape)}; needed is [N, {', '.join(map(str, data.shape))}]")
    queries, wanted = np.asarray(z, np.float64), np.asarray(target, np.float64)
    windows = {side: _windows(data, side, max_windows, seed) for side in sides}
    blocks = sum(len(_blocks(data, side, chosen, len(z))) for side, chosen in windows.items())
    steps, found = Steps(progress, blocks * _num_chunks(data)), []
    for side, chosen in windows.items():
        shares = _pixel_shares(data, side, chosen, by_pixel)
        errors = np.zeros(len(z))
        for block in _blocks(data, side, chosen, len(z)):
            for (y, x), means in _means(data, (queries, level), side, block, steps):
                squares = np.square(means - _patches(wanted, y, x, side)).reshape(len(z), -1, side * side).mean(axis=1)
                errors += squares @ shares[y : y + side, x : x + side].ravel()
        found.append(PatchErrors(side, len(chosen), _positions(data, side), errors))
    return found


@dataclass(frozen=True)
class PatchStudy:
    """Mean squared errors of patch posterior means.

    Attributes:
        sides: sides of patches, ascending.
        sigmas: noise levels, descending.
        mse: mean over images, patches and their pixels, [sides, levels].
        standard_error: of that mean over images, [sides, levels].
        settings: what the numbers depend on.

    Example:
        >>> PatchStudy((3, 5), (1.0,), np.ones((2, 1)), np.zeros((2, 1)), {})
        PatchStudy(sides 3, 5, 1 levels)
    """

    sides: tuple[int, ...]
    sigmas: tuple[float, ...]
    mse: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"PatchStudy(sides {', '.join(map(str, self.sides))}, {len(self.sigmas)} levels)"


def patch_study(
    data: ImageSet,
    target: Model,
    noisy: Sequence[NDArray[Any]],
    sigmas: object,
    table: Path,
    *,
    sides: Sequence[int],
    max_windows: int | None = None,
    weigh: str = "windows",
    seed: int = 0,
    batch: int = 50,
    record: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    tick: Callable[[int, int, str], object] | None = None,
) -> PatchStudy:
    """The mean error of single patches' posterior means for every side and noise level.

    The paper compares them with the optimal denoiser on forward z (left half of its figures) and with a network on
    the z of that network's own trajectories (right half); see `patch_errors` for the error. A row of a CSV table is
    written when it is known, and a later call with the same table and settings takes it from there.

    Args:
        data: the training images.
        target: D(z, sigma).
        noisy: noisy images [levels, n, C, H, W], an array, memory map or sequence.
        sigmas: the noise level of each, descending; a final 0 is ignored.
        table: the CSV file, with its database beside it (see `ResultTable`); made, or continued.
        sides: sides of patches, 1 to the shorter side of the image.
        max_windows: look at no more positions per side than this, drawn once; all if None.
        weigh: see `patch_errors`.
        seed: of that draw.
        batch: images at once that the target is given.
        record: where the noisy images come from; part of what tells one study from another in the table.
        progress: called as ``progress(done, total)``, in thousandths of a level; its `describe` gets the level.
        tick: deprecated; the earlier name of ``progress``, called as ``tick(done, total, what)``.

    Raises:
        InvalidValueError: a side that does not fit.
        ShapeError: noisy images or target outputs of another shape.
        DataError: the file holds another table, or is damaged.

    Example:
        >>> import tempfile, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8))
        >>> z = np.random.default_rng(1).normal(size=(2, 4, 1, 8, 8)).astype(np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     study = patch_study(data, pspc.Empirical(data), z, [2.0, 0.5], Path(folder, "a.csv"), sides=[3, 8])
        >>> study.mse.shape, bool((study.mse[1] < 1e-9).all())  # the full patch is the empirical denoiser
        ((2, 2), True)
    """
    progress = renamed_progress(progress, "tick", tick, ("done", "total", "what"))
    grid = positive_levels(sigmas)
    if len(noisy) != len(grid):
        raise ShapeError(f"there are noisy images of {len(noisy)} levels for {len(grid)} sigmas above 0")
    chosen = tuple(sorted(set(sides)))
    settings = {
        **data_settings(data),
        "target": model_settings(target),
        "max_windows": max_windows,
        "window_seed": None if max_windows is None else seed,
        **({} if weigh == "windows" else {"weigh": weigh}),
        **dict(record or {}),
    }
    key, results = settings_key(settings), ResultTable(table, _COLUMNS, _KEY)
    for level, sigma in enumerate(grid):
        missing = [side for side in chosen if (key, side, sigma) not in results]
        describe(progress, f"sigma {sigma:.3g}")
        if missing:
            z = np.ascontiguousarray(noisy[level])
            wanted = denoise(target, z, sigma, batch, name="the target")
            within = part_of(progress, level, 1, len(grid))
            found = patch_errors(
                data,
                z,
                sigma,
                wanted,
                missing,
                max_windows=max_windows,
                weigh=weigh,
                seed=seed,
                progress=within,
            )
            named: dict[str, Any] = {"settings": key, "sigma": sigma, "n": len(z)}
            results.add(*(named | _numbers(one) for one in found))
        if progress is not None:
            progress(1000 * (level + 1), 1000 * len(grid))
    rows = {tuple(row[name] for name in _KEY): row for row in results}
    mse, errors = (
        np.array([[rows[key, side, sigma][name] for sigma in grid] for side in chosen], np.float64)
        for name in ("mse", "standard_error")
    )
    return PatchStudy(chosen, tuple(grid), mse, errors, settings)


def _numbers(found: PatchErrors) -> dict[str, Any]:
    positions = {"windows": found.windows, "of_windows": found.of}
    return {"side": found.side, "mse": found.mean, "standard_error": found.standard_error, **positions}


def patch_study_figure(study: PatchStudy, title: str = "", *, ax: "Axes | None" = None) -> "Figure":
    """One curve per side over the noise level, as in Figure 4.

    Args:
        study: the numbers.
        title: what stands above.
        ax: axes of matplotlib to draw on; those of a new figure if not given.

    Raises:
        DTypeError: ax is something else.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> study = PatchStudy((3, 5), (2.0, 1.0), np.ones((2, 2)), np.zeros((2, 2)), {})
        >>> [line.get_label() for line in patch_study_figure(study, "digits").axes[0].lines]
        ['3 x 3', '5 x 5']
    """
    figure, axis = axes_of(ax, 6.2, 4)
    label_curves(axis, f"{METRICS['mse'].title}, of patch posterior means")
    draw_curves(axis, study.sigmas, {f"{side} x {side}": mse for side, mse in zip(study.sides, study.mse, strict=True)})
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_title(title, fontsize=9)
    return figure


def _positions(data: ImageSet, side: int) -> int:
    return (data.height - side + 1) * (data.width - side + 1)


def _windows(data: ImageSet, side: int, max_windows: int | None, seed: int) -> list[tuple[int, int]]:
    """The upper left corners of the windows to look at."""
    if integer("side", side) > min(data.height, data.width):
        raise InvalidValueError(f"side is {side}; allowed are 1 to the shorter side of {data.height} x {data.width}")
    total = _positions(data, side)
    chosen = np.arange(total)
    if max_windows is not None and integer("max_windows", max_windows) < total:
        chosen = np.sort(np.random.default_rng([seed, side]).choice(total, max_windows, replace=False))
    rows, columns = np.divmod(chosen, data.width - side + 1)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _pixel_shares(data: ImageSet, side: int, windows: list[tuple[int, int]], by_pixel: bool) -> Float64:
    """The weight of every pixel's error in each of its windows, [H, W]: over all windows, weights sum to 1."""
    covers = np.zeros((data.height, data.width))
    for y, x in windows:
        covers[y : y + side, x : x + side] += 1
    if not by_pixel:
        return np.full(covers.shape, 1 / covers.sum())
    return np.divide(1.0, covers * np.count_nonzero(covers), out=np.zeros_like(covers), where=covers > 0)


def _blocks(data: ImageSet, side: int, windows: list[tuple[int, int]], num: int) -> list[list[tuple[int, int]]]:
    """The windows, cut so that the means of a block fit into the memory meant for them."""
    size = max(1, _STATE_BYTES // (8 * num * data.channels * side * side))
    return [windows[start : start + size] for start in range(0, len(windows), size)]


def _num_chunks(data: ImageSet) -> int:
    return math.ceil(data.num_stored / _IMAGES_AT_ONCE)


def _chunks(data: ImageSet) -> Iterator[list[Float32]]:
    """The images as float32, some at a time, each with its mirror image if the data have flips."""
    for start in range(0, data.num_stored, _IMAGES_AT_ONCE):
        images = data.batch(range(start, min(start + _IMAGES_AT_ONCE, data.num_stored)))
        yield [images, images[..., ::-1]] if data.xflip else [images]


def _means(
    data: ImageSet, queries: tuple[Float64, float], side: int, windows: list[tuple[int, int]], steps: Steps
) -> Iterator[tuple[tuple[int, int], Float64]]:
    """The posterior mean of every window, float64 [N, C side side], in one walk over the data."""
    z, sigma = queries
    states = [_Posterior(_patches(z, y, x, side), sigma) for y, x in windows]
    for chunk in _chunks(data):
        for images in chunk:
            for (y, x), state in zip(windows, states, strict=True):
                state.add(_patches(images, y, x, side))
        steps.finish()
    for window, state in zip(windows, states, strict=True):
        yield window, state.mean


class _Posterior:
    """A softmax-weighted mean over images that arrive some at a time."""

    def __init__(self, z: Floats, sigma: float) -> None:
        # Energies by one matrix product per chunk, in the precision that sigma needs.
        self._dtype = np.dtype(np.float64 if sigma < _FLOAT64_BELOW else np.float32)
        self._z = (z / sigma**2).astype(self._dtype)
        self._half = 0.5 / sigma**2
        self._best = np.full((len(z), 1), -np.inf)
        self._sum = np.zeros((len(z), 1))
        self._weighted = np.zeros(z.shape)

    def add(self, patches: Floats) -> None:
        """Counts further images, [n, C side side]."""
        x: Floats = patches.astype(self._dtype, copy=False)
        # The square of a row times a Python float stays in its dtype.
        logits: Floats = self._z @ x.T - self._half * np.einsum("nd,nd->n", x, x)
        best = np.maximum(self._best, logits.max(axis=1, keepdims=True))
        close = (logits > best - _NEGLIGIBLE).any(axis=0)
        if not close.all():
            logits, patches = logits[:, close], patches[close]
        weights = np.exp(logits - best.astype(self._dtype)).astype(np.float32, copy=False)
        fade = np.exp(self._best - best)
        self._sum = self._sum * fade + weights.sum(axis=1, dtype=np.float64, keepdims=True)
        self._weighted *= fade
        self._weighted += weights @ patches
        self._best = best

    @property
    def mean(self) -> Float64:
        """The mean so far, [N, C side side]."""
        return self._weighted / self._sum


def _patches(images: Floats, y: int, x: int, side: int) -> Floats:
    """One window of every image, [N, C side side]."""
    return images[:, :, y : y + side, x : x + side].reshape(len(images), -1)
