"""`pspc-rs fit-schedule`, `patch-study`, `figure` and `report`: files, numbers, and runs that are resumed."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from command_line import fail, invoke, names, normals, random_data, succeed
from pspc_rs.experiments.noisy_sets import forward_noisy

GRID = ["--n-steps", 4, "--t-max", 8, "--t-min", 0.05, "--n-samples", 6]
SHRINK = "def net(z, sigma):\n    return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)\n"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and the current folder, where a network's module lies, are the test's own."""
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shrinking.py").write_text(SHRINK)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return random_data(tmp_path / "data.npy", 60, 1, 8, 8)


def test_a_fitted_schedule_is_what_sample_and_denoise_take(tmp_path: Path, data: Path) -> None:
    out, known = tmp_path / "out", "full,7,5,3"
    fit = ["fit-schedule", "--outdir", out, "--data", data, *GRID, "--target", "pspc_sq", "--patch-sizes", known]
    printed = succeed(*fit, "--name", "mine")
    assert "side    7" in printed
    curves = [f"mine_curves.{suffix}" for suffix in ("csv", "npz", "pdf", "png")]
    assert names(out) == sorted(["fit.csv", "results.sqlite", "mine.json", "mine_run.json", *curves])
    schedule = pspc.PatchSchedule.load(out / "mine.json")
    assert schedule.patch_sizes == ("full", 7, 5, 3)
    fitted: Any = schedule.provenance["fitted"]
    assert fitted["noisy"]["process"] == "forward"
    assert (fitted["noisy"]["n"], fitted["noisy"]["seed"], fitted["target_spec"]) == (6, 0, "pspc_sq")
    assert fitted["data"] == pspc.load(data, xflip=True).fingerprint
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name != "mine_run.json"}
    succeed(*fit, "--name", "mine")
    assert all((out / name).read_bytes() == content for name, content in before.items() if not name.endswith(".npz"))
    again = invoke(*fit, "--name", "mine", "--seed", 3)
    assert f"{out / 'mine.json'} is replaced, it had other settings: noisy.seed was 0, is 3" in again.stderr
    assert "is replaced" not in invoke(*fit, "--name", "mine", "--seed", 3).stderr
    sizes = ["--patch-sizes", out / "mine.json"]
    succeed("sample", "--outdir", out, "--data", data, "--denoiser", "pspc_sq", *GRID[:6], "--n-samples", 2, *sizes)
    assert np.load(out / "pspc_sq_samples.npy").shape == (2, 1, 8, 8)


def test_ranges_outsides_and_held_out_targets(tmp_path: Path, data: Path) -> None:
    held = random_data(tmp_path / "held.npy", 20, 1, 8, 8)
    fit = ["fit-schedule", "--data", data, *GRID, "--candidates", "3,5,full"]
    succeed(*fit, "--outdir", tmp_path / "a", "--target", "clean", "--noise-data", held)
    wide = pspc.PatchSchedule.load(tmp_path / "a" / "fitted.json")
    network = ["--target", "net=shrinking:net", "--process", "reverse", "--start", "data", "--sigma-to", 2]
    succeed(*fit, "--outdir", tmp_path / "b", *network, "--outside", tmp_path / "a" / "fitted.json")
    schedule = pspc.PatchSchedule.load(tmp_path / "b" / "fitted.json")
    assert schedule.patch_sizes[:2] == wide.patch_sizes[:2]
    outside: Any = schedule.provenance["outside"]
    assert outside["values_from"] == "schedule 'fitted'"
    assert len(outside["sigmas"]) == 2
    assert len(list((tmp_path / "b" / "noisy").glob("reverse_*.npy"))) == 1
    message = fail(2, *fit, "--outdir", tmp_path, "--target", "clean", "--process", "reverse")
    assert "other z have no clean images" in message
    wrong = random_data(tmp_path / "wrong.npy", 5, 1, 9, 8)
    assert "noise-data" in fail(1, *fit, "--outdir", tmp_path, "--target", "empirical", "--noise-data", wrong)


