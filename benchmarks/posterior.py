"""What the rest of a posterior costs beside a plain call, in one run, on the same data and queries: ratios of times.

    python benchmarks/posterior.py --out out/bench [--data FILE_OR_NAME] [--images 10000] [--queries 8] [--rounds 7]
        [--device cpu]

Every row is a noise level of images of 32 by 32 pixels. Columns:

- ``plain``: milliseconds of a composite, both passes; all others are relative to it;
- ``evidence``: pass 1 alone; ``posterior``: with entropies and the five heaviest images, no composite;
- ``jvp``, ``vjp``: one derivative for each query, with the composite; ``variance``: given the evidence;
- ``leave one out``: each query without the image it was made from; ``held out``: a plain call on images that are not in
  the data, whose best images are as far away;
- ``one class``: a tenth of the images for all queries; ``its own set``: a data set of the same images, one after the
  other; ``eight classes``: another tenth for each query.

Contestants take turns, round by round, and the least time of each counts, so that the load of the machine falls on all
of them alike.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import HEIGHT, SQUARES

import pspc_rs as pspc
from pspc_rs import _core, cuda

# The full window also at small sigma, where few images carry weight.
LEVELS = [SQUARES[0], (HEIGHT, 0.05), *SQUARES[1:]]
CLASSES = 10


def shuffled_labels(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A tenth of the images for each of ten classes, anywhere in the data."""
    return np.random.default_rng(1).permutation(np.arange(count) % CLASSES)


def contestants(
    data: pspc.ImageSet, held_out: pspc.ImageSet, level: tuple[int, float], queries: int, *, device: str, variance: bool
) -> dict[str, Callable[[], Any]]:
    """What is timed at a level, a window side and a sigma."""
    side, sigma = level

    def denoiser(images: pspc.ImageSet) -> Any:
        if side == HEIGHT:
            return pspc.Empirical(images, device=device)
        return pspc.PSPCSquare(images, patch_sizes=side, device=device)

    rng = np.random.default_rng(side)
    source = rng.integers(0, data.num_stored, queries)

    def noisy(clean: Any) -> Any:
        return (clean + sigma * rng.standard_normal(clean.shape)).astype(np.float32)

    D, own = denoiser(data), denoiser(data.select(classes=[3]))
    z, z_held_out = noisy(data.batch(source)), noisy(held_out.batch(np.arange(queries)))
    v = rng.standard_normal(z.shape).astype(np.float32)
    engine = cuda.engine(_core.Bank(data.images), cuda.resolve(device))
    labels = np.arange(queries) % CLASSES
    timed: dict[str, Callable[[], Any]] = {
        "plain": lambda: D(z, sigma),
        "evidence": lambda: engine.evidence(D.windows_at(sigma), z, [sigma] * queries, False),
        "posterior": lambda: D.posterior(z, sigma, top=5).entropy,
        "jvp": lambda: D.jvp(z, sigma, v),
        "vjp": lambda: D.vjp(z, sigma, v),
        "leave one out": lambda: D(z, sigma, exclude=source),
        "held out": lambda: D(z_held_out, sigma),
        "one class": lambda: D(z, sigma, class_labels=np.full(queries, 3)),
        "its own set": lambda: own(z, sigma),
        "eight classes": lambda: D(z, sigma, class_labels=labels),
    }
    if variance:
        kept = engine.evidence(D.windows_at(sigma), z, [sigma] * queries, False)
        timed["variance"] = kept.variance
    return timed


def level_row(timed: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least milliseconds of every contestant."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, work in timed.items():
            start = time.perf_counter()
            work()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: min(of_name) for name, of_name in times.items()}


def main() -> None:
    """Times all levels, prints a table and writes posterior.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--data", help="data set, a name or a file; random images without it")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="where all of it is computed: cpu, cuda, cuda:1, ...")
    parser.add_argument("--variance", action="store_true", help="time variances too, which take much longer")
    args = parser.parse_args()
    count = args.images + args.queries
    if args.data:
        images = pspc.load(args.data, max_size=count, xflip=False).images
    else:
        images = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), np.uint8)
    data = pspc.ImageSet(images[: args.images], labels=shuffled_labels(args.images))
    held_out = pspc.ImageSet(images[args.images :])
    rows = []
    for side, sigma in LEVELS:
        timed = contestants(data, held_out, (side, sigma), args.queries, device=args.device, variance=args.variance)
        row = level_row(timed, args.rounds)
        ratios = {name: value / row["plain"] for name, value in row.items() if name != "plain"}
        rows.append({"side": side, "sigma": sigma, "plain_ms": row["plain"], **ratios})
        shown = "  ".join(f"{name} {value:.2f}" for name, value in ratios.items())
        print(f"side {side}, sigma {sigma:g}: plain {row['plain']:.1f} ms  {shown}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    machine = platform.processor() or platform.machine()
    report = {"processor": machine, "threads": pspc.num_threads(), "device": args.device, "rows": rows}
    (args.out / "posterior.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
