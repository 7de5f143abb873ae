"""The Gaussian denoiser's heat maps, computed once and kept in the cache folder, which may be shared."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.denoisers import Gaussian
from pspc_rs.errors import DataError, OutputError, warn
from pspc_rs.files import cache_dir, replacing
from pspc_rs.heatmaps.maps import gaussian_heatmaps
from pspc_rs.outputs import open_array
from pspc_rs.provenance import settings_key
from pspc_rs.schedules import ThresholdSchedule
from pspc_rs.sigmas import check_grid


def cached_gaussian_heatmaps(gaussian: Gaussian, sigmas: Any) -> NDArray[Any]:
    """As `gaussian_heatmaps`, read by memory map from a file of the cache folder, which is written the first time.

    The file, ``heatmaps/gaussian-KEY.npy``, has a key of the data's fingerprint, the denoiser's settings and the
    levels: with ``PSPC_CACHE_DIR`` on a shared disk, or a copy of the file, others have the maps, too. Where the folder
    cannot be written, a warning says so and nothing is kept.

    Args:
        gaussian: the denoiser.
        sigmas: noise levels, or a `ThresholdSchedule`; see `gaussian_heatmaps`.

    Raises:
        InvalidValueError: the levels are no grid.

    Example:
        >>> import os, tempfile, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4), dtype=np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.environ["PSPC_CACHE_DIR"] = folder
        ...     maps = cached_gaussian_heatmaps(pspc.Gaussian(data), [1.0, 0.1])
        ...     again = cached_gaussian_heatmaps(pspc.Gaussian(data), [1.0, 0.1])
        ...     del os.environ["PSPC_CACHE_DIR"]
        ...     len(list(cache_files(folder))), bool((maps == again).all())
        (1, True)
    """
    schedule = isinstance(sigmas, ThresholdSchedule)
    levels = [level for level in (sigmas.sigmas if schedule else check_grid(sigmas).tolist()) if level > 0]
    wanted = [threshold < 1 for threshold in sigmas.thresholds] if schedule else None
    key = settings_key({"denoiser": gaussian.settings, "sigmas": levels, "wanted": wanted})
    height, width = gaussian.shape[1:]
    try:
        path = cache_dir() / "heatmaps" / f"gaussian-{key}.npy"
        kept = _read(path, (len(levels), height, width, height, width))
        if kept is not None:
            return kept
        maps = gaussian_heatmaps(gaussian, sigmas)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, maps)
    except OutputError as error:
        warn(f"heat maps are not kept for the next time: {error}")
        return gaussian_heatmaps(gaussian, sigmas)
    return maps


def cache_files(folder: str | Path) -> list[Path]:
    """The files of heat maps in a cache folder."""
    return sorted((Path(folder) / "heatmaps").glob("*.npy"))


def _read(path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """The maps in a file; None if there is none, or it holds something else and has to be written anew."""
    if not path.is_file():
        return None
    try:
        maps = open_array(path)
    except DataError:
        return None
    return maps if maps.shape == shape and maps.dtype == np.float32 else None
