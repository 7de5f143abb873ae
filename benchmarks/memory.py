"""Peak memory of whole calls: each case in a process of its own, images in a memory-mapped .npy file, no PyTorch.

    python benchmarks/memory.py [--images 100000] [--gigabytes 2.5] [--out out/memory]

The target: at most the images + 25 % + 300 MB. Resident pages of the mapped file count as images; they belong to the
system's cache and are given up when memory is short. The last case shows that: more data than the process may hold. An
address-space limit (``ulimit -v``) cannot show it, because it counts a mapping whether or not its pages are resident;
where the control groups of Linux are writable, the case runs in one that may hold a fifth of the data, and
otherwise under a limit on everything but mapped files (RLIMIT_DATA) of that size.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

CASES = {
    "s = 3, sigma .3, 8 queries": (3, 0.3, 8),
    "s = 3, sigma .02, 64 queries": (3, 0.02, 64),
    "s = 15, sigma 3.3, 8 queries": (15, 3.3, 8),
    "full, sigma 20, 1000 queries": (32, 20.0, 1000),
}
CHILD = """
import json, sys, numpy as np, pspc_rs as pspc
path, side, sigma, queries = sys.argv[1], *map(float, sys.argv[2:])
data = pspc.ImageSet(np.load(path, mmap_mode="r"), xflip=True)
rng = np.random.default_rng(0)
z = data.batch(range(8))[np.arange(int(queries)) % 8]
z = z + sigma * rng.standard_normal(z.shape, dtype=np.float32)
D = pspc.PSPCSquare(data, patch_sizes=int(side))(z, sigma)
assert np.isfinite(D).all() and "torch" not in sys.modules
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({key: int(status[key].split()[0]) // 1024 for key in ("VmHWM", "RssAnon", "RssFile")}))
"""


def write_waves(path: Path, images: int) -> None:
    """Images of smooth random waves, written block by block."""
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (images, 3, 32, 32))
    y, x = np.mgrid[:32, :32] / 32
    for start in range(0, images, 1000):
        rng = np.random.default_rng(start)
        count = min(1000, images - start)
        a, b, c = rng.uniform(-9, 9, (3, count, 3, 1, 1))
        out[start : start + count] = (127.5 + 100 * np.sin(a * x + b * y + c)).astype(np.uint8)
    out.flush()


def forget(path: Path) -> None:
    """Drops the file from the system's cache, where its pages count for whoever read them first."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(path: Path, case: tuple[int, float, int], before: str = "") -> dict[str, int]:
    """Memory of a case in MB, in a process of its own, after the Python statements ``before``."""
    arguments = [str(value) for value in case]
    command = [sys.executable, "-c", before + CHILD, str(path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case} ended with {done.returncode}: {done.stderr[-500:]}")
    found: dict[str, int] = json.loads(done.stdout)
    return found


def limited(size: int) -> tuple[str, str]:
    """Statements that keep a process from holding ``size`` bytes, and what they use."""
    for root, setting in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
        group = Path(root, "pspc-memory")
        # Under version 1 the first root is a plain folder, in which a group would be one too and limit nothing.
        if not Path(root, "cgroup.procs").exists():
            continue
        try:
            group.mkdir(exist_ok=True)
            (group / setting).write_text(str(size))
        except OSError:
            continue
        return f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n", setting
    return f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({size}, {size}))\n", "RLIMIT_DATA"


def main() -> None:
    """Runs every case and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=2.5)
    parser.add_argument("--out", type=Path, default=None, help="folder for the files; a temporary one if not given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "images.npy"
        write_waves(path, args.images)
        size = path.stat().st_size // 2**20
        print(f"{args.images} images, {size} MB, flips counted; at most {size * 5 // 4 + 300} MB wanted")
        print("| case | peak MB | of it not of the file, at the end |\n|---|---|---|")
        for name, case in CASES.items():
            found = run(path, case)
            print(f"| {name} | {found['VmHWM']} | {found['RssAnon']} |", flush=True)
        path.unlink()
        large, images = folder / "large.npy", int(args.gigabytes * 1e9 / 3072)
        write_waves(large, images)
        statements, means = limited(int(args.gigabytes * 2e8))
        for case in ((3, 0.02, 2), (7, 1.0, 2)):
            forget(large)
            found = run(large, case, statements)
            name = f"{images} images, {args.gigabytes} GB, {means} {args.gigabytes / 5:.1f} GB, s = {case[0]}"
            print(f"| {name} | {found['VmHWM']} | {found['RssAnon']} |", flush=True)
        large.unlink()


if __name__ == "__main__":
    main()
