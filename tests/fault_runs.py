"""The long commands as the fault tests run them: small, but slow enough to be disturbed.

`make test-long` tries every command and many moments, the suite a few.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from command_line import SCRIPT

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
"""Whether all commands and moments are tried."""

GRID = ["--n-steps", "5", "--t-max", "8", "--t-min", "0.05"]
SMALL = ["--channels", "16", "--blocks", "1", "--heads", "2", "--patch", "4", "--num-samples", "0"]
SMALL += ["--evaluate-images", "0"]
NETWORK = ["--denoiser", "network", "--network", "slow_net:net"]

COMMANDS: Mapping[str, Sequence[str]] = {
    "sample": ["sample", *NETWORK, *GRID, "--n", "8", "--batch", "2"],
    "compare": ["compare", "--target", "slow_net:net", "--denoisers", "empirical,gaussian", *GRID, "--n", "4"],
    "denoise": ["denoise", *NETWORK, "--t-idx", "6", "--n", "24", "--batch", "2"],
    "noise forward": ["noise", "forward", "--n-steps", "60", "--n", "2000"],
    "noise reverse": ["noise", "reverse", "--network", "slow_net:net", *GRID, "--n", "6", "--batch", "2"],
    "heatmaps": ["heatmaps", "--denoiser", "empirical", *GRID, "--n", "20"],
    "fit-schedule": ["fit-schedule", "--target", "slow_net:net", "--process", "reverse", *GRID, "--n", "4"],
    "patch-study": ["patch-study", "--target", "slow_net:net", *GRID, "--n", "4", "--sides", "3,5"],
    "train": ["train", "--arch", "dit-s8", *SMALL, "--images", "480", "--batch", "8", "--checkpoint-every", "40"],
}
"""The arguments of each command, without --data and --outdir."""

SHORT = ("sample", "train")
CHOSEN = tuple(COMMANDS) if LONG else SHORT
LOCKED = ("sample", "denoise", "noise forward", "noise reverse", "heatmaps", "train")
"""Commands of which one at a time writes an output."""

_SLOW_NET = """
import time


def net(z, sigma):
    time.sleep(0.03)
    return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
"""


def prepare(home: Path) -> Path:
    """Writes the network and the images to a folder, which becomes the current one of all commands."""
    (home / "slow_net.py").write_text(_SLOW_NET)
    np.save(home / "data.npy", np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8))
    return home


def arguments(command: str, out: Path | str, *more: object) -> list[str]:
    """The whole command line."""
    shared = ["--data", "data.npy", "--outdir", str(out), "--device", "cpu"]
    if command == "noise forward":
        shared = shared[:4]
    return [*SCRIPT, *COMMANDS[command], *shared, *map(str, more)]


def start(
    home: Path, words: Sequence[str], before: Callable[[], None] | None = None, **environment: str
) -> "subprocess.Popen[str]":
    """Starts a command in the folder that `prepare` made.

    Args:
        home: that folder.
        words: the command line.
        before: called in the new process before it becomes the command.
        environment: further variables.
    """
    return subprocess.Popen(
        words,
        cwd=home,
        env={**os.environ, "PSPC_CACHE_DIR": str(home / "cache"), "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,  # noqa: PLW1509 - these tests have one thread
    )


def finish(process: "subprocess.Popen[str]", timeout: float = 120) -> tuple[int, str]:
    """Waits for the end; returns the exit code and the last line of stderr."""
    _, stderr = process.communicate(timeout=timeout)
    assert "Traceback" not in stderr, stderr
    assert "panicked" not in stderr, stderr
    lines = stderr.strip().splitlines()
    return process.returncode, lines[-1] if lines else ""


def run(home: Path, words: Sequence[str], before: Callable[[], None] | None = None) -> tuple[int, str]:
    """Runs a command to its end."""
    return finish(start(home, words, before))


def wait_until(process: "subprocess.Popen[str]", condition: Callable[[], bool]) -> None:
    """Waits until something is true or the process has ended."""
    end = time.monotonic() + 120
    while process.poll() is None and not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def has_begun(out: Path) -> bool:
    """Whether a run has written anything but its lock."""
    return out.is_dir() and any(path.is_file() and not path.name.endswith("lock") for path in out.rglob("*"))


def contents(out: Path) -> dict[str, object]:
    """What a run left, without what tells its time: bytes of arrays and tables, tensors of networks, losses of logs."""
    found: dict[str, object] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        if path.suffix in (".npy", ".csv") and path.name != "times.csv":
            found[name] = path.read_bytes()
        elif path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            found[name] = {key: tensor.tobytes() for key, tensor in load_file(path).items()}
        elif path.name == "log.jsonl":
            found[name] = [line.split('"learning_rate"')[0] for line in path.read_text().splitlines()]
        else:
            found[name] = None
    return found


def leftovers(out: Path) -> list[str]:
    """Temporary files and locks."""
    return sorted(path.name for path in out.rglob("*") if path.name.endswith((".tmp", "lock", ".parts", "-journal")))


ON_WINDOWS = sys.platform == "win32"
