"""`pspc-rs denoise`: numbers, files, records, and the faults of earlier scripts that must not come back."""

import hashlib
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pspc_rs as pspc
from command_line import fail, invoke, names, normals, random_data, succeed
from pspc_rs.data import ImageSet
from pspc_rs.experiments import forward_noisy
from pspc_rs.heatmaps import gaussian_heatmaps
from pspc_rs.samplers import noise_source


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics that commands keep between runs go to a folder of the test."""
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return random_data(tmp_path / "grey.npy", 40, 1, 8, 8)


def denoised(outdir: Path, name: str = "empirical_outputs_t_10_of_18.npy") -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(outdir / name)
    assert array.dtype == np.float32
    return array


@pytest.mark.parametrize("spelling", ["--t-idx", "--t_idx"])
def test_outputs_are_those_of_the_library_and_nothing_else_is_written(
    tmp_path: Path, grey: Path, spelling: str
) -> None:
    np.save(tmp_path / "z.npy", normals(18, 5, 1, 8, 8))
    out = tmp_path / "out"
    options = ["--data", grey, spelling, 10, "--z", tmp_path / "z.npy", "--n_samples", 4, "--batch", 3]
    printed = succeed("denoise", "--outdir", out, *options)
    assert names(out) == ["empirical_outputs_t_10_of_18.json", "empirical_outputs_t_10_of_18.npy"]
    assert printed.strip() == str(out / "empirical_outputs_t_10_of_18.npy")
    D = pspc.Empirical(pspc.load(grey, xflip=True))
    expected = D(normals(18, 5, 1, 8, 8)[10, :4], pspc.edm_sigmas(18)[10])
    assert np.array_equal(denoised(out), expected)


def test_the_record_tells_how_to_do_it_again(tmp_path: Path, grey: Path) -> None:
    out = tmp_path / "out"
    options = ["--data", grey, "--t-idx", 3, "--n-steps", 9, "--denoiser", "pspc_sq", "--patch-sizes", "8,5,3"]
    succeed("denoise", "--outdir", out, *options, "--n-samples", 2, "--seed", 7)
    record = json.loads((out / "pspc_sq_outputs_t_03_of_09.json").read_text())
    output = (out / "pspc_sq_outputs_t_03_of_09.npy").read_bytes()
    assert record["command"] == "denoise"
    assert record["options"]["seed"] == 7
    assert record["options"]["t_idx"] == 3
    assert record["options"]["patch_sizes"] == [8, 5, 3]
    assert record["sigma"] == pspc.edm_sigmas(9)[3]
    assert record["schedule"]["patch_sizes"] == ["full", 5, 3]
    assert record["schedule"]["sigmas"] == pspc.edm_sigmas(3)[:3].tolist()
    assert record["schedule_value"] == 5
    assert record["data"]["fingerprint"] == pspc.load(grey, xflip=True).fingerprint
    assert record["data"]["xflip"] is True
    assert record["drawn_by"] == {
        "indices": "numpy RandomState(seed).randint",
        "noise": f"{noise_source()} generator",
    }
    assert record["output"]["sha256"] == hashlib.sha256(output).hexdigest()
    assert record["versions"]["numpy"] == np.__version__
    assert {"profile", "isa", "num_threads"} <= record["build"].keys()
    assert record["wall_seconds"] > 0
    assert record["started"].endswith("+00:00")
    assert "peak_memory_bytes" in record


@pytest.mark.parametrize("xflip", [True, False])
def test_the_same_seed_draws_the_same_z_as_the_documented_recipe(tmp_path: Path, grey: Path, xflip: bool) -> None:
    out, sigma = tmp_path / "out", pspc.edm_sigmas(18)[10]
    flips = "--xflip" if xflip else "--no-xflip"
    succeed("denoise", "--outdir", out, "--data", grey, "--t-idx", 10, "--n-samples", 6, "--seed", 5, flips)
    stored = np.load(grey).astype(np.float32) / np.float32(127.5) - np.float32(1)
    images = np.concatenate([stored, stored[:, :, :, ::-1]]) if xflip else stored
    random = np.random.RandomState(5)
    x = images[[random.randint(len(images)) for _ in range(6)]]
    n = torch.randn((6, 1, 8, 8), generator=torch.Generator().manual_seed(5)).numpy()
    z = x + np.float32(sigma) * n
    expected = pspc.Empirical(ImageSet(np.load(grey), xflip=xflip))(z, sigma)
    assert np.array_equal(denoised(out), expected)


def test_n_steps_is_honoured(tmp_path: Path, grey: Path) -> None:
    np.save(tmp_path / "z.npy", normals(40, 3, 1, 8, 8))
    out = tmp_path / "out"
    sides = ",".join(["8"] * 30 + ["3"] * 10)
    options = ["--data", grey, "--denoiser", "pspc_sq", "--patch-sizes", sides, "--z", tmp_path / "z.npy"]
    succeed("denoise", "--outdir", out, *options, "--n-steps", 40, "--t-idx", 35, "--n-samples", 3)
    data = pspc.load(grey, xflip=True)
    expected = pspc.PSPCSquare(data, patch_sizes=3)(normals(40, 3, 1, 8, 8)[35], pspc.edm_sigmas(40)[35])
    assert np.array_equal(denoised(out, "pspc_sq_outputs_t_35_of_40.npy"), expected)


def test_one_step_is_a_grid_of_t_max(tmp_path: Path, grey: Path) -> None:
    out = tmp_path / "out"
    succeed("denoise", "--outdir", out, "--data", grey, "--t-idx", 0, "--n-steps", 1, "--n-samples", 2, "--t_max", 40)
    assert json.loads((out / "empirical_outputs_t_00_of_01.json").read_text())["sigma"] == 40
    assert np.isfinite(denoised(out, "empirical_outputs_t_00_of_01.npy")).all()


def test_z_of_another_number_of_steps_is_refused(tmp_path: Path, grey: Path) -> None:
    np.save(tmp_path / "z.npy", normals(18, 3, 1, 8, 8))
    options = ["--data", grey, "--z", tmp_path / "z.npy", "--n-steps", 40, "--t-idx", 3]
    assert "[18, 3, 1, 8, 8]; needed is [40, N, 1, 8, 8]" in fail(1, "denoise", "--outdir", tmp_path, *options)


@pytest.mark.parametrize(
    ("denoiser", "options", "made"),
    [
        ("ls", ["--patch-sizes", "15,5,3"], lambda data: pspc.LS(data, window_sizes=[15, 5, 3])),
        ("els", ["--patch-sizes", 3], lambda data: pspc.ELS(data, window_sizes=3)),
        ("bbels", ["--patch-sizes", 3], lambda data: pspc.BBELS(data, window_sizes=3)),
        ("soft", ["--width", 1.5], lambda data: pspc.SoftPSPC(data, 1.5)),
        ("pca", ["--pca-threshold", 0.2], lambda data: pspc.PCALocality(data, 0.2)),
    ],
)
def test_the_family_is_that_of_the_library(
    tmp_path: Path, grey: Path, denoiser: str, options: list[object], made: Callable[[ImageSet], pspc.Denoiser]
) -> None:
    np.save(tmp_path / "z.npy", normals(18, 2, 1, 8, 8))
    run = ["--data", grey, "--t-idx", 10, "--z", tmp_path / "z.npy", "--n-samples", 2, "--denoiser", denoiser, *options]
    succeed("denoise", "--outdir", tmp_path / "out", *run)
    found = denoised(tmp_path / "out", f"{denoiser}_outputs_t_10_of_18.npy")
    expected = made(pspc.load(grey, xflip=True))(normals(18, 2, 1, 8, 8)[10], pspc.edm_sigmas(18)[10])
    assert np.array_equal(found, expected)


def test_soft_windows_need_a_width(tmp_path: Path, grey: Path) -> None:
    output = fail(2, "denoise", "--outdir", tmp_path, "--data", grey, "--t-idx", 0, "--denoiser", "soft")
    assert "--denoiser soft needs --width" in output


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 6, 10), (1, 7, 5)])
@pytest.mark.parametrize("denoiser", ["empirical", "gaussian", "pspc_sq", "cfdm", "snis"])
def test_grey_and_oblong_images_work(tmp_path: Path, shape: tuple[int, ...], denoiser: str) -> None:
    data = random_data(tmp_path / "data.npy", 30, *shape)
    options = ["--data", data, "--denoiser", denoiser, "--t-idx", 12, "--n-samples", 2, "--patch-sizes", 3]
    succeed("denoise", "--outdir", tmp_path / "out", *options)
    array = denoised(tmp_path / "out", f"{denoiser}_outputs_t_12_of_18.npy")
    assert array.shape == (2, *shape)
    assert np.isfinite(array).all()


def test_the_baselines_take_their_parameters(tmp_path: Path, grey: Path) -> None:
    np.save(tmp_path / "z.npy", normals(18, 3, 1, 8, 8))
    options = ["--data", grey, "--t-idx", 10, "--z", tmp_path / "z.npy", "--n-samples", 3, "--seed", 4]
    succeed("denoise", "--outdir", tmp_path, "--denoiser", "cfdm", "--smoothing", 0.3, "--num_noises", 3, *options)
    succeed("denoise", "--outdir", tmp_path, "--denoiser", "snis", "--num-neighbors", 7, "--num-draws", 9, *options)
    data, z, sigma = pspc.load(grey, xflip=True), normals(18, 3, 1, 8, 8)[10], pspc.edm_sigmas(18)[10]
    for name, D in (("cfdm", pspc.CFDM(data, 0.3, 3, seed=4)), ("snis", pspc.SNIS(data, 7, 9, seed=4))):
        assert np.array_equal(denoised(tmp_path, f"{name}_outputs_t_10_of_18.npy"), D(z, sigma).astype(np.float32))


def test_heat_maps_of_the_gaussian_denoiser_need_no_file(tmp_path: Path, grey: Path) -> None:
    options = ["--data", grey, "--denoiser", "pspc_flex", "--t-idx", 10, "--n-samples", 3, "--thresholds", 0.4]
    succeed("denoise", "--outdir", tmp_path, "--heatmaps", "gaussian", *options)
    record = json.loads((tmp_path / "pspc_flex_outputs_t_10_of_18.json").read_text())
    assert record["options"]["heatmaps"] == "gaussian"
    output = denoised(tmp_path, "pspc_flex_outputs_t_10_of_18.npy")
    data, sigma = pspc.load(grey, xflip=True), pspc.edm_sigmas(18)[10]
    maps = gaussian_heatmaps(pspc.Gaussian(data), pspc.schedules.resolve_threshold_schedule([0.4], 8, [sigma]))
    expected = pspc.PSPCFlex(data, heatmaps=maps, thresholds=[0.4], sigmas=[sigma])(
        forward_noisy(data, 3, sigma), sigma
    )
    assert np.array_equal(output, expected)
    assert "does not exist" in fail(2, "denoise", "--outdir", tmp_path, "--heatmaps", "gauss", *options)


def test_the_default_schedule_is_for_32_x_32_images_only(tmp_path: Path) -> None:
    small = random_data(tmp_path / "small.npy", 10, 1, 28, 28)
    options = ["--denoiser", "pspc_sq", "--t-idx", 12, "--n-samples", 2, "--outdir", tmp_path / "out"]
    message = fail(1, "denoise", "--data", small, *options)
    assert "28 x 28" in message
    assert "--patch-sizes" in message
    assert "--scale-to 28" in message
    assert not (tmp_path / "out").exists()
    succeed("denoise", "--data", small, *options, "--scale-to", 28)
    fitting = random_data(tmp_path / "fitting.npy", 10, 1, 32, 32)
    succeed("denoise", "--data", fitting, *options, "--overwrite")
    record = json.loads((tmp_path / "out" / "pspc_sq_outputs_t_12_of_18.json").read_text())
    assert record["schedule"]["name"] == "cifar10"
    assert record["schedule_value"] == 3


def test_a_window_larger_than_the_image_is_refused(tmp_path: Path, grey: Path) -> None:
    options = ["--data", grey, "--denoiser", "pspc_sq", "--patch-sizes", 9, "--t-idx", 12, "--n-samples", 2]
    assert "window side is 9" in fail(1, "denoise", "--outdir", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_a_schedule_file_is_read(tmp_path: Path, grey: Path) -> None:
    pspc.PatchSchedule((5, 3), sigmas=(1.0, 0.1), image_size=(8, 8), name="mine").save(tmp_path / "mine.json")
    options = ["--data", grey, "--denoiser", "pspc_sq", "--patch-sizes", tmp_path / "mine.json", "--t-idx", 0]
    succeed("denoise", "--outdir", tmp_path / "out", *options, "--n-samples", 1)
    record = json.loads((tmp_path / "out" / "pspc_sq_outputs_t_00_of_18.json").read_text())
    assert (record["schedule"]["name"], record["schedule_value"]) == ("mine", 5)


def test_missing_heat_maps_are_refused(tmp_path: Path, grey: Path) -> None:
    options = ["--data", grey, "--denoiser", "pspc_flex", "--t-idx", 12, "--outdir", tmp_path / "out"]
    assert "needs --heatmaps" in fail(2, "denoise", *options)
    assert "does not exist" in fail(2, "denoise", *options, "--heatmaps", "")
    assert "does not exist" in fail(2, "denoise", *options, "--heatmaps", tmp_path / "none.npy")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("thresholds", "levels"), [("0.4", 18), ("1,0.6,0.3", 3)])
def test_flex_follows_heat_maps_and_thresholds(tmp_path: Path, grey: Path, thresholds: str, levels: int) -> None:
    maps = np.random.default_rng(3).random((levels, 8, 8, 8, 8)).astype(np.float32)
    np.save(tmp_path / "maps.npy", maps)
    np.save(tmp_path / "z.npy", normals(18, 2, 1, 8, 8))
    options = ["--data", grey, "--denoiser", "pspc-flex", "--heatmaps", tmp_path / "maps.npy"]
    drawn = ["--thresholds", thresholds, "--z", tmp_path / "z.npy", "--t-idx", 12, "--n-samples", 2]
    succeed("denoise", "--outdir", tmp_path / "out", *options, *drawn)
    values = [float(word) for word in thresholds.split(",")]
    F = pspc.PSPCFlex(
        pspc.load(grey, xflip=True),
        heatmaps=maps,
        thresholds=values * levels if len(values) == 1 else values,
    )
    expected = F(normals(18, 2, 1, 8, 8)[12], pspc.edm_sigmas(18)[12])
    assert np.array_equal(denoised(tmp_path / "out", "pspc_flex_outputs_t_12_of_18.npy"), expected)
    record = json.loads((tmp_path / "out" / "pspc_flex_outputs_t_12_of_18.json").read_text())
    assert record["inputs_sha256"]["heatmaps"] == hashlib.sha256((tmp_path / "maps.npy").read_bytes()).hexdigest()


def test_float64_z_works(tmp_path: Path, grey: Path) -> None:
    np.save(tmp_path / "z.npy", normals(18, 2, 1, 8, 8).astype(np.float64))
    options = ["--data", grey, "--z", tmp_path / "z.npy", "--t-idx", 10, "--n-samples", 2]
    succeed("denoise", "--outdir", tmp_path / "out", *options)
    assert np.isfinite(denoised(tmp_path / "out")).all()


class Malice:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_pickles_are_not_executed(tmp_path: Path, grey: Path) -> None:
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(Malice(tmp_path / "executed")))
    options = ["--data", grey, "--t-idx", 10, "--outdir", tmp_path / "out"]
    for option in ("--network_pkl", "--network"):
        message = fail(1, "denoise", *options, "--denoiser", "network", option, tmp_path / "net.pkl")
        assert "net.pkl" in message and "pathlib" in message
    objects = np.empty((18, 1, 1, 8, 8), object)
    objects[0, 0, 0, 0, 0] = Malice(tmp_path / "executed")
    np.save(tmp_path / "z.npy", objects, allow_pickle=True)
    assert "cannot be read" in fail(1, "denoise", *options, "--z", tmp_path / "z.npy")
    np.save(tmp_path / "maps.npy", objects, allow_pickle=True)
    flex = ["--denoiser", "pspc_flex", "--thresholds", "0.5", "--heatmaps", tmp_path / "maps.npy"]
    assert "cannot read heat maps" in fail(1, "denoise", *options, *flex)
    assert not (tmp_path / "executed").exists()


def test_a_function_is_imported_as_network(tmp_path: Path, grey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "def half(z, sigma):\n    return z / 2\n\nclass nets:\n    half = half\n\nnumber = 3\n"
    (tmp_path / "my_networks_of_tests.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "z.npy", normals(18, 3, 1, 8, 8))
    options = ["--data", grey, "--t-idx", 4, "--n-samples", 3, "--z", "z.npy", "--outdir", "out", "--batch", 2]
    for path in ("half", "nets.half"):
        succeed("denoise", *options, "--denoiser", "network", "--network", f"my_networks_of_tests:{path}")
        half = normals(18, 3, 1, 8, 8)[4] / 2
        assert np.array_equal(denoised(tmp_path / "out", "network_outputs_t_04_of_18.npy"), half)
    for path in (
        "my_networks_of_tests",
        "my_networks_of_tests:none",
        "no_such_module:f",
        "my_networks_of_tests:number",
    ):
        message = fail(1, "denoise", *options, "--denoiser", "network", "--network", path)
        assert path in message
    assert "needs --network" in fail(2, "denoise", *options, "--denoiser", "network")
    assert str(tmp_path) not in sys.path


def test_gaussian_rank_counts(tmp_path: Path, grey: Path) -> None:
    np.save(tmp_path / "z.npy", normals(18, 2, 1, 8, 8))
    options = ["--data", grey, "--denoiser", "gaussian", "--z", tmp_path / "z.npy", "--t-idx", 10, "--n-samples", 2]
    succeed("denoise", "--outdir", tmp_path / "out", *options, "--rank", 5)
    G = pspc.Gaussian(pspc.load(grey, xflip=True), rank=5, cache=False)
    expected = G(normals(18, 2, 1, 8, 8)[10], pspc.edm_sigmas(18)[10])
    assert np.allclose(denoised(tmp_path / "out", "gaussian_outputs_t_10_of_18.npy"), expected, atol=1e-6)
    assert "rank is 500" in fail(1, "denoise", "--outdir", tmp_path / "out", *options, "--rank", 500)


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["--variance-floor", 0.2], {"variance_floor": 0.2}),
        (["--shrinkage", 0.3], {"shrinkage": 0.3}),
        (["--shrinkage", "ledoit-wolf"], {"shrinkage": "ledoit-wolf"}),
    ],
)
def test_the_gaussian_of_few_images_has_its_options(
    tmp_path: Path, grey: Path, words: list[Any], chosen: dict[str, Any]
) -> None:
    np.save(tmp_path / "z.npy", normals(18, 2, 1, 8, 8))
    options = ["--data", grey, "--denoiser", "gaussian", "--z", tmp_path / "z.npy", "--t-idx", 10, "--n-samples", 2]
    succeed("denoise", "--outdir", tmp_path / "out", *options, *words)
    G = pspc.Gaussian(pspc.load(grey, xflip=True), cache=False, **chosen)
    expected = G(normals(18, 2, 1, 8, 8)[10], pspc.edm_sigmas(18)[10])
    assert np.allclose(denoised(tmp_path / "out", "gaussian_outputs_t_10_of_18.npy"), expected, atol=1e-6)
    message = fail(1, "denoise", "--outdir", tmp_path / "other", *options, "--shrinkage", "oas")
    assert "shrinkage is 'oas'; allowed are numbers from 0 to 1 and 'ledoit-wolf'" in message


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--t-idx", 18], 1, "--t-idx is 18; allowed are 0 to 17"),
        (["--t-idx", -1], 1, "--t-idx is -1; allowed are 0 to 17"),
        (["--t-idx", 0, "--n-steps", 0], 2, "0 is not in the range"),
        (["--t-idx", 0, "--t-min", 90], 1, "sigma_max is 80, below sigma_min, which is 90"),
        (["--t-idx", 0, "--rho", 0], 1, "rho is 0"),
        (["--t-idx", 0, "--device", "gpu"], 2, "device is 'gpu'"),
        (["--t-idx", 0, "--denoiser", "magic"], 2, "'magic' is not one of"),
        (["--t-idx", 0, "--seed", -1], 2, "-1 is not in the range"),
        (["--t-idx", 0, "--denoiser", "pspc_sq", "--patch-sizes", "ffhq"], 1, "'ffhq'"),
        (["--t-idx", 0, "--z", "none.npy"], 2, "does not exist"),
        ([], 2, "Missing option '--t-idx'"),
    ],
)
def test_bad_options_end_in_one_line(
    tmp_path: Path, grey: Path, options: list[object], code: int, message: str
) -> None:
    assert message in fail(code, "denoise", "--data", grey, "--outdir", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_bad_files_end_in_one_line(tmp_path: Path, grey: Path) -> None:
    options = ["--outdir", tmp_path / "out", "--t-idx", 0]
    assert "neither a path" in fail(1, "denoise", *options, "--data", tmp_path / "none.zip")
    assert "Missing option '--data'" in fail(2, "denoise", *options)

    def with_z(name: str, *more: object) -> str:
        return fail(1, "denoise", *options, "--data", grey, "--z", tmp_path / name, *more)

    # Each case has a file of its own: Windows cannot rewrite one that a traceback still maps.
    np.save(tmp_path / "z.npy", normals(18, 5, 1, 8, 8))
    assert "--n-samples is 50, but" in with_z("z.npy")
    np.save(tmp_path / "shape.npy", normals(18, 5, 3, 8, 8))
    assert "[18, N, 1, 8, 8]" in with_z("shape.npy", "--n-samples", 5)
    np.save(tmp_path / "nan.npy", np.full((18, 5, 1, 8, 8), np.nan, np.float32))
    assert "z holds NaN" in with_z("nan.npy", "--n-samples", 5)
    np.save(tmp_path / "dtype.npy", np.zeros((18, 5, 1, 8, 8), np.int64))
    assert "int64" in with_z("dtype.npy", "--n-samples", 5)
    (tmp_path / "empty.npy").write_bytes(b"")
    assert "cannot be read" in with_z("empty.npy")
    np.savez(tmp_path / "z.npz", z=normals(18, 5, 1, 8, 8))
    assert "cannot be read" in with_z("z.npz")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_ends_in_one_line(tmp_path: Path, grey: Path) -> None:
    (tmp_path / "file").touch()
    options = ["--data", grey, "--t-idx", 0, "--n-samples", 1]
    assert "is a file" in fail(2, "denoise", *options, "--outdir", tmp_path / "file")
    assert "cannot be written" in fail(1, "denoise", *options, "--outdir", tmp_path / "file" / "below")


def test_real_images_are_denoised(tmp_path: Path, test_data: Path) -> None:
    options = ["--data", test_data / "afhq-cats-64x64.zip", "--denoiser", "pspc_sq", "--scale-to", 64, "--t-idx", 12]
    result = invoke("denoise", "--outdir", tmp_path, *options, "--n-samples", 2)
    assert result.exit_code == 0, result.output
    array = denoised(tmp_path, "pspc_sq_outputs_t_12_of_18.npy")
    assert array.shape == (2, 3, 64, 64)
    assert 0.1 < array.std() < 1
