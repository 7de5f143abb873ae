"""Commands on several ranks, as torchrun starts them: the output of one process, within what parts of images round."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

PROGRAM = [sys.executable, "-c", "from pspc_rs.cli import main; main()"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def on_ranks(folder: Path, count: int, *arguments: str) -> list[subprocess.CompletedProcess[str]]:
    """Runs a command on so many ranks, or in one process."""
    environment = {**os.environ, "PSPC_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    if count > 1:
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    running = [
        subprocess.Popen(
            [*PROGRAM, *arguments],
            env={**environment, **({"RANK": str(rank)} if count > 1 else {})},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    ended = [process.communicate(timeout=120) for process in running]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(running, ended, strict=True)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    return tmp_path


def load(path: Path) -> Any:
    return np.load(path)


def test_samples_of_two_ranks_are_those_of_one(folder: Path) -> None:
    arguments = ["sample", "--data", "images.npy", "--denoiser", "pspc_sq", "--patch-sizes", "3", "--n-samples", "4"]
    arguments += ["--n-steps", "4", "--batch", "2"]
    (one,) = on_ranks(folder, 1, *arguments, "--outdir", "one")
    assert one.returncode == 0, one.stderr
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
    (one,) = on_ranks(folder, 1, *arguments, "--outdir", "one")
    assert one.returncode == 0, one.stderr
    several = on_ranks(folder, 2, *arguments, "--outdir", "two")
    assert [rank.returncode for rank in several] == [0, 0], several
    tables = [
        np.genfromtxt(folder / name / "mse.csv", delimiter=",", names=True, dtype=None) for name in ("one", "two")
    ]
    np.testing.assert_allclose(tables[1]["mse"], tables[0]["mse"], rtol=1e-4, atol=1e-7)


def test_errors_end_all_ranks(folder: Path) -> None:
    missing = on_ranks(folder, 2, "sample", "--data", "none.npy", "--denoiser", "empirical", "--outdir", "out")
    assert [rank.returncode for rank in missing] == [1, 1]
    assert all("none.npy" in rank.stderr for rank in missing)
    refused = on_ranks(folder, 2, "info")
    assert [rank.returncode for rank in refused] == [2, 2] and "without torchrun" in refused[0].stderr
