"""The network that lies in the repository: found by name, small, good on held-out images, and not in the package."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

import pspc_rs as pspc
from command_line import fail, random_data, succeed
from pspc_rs.errors import InvalidValueError, MissingFileError
from pspc_rs.experiments import compare, forward_noisy
from pspc_rs.experiments.noisy_sets import drawn_images
from pspc_rs.networks import open_network, read_metadata, read_network, shipped
from pspc_rs.networks.shipped import SHIPPED, find_shipped

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package, and a current folder that lies in no clone."""
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "site-packages" / "pspc_rs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_found_in_a_clone_and_nowhere_else(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MissingFileError, match=r"is assets/networks/cifar10-ddpmpp-small\.safetensors of the project's"
    ):
        open_network("cifar10-small")
    inside = elsewhere / "clone" / "docs"
    (inside.parent / "assets" / "networks").mkdir(parents=True)
    inside.mkdir()
    copy = shutil.copy(ROOT / "assets" / "networks" / SHIPPED["cifar10-small"], inside.parent / "assets" / "networks")
    monkeypatch.chdir(inside)
    assert find_shipped("cifar10-small") == Path(copy)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(shipped, "_PACKAGE", inside.parent / "python" / "pspc_rs")  # an editable install
    assert open_network("cifar10-small").shape == (3, 32, 32)


@pytest.fixture
def in_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("in_the_clone")
def test_it_is_small_and_says_where_it_comes_from() -> None:
    path = find_shipped("cifar10-small")
    assert path.stat().st_size <= 12 * 2**20
    told = read_metadata(path)["metadata"]
    assert told["settings"]["data"]["num_stored"] == 50_000
    assert told["images"] > 100_000
    assert sum(parameter.numel() for parameter in read_network(path).parameters()) < 6_000_000
    excluded = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["maturin"]["exclude"]
    assert "assets/**" in excluded
    assert "assets" in tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["exclude"]


@pytest.mark.usefixtures("in_the_clone")
def test_commands_take_the_name(tmp_path: Path) -> None:
    data = random_data(tmp_path / "data.npy", 12, 3, 32, 32)
    few = ["--data", data, "--n-steps", 2, "--n", 2, "--outdir", tmp_path / "out"]
    printed = succeed("compare", "--target", "cifar10-small", "--denoisers", "empirical", "--process", "forward", *few)
    assert "against cifar10-small" in printed
    succeed("sample", "--denoiser", "network", "--network", "cifar10-small", *few)
    half, again = tmp_path / "half.safetensors", tmp_path / "again.safetensors"
    succeed("network", "convert", find_shipped("cifar10-small"), half, "--dtype", "bfloat16")
    succeed("network", "convert", find_shipped("cifar10-small"), again, "--dtype", "float16")
    assert read_metadata(half) == read_metadata(find_shipped("cifar10-small"))
    assert half.read_bytes() != again.read_bytes() == find_shipped("cifar10-small").read_bytes()


@pytest.mark.usefixtures("in_the_clone")
def test_it_denoises_held_out_images(test_data: Path) -> None:
    held = pspc.load(test_data / "cifar10-test-1k-32x32.zip", max_size=64)
    D = open_network("cifar10-small")
    clean = drawn_images(held, 32, 1)
    for sigma, wiener in ((0.1, 0.0033), (0.3, 0.0131), (1.0, 0.0414)):
        error = np.square(D(forward_noisy(held, 32, sigma, 1), sigma) - clean).mean()
        assert error < wiener


def shrink(z: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    shrunk: np.ndarray = z / (1 + np.asarray(sigma).reshape(-1, 1, 1, 1) ** 2)
    return shrunk


def test_clean_images_are_a_target(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data, held = (pspc.ImageSet(random.integers(0, 256, (30, 1, 6, 6), dtype=np.uint8)) for _ in range(2))
    grid = {"sigmas": [2.0, 0.5], "n": 4, "processes": ["forward"], "noise_data": held}
    rows = compare(data, {"truth": "clean"}, {"shrink": shrink}, tmp_path, **grid)  # type: ignore[arg-type]
    for row in rows:
        z = forward_noisy(held, 4, float(row["sigma"]))
        expected = np.square(shrink(z, np.full(4, row["sigma"])) - drawn_images(held, 4)).mean(dtype=np.float64)
        assert row["mse"] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InvalidValueError, match="the target truth is clean images, and processes are forward, reverse"):
        compare(data, {"truth": "clean"}, {"shrink": shrink}, tmp_path, sigmas=[1.0], n=4)
    with pytest.raises(InvalidValueError, match="the target truth is 'dirty'"):
        compare(data, {"truth": "dirty"}, {"shrink": shrink}, tmp_path, sigmas=[1.0], n=4)  # type: ignore[dict-item]


def test_the_command_takes_clean_images(tmp_path: Path) -> None:
    data = random_data(tmp_path / "data.npy", 12, 1, 8, 8)
    options = ["compare", "--data", data, "--n-steps", 2, "--n", 3, "--denoisers", "gaussian"]
    assert "against truth" in succeed(*options, "--target", "truth=clean", "--process", "forward", "--outdir", tmp_path)
    assert "clean images" in fail(1, *options, "--target", "clean", "--outdir", tmp_path / "none")
