"""Everything there is to ask of a GPU, in one command on a machine that has one; no Rust is needed there.

    python benchmarks/gpu.py --out out/gpu [--quick] [--data FILE_OR_NAME] [--parity-only]

1. Parity: the GPU against a float64 oracle over odd shapes, and against the CPU at every level of the schedule.
2. compute-sanitizer, memcheck and racecheck, over small shapes, where it is installed.
3. Timings against PyTorch on the same GPU in the same run: box sums (the engine's algorithm in PyTorch's operations),
   matrix products for the full window, and window by window, the style of the published scripts. Each is checked first.
4. The job of the paper: all 18 levels, 10,000 queries and 100,000 images (50,000 and their flips), and 64 samples of 18
   steps.

Install the wheel, its extra "cuda", and a torch with CUDA. Tables go to the terminal and to OUT/gpu.md, numbers to
OUT/gpu.json. With --parity-only an emulated GPU will do.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import pspc_rs as pspc
from pspc_rs import _core, cuda
from pspc_rs.schedules import patch_schedule

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
from compare import box_sums, gemm, windows_style

import reference
from cuda_emulation import shapes

CONTRACT = 1e-5
"""Largest error against float64 in docs/accuracy.md."""

ODD = [(3, 8, 8, 70, 3), (1, 9, 5, 65, 5), (4, 5, 9, 130, 2), (3, 12, 40, 33, 7), (1, 7, 7, 5, 7), (2, 6, 11, 90, 1)]


def synthetic(count: int, side: int = 32, seed: int = 0) -> pspc.ImageSet:
    """Images with the size and the large structures of photographs."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, 3, side, side), np.uint8)
    for start in range(0, count, 1000):
        coarse = rng.standard_normal((min(1000, count - start), 3, side // 4, side // 4))
        smooth = np.kron(coarse, np.ones((1, 1, 4, 4))) * 55 + 128
        images[start : start + 1000] = (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255)
    return pspc.ImageSet(images, xflip=True, name="synthetic")


def noisy(data: pspc.ImageSet, sigma: Any, count: int, seed: int = 1) -> np.ndarray:
    """Queries z = x + sigma n, float64."""
    rng = np.random.default_rng(seed)
    clean = data.batch(rng.integers(0, len(data), count)).astype(np.float64)
    return clean + np.broadcast_to(sigma, count)[:, None, None, None] * rng.standard_normal(clean.shape)


def parity_over_shapes() -> list[dict[str, Any]]:
    """Odd shapes, bytes and floats, with and without flips, at four levels, against the oracle."""
    rows = []
    sigma = np.array([5.0, 0.7, 0.2, 0.02])
    for channels, height, width, count, side in ODD:
        for floats, xflip in ((False, True), (True, False)):
            rng = np.random.default_rng(count)
            images: Any = rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
            data = pspc.ImageSet(images.astype(np.float32) / 100 - 1 if floats else images, xflip=xflip)
            z = noisy(data, sigma, len(sigma))
            x = torch.from_numpy(data.images.astype(np.float64)) if floats else reference.pixels(data.images.copy())
            x = reference.with_flips(x) if xflip else x
            masks = rng.random((6, height, width)) < 0.4
            masks[0] |= ~masks.any(axis=0)
            cases = {
                "full": (pspc.Empirical(data, "cuda"), reference.full_window(height, width)),
                "square": (pspc.PSPCSquare(data, patch_sizes=side, device="cuda"), None),
                "masks": (pspc.PSPCFlex(data, masks=masks, device="cuda"), torch.from_numpy(masks)),
            }
            for kind, (D, found) in cases.items():
                windows = reference.square_windows(height, width, side) if found is None else found
                exact = reference.composite(x, windows, torch.from_numpy(z), torch.from_numpy(sigma)).numpy()
                shape = f"{count} x [{channels}, {height}, {width}] {data.dtype}{', flips' if xflip else ''}"
                rows.append({"shape": shape, "windows": kind, "error": float(np.abs(D(z, sigma) - exact).max())})
    return rows


def parity_over_levels(data: pspc.ImageSet, queries: int) -> list[dict[str, Any]]:
    """Every level of the published schedule, against the CPU engine, which is tested against float64."""
    schedule = patch_schedule("cifar10")
    gpu, on_cpu = pspc.PSPCSquare(data, schedule, device="cuda"), pspc.PSPCSquare(data, schedule)
    rows = []
    for level, sigma in enumerate(np.asarray(schedule.sigmas).tolist()):
        z = noisy(data, sigma, queries, level)
        difference = float(np.abs(gpu(z, sigma) - on_cpu(z, sigma)).max())
        rows.append({"level": level, "sigma": sigma, "side": schedule.at(sigma), "difference": difference})
    return rows


def sanitized(out: Path) -> list[dict[str, Any]]:
    """What compute-sanitizer says about every kernel on small shapes."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return []
    rows = []
    for check in ("memcheck", "racecheck"):
        program = [sys.executable, str(Path(shapes.__file__)), "cuda", str(out / f"{check}.npz"), "few"]
        command = [tool, "--tool", check, "--error-exitcode", "9", *program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = [line for line in (done.stdout + done.stderr).splitlines() if "SUMMARY" in line]
        rows.append({"check": check, "passed": done.returncode == 0, "said": said[-1] if said else done.stderr[-500:]})
    return rows


def seconds(run: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Median time of some runs after one to warm up, the GPU's work included, and the last result."""
    result = run()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        result = run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times), result


def timings(data: pspc.ImageSet, queries: int) -> list[dict[str, Any]]:
    """Microseconds per pair of one query and one image, both passes, at the levels of the published schedule."""
    plain = data.select(xflip=False)
    schedule = patch_schedule("cifar10")
    rows = []
    for level, sigma in enumerate(np.asarray(schedule.sigmas).tolist()):
        side = schedule.at(sigma)
        side = data.height if side == "full" else int(side)
        z = torch.from_numpy(noisy(plain, sigma, queries, level)).to("cuda", torch.float32)
        D = pspc.PSPCSquare(plain, patch_sizes=side)
        taken, _ = seconds(lambda: D(z, sigma))  # noqa: B023
        row = {"sigma": sigma, "side": side, "pspc_rs": 1e6 * taken / (queries * len(plain))}
        contestants: list[tuple[str, Any, int, int]] = [("windows", windows_style, 1000, 1)]
        contestants += [(f"box sums {chunk}", box_sums(chunk), 5000, 16) for chunk in (64, 256, 1000)]
        if side == data.height:
            contestants.append(("gemm", gemm, len(plain), queries))
        for name, contestant, images, count in contestants:
            part = plain.select(max_size=min(images, len(plain)))
            few = z[: min(count, queries)]
            x = torch.from_numpy(part.batch(range(len(part)))).cuda()
            with torch.device("cuda"):
                taken, got = seconds(lambda: contestant(few, x, side, sigma), 1)  # noqa: B023
            error = (got - pspc.PSPCSquare(part, patch_sizes=side)(few, sigma)).abs().max().item()
            if not error < 5e-2:
                raise SystemExit(f"{name} disagrees with the engine by {error} at side {side}, sigma {sigma}")
            row[name] = 1e6 * taken / (len(few) * len(part))
        row["box sums"] = min(value for key, value in row.items() if key.startswith("box sums"))
        rows.append(row)
    return rows


def paper_job(data: pspc.ImageSet, queries: int) -> dict[str, Any]:
    """All levels for many queries, and 64 samples; the images are on the GPU before the clock starts."""
    D = pspc.PSPCSquare(data, "cifar10")
    sigmas = np.asarray(D.schedule.sigmas).tolist()
    clean = torch.from_numpy(data.batch(np.random.default_rng(0).integers(0, len(data), queries))).cuda()
    noise = torch.randn(clean.shape, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    for sigma in sigmas:
        D(clean[:2] + sigma * noise[:2], sigma)
    levels = []
    for sigma in sigmas:
        torch.cuda.synchronize()
        start = time.perf_counter()
        denoised = D(clean + sigma * noise, sigma)
        torch.cuda.synchronize()
        levels.append(time.perf_counter() - start)
        assert bool(denoised.isfinite().all())
    x = 80.0 * noise[:64]
    grid = pspc.edm_sigmas(18)
    sampling, _ = seconds(lambda: pspc.samplers.sample_euler(D, x, grid))
    return {"queries": queries, "images": len(data), "levels": levels, "total": sum(levels), "64 samples": sampling}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as Markdown."""
    if not rows:
        return "not run\n"
    names = list(dict.fromkeys(name for row in rows for name in row))
    shown = [" | ".join(_shown(row.get(name, "")) for name in names) for row in rows]
    return "\n".join(
        ["| " + " | ".join(names) + " |", "|---" * len(names) + "|", *(f"| {line} |" for line in shown), ""]
    )


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Runs what is asked for; leaves with an error where parity is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/gpu"))
    parser.add_argument("--data", default=None, help="32 x 32 images, 50,000 of them; synthetic ones if not given")
    parser.add_argument("--quick", action="store_true", help="5,000 images and 500 queries")
    parser.add_argument("--parity-only", action="store_true", help="no timings; an emulated GPU will do")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    small = args.quick or args.parity_only
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cuda": cuda.state(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **{key: value for key, value in _core.build_info() if key in ("version", "profile")},
        "shapes": parity_over_shapes(),
    }
    pixels = (60 if args.parity_only else 2000, 2 if args.parity_only else 8)
    report["levels"] = parity_over_levels(synthetic(pixels[0]), pixels[1])
    report["sanitizer"] = sanitized(args.out)
    report["timings"], report["job"] = [], []
    if not args.parity_only:
        data = synthetic(5000 if small else 50_000) if args.data is None else pspc.load(args.data, xflip=True)
        report["timings"] = timings(data, 64 if small else 256)
        report["job"] = [paper_job(data, 500 if small else 10_000)]

    (args.out / "gpu.json").write_text(json.dumps(report, indent=2))
    sections = {
        "Largest error against float64": "shapes",
        "Largest difference from the CPU": "levels",
        "compute-sanitizer": "sanitizer",
        "Microseconds per pair, both passes": "timings",
        "Seconds": "job",
    }
    head = "\n".join(f"{key}: {report[key]}" for key in ("date", "cuda", "torch", "python", "version"))
    body = "\n".join(f"## {title}\n\n{table(report[key])}" for title, key in sections.items())
    (args.out / "gpu.md").write_text(f"{head}\n\n{body}")
    print(f"{head}\n\n{body}")
    worst = max([row["error"] for row in report["shapes"]] + [row["difference"] for row in report["levels"]])
    if worst > CONTRACT or not all(row["passed"] for row in report["sanitizer"]):
        raise SystemExit(f"parity is missed, the largest error is {worst:.2g}, or the sanitizer found something")


if __name__ == "__main__":
    main()
