"""This engine beside PyTorch, in one run, on the same data: microseconds per pair (one query, one training image).

    python benchmarks/compare.py --out out/bench [--data FILE_OR_NAME] [--images 10000] [--queries 8] [--sample]

Contestants, each doing both passes of a posterior composite (programs in contestants.py):

- ``pspc_rs``: this engine, every thread it is given;
- ``windows``: PyTorch, window by window (mask by mask), 100 images a chunk: the style of the published scripts;
- ``box sums``: the best PyTorch found: box sums by avg_pool2d, composites by einsum, the fastest of a few chunk sizes,
  with ``--compile`` also through torch.compile;
- ``gemm``: for the full window, the distance as a matrix product.

The PyTorch contestants run on fewer images where they are slow; their cost is linear in the number of images. Every
result is checked against this engine's before its time counts. Memory is the rise of the process's resident memory
during a call. The fraction of peak compares the operations of a level (measure.py) with the fused multiply-adds that
all threads do in registers, measured in the same run.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import Contestant, box_sums, gemm, masks_style, windows_style
from measure import SQUARES, best_time, operations, peak_memory, resident

import pspc_rs as pspc
from pspc_rs import _core
from pspc_rs.denoisers.masks import masks_from_maps

# Level of the published schedule: sigma, threshold, and the decay length at which exp(-r / length) has masks as large
# as the published heat maps have (175, 59, 33, 19 and 9 pixels on average); and one of much larger masks.
MASKS = [
    (5.315, 0.7, 3.7),
    (1.923, 0.5, 2.8),
    (1.088, 0.4, 2.5),
    (0.2964, 0.4, 1.8),
    (0.05995, 0.3, 1.5),
    (1.088, 0.5, 9.0),
]
BATCHES = (1, 8, 64, 256, 1024)
# A run of a contestant that takes this many seconds is not repeated: warming up is a small part of it.
MAX_REPEATED_SECONDS = 1.0


def decay_masks(length: float, threshold: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Masks cut from heat maps exp(-r / length) around every pixel, clipped by the border of the image."""
    y, x = np.mgrid[:32, :32]
    far = np.hypot(y[:, :, None, None] - y, x[:, :, None, None] - x)
    return masks_from_maps(np.exp(-far / length), threshold).reshape(-1, 32, 32)


def noisy(data: pspc.ImageSet, queries: int, sigma: float, seed: int) -> torch.Tensor:
    """Images of the data set plus noise."""
    rng = np.random.default_rng(seed)
    clean = data.batch(rng.integers(0, len(data), queries))
    return torch.from_numpy((clean + sigma * rng.standard_normal(clean.shape)).astype(np.float32))


def engine_time(D: Any, z: torch.Tensor, sigma: float, images: int, repeats: int = 3) -> float:
    """Microseconds a pair of this engine."""
    seconds, _ = best_time(lambda: D(z, sigma), repeats)
    return 1e6 * seconds / (len(z) * images)


def level_row(data: pspc.ImageSet, denoiser: Any, z: torch.Tensor, sigma: float, others: Any) -> dict[str, Any]:
    """All contestants at one level; ``denoiser`` makes the engine's for a data set."""
    D = denoiser(data)
    row: dict[str, Any] = {"MB": {"pspc_rs": peak_memory(lambda: D(z, sigma))[0]}}
    row["pspc_rs"] = engine_time(D, z, sigma, len(data))
    for name, (contestant, images, count) in others.items():
        part = data.select(max_size=min(images, len(data)))
        x = torch.from_numpy(part.batch(range(len(part))))
        run = contestant(x) if name == "gemm" else contestant
        start = time.perf_counter()
        row["MB"][name], result = peak_memory(lambda: run(z[:count], x, sigma))  # noqa: B023
        seconds = time.perf_counter() - start
        check(name, result, denoiser(part)(z[:count], sigma))
        if seconds < MAX_REPEATED_SECONDS:
            seconds, _ = best_time(lambda: run(z[:count], x, sigma), 3, warm=True)  # noqa: B023
        row[name] = 1e6 * seconds / (count * len(part))
    best = [name for name in row if name.startswith("box sums")]
    if best:
        row["box sums"] = min(row[name] for name in best)
        row["MB"]["box sums"] = min(row["MB"][name] for name in best)
    print(f"sigma {sigma:g}: pspc_rs {row['pspc_rs']:.3f}, windows {row['windows']:.0f}", file=sys.stderr, flush=True)
    return row


def check(name: str, got: torch.Tensor, expected: torch.Tensor) -> None:
    """Stops if a contestant computes something else than the engine."""
    if not torch.allclose(got, expected, rtol=0, atol=5e-3):
        raise SystemExit(f"{name} disagrees with the engine by {(got - expected).abs().max():.2g}")


def square_rows(data: pspc.ImageSet, queries: int, compiled: bool) -> list[dict[str, Any]]:
    """Every level of squares."""
    rows = []
    for seed, (side, sigma) in enumerate(SQUARES):
        others: dict[str, tuple[Any, int, int]] = {"windows": (windows_style(side), 200, 1)}
        for chunk in (16, 64):
            others[f"box sums {chunk}"] = (box_sums(side, chunk), 500, queries)
        if compiled:
            others["box sums compiled"] = (torch.compile(box_sums(side, 50)), 500, queries)
        if side == data.height:
            others["gemm"] = (lambda x: gemm(x.flatten(1).square().sum(dim=1) / 2), len(data), queries)
        z = noisy(data, queries, sigma, seed)
        row = level_row(data, lambda part: pspc.PSPCSquare(part, patch_sizes=side), z, sigma, others)  # noqa: B023
        rows.append({"level": f"s = {side}", "sigma": sigma, "operations": operations(side, sigma), **row})
    return rows


