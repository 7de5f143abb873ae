"""Commands on several ranks, as torchrun starts them: the output of one process, within what parts of images round."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from command_line import fail, succeed
from fault_runs import LONG

PROGRAM = [sys.executable, "-c", "from pspc_rs.cli import main; main()"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def start_ranks(folder: Path, count: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """Starts a command on so many ranks."""
    environment = {**os.environ, "PSPC_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(count)}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        subprocess.Popen(
            [*PROGRAM, *arguments],
            env={**environment, "RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def on_ranks(folder: Path, count: int, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Runs a command on so many ranks."""
    running = start_ranks(folder, count, *arguments)
    ended = [process.communicate(timeout=120) for process in running]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(running, ended, strict=True)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(path: Path) -> Any:
    return np.load(path)


def test_samples_of_two_ranks_are_those_of_one(folder: Path) -> None:
    arguments = ["sample", "--data", "images.npy", "--denoiser", "pspc_sq", "--patch-sizes", "3", "--n-samples", "4"]
    arguments += ["--n-steps", "4", "--batch", "2"]
    succeed(*arguments, "--outdir", "one")
    several = on_ranks(folder, 2, *arguments, "--outdir", "two")
    assert [rank.returncode for rank in several] == [0, 0], several
    assert several[1].stdout == ""
    name = "pspc_sq_samples"
    np.testing.assert_allclose(load(folder / f"two/{name}.npy"), load(folder / f"one/{name}.npy"), rtol=0, atol=1e-4)
    record = json.loads((folder / f"two/{name}.json").read_text())
    assert record["world_size"] == 2 and "world_size" not in json.loads((folder / f"one/{name}.json").read_text())
    again = on_ranks(folder, 2, *arguments, "--outdir", "two")
    assert [rank.returncode for rank in again] == [0, 0] and "complete already" in again[0].stdout


def test_comparisons_of_two_ranks_are_those_of_one(folder: Path) -> None:
    arguments = ["compare", "--data", "images.npy", "--target", "clean", "--denoisers", "empirical,gaussian,ls"]
    arguments += ["--patch-sizes", "3", "--n", "4", "--n-steps", "3", "--process", "forward"]
    succeed(*arguments, "--outdir", "one")
    several = on_ranks(folder, 2, *arguments, "--outdir", "two")
    assert [rank.returncode for rank in several] == [0, 0], several
    tables = [
        np.genfromtxt(folder / name / "mse.csv", delimiter=",", names=True, dtype=None) for name in ("one", "two")
    ]
    np.testing.assert_allclose(tables[1]["mse"], tables[0]["mse"], rtol=1e-4, atol=1e-7)


FIT = ["fit-schedule", "--data", "images.npy", "--n-steps", "3", "--n", "4", "--batch", "3"]
FITS = {
    "sides": ["--target", "clean", "--leave-one-out", "--process", "forward", "--rule", "greedy"],
    "masks": ["--fit", "pspc_flex", "--heatmaps", "gaussian", "--rule", "entropy", "--process", "forward"],
}
RANKS = [2, 3, 4] if LONG else [2]


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize("count", RANKS)
def test_fits_of_several_ranks_are_those_of_one(folder: Path, kind: str, count: int) -> None:
    arguments = [*FIT, *FITS[kind]]
    succeed(*arguments, "--outdir", "one")
    several = on_ranks(folder, count, *arguments, "--outdir", "two")
    assert [rank.returncode for rank in several] == [0] * count, several
    measure, table = ("mse", "fit") if kind == "sides" else ("entropy", "fit_entropy")
    tables = [np.genfromtxt(folder / name / f"{table}.csv", delimiter=",", names=True) for name in ("one", "two")]
    assert len(tables[0]) > 2
    np.testing.assert_allclose(tables[1][measure], tables[0][measure], rtol=1e-4, atol=1e-7)
    fits = [json.loads((folder / name / "fitted.json").read_text())["provenance"]["fitted"] for name in ("one", "two")]
    assert fits[1]["world_size"] == count and "world_size" not in fits[0]


