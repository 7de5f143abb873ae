"""`--protocol`: what it decides, what it refuses, and what the records say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from command_line import fail, random_data, succeed
from pspc_rs.experiments import forward_noisy
from pspc_rs.samplers import PROTOCOLS, initial_noise, sample_euler

SHRINK = """
def shrink(z, sigma):
    return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and the current folder are the test's own; the folder holds a network."""
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("net_of_protocols.py").write_text(SHRINK)


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return random_data(tmp_path / "grey.npy", 40, 1, 8, 8)


def record(path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(path).read_text())
    return found


@pytest.mark.parametrize("name", PROTOCOLS)
def test_samples_are_those_of_the_library_and_the_record_has_the_levels(name: str, grey: Path) -> None:
    options = ["--data", grey, "--denoiser", "pspc_sq", "--patch-sizes", 3, "--n-samples", 3, "--seed", 2]
    succeed("sample", "--outdir", "out", *options, "--batch", 2, "--protocol", name)
    D = pspc.PSPCSquare(pspc.load(grey, xflip=True), patch_sizes=3)
    assert np.array_equal(np.load("out/pspc_sq_samples.npy"), pspc.sample(D, 3, protocol=name, seed=2))
    found = record("out/pspc_sq_samples.json")
    assert found["options"]["protocol"] == PROTOCOLS[name].settings
    assert found["options"]["n_steps"] == PROTOCOLS[name].num_steps and "rho" not in found["options"]
    assert found["settings"]["protocol"]["sigmas"] == list(PROTOCOLS[name].sigmas)
    assert found["solver"] == {"name": PROTOCOLS[name].sampler}


def test_without_a_protocol_records_are_as_before(grey: Path) -> None:
    succeed("sample", "--outdir", "out", "--data", grey, "--n-samples", 2, "--n-steps", 2)
    assert "protocol" not in record("out/empirical_samples.json")["options"]


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("sample", "--n-steps", 18),
        ("sample", "--t_max", 80),
        ("sample", "--t-min", 0.002),
        ("sample", "--rho", 7),
        ("sample", "--sampler", "heun"),
        ("denoise", "--n-steps", 10),
        ("compare", "--sampler", "heun"),
    ],
)
def test_options_that_it_decides_are_refused_beside_it(command: str, option: str, value: object, grey: Path) -> None:
    needed: dict[str, list[object]] = {"denoise": ["--t-idx", 0], "compare": ["--target", "net_of_protocols:shrink"]}
    own = needed.get(command, [])
    message = fail(2, command, "--outdir", "out", "--data", grey, *own, "--protocol", "cosine20", option, value)
    assert f"{option.replace('_', '-')} is decided by --protocol cosine20; give one of them" in message
    assert not Path("out").exists()


def test_churn_is_refused_beside_it(grey: Path) -> None:
    message = fail(2, "sample", "--outdir", "out", "--data", grey, "--protocol", "edm18", "--s-churn", 40)
    assert "is for --sampler edm, not for heun" in message


def test_a_jump_is_refused_beside_it(grey: Path) -> None:
    message = fail(2, "sample", "--outdir", "out", "--data", grey, "--protocol", "edm18", "--jump-to", 2.5)
    assert "--jump-to is not for --protocol edm18, which decides the noise levels" in message
    assert not Path("out").exists()


def test_unknown_protocols_are_named(grey: Path) -> None:
    message = fail(2, "sample", "--outdir", "out", "--data", grey, "--protocol", "ddim50")
    assert "'ddim50'" in message and "'ddim10', 'cosine20', 'edm18'" in message


def test_lists_have_one_value_per_level(grey: Path) -> None:
    options = ["--outdir", "out", "--data", grey, "--denoiser", "pspc_sq", "--protocol", "ddim10", "--n-samples", 2]
    assert "a list has 3 values; --protocol ddim10 has 10 noise levels" in fail(
        1, "sample", *options, "--patch-sizes", "8,5,3"
    )
    sides = [8, 8, 8, 7, 6, 5, 5, 4, 3, 3]
    succeed("sample", *options, "--patch-sizes", ",".join(map(str, sides)))
    levels = PROTOCOLS["ddim10"].grid(include_zero=False)
    D = pspc.PSPCSquare(pspc.load(grey, xflip=True), patch_sizes=sides, sigmas=levels)
    assert np.array_equal(np.load("out/pspc_sq_samples.npy"), pspc.sample(D, 2, protocol="ddim10"))