def test_thresholds_are_fitted_to_heat_maps(tmp_path: Path, data: Path) -> None:
    distance = np.exp(-np.abs(np.arange(8)[:, None] - np.arange(8)))
    maps = np.broadcast_to(np.einsum("yv,xu->yxvu", distance, distance), (4, 8, 8, 8, 8))
    np.save(tmp_path / "maps.npy", maps)
    flex = ["--fit", "pspc_flex", "--heatmaps", tmp_path / "maps.npy", "--candidates", "0.3,0.6,1"]
    fit = ["fit-schedule", "--outdir", tmp_path / "out", "--data", data, *GRID, "--target", "pspc_flex", *flex]
    succeed(*fit, "--thresholds", "1,0.6,0.6,0.3")
    fitted = pspc.ThresholdSchedule.load(tmp_path / "out" / "fitted.json")
    assert fitted.thresholds[:3] == (1, 0.6, 0.6)
    lacking = [*fit[:5], "--target", "empirical", "--fit", "pspc_flex"]
    assert "--fit pspc_flex needs --heatmaps" in fail(2, *lacking)


@pytest.mark.parametrize(
    ("baseline", "known", "candidates"),
    [("cfdm", ["--smoothing", "0.3", "--num-noises", "4"], "0.1,0.3"), ("snis", ["--num-neighbors", "8"], "2,8,32")],
)
def test_baselines_are_tuned_by_the_same_command(
    tmp_path: Path, data: Path, baseline: str, known: list[str], candidates: str
) -> None:
    options = ["--outdir", tmp_path / "out", "--data", data, *GRID, "--target", baseline, *known]
    printed = succeed("fit-schedule", *options, "--fit", baseline, "--candidates", candidates)
    assert all(f"{option} {value}" in printed for option, value in zip(known[::2], known[1::2], strict=True))
    settings = json.loads((tmp_path / "out" / "fitted.json").read_text())
    assert settings["denoiser"] == baseline
    assert names(tmp_path / "out") == ["fitted.csv", "fitted.json"]


def test_the_patch_study_compares_with_the_optimal_denoiser(tmp_path: Path, data: Path) -> None:
    study = ["patch-study", "--outdir", tmp_path / "out", "--data", data, *GRID, "--sides", "3,8", "--sigma-from", 0.2]
    succeed(*study, "--max-windows", 9)
    with (tmp_path / "out" / "patch_study.csv").open() as file:
        rows = list(csv.DictReader(file))
    sigmas = pspc.edm_sigmas(4, 0.05, 8.0)[2::-1].tolist()
    assert [(row["side"], float(row["sigma"])) for row in rows] == [(side, one) for side in "38" for one in sigmas]
    assert all(float(row["mse"]) < 1e-9 for row in rows[3:])
    assert rows[0]["windows"] == "9"
    assert rows[0]["of_windows"] == "36"


def test_rows_of_another_range_are_other_rows(tmp_path: Path, data: Path) -> None:
    study = ["patch-study", "--data", data, *GRID, "--sides", "3"]
    succeed(*study, "--outdir", tmp_path / "a")
    succeed(*study, "--outdir", tmp_path / "b", "--sigma-to", 3)
    succeed(*study, "--outdir", tmp_path / "b")
    a, b = (np.load(tmp_path / name / "patch_study.npz")["mse"] for name in "ab")
    assert np.array_equal(a, b)


def test_z_of_a_file_are_those_of_the_process(tmp_path: Path, data: Path) -> None:
    succeed("noise", "forward", "--outdir", tmp_path, "--data", data, *GRID)
    study = ["patch-study", "--data", data, *GRID, "--sides", "3"]
    succeed(*study, "--outdir", tmp_path / "a")
    succeed(*study, "--outdir", tmp_path / "b", "--z", tmp_path / "forward_z.npy")
    a, b = (np.load(tmp_path / name / "patch_study.npz")["mse"] for name in "ab")
    assert np.array_equal(a, b)
    assert "n is 7" in fail(1, *study, "--n", 7, "--outdir", tmp_path / "c", "--z", tmp_path / "forward_z.npy")
    assert "needed is [5" in fail(
        1, *study, "--n-steps", 5, "--outdir", tmp_path / "c", "--z", tmp_path / "forward_z.npy"
    )