NETWORK = """
import torch

def net(z, sigma):
    return torch.tanh(z.cumsum(-1)) / (1 + sigma.reshape(-1, 1, 1, 1))
"""


@pytest.mark.parametrize("source", ["network", "pspc_sq"])
def test_heat_maps_of_several_ranks_are_those_of_one(folder: Path, source: str) -> None:
    (folder / "network_of_maps.py").write_text(NETWORK)
    arguments = ["heatmaps", "--data", "images.npy", "--n-samples", "5", "--batch", "2", "--n-steps", "2"]
    arguments += ["--pixel", "3,3", "--pixel", "0,7", "--denoiser", source]
    arguments += ["--network", "network_of_maps:net"] if source == "network" else ["--patch-sizes", "3"]
    several = on_ranks(folder, 2, *arguments, "--outdir", "two")
    assert [rank.returncode for rank in several] == [0, 0], several
    succeed(*arguments, "--outdir", "one")
    for file in (f"{source}_heatmaps.npy", f"{source}_heatmaps_error.npy"):
        np.testing.assert_allclose(np.load(folder / "two" / file), np.load(folder / "one" / file), rtol=1e-5, atol=1e-7)
    assert json.loads((folder / f"two/{source}_heatmaps.json").read_text())["world_size"] == 2
    assert "world_size" in fail(1, *arguments, "--outdir", "two")


def test_a_rank_whose_network_fails_says_why(folder: Path) -> None:
    failing = 'import os\n\ndef net(z, sigma):\n    return z * (1 / (1 - int(os.environ["RANK"])))\n'
    (folder / "failing.py").write_text(failing)
    arguments = [
        "heatmaps",
        "--data",
        "images.npy",
        "--n-samples",
        "2",
        "--n-steps",
        "1",
        "--pixel",
        "3,3",
        "--outdir",
        "out",
    ]
    first, other = on_ranks(folder, 2, *arguments, "--denoiser", "network", "--network", "failing:net")
    assert first.returncode == 1 and "rank 1 of 2 failed" in first.stderr
    assert "Rank 1: " in other.stderr and "division by zero" in other.stderr


SLOW_TARGET = """
import time

def net(z, sigma):
    time.sleep(.5)
    return z
"""


def test_a_rank_that_dies_ends_a_fit_which_goes_on_later(folder: Path) -> None:
    (folder / "slow_target.py").write_text(SLOW_TARGET)
    arguments = [*FIT, "--target", "slow_target:net", "--process", "forward", "--candidates", "3,full"]
    first, other = start_ranks(folder, 2, *arguments, "--outdir", "stopped")
    table = folder / "stopped/fit.csv"
    begun = time.monotonic()
    while not (table.exists() and table.read_text().count("\n") > 1):
        assert time.monotonic() - begun < 60 and first.poll() is None
        time.sleep(0.02)
    other.kill()
    killed = time.monotonic()
    _, said = first.communicate(timeout=60)
    other.communicate()
    assert first.returncode == 1 and time.monotonic() - killed < 30
    (line,) = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert "another rank of 2 has ended" in line
    assert not (folder / "stopped/fitted.json").exists()
    rows = table.read_text().splitlines()
    resumed = on_ranks(folder, 2, *arguments, "--outdir", "stopped")
    assert [rank.returncode for rank in resumed] == [0, 0], resumed
    assert set(rows) < set(table.read_text().splitlines())
    if LONG:
        on_ranks(folder, 2, *arguments, "--outdir", "whole")
        for name in ("fit.csv", "fitted.json"):
            assert (folder / "stopped" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_errors_end_all_ranks(folder: Path) -> None:
    missing = on_ranks(folder, 2, "sample", "--data", "none.npy", "--denoiser", "empirical", "--outdir", "out")
    assert [rank.returncode for rank in missing] == [1, 1]
    assert all("none.npy" in rank.stderr for rank in missing)
    refused = on_ranks(folder, 2, "info")
    assert [rank.returncode for rank in refused] == [2, 2] and "without torchrun" in refused[0].stderr
