"""The posterior mean of every single patch, which composites average and Figure 4 measures."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError, ShapeError

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

Tick = Callable[[int, int], object]
"""Called as ``tick(done, total)``."""

_CHUNK = 2048
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
        errors: mean squared error over patches and their pixels, one an image, float64 [N].
    """

    side: int
    windows: int
    of: int
    errors: Float64

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
    seed: int = 0,
    tick: Tick | None = None,
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
        seed: of that draw.
        tick: called as ``tick(done, total)``.

    Returns:
        One entry a side, in their order.

    Raises:
        ShapeError: z or the target do not have the shape of the images.
        InvalidValueError: a side that does not fit, or a sigma that is not positive.

    Example:
        >>> data = ImageSet(np.zeros((3, 1, 4, 4), np.float32))
        >>> z = np.random.default_rng(0).normal(size=(2, 1, 4, 4))
        >>> [(one.side, one.windows, round(one.mean, 6)) for one in patch_errors(data, z, 1.0, np.ones_like(z), [2, 4])]
        [(2, 9, 1.0), (4, 1, 1.0)]
    """
    level = real_number("sigma", sigma)
    if level <= 0:
        raise InvalidValueError(f"sigma is {level:g}; allowed are numbers above 0")
    for name, images in (("z", z), ("target", target)):
        if images.shape != (len(z), *data.shape) or len(z) == 0:
            raise ShapeError(f"{name} has shape {list(images.shape)}; needed is [N, {', '.join(map(str, data.shape))}]")
    queries, wanted = np.asarray(z, np.float64), np.asarray(target, np.float64)
    windows = {side: _windows(data, side, max_windows, seed) for side in sides}
    steps = sum(len(_blocks(data, side, chosen, len(z))) for side, chosen in windows.items()) * _num_chunks(data)
    done, found = 0, []

    def step() -> None:
        nonlocal done
        done += 1
        if tick is not None:
            tick(done, steps)

    for side, chosen in windows.items():
        errors = np.zeros(len(z))
        for block in _blocks(data, side, chosen, len(z)):
            for (y, x), means in _means(data, (queries, level), side, block, step):
                part = means - _patches(wanted, y, x, side)
                errors += np.square(part).mean(axis=1) / len(chosen)
        found.append(PatchErrors(side, len(chosen), _positions(data, side), errors))
    return found


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


def _blocks(data: ImageSet, side: int, windows: list[tuple[int, int]], num: int) -> list[list[tuple[int, int]]]:
    """The windows, cut so that the means of a block fit into the memory meant for them."""
    size = max(1, _STATE_BYTES // (8 * num * data.channels * side * side))
    return [windows[start : start + size] for start in range(0, len(windows), size)]


def _num_chunks(data: ImageSet) -> int:
    return math.ceil(data.num_stored / _CHUNK)


def _chunks(data: ImageSet) -> Iterator[list[Float32]]:
    """The images as float32, some at a time, mirrored ones beside them where they count."""
    for start in range(0, data.num_stored, _CHUNK):
        images = data.batch(range(start, min(start + _CHUNK, data.num_stored)))
        yield [images, images[..., ::-1]] if data.xflip else [images]


def _means(
    data: ImageSet, queries: tuple[Float64, float], side: int, windows: list[tuple[int, int]], step: Callable[[], None]
) -> Iterator[tuple[tuple[int, int], Float64]]:
    """The posterior mean of every window, float64 [N, C side side], in one walk over the data."""
    z, sigma = queries
    states = [_Posterior(_patches(z, y, x, side), sigma) for y, x in windows]
    for chunk in _chunks(data):
        for images in chunk:
            for (y, x), state in zip(windows, states, strict=True):
                state.add(_patches(images, y, x, side))
        step()
    for window, state in zip(windows, states, strict=True):
        yield window, state.mean


class _Posterior:
    """A softmax-weighted mean that sees its terms some at a time."""

    def __init__(self, z: Floats, sigma: float) -> None:
        # Energies by one matrix product a chunk, in the precision that sigma asks for.
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
