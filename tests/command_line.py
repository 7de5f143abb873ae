"""Running `pspc-rs` from tests: in this process, or as a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from pspc_rs.cli import main

SCRIPT = [sys.executable, "-c", "from pspc_rs.cli import main; main()"]


def invoke(*arguments: object) -> Result:
    """Runs a command in this process; an exception that is not a clean exit is raised."""
    return CliRunner().invoke(main, [str(one) for one in arguments], catch_exceptions=False, prog_name="pspc-rs")


def succeed(*arguments: object) -> str:
    """Runs a command that must end well, and returns what it printed on stdout."""
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def fail(code: int, *arguments: object) -> str:
    """Runs a command that must end with an error of this code, and returns its last line."""
    result = invoke(*arguments)
    assert result.exit_code == code, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert "Traceback" not in result.stderr
    return last


def start(*arguments: object) -> "subprocess.Popen[str]":
    """Starts a command as a process of its own."""
    command = [*SCRIPT, *(str(one) for one in arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def random_data(path: Path, *shape: int) -> Path:
    """A `.npy` file of random uint8 images."""
    np.save(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return path


def normals(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    """Standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def names(folder: Path) -> list[str]:
    """What a folder holds."""
    return sorted(path.name for path in folder.iterdir())
