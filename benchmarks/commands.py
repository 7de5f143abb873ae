"""Whole commands, from their start to their end: seconds, CPU seconds and peak memory, each in a process of its own.

    python benchmarks/commands.py --cifar FILE --afhq FILE [--jobs NAMES] [--repeats 3] [--out out/commands]

Every job is run with an empty cache folder (cold) and then again with what that run left there (warm). The files
themselves are read once before, so that cold does not mean a cold disk. Medians over the repeats are printed and
written to commands.json.

Besides the five jobs there are two that read the data and nothing else: ``load`` the images, ``import`` the package
and its commands.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

COMMAND = [sys.executable, "-c", "from pspc_rs.cli import main; main()"]
LOAD = "import sys, pspc_rs; pspc_rs.load(sys.argv[1])"
JOBS: dict[str, tuple[str, list[str]]] = {
    "sample, pspc_sq": ("cifar", ["sample", "--denoiser", "pspc_sq", "--n", "16"]),
    "denoise, one level": ("cifar", ["denoise", "--denoiser", "pspc_sq", "--t-idx", "8", "--n", "64"]),
    "denoise, empirical": (
        "cifar",
        ["denoise", "--denoiser", "empirical", "--t-idx", "5", "--n", "1024", "--batch", "1024"],
    ),
    "sample, AFHQ": ("afhq", ["sample", "--denoiser", "pspc_sq", "--scale-to", "64", "--n", "16"]),
    "sample, pspc_flex": ("cifar", ["sample", "--denoiser", "pspc_flex", "--heatmaps", "gaussian", "--n", "16"]),
    "load": ("cifar", []),
    "import": ("cifar", ["--version"]),
}


def words_of(job: str, data: Path, out: Path) -> list[str]:
    """The command line of a job."""
    arguments = JOBS[job][1]
    if job == "load":
        return [sys.executable, "-c", LOAD, str(data)]
    if job == "import":
        return [*COMMAND, *arguments]
    return [*COMMAND, *arguments, "--data", str(data), "--device", "cpu", "--outdir", str(out)]


def measure(words: list[str], cache: Path) -> dict[str, float]:
    """What one process took."""
    start = time.perf_counter()
    process = subprocess.Popen(
        words, env={**os.environ, "PSPC_CACHE_DIR": str(cache)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(words)} ended with {status}: {said.decode()[-500:]}")
    # Linux counts in KiB.
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}


def run(job: str, data: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Medians of a job, cold and warm."""
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder, "cache")
            for state, measured in found.items():
                out = Path(folder, "out")
                measured.append(measure(words_of(job, data, out), cache))
                shutil.rmtree(out, ignore_errors=True)
                print(f"{job:20} {state} {measured[-1]['seconds']:7.2f} s", file=sys.stderr)
    return {
        state: {key: median(one[key] for one in measured) for key in measured[0]} for state, measured in found.items()
    }


def main() -> None:
    """Runs the jobs, prints a table and writes commands.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, required=True, help="CIFAR-10, 50,000 images, as an EDM archive")
    parser.add_argument("--afhq", type=Path, help="AFHQ at 64 x 64 as an EDM archive; without it that job is left out")
    parser.add_argument("--jobs", help=f"which of them, with ; between: {chr(59).join(JOBS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/commands"))
    options = parser.parse_args()
    names = list(JOBS) if options.jobs is None else [name.strip() for name in options.jobs.split(";")]
    results: dict[str, Any] = {}
    for job in names:
        data = getattr(options, JOBS[job][0])
        if data is not None:
            data.read_bytes()
            results[job] = run(job, data, options.repeats)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "commands.json").write_text(json.dumps({"machine": machine, "jobs": results}, indent=1))
    print("| job | cold s | CPU s | peak MB | warm s | CPU s | peak MB |\n|---|---|---|---|---|---|---|")
    for job, states in results.items():
        cells = [f"{states[state][key]:.2f}" for state in states for key in ("seconds", "cpu_seconds", "peak_mb")]
        print(f"| {job} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
