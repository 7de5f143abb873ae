"""Heat maps as files: layout, errors, resuming, the command, and PSPC-Flex on top of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from command_line import fail, succeed
from pspc_rs import errors
from pspc_rs.heatmaps import gaussian_heatmaps, heatmaps_at, own_pixel_first, save_heatmaps
from pspc_rs.heatmaps.jacobians import composite_maps

RNG = np.random.default_rng(0)
DATA = pspc.ImageSet(RNG.integers(0, 256, (30, 1, 4, 5), dtype=np.uint8))
SIGMAS = [2.0, 0.3]
NOISY = [RNG.standard_normal((6, 1, 4, 5)).astype(np.float32) for _ in SIGMAS]


def test_mean_and_standard_error_are_those_over_noisy_images() -> None:
    D = pspc.PSPCSquare(DATA, patch_sizes=3)
    each = composite_maps(D, NOISY[0], 2.0, np.arange(20))
    for batch in (1, 4, 6):
        mean, error = heatmaps_at(D, NOISY[0], 2.0, batch=batch)
        np.testing.assert_allclose(mean, each.mean(0), rtol=1e-12)
        np.testing.assert_allclose(error, each.std(0, ddof=1) / np.sqrt(6), rtol=1e-9, atol=1e-14)
    assert not heatmaps_at(D, NOISY[0][:1], 2.0)[1].any()
    some, _ = heatmaps_at(D, NOISY[0], 2.0, [(1, 2), (3, 0)])
    np.testing.assert_allclose(some, each.mean(0)[[7, 15]], rtol=1e-12)


def test_files_have_the_published_layout_and_feed_flex(tmp_path: Path) -> None:
    D = pspc.PSPCSquare(DATA, patch_sizes=3)
    save_heatmaps(D, NOISY, SIGMAS, tmp_path / "maps.npy")
    raw, error = np.load(tmp_path / "maps.npy"), np.load(tmp_path / "maps_error.npy")
    assert raw.shape == error.shape == (2, 4, 5, 4, 5)
    assert raw.dtype == np.float32
    for level, sigma in enumerate(SIGMAS):
        mean, spread = heatmaps_at(D, NOISY[level], sigma)
        np.testing.assert_array_equal(raw[level].reshape(20, 4, 5), mean.astype(np.float32))
        np.testing.assert_array_equal(error[level].reshape(20, 4, 5), spread.astype(np.float32))
    with pytest.warns(DeprecationWarning, match="write own_pixel_first"):
        save_heatmaps(D, NOISY, SIGMAS, tmp_path / "own.npy", raw=False)
    np.testing.assert_array_equal(np.load(tmp_path / "own.npy"), own_pixel_first(raw))
    for name in ("maps.npy", "own.npy"):  # files of earlier versions work as ever
        F = pspc.PSPCFlex(DATA, heatmaps=tmp_path / name, thresholds=[0.8, 0.3], sigmas=SIGMAS)
        assert np.isfinite(F(NOISY[0], 0.3)).all()
    save_heatmaps(D, NOISY, SIGMAS, tmp_path / "some.npy", pixels=[(3, 4), (0, 1)])
    np.testing.assert_array_equal(np.load(tmp_path / "some.npy"), raw.reshape(2, 20, 4, 5)[:, [19, 1]])


def test_the_gaussian_source_is_the_closed_form(tmp_path: Path) -> None:
    G = pspc.Gaussian(DATA, cache=False)
    save_heatmaps(G, NOISY, SIGMAS, tmp_path / "maps.npy")
    np.testing.assert_allclose(np.load(tmp_path / "maps.npy"), gaussian_heatmaps(G, SIGMAS), rtol=0, atol=1e-6)


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    D = pspc.Empirical(DATA)
    save_heatmaps(D, NOISY, SIGMAS, tmp_path / "whole" / "maps.npy", batch=4)
    output, seen = tmp_path / "stopped" / "maps.npy", []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_heatmaps(D, NOISY, SIGMAS, output, batch=4, progress=stop)
    assert not output.exists()
    with (
        pytest.raises(errors.OutputError, match="raw was true, is false"),
        pytest.warns(DeprecationWarning, match="raw=False is deprecated"),
    ):
        save_heatmaps(D, NOISY, SIGMAS, output, batch=4, raw=False)
    save_heatmaps(D, NOISY, SIGMAS, output, batch=4, progress=lambda done, total: seen.append(done))
    assert seen == [0, 1, 2, 3, 3, 4, 5, 6, 7, 8]
    for name in ("maps.npy", "maps_error.npy"):
        assert (output.parent / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    stamp = output.stat().st_mtime_ns
    save_heatmaps(D, NOISY, SIGMAS, output, batch=4)
    assert output.stat().st_mtime_ns == stamp


def test_what_has_no_heat_maps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.DTypeError, match="CFDM"):
        heatmaps_at(pspc.CFDM(DATA), NOISY[0], 1.0)
    with pytest.raises(errors.ShapeError, match="expected"):
        heatmaps_at(pspc.Empirical(DATA), NOISY[0][:, :, :3], 1.0)
    with pytest.raises(errors.ShapeError, match="2 sets"):
        save_heatmaps(pspc.Empirical(DATA), NOISY, [1.0], tmp_path / "maps.npy")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    np.save(tmp_path / "data.npy", RNG.integers(0, 256, (20, 1, 5, 5), dtype=np.uint8))
    return tmp_path / "data.npy"


@pytest.mark.parametrize(
    "source", [["gaussian"], ["empirical"], ["pspc_sq", "--patch-sizes", 3], ["network", "--network", "torch:tanh"]]
)
def test_the_command_writes_what_flex_takes(tmp_path: Path, images: Path, source: list[Any]) -> None:
    options = ["--data", images, "--n-steps", 3, "--t-max", 2, "--t-min", 0.2, "--n-samples", 4, "--batch", 3]
    if source[0] == "network":
        pytest.importorskip("torch")
        (tmp_path / "net_of_heat_maps.json").write_text(
            json.dumps({"source": "torch:tanh", "prediction": "residual", "blind": True})
        )
        source = ["network", "--network", tmp_path / "net_of_heat_maps.json"]
    printed = succeed("heatmaps", "--outdir", tmp_path / "out", *options, "--denoiser", *source)
    path = tmp_path / "out" / f"{source[0]}_heatmaps.npy"
    assert printed.splitlines()[-1] == str(path)
    assert np.load(path).shape == (3, 5, 5, 5, 5)
    record = json.loads(path.with_suffix(".json").read_text())
    assert (record["command"], record["settings"]["n"]) == ("heatmaps", 4)
    flex = ["--denoiser", "pspc_flex", "--heatmaps", path, "--thresholds", 0.5, "--t-idx", 1]
    succeed("denoise", "--outdir", tmp_path / "flex", *options, *flex)


def test_the_command_refuses_pixels_that_are_none(tmp_path: Path, images: Path) -> None:
    options = ["--data", images, "--outdir", tmp_path / "out", "--n-samples", 2]
    assert "write Y,X" in fail(2, "heatmaps", *options, "--pixel", "3")
    assert "below (5, 5)" in fail(1, "heatmaps", *options, "--pixel", "3,5")
    assert not (tmp_path / "out").exists()
