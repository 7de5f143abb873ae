"""Heat maps of any denoiser as a file that PSPC-Flex reads: a mean over noisy images, computed row by row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import integer
from pspc_rs.denoisers import Denoiser, Gaussian, Network
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.errors import DTypeError, ShapeError
from pspc_rs.heatmaps.composite import composite_maps
from pspc_rs.heatmaps.gaussian import wiener_rows
from pspc_rs.heatmaps.network import network_maps
from pspc_rs.heatmaps.pixels import Pixels, chosen_pixels, raise_own
from pspc_rs.runs import BatchRun

Float64 = NDArray[np.float64]
Tick = Callable[[int, int, str], object]


def heatmaps_at(
    denoiser: Denoiser | Network, z: NDArray[np.floating[Any]], sigma: float, pixels: object = None, *, batch: int = 16
) -> tuple[Float64, Float64]:
    """Heat maps of one noise level and their standard error over noisy images, each float64 [P, H, W].

    G(p)(q) = mean over z of sum_c |d D_c(p) / d z_c(q)|, Niedoba et al. 2025, eq. 8. The derivative is a
    vector-Jacobian product for a network, exact for the empirical, PSPC and Gaussian denoisers; that of the last does
    not depend on z.

    Args:
        denoiser: a `Network`, `Gaussian`, `Empirical`, `PSPCSquare` or `PSPCFlex`.
        z: noisy images [n, channels, height, width].
        sigma: their noise level.
        pixels: output pixels as pairs (y, x), [P, 2]; every pixel, row by row, if None.
        batch: noisy images at once.

    Returns:
        The maps, and their standard errors, which are 0 for a single noisy image.

    Raises:
        DTypeError: heat maps of that denoiser are not known.
        ShapeError: z is not made of the denoiser's images.

    Example:
        >>> import pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
        >>> maps, error = heatmaps_at(pspc.Empirical(data), np.zeros((1, 1, 1, 1)), 1.0)
        >>> maps.item()   # variance 1 over sigma^2
        1.0
    """
    height, width = _image_size(denoiser, z)
    return _moments(denoiser, z, sigma, chosen_pixels(pixels, height, width), batch)


def save_heatmaps(
    denoiser: Denoiser | Network,
    noisy: Sequence[NDArray[np.floating[Any]]],
    sigmas: Sequence[float],
    output: Path,
    *,
    pixels: object = None,
    raw: bool = False,
    batch: int = 16,
    settings: Mapping[str, object] | None = None,
    record: Mapping[str, object] | None = None,
    resume: bool = False,
    tick: Tick | None = None,
) -> None:
    """Writes heat maps of several noise levels, float32 [levels, H, W, H, W], and their standard errors beside them.

    Files are ``{output}`` and ``{output's stem}_error.npy``, each with a record; a chosen set of P pixels gives
    [levels, P, H, W]. They are computed one row of output pixels at a time, and finished rows are kept, so that a
    stopped run can be resumed and then has the same bytes.

    Args:
        denoiser: see `heatmaps_at`.
        noisy: noisy images [n, channels, height, width] for each level.
        sigmas: the levels.
        output: the .npy file.
        pixels: output pixels as pairs (y, x); all if None.
        raw: leave the maps as they are. Else every pixel's own entry is made the largest of its map, as PSPC-Flex
            needs; see `own_pixel_first`.
        batch: noisy images at once.
        settings: what else decides the numbers, such as seed and data of ``noisy``.
        record: what else is recorded.
        resume: go on with rows that an earlier run with the same settings kept.
        tick: called as ``tick(rows done, rows in all, what)``.

    Raises:
        DTypeError: heat maps of that denoiser are not known.
        ShapeError: not one set of noisy images a level, or of other images than the denoiser's.
        OutputError: a file cannot be written, or resumed.
    """
    if len(noisy) != len(sigmas) or len(sigmas) == 0:
        raise ShapeError(f"there are {len(noisy)} sets of noisy images for {len(sigmas)} levels; allowed is one each")
    integer("batch", batch)
    height, width = _image_size(denoiser, noisy[0])
    chosen = chosen_pixels(pixels, height, width)
    decides = {
        **(settings or {}),
        "denoiser": denoiser.settings,
        "sigmas": list(sigmas),
        "pixels": None if pixels is None else chosen,
        "raw": raw,
        "batch": batch,
    }
    beside = output.with_name(f"{output.stem}_error.npy")
    runs = [BatchRun(path, decides, resume=resume) for path in (output, beside)]
    if all(run.complete for run in runs):
        return
    rows = [chosen[start : start + width] for start in range(0, len(chosen), width)]
    num = len(rows) * len(sigmas)
    drawn = (-1, noisy[0])
    for index in _pending(runs, num, tick):
        level, row = divmod(index, len(rows))
        if drawn[0] != level:
            drawn = level, noisy[level]
        found = _moments(denoiser, drawn[1], float(sigmas[level]), rows[row], batch)
        maps, errors = (one.astype(np.float32) for one in found)
        if not raw:
            raise_own(maps.reshape(len(maps), -1), rows[row])
        runs[0].keep(index, maps)
        runs[1].keep(index, errors)
    shape = (len(sigmas), *((height, width) if pixels is None else (len(chosen),)), height, width)
    for run in runs:
        if not run.complete:
            run.finish(num, record or {}, shape)


def _pending(runs: Sequence[BatchRun], num: int, tick: Tick | None) -> Iterator[int]:
    pending = sorted({index for run in runs for index in ([] if run.complete else run.pending(num))})
    for done, index in enumerate(pending, num - len(pending)):
        if tick is not None:
            tick(done, num, "heat maps")
        yield index
    if tick is not None:
        tick(num, num, "heat maps")


def _moments(
    denoiser: Denoiser | Network, z: NDArray[np.floating[Any]], sigma: float, pixels: Pixels, batch: int
) -> tuple[Float64, Float64]:
    """Mean and standard error, merged batch by batch (Chan et al. 1983)."""
    if isinstance(denoiser, Gaussian):
        maps = wiener_rows(denoiser, sigma, pixels).astype(np.float64)
        return maps, np.zeros_like(maps)
    count, mean, squares = 0, np.zeros(()), np.zeros(())
    for start in range(0, len(z), batch):
        found = _maps(denoiser, z[start : start + batch], sigma, pixels)
        own = found.mean(axis=0)
        count, before = count + len(found), count
        squares = squares + ((found - own) ** 2).sum(axis=0) + (own - mean) ** 2 * (before * len(found) / count)
        mean = mean + (own - mean) * (len(found) / count)
    return mean, np.sqrt(squares / (max(count - 1, 1) * count))


def _maps(denoiser: object, z: NDArray[np.floating[Any]], sigma: float, pixels: Pixels) -> Float64:
    if isinstance(denoiser, Network):
        return network_maps(denoiser, z, sigma, pixels)
    if isinstance(denoiser, PosteriorComposite):
        return composite_maps(denoiser, z, sigma, pixels)
    raise DTypeError(
        f"heat maps of a {type(denoiser).__name__} are not known; allowed are Network, Gaussian, Empirical, PSPC"
    )


def _image_size(denoiser: Denoiser | Network, z: NDArray[np.floating[Any]]) -> tuple[int, int]:
    shape = denoiser.shape or z.shape[1:]
    if z.ndim != 4 or z.shape[1:] != tuple(shape) or len(z) == 0:
        raise ShapeError(f"z has shape {list(z.shape)}, expected [n, {', '.join(map(str, shape))}] with n at least 1")
    return z.shape[2], z.shape[3]
