"""How good patch posterior means of each side are at each noise level (Figures 4 and 14)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.errors import ShapeError
from pspc_rs.experiments.drawing import log_axes, new_figure
from pspc_rs.experiments.evaluate import denoised
from pspc_rs.experiments.patch_means import PatchErrors, patch_errors
from pspc_rs.experiments.settings import data_settings, model_settings, settings_key
from pspc_rs.experiments.table import ResultTable
from pspc_rs.sigmas import check_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDES = (3, 5, 7, 9, 11, 15, 19, 23, 27, 32)
"""The sides of the paper's figure, for 32 x 32 images."""

_COLUMNS: Mapping[str, type] = {
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

Tick = Callable[[int, int, str], object]
"""Called as ``tick(done, total, what)``."""


@dataclass(frozen=True)
class PatchStudy:
    """Mean squared errors of patch posterior means.

    Attributes:
        sides: sides of patches, ascending.
        sigmas: noise levels, descending.
        mse: mean over images, patches and their pixels, [sides, levels].
        standard_error: of that mean over images, [sides, levels].
        settings: what the numbers depend on.
    """

    sides: tuple[int, ...]
    sigmas: tuple[float, ...]
    mse: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    settings: Mapping[str, Any]


def patch_study(
    data: ImageSet,
    target: Callable[..., Any],
    noisy: Sequence[NDArray[Any]],
    sigmas: object,
    table: Path,
    *,
    sides: Sequence[int],
    max_windows: int | None = None,
    seed: int = 0,
    batch: int = 50,
    record: Mapping[str, object] | None = None,
    tick: Tick | None = None,
) -> PatchStudy:
    """The mean error of single patches' posterior means for every side and noise level.

    The paper compares them with the optimal denoiser on forward z (left half of its figures) and with a network on
    the z of that network's own trajectories (right half); see `patch_errors` for the error. A row of a CSV table is
    written when it is known, and a later call with the same table and settings takes it from there.

    Args:
        data: the training images.
        target: D(z, sigma).
        noisy: noisy images [levels, n, C, H, W], an array, memory map or sequence.
        sigmas: the noise level of each, descending; a final 0 plays no part.
        table: the CSV file; made, or gone on with.
        sides: sides of patches, 1 to the shorter side of the image.
        max_windows: look at no more positions a side than this, drawn once; all if None.
        seed: of that draw.
        batch: images at once that the target is given.
        record: where the noisy images come from; part of what tells one study from another in the table.
        tick: called as ``tick(done, total, what)``, in thousandths of a level.

    Raises:
        InvalidValueError: a side that does not fit.
        ShapeError: noisy images or target outputs of another shape.
        DataError: the table is no table of patch studies.

    Example:
        >>> import tempfile, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8))
        >>> z = np.random.default_rng(1).normal(size=(2, 4, 1, 8, 8)).astype(np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     study = patch_study(data, pspc.Empirical(data), z, [2.0, 0.5], Path(folder, "a.csv"), sides=[3, 8])
        >>> study.mse.shape, bool((study.mse[1] < 1e-9).all())  # the full patch is the empirical denoiser
        ((2, 2), True)
    """
    grid = [level for level in check_grid(sigmas).tolist() if level > 0]
    if len(noisy) != len(grid):
        raise ShapeError(f"there are noisy images of {len(noisy)} levels for {len(grid)} sigmas above 0")
    chosen = tuple(sorted(set(sides)))
    settings = {
        **data_settings(data),
        "target": model_settings(target),
        "max_windows": max_windows,
        "window_seed": None if max_windows is None else seed,
        **dict(record or {}),
    }
    key, results = settings_key(settings), ResultTable(table, _COLUMNS, _KEY)
    for level, sigma in enumerate(grid):
        missing = [side for side in chosen if (key, side, sigma) not in results]
        if missing:
            z = np.ascontiguousarray(noisy[level])
            wanted = denoised(target, z, sigma, batch, name="the target", count=lambda images: None)
            told = None if tick is None else _within(tick, level, len(grid), f"sigma {sigma:.3g}")
            found = patch_errors(data, z, sigma, wanted, missing, max_windows=max_windows, seed=seed, tick=told)
            named = {"settings": key, "sigma": sigma, "n": len(z)}
            results.add(*(named | _numbers(one) for one in found))
        if tick is not None:
            tick(1000 * (level + 1), 1000 * len(grid), f"sigma {sigma:.3g}")
    rows = {tuple(row[name] for name in _KEY): row for row in results}
    mse, errors = (
        np.array([[rows[key, side, sigma][name] for sigma in grid] for side in chosen], np.float64)
        for name in ("mse", "standard_error")
    )
    return PatchStudy(chosen, tuple(grid), mse, errors, settings)


def _numbers(found: PatchErrors) -> dict[str, Any]:
    positions = {"windows": found.windows, "of_windows": found.of}
    return {"side": found.side, "mse": found.mean, "standard_error": found.standard_error, **positions}


def _within(tick: Tick, level: int, levels: int, what: str) -> Callable[[int, int], object]:
    return lambda done, total: tick(1000 * level + 1000 * done // total, 1000 * levels, what)


def patch_study_figure(study: PatchStudy, title: str = "") -> "Figure":
    """One curve a side over the noise level, as in Figure 4.

    Args:
        study: the numbers.
        title: what stands above.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(6.2, 4)
    axis = log_axes(figure, "MSE of patch posterior means")
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0, 0.95, len(study.sides)))
    for side, mse, colour in zip(study.sides, study.mse, colours, strict=True):
        axis.plot(
            study.sigmas,
            np.where(mse > 0, mse, np.nan),
            color=colour,
            marker=".",
            linewidth=1,
            label=f"{side} x {side}",
        )
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set_title(title, fontsize=9)
    return figure
