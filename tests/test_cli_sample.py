"""`pspc-rs sample`: numbers, and runs that are killed, interrupted and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pspc_rs as pspc
from command_line import fail, invoke, names, normals, random_data, start, succeed
from pspc_rs.samplers import SAMPLERS, initial_noise


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics that commands keep between runs go to a folder of the test."""
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return random_data(tmp_path / "grey.npy", 40, 1, 8, 8)


@pytest.mark.parametrize("spelling", ["euler", "heun", "huen", "edm", "dpmpp_2m", "dpmpp-2m"])
def test_samples_are_those_of_the_library(tmp_path: Path, grey: Path, spelling: str) -> None:
    out = tmp_path / "out"
    options = ["--data", grey, "--denoiser", "pspc_sq", "--patch-sizes", "8,5,3", "--n-steps", 6, "--seed", 3]
    succeed("sample", "--outdir", out, *options, "--sampler", spelling, "--n-samples", 4)
    assert names(out) == ["pspc_sq_samples.json", "pspc_sq_samples.npy"]
    D = pspc.PSPCSquare(pspc.load(grey, xflip=True), patch_sizes=[8, 5, 3])
    sampler = {"huen": "heun", "dpmpp-2m": "dpmpp_2m"}.get(spelling, spelling)
    expected = pspc.sample(D, 4, sampler, num_steps=6, seed=3)
    samples = np.load(out / "pspc_sq_samples.npy")
    assert samples.dtype == np.float32
    assert np.array_equal(samples, expected)


def test_batches_share_one_draw_of_noise(tmp_path: Path, grey: Path) -> None:
    options = ["--data", grey, "--n-steps", 4, "--n-samples", 5]
    succeed("sample", "--outdir", tmp_path / "one", *options)
    succeed("sample", "--outdir", tmp_path / "many", *options, "--batch", 2)
    one, many = (tmp_path / name / "empirical_samples.npy" for name in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()


def test_z_init_is_where_sampling_starts(tmp_path: Path, grey: Path) -> None:
    z = normals(6, 1, 8, 8) * 40
    np.save(tmp_path / "z.npy", z)
    options = ["--data", grey, "--n-steps", 5, "--t_max", 40, "--z_init", tmp_path / "z.npy", "--sampler", "heun"]
    succeed("sample", "--outdir", tmp_path / "out", *options, "--n-samples", 3)
    D = pspc.Empirical(pspc.load(grey, xflip=True))
    expected = SAMPLERS["heun"](D, z[:3], pspc.edm_sigmas(5, sigma_max=40.0))
    assert np.array_equal(np.load(tmp_path / "out" / "empirical_samples.npy"), expected)
    assert "--n-samples is 50" in fail(1, "sample", "--outdir", tmp_path / "out", *options)


def test_a_jump_along_the_gaussians_path_starts_the_sampler_lower(tmp_path: Path, grey: Path) -> None:
    options = ["--data", grey, "--n-steps", 4, "--n-samples", 3, "--sampler", "heun", "--seed", 2]
    jump = ["--jump-to", 2.5, "--variance-floor", 0.01]
    succeed("sample", "--outdir", tmp_path / "out", *options, *jump)
    data = pspc.load(grey, xflip=True)
    G = pspc.Gaussian(data, variance_floor=0.01, cache=False)
    expected = pspc.sample(pspc.Empirical(data), 3, num_steps=4, seed=2, jump=G, jump_to=2.5)
    assert np.array_equal(np.load(tmp_path / "out" / "empirical_samples.npy"), expected)
    record = json.loads((tmp_path / "out" / "empirical_samples.json").read_text())
    assert record["jump"] == {"to": 2.5, **G.settings}
    assert "jump" in fail(1, "sample", "--outdir", tmp_path / "out", *options)
    assert "sigma_max is 80, below sigma" in fail(1, "sample", "--outdir", tmp_path, *options, "--jump-to", 90)


def test_the_record_tells_how_to_do_it_again(tmp_path: Path, grey: Path) -> None:
    out = tmp_path / "out"
    succeed("sample", "--outdir", out, "--data", grey, "--n-samples", 2, "--n-steps", 3, "--sampler", "huen")
    record = json.loads((out / "empirical_samples.json").read_text())
    assert record["options"]["sampler"] == "huen"
    assert record["solver"] == {"name": "heun"}
    assert record["initial_noise"].endswith(" generator")
    assert record["settings"]["seed"] == 0
    assert record["data"]["fingerprint"] == pspc.load(grey, xflip=True).fingerprint
    assert record["batches_kept_from_earlier_run"] == 0
    assert record["wall_seconds"] > 0


def test_one_step_returns_the_denoised_noise(tmp_path: Path, grey: Path) -> None:
    succeed("sample", "--outdir", tmp_path, "--data", grey, "--n-steps", 1, "--n-samples", 2, "--sampler", "heun")
    D = pspc.Empirical(pspc.load(grey, xflip=True))
    expected = D(initial_noise(2, (1, 8, 8)), 80.0)
    assert np.array_equal(np.load(tmp_path / "empirical_samples.npy"), expected)


def test_pictures_are_saved_on_request(tmp_path: Path) -> None:
    data = random_data(tmp_path / "data.npy", 20, 3, 6, 5)
    options = ["--data", data, "--n-steps", 2, "--n-samples", 6, "--save-images"]
    succeed("sample", "--outdir", tmp_path / "out", *options)
    with Image.open(tmp_path / "out" / "empirical_samples.png") as picture:
        assert picture.size == (3 * 7 + 2, 2 * 8 + 2)
        assert picture.mode == "RGB"


def test_added_noise_is_seeded_and_differs_between_batches(tmp_path: Path, grey: Path) -> None:
    np.save(tmp_path / "z.npy", np.repeat(80 * normals(1, 1, 8, 8), 2, axis=0))
    options = ["--data", grey, "--denoiser", "gaussian", "--z-init", tmp_path / "z.npy", "--n-samples", 2, "--batch", 1]
    churn = ["--sampler", "edm", "--S_churn", 40, "--S_noise", 1.003, "--n-steps", 6]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        succeed("sample", "--outdir", tmp_path / name, *options, *churn, "--seed", seed)
    a, b, c = (np.load(tmp_path / name / "gaussian_samples.npy") for name in "abc")
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)
    assert not np.allclose(a[0], a[1])
    assert "is for --sampler edm" in fail(2, "sample", "--outdir", tmp_path, "--data", grey, "--S_churn", 40)


