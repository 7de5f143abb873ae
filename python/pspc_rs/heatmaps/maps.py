"""Heat maps of one level, of all levels as a file that PSPC-Flex reads, and of the Gaussian denoiser in closed form."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import real_array
from pspc_rs.checks import integer, one_of
from pspc_rs.data import ImageSet
from pspc_rs.denoisers import Denoiser, Gaussian, Network, Piecewise
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.denoisers.masks import own_pixel_first, raise_own
from pspc_rs.deprecation import overwriting
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.heatmaps.jacobians import Float64, Pixels, composite_maps, network_maps, wiener_rows
from pspc_rs.outputs import ResumableArray
from pspc_rs.progress import Progress, describe, renamed_progress
from pspc_rs.schedules import ThresholdSchedule
from pspc_rs.sigmas import check_grid

Source: TypeAlias = Denoiser | Network | Piecewise
"""What heat maps are of."""


class Moments(NamedTuple):
    """The maps of some noisy images in sum.

    Attributes:
        number: of noisy images.
        mean: of their maps, float64 [P, H, W].
        squares: sum of the squared differences from the mean.
    """

    number: int
    mean: Float64
    squares: Float64

    def merged(self, other: "Moments") -> "Moments":
        """Those of the noisy images of both (Chan et al. 1983).

        Example:
            >>> one, other = Moments(1, np.zeros(1), np.zeros(1)), Moments(1, np.ones(1), np.zeros(1))
            >>> one.merged(other)
            Moments(number=2, mean=array([0.5]), squares=array([0.5]))
        """
        number = self.number + other.number
        if number == 0:
            return self
        squares = self.squares + other.squares + (other.mean - self.mean) ** 2 * (self.number * other.number / number)
        return Moments(number, self.mean + (other.mean - self.mean) * (other.number / number), squares)


MomentsOf: TypeAlias = Callable[[Source, NDArray[np.floating[Any]], float, Pixels, int], Moments]
"""Computes the moments of a denoiser, noisy images, their level, output pixels and images at once."""


def heatmaps_at(
    denoiser: Denoiser | Network | Piecewise,
    z: NDArray[np.floating[Any]],
    sigma: float,
    pixels: object = None,
    *,
    batch: int = 16,
) -> tuple[Float64, Float64]:
    """Heat maps of one noise level and their standard error over noisy images, each float64 [P, H, W].

    G(p)(q) = mean over z of sum_c |d D_c(p) / d z_c(q)|, Niedoba et al. 2025, eq. 8. The derivative is a
    vector-Jacobian product for a network, exact for the empirical, PSPC and Gaussian denoisers; that of the last does
    not depend on z.

    Args:
        denoiser: a `Network`, `Gaussian`, `Empirical`, `PSPCSquare` or `PSPCFlex`, or a `Piecewise` of them.
        z: noisy images [n, channels, height, width].
        sigma: their noise level.
        pixels: output pixels as pairs (y, x), [P, 2]; every pixel, row by row, if None.
        batch: noisy images at once.

    Returns:
        The maps, and their standard errors, which are 0 for a single noisy image.

    Raises:
        DTypeError: heat maps of this kind of denoiser are not known.
        ShapeError: z is not made of the denoiser's images.

    Example:
        >>> import pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
        >>> maps, error = heatmaps_at(pspc.Empirical(data), np.zeros((1, 1, 1, 1)), 1.0)
        >>> maps.item()   # variance 1 over sigma^2
        1.0
    """
    height, width = _image_size(denoiser, z)
    return _mean_and_error(map_moments(denoiser, z, sigma, chosen_pixels(pixels, height, width), batch))


def save_heatmaps(
    denoiser: Denoiser | Network | Piecewise,
    noisy: Sequence[NDArray[np.floating[Any]]],
    sigmas: Sequence[float],
    output: Path,
    *,
    pixels: object = None,
    raw: bool | None = None,
    batch: int = 16,
    dtype: str = "float32",
    settings: Mapping[str, object] | None = None,
    record: Mapping[str, object] | None = None,
    resume: bool | None = None,
    overwrite: bool = False,
    moments: MomentsOf | None = None,
    progress: Progress | None = None,
    tick: Callable[[int, int, str], object] | None = None,
) -> bool:
    """Writes heat maps of several noise levels, float32 [levels, H, W, H, W], and their standard errors beside them.

    Files are ``{output}`` and ``{output's stem}_error.npy``, each with a record; a chosen set of P pixels gives
    [levels, P, H, W]. They are computed one row of output pixels at a time, and finished rows are kept, so that a
    stopped run is continued and then has the same bytes.

    Args:
        denoiser: see `heatmaps_at`.
        noisy: noisy images [n, channels, height, width] for each level.
        sigmas: the levels.
        output: the .npy file.
        pixels: output pixels as pairs (y, x); all if None.
        raw: deprecated; maps are always kept as they are, and `PSPCFlex` sees to it that every pixel is in some mask.
            False raises every pixel's own entry above the others of its map, as earlier versions did.
        batch: noisy images at once.
        dtype: of the maps in the file, "float32" or "float16", which halves it and which `PSPCFlex` takes, too.
        settings: what else decides the numbers, such as seed and data of ``noisy``.
        record: what else is recorded.
        resume: deprecated; a run with the same settings is always continued.
        overwrite: replace files that have other settings.
        moments: computes what `map_moments` does, for work shared by several processes.
        progress: called as ``progress(rows done, rows)``.
        tick: deprecated; the earlier name of ``progress``, called as ``tick(done, total, what)``.

    Returns:
        Whether anything had to be written; False if both files were complete already.

    Raises:
        DTypeError: heat maps of this kind of denoiser are not known.
        ShapeError: not one set of noisy images per level, or images of another shape than the denoiser's.
        OutputError: a file cannot be written, an earlier run had other settings, or another run is writing it.

    Example:
        >>> import tempfile, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "maps.npy")
        ...     save_heatmaps(pspc.Empirical(data), np.zeros((2, 1, 1, 1, 1)), [2.0, 1.0], path)
        ...     np.load(path).ravel()
        True
        array([0.25, 1.  ], dtype=float32)
    """
    progress = renamed_progress(progress, "tick", tick, ("done", "total", "what"))
    raised = _raises_own(raw)
    if len(noisy) != len(sigmas) or len(sigmas) == 0:
        raise ShapeError(f"there are {len(noisy)} sets of noisy images for {len(sigmas)} levels; allowed is one each")
    integer("batch", batch)
    stored_as = np.dtype(one_of("dtype", dtype, ("float32", "float16")))
    height, width = _image_size(denoiser, noisy[0])
    chosen = chosen_pixels(pixels, height, width)
    decides = {
        **(settings or {}),
        "denoiser": denoiser.settings,
        "sigmas": list(sigmas),
        "pixels": None if pixels is None else chosen,
        "raw": not raised,
        "batch": batch,
        **({} if dtype == "float32" else {"dtype": dtype}),
    }
    beside = output.with_name(f"{output.stem}_error.npy")
    rows = [chosen[start : start + width] for start in range(0, len(chosen), width)]
    shape = (len(sigmas), *((height, width) if pixels is None else (len(chosen),)), height, width)
    allowed = overwriting(resume, overwrite)
    with (
        ResumableArray(output, decides, overwrite=allowed) as maps_file,
        ResumableArray(beside, decides, overwrite=allowed) as errors_file,
    ):
        pending = [one for one in (maps_file, errors_file) if not one.complete]
        drawn = (-1, noisy[0])
        for index in _pending(pending, len(rows) * len(sigmas), progress):
            level, row = divmod(index, len(rows))
            if drawn[0] != level:
                drawn = level, noisy[level]
            of = (moments or map_moments)(denoiser, drawn[1], float(sigmas[level]), rows[row], batch)
            found = _mean_and_error(of)
            maps, errors = (one.astype(np.float32) for one in found)
            if raised:
                raise_own(maps.reshape(len(maps), -1), rows[row])
            for one in pending:
                one.keep(index, maps.astype(stored_as) if one is maps_file else errors)
        for one in pending:
            one.finish(len(rows) * len(sigmas), record or {}, shape)
    return bool(pending)


def _raises_own(raw: bool | None) -> bool:
    """What ``raw=`` of an earlier version asked for: own entries that are raised."""
    if raw is not False:
        return False
    warnings.warn(
        "raw=False is deprecated: PSPCFlex takes maps as they are; write own_pixel_first(maps) to raise own entries",
        DeprecationWarning,
        stacklevel=3,
    )
    return True


def _pending(outputs: Sequence[ResumableArray], num: int, progress: Progress | None) -> Iterator[int]:
    """The rows that one of the outputs lacks; progress is reported before each and at the end."""
    pending = sorted({index for one in outputs for index in one.pending(num)})
    describe(progress, "heat maps")
    for done, index in enumerate(pending, num - len(pending)):
        if progress is not None:
            progress(done, num)
        yield index
    if progress is not None:
        progress(num, num)


def map_moments(denoiser: Source, z: NDArray[np.floating[Any]], sigma: float, pixels: Pixels, batch: int) -> Moments:
    """The moments of the maps of some output pixels over noisy images, which may be none.

    Args:
        denoiser: see `heatmaps_at`.
        z: noisy images [n, channels, height, width].
        sigma: their noise level.
        pixels: output pixels as indices y * W + x, [P].
        batch: noisy images at once.

    Raises:
        DTypeError: heat maps of this kind of denoiser are not known.

    Example:
        >>> import pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
        >>> map_moments(pspc.Empirical(data), np.zeros((3, 1, 1, 1)), 1.0, np.array([0]), 2).number
        3
    """
    while isinstance(denoiser, Piecewise):
        denoiser = denoiser.part_at(sigma)
    none = np.zeros((len(pixels), *z.shape[2:]))
    if isinstance(denoiser, Gaussian):
        return Moments(len(z), wiener_rows(denoiser, sigma, pixels).astype(np.float64), none)
    found = Moments(0, none, none)
    for start in range(0, len(z), batch):
        maps = _maps(denoiser, z[start : start + batch], sigma, pixels)
        mean = maps.mean(axis=0)
        found = found.merged(Moments(len(maps), mean, ((maps - mean) ** 2).sum(axis=0)))
    return found


def _mean_and_error(moments: Moments) -> tuple[Float64, Float64]:
    number, mean, squares = moments
    return mean, np.sqrt(squares / (max(number - 1, 1) * number))


def _maps(denoiser: object, z: NDArray[np.floating[Any]], sigma: float, pixels: Pixels) -> Float64:
    if isinstance(denoiser, Network):
        return network_maps(denoiser, z, sigma, pixels)
    if isinstance(denoiser, PosteriorComposite) and denoiser.source is None:
        return composite_maps(denoiser, z, sigma, pixels)
    raise DTypeError(
        f"heat maps of a {type(denoiser).__name__} are not known; allowed are Network, Gaussian, and Empirical, "
        "PSPCSquare and PSPCFlex without a source"
    )


def _image_size(denoiser: Denoiser | Network | Piecewise, z: NDArray[np.floating[Any]]) -> tuple[int, int]:
    shape = denoiser.shape or z.shape[1:]
    if z.ndim != 4 or z.shape[1:] != tuple(shape) or len(z) == 0:
        raise ShapeError(f"z has shape {list(z.shape)}, expected [n, {', '.join(map(str, shape))}] with n at least 1")
    return z.shape[2], z.shape[3]


def gaussian_heatmaps(
    data: ImageSet | Gaussian, sigmas: Any, *, rank: int | None = None, raw: bool | None = None
) -> NDArray[np.float32]:
    """Heat maps for PSPC-Flex that need no network, float32 [levels, H, W, H, W].

    G(p)(q) = sum_c |W[cp, cq]| with W = U diag(S / (S + sigma^2)) U^T, the rows of the Wiener filter: the derivative of
    the Gaussian denoiser, which does not depend on z, in place of a network's mean over z (Niedoba et al. 2025, eq. 8).

    Args:
        data: the training images, or their Gaussian denoiser.
        sigmas: noise levels, descending; a final 0 is dropped. A `ThresholdSchedule` gives its own, and the maps of
            levels whose threshold is 1, which need none, stay 0.
        rank: keep this many leading directions of the data; all if None.
        raw: deprecated; see `save_heatmaps`.

    Raises:
        InvalidValueError: the levels are no grid, or the rank is out of range.

    Example:
        >>> import pspc_rs as pspc
        >>> images = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4), dtype=np.uint8)
        >>> data, sigmas = pspc.ImageSet(images), [1.0, 0.1]
        >>> maps = pspc.gaussian_heatmaps(data, sigmas)
        >>> maps.shape
        (2, 4, 4, 4, 4)
        >>> F = pspc.PSPCFlex(data, heatmaps=maps, thresholds=[0.9, 0.5], sigmas=sigmas)
    """
    raised = _raises_own(raw)
    gaussian = data if isinstance(data, Gaussian) else Gaussian(data, rank)
    levels, wanted = _levels(sigmas)
    _, height, width = gaussian.shape
    pixels = np.arange(height * width)
    maps = np.zeros((len(levels), height, width, height, width), np.float32)
    for index in np.flatnonzero(wanted):
        maps[index] = wiener_rows(gaussian, levels[index], pixels).reshape(maps.shape[1:])
        if raised:
            maps[index] = own_pixel_first(maps[index])
    return maps


def _levels(sigmas: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The noise levels above 0, and a mask of those whose maps are needed."""
    if isinstance(sigmas, ThresholdSchedule):
        return np.array(sigmas.sigmas), np.array(sigmas.thresholds) < 1
    grid = check_grid(sigmas)
    levels = grid[grid > 0]
    return levels, np.ones(len(levels), bool)


def chosen_pixels(pixels: object, height: int, width: int) -> Pixels:
    """Output pixels as indices y * width + x, int64 [P].

    Args:
        pixels: pairs (y, x), [P, 2]; every pixel, row by row, if None.
        height: of the images.
        width: of the images.

    Raises:
        ShapeError: the pixels are no pairs.
        InvalidValueError: one lies outside the image, or there are none.

    Example:
        >>> chosen_pixels([(0, 1), (2, 0)], 3, 4)
        array([1, 8])
    """
    if pixels is None:
        return np.arange(height * width)
    pairs = real_array("pixels", pixels)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ShapeError(f"pixels have shape {list(pairs.shape)}; allowed are pairs (y, x), [pixels, 2]")
    inside = (pairs >= 0) & (pairs < (height, width)) & (pairs == np.floor(pairs))
    if len(pairs) == 0 or not inside.all():
        bad = pairs[~inside.all(axis=1)][:1].tolist()
        raise InvalidValueError(
            f"pixels hold {bad or 'nothing'}; allowed are integers (y, x) below ({height}, {width})"
        )
    y, x = pairs.astype(np.int64).T
    return np.asarray(y * width + x)