def test_denoised_and_trajectories_show_denoisers_side_by_side(tmp_path: Path, data: Path) -> None:
    shown = ["--denoisers", "net=shrinking:net,gaussian,pspc_sq", "--patch-sizes", "5", "--data", data]
    succeed("figure", "denoised", "--outdir", tmp_path / "out", *shown, *GRID[:6], "--n", 2, "--t-idx", "1,3")
    with np.load(tmp_path / "out" / "denoised.npz") as numbers:
        assert sorted(numbers) == ["gaussian", "net", "pspc_sq", "sigmas", "z"]
        images = pspc.load(data, xflip=True)
        sigma = float(numbers["sigmas"][1])
        z = forward_noisy(images, 2, sigma)
        assert np.array_equal(numbers["z"][1], z)
        assert np.array_equal(numbers["pspc_sq"][1], pspc.PSPCSquare(images, patch_sizes=5)(z, sigma))
    succeed("figure", "trajectories", "--outdir", tmp_path / "out", *shown, *GRID[:6], "--n", 2)
    with np.load(tmp_path / "out" / "trajectories.npz") as numbers:
        assert numbers["pspc_sq_states"].shape == (5, 2, 1, 8, 8)
        assert np.array_equal(numbers["net_states"][0], numbers["gaussian_states"][0])
    assert "--t-idx are [4]" in fail(1, "figure", "denoised", "--outdir", tmp_path, *shown, *GRID, "--t-idx", "4")


def test_one_noisy_image_is_enough_for_a_picture(tmp_path: Path, data: Path) -> None:
    options = ["figure", "denoised", "--outdir", tmp_path / "out", "--denoisers", "gaussian", "--data", data, *GRID[:6]]
    succeed(*options, "--n", 1, "--t-idx", 1)
    with np.load(tmp_path / "out" / "denoised.npz") as numbers:
        assert numbers["gaussian"].shape == (1, 1, 1, 8, 8)
    assert "--n" in fail(2, "patch-study", "--outdir", tmp_path, "--data", data, *GRID[:6], "--n", 1)


def test_patch_errors_and_masks_of_equal_size_are_fitted(tmp_path: Path, data: Path) -> None:
    fit = ["fit-schedule", "--data", data, *GRID, "--target", "empirical"]
    succeed(*fit, "--outdir", tmp_path, "--name", "patches", "--error", "patch", "--candidates", "3,8")
    schedule = pspc.PatchSchedule.load(tmp_path / "patches.json")
    assert schedule.patch_sizes == ("full",) * 4  # the whole image is the target itself
    equal = ["--fit", "pspc_flex", "--heatmaps", "gaussian", "--mask-sizes", "equal", "--candidates", "0.1,1"]
    succeed(*fit, "--outdir", tmp_path, "--name", "equal", *equal)
    fitted = pspc.ThresholdSchedule.load(tmp_path / "equal.json")
    assert (fitted.sizes, fitted.thresholds) == ("equal", (1,) * 4)
    flex = ["denoise", "--data", data, *GRID, "--denoiser", "pspc_flex", "--heatmaps", "gaussian", "--t-idx", 2]
    taken = ["--thresholds", "1,1,0.14,0.14"]
    succeed(*flex, *taken, "--mask-sizes", "equal", "--outdir", tmp_path / "equal")
    succeed(*flex, *taken, "--outdir", tmp_path / "mass")
    a, b = (np.load(tmp_path / name / "pspc_flex_outputs_t_02_of_04.npy") for name in ("equal", "mass"))
    assert not np.array_equal(a, b)
    wrong = [*flex, "--thresholds", tmp_path / "equal.json", "--mask-sizes", "mass", "--outdir", tmp_path / "none"]
    assert "has thresholds of sizes 'equal'" in fail(1, *wrong)
    assert "--error patch is for --fit pspc_sq" in fail(2, *fit, "--outdir", tmp_path, *equal, "--error", "patch")