def test_a_finished_run_is_neither_repeated_nor_replaced_in_silence(tmp_path: Path, grey: Path) -> None:
    options = ["--outdir", tmp_path / "out", "--data", grey, "--n-steps", 3, "--n-samples", 3]
    succeed("sample", *options)
    written = (tmp_path / "out" / "empirical_samples.npy").stat().st_mtime_ns
    for more in ([], ["--overwrite"]):
        assert "complete already" in succeed("sample", *options, *more)
    assert (tmp_path / "out" / "empirical_samples.npy").stat().st_mtime_ns == written
    message = fail(1, "sample", *options, "--seed", 4)
    assert "seed was 0, is 4; replace it with --overwrite" in message
    assert (tmp_path / "out" / "empirical_samples.npy").stat().st_mtime_ns == written
    succeed("sample", *options, "--seed", 4, "--overwrite")
    assert (tmp_path / "out" / "empirical_samples.npy").stat().st_mtime_ns > written


def test_data_moved_elsewhere_are_still_the_same_data(tmp_path: Path, grey: Path) -> None:
    options = ["--outdir", tmp_path / "out", "--n-steps", 3, "--n-samples", 3]
    succeed("sample", "--data", grey, *options)
    (tmp_path / "elsewhere").mkdir()
    moved = grey.rename(tmp_path / "elsewhere" / grey.name)
    assert "complete already" in succeed("sample", "--data", moved, *options)


SLOW = ["--denoiser", "pspc_sq", "--patch-sizes", "5", "--sampler", "heun", "--n-samples", 12, "--batch", 2]


@pytest.fixture
def slow(tmp_path: Path) -> list[object]:
    """A command whose batches take a good part of a second each."""
    data = random_data(tmp_path / "data.npy", 3000, 3, 16, 16)
    return ["sample", "--data", data, *SLOW]


def wait_for_parts(folder: Path, process: "subprocess.Popen[str]", count: int) -> Path:
    parts = folder / ".pspc_sq_samples.npy.parts"
    end = time.monotonic() + 60
    while len(list(parts.glob("batch_*.npy"))) < count:
        assert process.poll() is None, "the run ended before it could be disturbed"
        assert time.monotonic() < end
        time.sleep(0.01)
    return parts


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_run_leaves_no_half_output_and_resumes_to_the_same_bytes(tmp_path: Path, slow: list[object]) -> None:
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    process = start(*slow, "--outdir", killed)
    with process:
        parts = wait_for_parts(killed, process, 2)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert names(killed) == [parts.name]
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("batch_*.npy")}
    assert 2 <= len(kept) < 6
    assert "seed was 0, is 1" in fail(1, *slow, "--outdir", killed, "--seed", 1)
    assert {path: path.stat().st_mtime_ns for path in parts.glob("batch_*.npy")} == kept
    succeed(*slow, "--outdir", killed)
    succeed(*slow, "--outdir", undisturbed)
    assert names(killed) == ["pspc_sq_samples.json", "pspc_sq_samples.npy"]
    output = "pspc_sq_samples.npy"
    assert (killed / output).read_bytes() == (undisturbed / output).read_bytes()
    record = json.loads((killed / "pspc_sq_samples.json").read_text())
    assert record["batches_kept_from_earlier_run"] == len(kept)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_in_one_line_with_code_130_and_keeps_what_is_done(tmp_path: Path, slow: list[object]) -> None:
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
    try:
        process = start(*slow, "--outdir", tmp_path / "out")
    finally:
        signal.signal(signal.SIGINT, earlier)
    with process:
        parts = wait_for_parts(tmp_path / "out", process, 1)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1].startswith("Interrupted; ")
    assert "run the same command to continue" in stderr
    assert "Traceback" not in stderr
    assert names(tmp_path / "out") == [parts.name]
    assert list(parts.glob("batch_0000.*.npy"))


def test_resume_is_accepted_and_says_that_it_is_not_needed(tmp_path: Path, grey: Path) -> None:
    options = ["--outdir", tmp_path / "out", "--data", grey, "--n-steps", 3, "--n-samples", 3]
    for more in (["--resume"], []):
        result = invoke("sample", *options, *more)
        assert result.exit_code == 0
        assert ("--resume is deprecated: a run is always continued; leave it out" in result.stderr) == bool(more)


def test_batches_of_an_earlier_version_are_not_trusted(tmp_path: Path, grey: Path) -> None:
    parts = tmp_path / "out" / ".empirical_samples.npy.parts"
    parts.mkdir(parents=True)
    (parts / "settings.json").write_text('{"seed": 99}')
    np.save(parts / "batch_0000.npy", np.zeros((3, 1, 8, 8), np.float32))
    succeed("sample", "--outdir", tmp_path / "out", "--data", grey, "--n-steps", 3, "--n-samples", 3)
    assert np.load(tmp_path / "out" / "empirical_samples.npy").std() > 0
    assert not parts.exists()
