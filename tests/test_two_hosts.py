"""Two hosts: network namespaces with a cable between them, each with its own torchrun, compute a command together.

Only root can make such hosts, and it takes a minute, so that `make test-long` alone runs this.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from fault_runs import LONG

ADDRESSES = ("10.201.77.1", "10.201.77.2")
SAMPLE = ["sample", "--data", "images.npy", "--denoiser", "pspc_sq", "--patch-sizes", "5", "--batch", "1"]
OUTPUT = "pspc_sq_samples.npy"


TRAFFIC = """
import sys
import numpy as np, torch.distributed as dist
import pspc_rs as pspc

rank, address = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"tcp://{address}:29412", rank=rank, world_size=2)
rng = np.random.default_rng(0)
data = pspc.ImageSet(rng.integers(0, 256, (64, 3, 64, 64), dtype=np.uint8))
D, z = pspc.PSPCSquare(data, patch_sizes=7).across(), rng.uniform(-1, 1, (64, 3, 64, 64))


def sent():
    with open("/sys/class/net/wire/statistics/tx_bytes") as file:
        return int(file.read())


D(z[:1], 5.0)  # connects the ranks
dist.barrier()
before = sent()
D(z, 5.0)
dist.barrier()
print(sent() - before)
"""
"""What a rank sends in a call with 64 queries, 64 x 64 images and side 7."""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """The names of two namespaces, with an end of a cable, "wire", in each."""
    if not LONG:
        pytest.skip("two hosts are for make test-long")
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two hosts need root and the program ip")
    names = [f"pspc{os.getpid()}{end}" for end in "ab"]
    try:
        try:
            for name in names:
                run("ip", "netns", "add", name)
            run("ip", "link", "add", "wire", "netns", names[0], "type", "veth", "peer", "wire", "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        for name, address in zip(names, ADDRESSES, strict=True):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "wire")
            for device in ("wire", "lo"):
                run("ip", "-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def start(hosts: list[str], folder: Path, *arguments: str) -> list[subprocess.Popen[str]]:
    """Starts a command of two ranks, one on each host; the first host holds the rendezvous."""
    environment = {
        **os.environ,
        "PSPC_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "wire",
        "PYTHONUNBUFFERED": "1",
    }
    started = []
    for host, address in zip(hosts, ADDRESSES, strict=True):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-id", "one", "--rdzv-endpoint", f"{ADDRESSES[0]}:29411"]
        # Real hosts find out by their names; these two have the same.
        torchrun += ["--rdzv-conf", f"is_host={int(host == hosts[0])}", "--local-addr", address]
        torchrun += ["--max-restarts", "0", "--no-python"]
        command = [sys.executable, "-c", "from pspc_rs.cli import main; main()", *arguments]
        # A session of its own, so that a host can be killed with all its processes.
        started.append(
            subprocess.Popen(
                ["ip", "netns", "exec", host, *torchrun, *command],
                env=environment,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
    return started


def ended(hosts: list[str], folder: Path, *arguments: str) -> None:
    """Runs a command that must end well on both hosts."""
    running = start(hosts, folder, *arguments)
    said = [process.communicate(timeout=180)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)


def kill_host(name: str) -> None:
    """Kills all processes of a host."""
    listed = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True)
    for number in listed.stdout.split():
        os.kill(int(number), signal.SIGKILL)


def test_a_host_that_dies_ends_the_other_and_the_run_goes_on_later(hosts: list[str], tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20000, 3, 16, 16), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    arguments = [*SAMPLE, "--n-samples", "4", "--n-steps", "6"]
    stopped = tmp_path / "stopped"
    running = start(hosts, tmp_path, *arguments, "--outdir", "stopped")
    begun = time.monotonic()
    # A batch is kept, and the next one has begun.
    while not (parts := list(stopped.glob(f".{OUTPUT}.parts/*.npy"))):
        assert time.monotonic() - begun < 120 and running[0].poll() is None, running[0].communicate()[0]
        time.sleep(0.02)
    kill_host(hosts[1])
    killed = time.monotonic()
    said = running[0].communicate(timeout=90)[0]
    running[1].communicate()
    assert running[0].returncode != 0 and time.monotonic() - killed < 60
    (line,) = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert "another rank of 2 has ended" in line
    assert not (stopped / OUTPUT).exists() and set(parts) <= set(stopped.glob(f".{OUTPUT}.parts/*.npy"))
    ended(hosts, tmp_path, *arguments, "--outdir", "stopped")
    ended(hosts, tmp_path, *arguments, "--outdir", "whole")
    assert (stopped / OUTPUT).read_bytes() == (tmp_path / "whole" / OUTPUT).read_bytes()


def test_the_traffic_of_a_call_is_that_of_the_formula(hosts: list[str], tmp_path: Path) -> None:
    """With two ranks each sends its log evidence to the other, and twice a half of the sums."""
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "wire", "PSPC_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    running = []
    for rank, host in enumerate(hosts):
        command = ["ip", "netns", "exec", host, sys.executable, "-c", TRAFFIC, str(rank), ADDRESSES[0]]
        running.append(subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=180)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    log_evidence, sums = 8 * 64 * (64 - 7 + 1) ** 2, 8 * 64 * 3 * 64**2
    for sent in map(int, said):
        assert log_evidence + sums <= sent <= 1.1 * (log_evidence + sums)