def test_heat_maps_and_trajectories_of_held_out_images(tmp_path: Path, data: Path) -> None:
    held = random_data(tmp_path / "held.npy", 9, 1, 8, 8)
    maps = ["heatmaps", "--data", data, *GRID, "--denoiser", "empirical", "--pixel", "3,3"]
    succeed("noise", "forward", "--data", data, "--noise-data", held, *GRID, "--outdir", tmp_path)
    for name, z in (("a", ["--noise-data", held]), ("b", ["--z", tmp_path / "forward_z.npy"]), ("c", [])):
        succeed(*maps, *z, "--outdir", tmp_path / name)
    a, b, c = (np.load(tmp_path / name / "empirical_heatmaps.npy") for name in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert "--raw is deprecated" in invoke(*maps, "--raw", "--outdir", tmp_path / "c").stderr
    reverse = ["noise", "reverse", "--data", data, "--network", "shrinking:net", "--start", "data", *GRID]
    succeed(*reverse, "--noise-data", held, "--outdir", tmp_path)
    images = pspc.load(held)
    assert np.array_equal(np.load(tmp_path / "reverse_z.npy")[0], forward_noisy(images, 6, 8.0))


def test_samples_and_their_similarity_come_from_files(tmp_path: Path) -> None:
    a, b = normals(5, 1, 8, 8), normals(5, 1, 8, 8, seed=2)
    np.save(tmp_path / "pspc_sq_samples.npy", a)
    np.save(tmp_path / "b.npy", b)
    given = ["--samples", tmp_path / "pspc_sq_samples.npy", "--samples", f"net={tmp_path / 'b.npy'}"]
    succeed("figure", "samples", "--outdir", tmp_path / "out", *given, "--n", 4)
    with np.load(tmp_path / "out" / "samples.npz") as numbers:
        assert np.array_equal(numbers["net"], b[:4])
    succeed("figure", "similarity", "--outdir", tmp_path / "out", *given, "--descriptor", "pixels")
    with (tmp_path / "out" / "similarity_pixels.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["first"], row["second"]) == ("pspc_sq", "net")
    cosines = [np.corrcoef(a[i].ravel(), b[i].ravel())[0, 1] for i in range(5)]
    assert float(row["mean"]) == pytest.approx(np.mean(cosines), abs=1e-6)
    assert "belong together" in fail(2, "figure", "similarity", "--outdir", tmp_path, *given, "--descriptor", "sscd")
    assert "holds 5 images" in fail(1, "figure", "samples", "--outdir", tmp_path, *given, "--n", 6)
    assert "no file" in fail(1, "figure", "samples", "--outdir", tmp_path, "--samples", tmp_path / "none.npy")
    assert "two samples" in fail(2, "figure", "samples", "--outdir", tmp_path, *given[:2], *given[:2], "--n", 4)


def test_heat_maps_become_curves_and_a_report_shows_the_run(tmp_path: Path) -> None:
    np.save(tmp_path / "maps.npy", np.ones((3, 4, 4, 4, 4), np.float32))
    out = tmp_path / "out"
    succeed("figure", "heatmaps", "--heatmaps", tmp_path / "maps.npy", "--outdir", out, "--pixel", "0,3")
    with np.load(out / "heatmap_sides.npz") as numbers:
        assert numbers["sides"].shape == (3, 3, 4, 4)
    assert succeed("report", out).strip() == str(out / "report.html")
    page = (out / "report.html").read_text()
    assert page.count("<img ") == 2
    assert "heatmap_sides.csv (3 rows)" in page
    assert "no folder" in fail(1, "report", tmp_path / "none")