def mask_rows(data: pspc.ImageSet, queries: int) -> list[dict[str, Any]]:
    """Levels of masks."""
    rows = []
    for seed, (sigma, threshold, length) in enumerate(MASKS):
        masks = decay_masks(length, threshold)
        z = noisy(data, queries, sigma, seed)
        contestant: Contestant = masks_style(torch.from_numpy(masks))
        row = level_row(
            data,
            lambda part: pspc.PSPCFlex(part, masks=masks),  # noqa: B023
            z,
            sigma,
            {"windows": (contestant, 200, 1)},
        )
        name = f"masks of {masks.sum(axis=(1, 2)).mean():.0f} pixels"
        rows.append({"level": name, "sigma": sigma, "operations": operations(0, sigma, masks), **row})
    return rows


def batch_rows(data: pspc.ImageSet) -> list[dict[str, Any]]:
    """The full window beside matrix products at several batch sizes."""
    D, rows = pspc.Empirical(data), []
    x = torch.from_numpy(data.batch(range(len(data))))
    product = gemm(x.flatten(1).square().sum(dim=1) / 2)
    for batch in BATCHES:
        z = noisy(data, batch, 20.0, batch)
        repeats = 1 if batch > 100 else 5
        ours = engine_time(D, z, 20.0, len(data), repeats)
        seconds, _ = best_time(lambda: product(z, x, 20.0), repeats)  # noqa: B023
        rows.append({"batch": batch, "pspc_rs": ours, "gemm": 1e6 * seconds / (batch * len(data))})
    return rows


def scaling(data: pspc.ImageSet) -> dict[str, float]:
    """Microseconds a pair with one thread and two, of halves of the data, and of more queries: all should be flat."""
    D, z = pspc.PSPCSquare(data, patch_sizes=7), noisy(data, 16, 1.0, 0)
    halved = data.select(max_size=len(data) // 2)
    threads = pspc.num_threads()
    found = {}
    for count in (1, 2):
        pspc.set_num_threads(count)
        found[f"{count} thread{'s' * (count > 1)}"] = engine_time(D, z[:8], 1.0, len(data))
    pspc.set_num_threads(threads)
    found["half of the images"] = engine_time(pspc.PSPCSquare(halved, patch_sizes=7), z[:8], 1.0, len(halved))
    found["4 queries"] = engine_time(D, z[:4], 1.0, len(data))
    found["16 queries"] = engine_time(D, z, 1.0, len(data))
    return found


def end_to_end(data: str) -> dict[str, Any]:
    """Sixteen samples of 18 Euler steps on all images and their flips."""
    D = pspc.PSPCSquare(pspc.load(data, xflip=True), patch_sizes="cifar10")
    start = time.perf_counter()
    pspc.sample(D, 16, num_steps=18, seed=0)
    return {"data": repr(D.data), "seconds per sample": (time.perf_counter() - start) / 16}


def table(rows: list[dict[str, Any]], rate: float) -> str:
    """The rows as Markdown; ``rate`` is the peak in operations a second."""
    lines = [
        "| level | sigma | pspc_rs | of peak | PyTorch, windows | PyTorch, box sums | ratio | ratio | PyTorch, GEMM "
        "| MB: pspc_rs, windows, box sums |",
        "|---" * 10 + "|",
    ]
    for row in rows:
        boxes = row.get("box sums")
        cells = [
            row["level"],
            f"{row['sigma']:g}",
            f"{row['pspc_rs']:.3f}",
            f"{row['operations'] / (row['pspc_rs'] * 1e-6 * rate):.0%}",
            f"{row['windows']:.0f}",
            f"{boxes:.1f}" if boxes else "",
            f"{row['windows'] / row['pspc_rs']:,.0f}x",
            f"{boxes / row['pspc_rs']:,.0f}x" if boxes else "",
            f"{row['gemm']:.2f}" if "gemm" in row else "",
            ", ".join(f"{row['MB'][name]:.0f}" for name in ("pspc_rs", "windows", "box sums") if name in row["MB"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs every level and writes the table and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--data", default="photos", help="file or name of 32 x 32 colour images")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="also time box sums through torch.compile")
    parser.add_argument("--sample", action="store_true", help="also draw 16 samples from all of the data, with flips")
    args = parser.parse_args()

    data = pspc.load(args.data, max_size=args.images)
    rate = _core.vector_rate()
    rows = square_rows(data, args.queries, args.compile) + mask_rows(data, args.queries)
    batches, scale = batch_rows(data), scaling(data)
    sampled = end_to_end(args.data) if args.sample else {}
    report = {
        "data": repr(data),
        "queries": args.queries,
        "processor": platform.processor() or platform.machine(),
        "threads": pspc.num_threads(),
        "torch": torch.__version__,
        **dict(_core.build_info()),
        "fused_multiply_adds_a_second": [rate, _core.vector_rate()],
        "peak_MB": resident("VmHWM"),
        "rows": rows,
        "batches": batches,
        "scaling": scale,
        "end_to_end": sampled,
    }
    text = "\n\n".join(
        [
            f"{data!r}, {args.queries} queries, {report['threads']} threads, {report['isa']}, microseconds per pair; "
            f"peak {rate / 1e9:.0f} G fused multiply-adds per second",
            table(rows, rate),
            "Full window, sigma 20, by batch (pspc_rs / GEMM): "
            + ", ".join(f"{row['batch']}: {row['pspc_rs']:.3f} / {row['gemm']:.3f}" for row in batches),
            "Side 7, sigma 1: " + ", ".join(f"{name} {value:.3f}" for name, value in scale.items()),
            *(f"{name}: {value}" for name, value in sampled.items()),
        ]
    )
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "compare.json").write_text(json.dumps(report, indent=2))
    (args.out / "compare.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
