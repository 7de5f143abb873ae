"""Heat maps in the cache folder, and in half precision."""

from pathlib import Path

import numpy as np
import pytest

import pspc_rs as pspc
from pspc_rs.errors import InvalidValueError, PspcWarning
from pspc_rs.experiments.noisy_sets import forward_noisy
from pspc_rs.heatmaps import cached_gaussian_heatmaps, gaussian_heatmaps, maps, save_heatmaps
from pspc_rs.heatmaps.cached import cache_files

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (40, 2, 5, 4), dtype=np.uint8))
SIGMAS = [2.0, 0.3]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_maps_are_computed_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    G = pspc.Gaussian(DATA, cache=False)
    first = cached_gaussian_heatmaps(G, SIGMAS)
    np.testing.assert_array_equal(first, gaussian_heatmaps(G, SIGMAS))
    (file,) = cache_files(cache)
    with monkeypatch.context() as patched:
        patched.setattr(maps, "wiener_rows", None)
        np.testing.assert_array_equal(cached_gaussian_heatmaps(G, [*SIGMAS, 0.0]), first)
    file.write_bytes(b"damaged")
    np.testing.assert_array_equal(cached_gaussian_heatmaps(G, SIGMAS), first)
    schedule = pspc.ThresholdSchedule((1.0, 0.5), sigmas=SIGMAS, image_size=(5, 4))  # type: ignore[arg-type]
    np.testing.assert_array_equal(cached_gaussian_heatmaps(G, schedule), gaussian_heatmaps(G, schedule))
    cached_gaussian_heatmaps(pspc.Gaussian(DATA, 3, cache=False), SIGMAS)
    assert len(cache_files(cache)) == 3


def test_a_cache_that_cannot_be_written_is_no_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "file"))
    G = pspc.Gaussian(DATA, cache=False)
    with pytest.warns(PspcWarning, match="heat maps are not kept for the next time"):
        found = cached_gaussian_heatmaps(G, SIGMAS)
    np.testing.assert_array_equal(found, gaussian_heatmaps(G, SIGMAS))


def test_half_precision_gives_the_same_masks(tmp_path: Path) -> None:
    D = pspc.Empirical(DATA)
    noisy = [forward_noisy(DATA, 3, sigma) for sigma in SIGMAS]
    save_heatmaps(D, noisy, SIGMAS, tmp_path / "single.npy")
    save_heatmaps(D, noisy, SIGMAS, tmp_path / "half.npy", dtype="float16")
    single, half = (np.load(tmp_path / f"{name}.npy") for name in ("single", "half"))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, single, rtol=1e-3, atol=1e-6)
    outputs = [
        pspc.PSPCFlex(DATA, heatmaps=tmp_path / name, thresholds=[0.7, 0.5], sigmas=SIGMAS)(noisy[0], 2.0)
        for name in ("single.npy", "half.npy")
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.2
    with pytest.raises(InvalidValueError, match="dtype is 'int8'"):
        save_heatmaps(D, noisy, SIGMAS, tmp_path / "int.npy", dtype="int8")
