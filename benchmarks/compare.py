"""This engine beside PyTorch, in one run, on the same data: microseconds a pair (one query, one training image).

    python benchmarks/compare.py --out out/bench [--data FILE_OR_NAME] [--images 10000] [--queries 8]

Contestants, each doing both passes of a posterior composite:

- ``pspc_rs``: this engine, every thread it is given;
- ``windows``: PyTorch, window by window through unfold, 100 images a chunk: the style of the published scripts;
- ``box sums``: the best PyTorch found: box sums by avg_pool2d, composites by einsum, the fastest of a few chunk sizes;
- ``gemm``: for the full window, the distance as a matrix product.

The PyTorch contestants run on fewer images where they are slow; their cost is linear in the number of images. Every
result is checked against this engine's before its time counts.
"""

import argparse
import json
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

import pspc_rs as pspc
from pspc_rs import _core

LEVELS = [
    (32, 20.0),
    (23, 5.315),
    (15, 3.257),
    (11, 1.923),
    (7, 1.088),
    (5, 0.5853),
    (3, 0.2964),
    (3, 0.1395),
    (3, 0.05995),
    (3, 0.002),
]
Contestant = Callable[[torch.Tensor, torch.Tensor, int, float], torch.Tensor]


def windows_style(z: torch.Tensor, x: torch.Tensor, side: int, sigma: float) -> torch.Tensor:
    """Window by window: unfolded patches, 100 images a chunk, query by query."""
    height, width = z.shape[2:]
    ones = F.fold(F.unfold(torch.ones_like(z[:1]), side), (height, width), side)
    out = torch.empty_like(z)
    for i, query in enumerate(z):
        patch = F.unfold(query[None], side)[0]
        best = torch.full((1, patch.shape[1]), -torch.inf)
        total, mean = torch.zeros_like(best), torch.zeros_like(patch)
        for chunk in torch.split(x, 100):
            patches = F.unfold(chunk, side)
            logits = -(patches - patch).square().sum(dim=1) / (2 * sigma**2)
            new = torch.maximum(best, logits.amax(dim=0, keepdim=True))
            weights = (logits - new).exp()
            fade = (best - new).exp()
            total = total * fade + weights.sum(dim=0, keepdim=True)
            mean = mean * fade + torch.einsum("nl,ncl->cl", weights, patches)
            best = new
        out[i] = (F.fold((mean / total)[None], (height, width), side) / ones)[0]
    return out


def box_sums(chunk: int) -> Contestant:
    """Two passes with box sums: the engine's algorithm in plain PyTorch."""

    def run(z: torch.Tensor, x: torch.Tensor, side: int, sigma: float) -> torch.Tensor:
        def logits(part: torch.Tensor) -> torch.Tensor:
            errors = (z[:, None] - part[None]).square_().sum(dim=2)
            return pooled(errors, side).mul_(-1 / (2 * sigma**2))

        total = torch.tensor(-torch.inf)
        for part in torch.split(x, chunk):
            total = torch.logaddexp(total, torch.logsumexp(logits(part), dim=1, keepdim=True))
        out = torch.zeros_like(z)
        for part in torch.split(x, chunk):
            weights = (logits(part) - total).exp_()
            spread = pooled(F.pad(weights, (side - 1,) * 4), side)
            out += torch.einsum("bnhw,nchw->bchw", spread, part)
        ones = torch.ones(1, 1, z.shape[2] - side + 1, z.shape[3] - side + 1)
        return out / pooled(F.pad(ones, (side - 1,) * 4), side)

    return run


def pooled(planes: torch.Tensor, side: int) -> torch.Tensor:
    """Box sums, down and then across: faster than one square pooling from side 5 on."""
    return F.avg_pool2d(F.avg_pool2d(planes, (side, 1), stride=1), (1, side), stride=1) * side**2


def gemm(z: torch.Tensor, x: torch.Tensor, side: int, sigma: float) -> torch.Tensor:
    """The empirical denoiser by matrix products."""
    flat, queries = x.flatten(1), z.flatten(1)
    logits = (queries @ flat.T - flat.square().sum(dim=1) / 2) / sigma**2
    return (logits.softmax(dim=1) @ flat).view_as(z)


def best_time(run: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Median seconds of a few runs after one to warm up, and the last result."""
    result = run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return median(times), result


def level_row(data: pspc.ImageSet, side: int, sigma: float, queries: int, seed: int) -> dict[str, Any]:
    """All contestants at one level."""
    rng = np.random.default_rng(seed)
    clean = data.batch(rng.integers(0, len(data), queries))
    z = torch.from_numpy((clean + sigma * rng.standard_normal(clean.shape)).astype(np.float32))
    row: dict[str, Any] = {"side": side, "sigma": sigma}
    D = pspc.PSPCSquare(data, patch_sizes=side)
    seconds, _ = best_time(lambda: D(z, sigma), 3)
    row["pspc_rs"] = 1e6 * seconds / (queries * len(data))

    contestants: dict[str, tuple[Contestant, int, int]] = {"windows": (windows_style, 200, 1)}
    for chunk in (16, 64, 256):
        contestants[f"box sums {chunk}"] = (box_sums(chunk), 1000, queries)
    if side == data.height:
        contestants["gemm"] = (gemm, len(data), queries)
    for name, (contestant, images, count) in contestants.items():
        part = data.select(max_size=min(images, len(data)))
        x = torch.from_numpy(part.batch(range(len(part))))
        expected = pspc.PSPCSquare(part, patch_sizes=side)(z[:count], sigma)
        seconds, got = best_time(lambda: contestant(z[:count], x, side, sigma), 1)  # noqa: B023
        if not torch.allclose(got, expected, rtol=0, atol=5e-3):
            raise SystemExit(f"{name} disagrees with the engine at side {side}, sigma {sigma}")
        row[name] = 1e6 * seconds / (count * len(part))
    row["box sums"] = min(value for key, value in row.items() if key.startswith("box sums"))
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| side | sigma | pspc_rs | PyTorch, windows | PyTorch, box sums | ratio | ratio | PyTorch, GEMM |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        product = f"{row['gemm']:.2f}" if "gemm" in row else ""
        lines.append(
            f"| {row['side']} | {row['sigma']:g} | {row['pspc_rs']:.3f} | {row['windows']:.0f} | {row['box sums']:.1f} "
            f"| {row['windows'] / row['pspc_rs']:,.0f}x | {row['box sums'] / row['pspc_rs']:,.0f}x | {product} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs every level and writes the table and its numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--data", default=None, help="file or name of 32 x 32 images; 'photos' if not given")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=8)
    args = parser.parse_args()

    data = pspc.load(args.data or "photos", max_size=args.images)
    rows = [level_row(data, side, sigma, args.queries, seed) for seed, (side, sigma) in enumerate(LEVELS)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": pspc.num_threads(),
        "torch": torch.__version__,
    }
    report = {
        "data": repr(data),
        "queries": args.queries,
        **machine,
        **dict(_core.build_info()),
        "peak_kib": peak,
        "rows": rows,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "compare.json").write_text(json.dumps(report, indent=2))
    text = f"{data!r}, {args.queries} queries, {machine['threads']} threads, microseconds a pair\n\n{table(rows)}\n"
    (args.out / "compare.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