def test_denoise_and_noise_are_on_its_levels(grey: Path) -> None:
    options = ["--outdir", "out", "--data", grey, "--n-samples", 2, "--protocol", "cosine20"]
    succeed("denoise", *options, "--t-idx", 18)
    data, sigma = pspc.load(grey, xflip=True), PROTOCOLS["cosine20"].sigmas[18]
    expected = pspc.Empirical(data)(forward_noisy(data, 2, sigma), sigma)
    assert np.array_equal(np.load("out/empirical_outputs_t_18_of_19.npy"), expected)
    assert "allowed are 0 to 18" in fail(1, "denoise", *options, "--t-idx", 19)
    succeed("noise", "forward", *options)
    assert np.array_equal(np.load("out/forward_z.npy")[18], forward_noisy(data, 2, sigma))


def test_trajectories_start_at_its_scale_and_follow_its_solver(grey: Path) -> None:
    options = ["--data", grey, "--n-samples", 3, "--protocol", "cosine20"]
    succeed("noise", "reverse", "--outdir", "out", *options, "--network", "net_of_protocols:shrink")
    protocol = PROTOCOLS["cosine20"]
    start = initial_noise(3, (1, 8, 8), protocol.start_scale)

    def shrink(z: Any, sigma: Any) -> Any:
        return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    expected = sample_euler(shrink, start, protocol.grid(include_zero=False), trajectory=True)
    assert np.array_equal(np.load("out/reverse_z.npy"), expected)
    succeed("compare", "--outdir", "run", *options, "--target", "net_of_protocols:shrink", "--denoisers", "empirical")
    (kept,) = Path("run/noisy").glob("*.npy")
    assert np.array_equal(np.load(kept), expected)
    settings = json.loads(Path("run/settings.json").read_text()).values()
    reverse = next(one for one in settings if one["process"] == "reverse")
    assert reverse["start_scale"] == protocol.start_scale and reverse["sampler"] == "euler"
    assert reverse["sigmas"] == list(protocol.sigmas[:-1])
    assert "start_scale" not in next(one for one in settings if one["process"] == "forward")


def test_edms_protocol_on_edms_grid_adds_no_rows(grey: Path) -> None:
    options = ["--data", grey, "--n-samples", 2, "--target", "net_of_protocols:shrink", "--denoisers", "empirical"]
    succeed("compare", "--outdir", "run", *options)
    table = Path("run/mse.csv").read_bytes()
    succeed("compare", "--outdir", "run", *options, "--protocol", "edm18")
    assert Path("run/mse.csv").read_bytes() == table


def test_figures_explanations_and_fits_take_it(grey: Path) -> None:
    protocol, common = PROTOCOLS["ddim10"], ["--outdir", "out", "--data", grey, "--protocol", "ddim10", "--n", 2]
    succeed("figure", "trajectories", *common, "--denoisers", "gaussian")
    with np.load("out/trajectories.npz") as numbers:
        start = initial_noise(2, (1, 8, 8), protocol.start_scale)
        assert np.array_equal(numbers["gaussian_states"][0], start)
        assert np.array_equal(numbers["sigmas"], protocol.grid())
    succeed("explain", *common, "--trajectory", "--denoiser", "empirical", "--sigmas", "1", "--at", "1,1")
    assert record("out/explain.json")["options"]["protocol"]["sigmas"] == list(protocol.sigmas)
    np.save("maps.npy", np.full((10, 4, 4, 4, 4), 0.5, np.float32))
    maps = ["figure", "heatmaps", "--heatmaps", "maps.npy", "--outdir", "out", "--protocol"]
    succeed(*maps, "ddim10")
    with np.load("out/heatmap_sides.npz") as numbers:
        assert np.array_equal(numbers["sigmas"], protocol.grid(include_zero=False))
    assert record("out/heatmaps_run.json")["options"]["protocol"]["name"] == "ddim10"
    assert "maps.npy has maps of 10 levels; --protocol edm18 has 18" in fail(1, *maps, "edm18")
    assert "--t-max is decided by --protocol ddim10" in fail(2, *maps, "ddim10", "--t-max", 80)
    target = ["--target", "net_of_protocols:shrink", "--process", "reverse", "--candidates", "3,full"]
    succeed("fit-schedule", *common, *target, "--name", "mine")
    fitted = record("out/mine.json")
    assert fitted["sigmas"] == list(protocol.sigmas[:-1])
    noisy = fitted["provenance"]["fitted"]["noisy"]
    assert (noisy["sampler"], noisy["start_scale"]) == ("euler", protocol.start_scale)
