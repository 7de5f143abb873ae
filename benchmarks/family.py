"""What the members of the family cost beside the same formulas in plain PyTorch, in one run and on the same data.

    python benchmarks/family.py --out out/bench [--data FILE_OR_NAME] [--images 10000] [--queries 8] [--rounds 5]

Microseconds a pair of query and image of 32 by 32 pixels, and for `ELS` and `BBELS` seconds for one query on 50,000
images, extrapolated from a few thousand (with fewer, what a call prepares would count). Rows:

- ``square``: PSPC-Square, side 3, what soft windows are compared with;
- ``LS``, ``soft``, ``PCA``, ``ELS``, ``BBELS``: a member at a noise level at which published schedules use it;
- ``rows``: any precision and response of [1024, 1024]; ``GEMM``: three matrix products of its size for every query,
  [images, 1024] times [1024, 1024], as many as its two passes take.

The PyTorch column forms the squared differences of a few hundred images, sums them by convolutions, rolls or matrix
products, and keeps an online softmax; it is timed on 1,000 images, with subnormal numbers flushed to zero. Contestants
take turns, round by round, and the least time of each counts.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import pspc_rs as pspc

Tensor = torch.Tensor
Energies = Callable[[Tensor, Tensor], Tensor]
"""From images [B, 3, 32, 32] and a query [3, 32, 32] to energies [B, components]."""

CHUNK = 250
"""Images whose energies plain PyTorch forms at once: few enough for the caches of a core, enough for its kernels."""

PLAIN_IMAGES = 1_000
"""Images of the PyTorch column."""


def chunks(images: Tensor) -> Iterator[Tensor]:
    """Images in chunks, in [-1, 1]."""
    for start in range(0, len(images), CHUNK):
        yield images[start : start + CHUNK].float() / 127.5 - 1


def one_pass(energies: Energies, images: Tensor, z: Tensor, sigma: float, values: bool = False) -> Tensor:
    """Means of components that answer for their own pixel, or value: an online softmax."""
    results = []
    for query in z:
        count = query.numel() if values else query[0].numel()
        best = torch.full((count,), -torch.inf)
        total, sums = torch.zeros(count), torch.zeros(query.numel() // count, count)
        for x in chunks(images):
            logits = energies(x, query) / (-2 * sigma**2)
            new = torch.maximum(best, logits.amax(0))
            weights, share = (logits - new).exp(), (best - new).exp()
            answers = x.flatten(1)[:, None] if values else x.flatten(2)
            total = total * share + weights.sum(0)
            sums = sums * share + (weights[:, None] * answers).sum(0)
            best = new
        results.append((sums / total).reshape(query.shape))
    return torch.stack(results)


def two_passes(
    energies: Energies, answer: Callable[[Tensor], Tensor], images: Tensor, z: Tensor, sigma: float
) -> Tensor:
    """Composites of components with several answers; `answer` spreads weights [B, components] over [B, pixels]."""
    cover = answer(torch.ones(1, z[0, 0].numel()))
    results = []
    for query in z:
        parts = [torch.logsumexp(energies(x, query) / (-2 * sigma**2), 0) for x in chunks(images)]
        log_sum = torch.stack(parts).logsumexp(0)
        sums = torch.zeros(3, query[0].numel())
        for x in chunks(images):
            weights = (energies(x, query) / (-2 * sigma**2) - log_sum).exp()
            sums += (answer(weights)[:, None] * x.flatten(2)).sum(0)
        results.append((sums / cover).reshape(query.shape))
    return torch.stack(results)


def convolved(taps: Tensor) -> Callable[[Tensor], Tensor]:
    """Planes [B, pixels] with separable taps, zero beyond the border."""
    row, reach = taps.reshape(1, 1, 1, -1), len(taps) // 2

    def apply(planes: Tensor) -> Tensor:
        images = planes.reshape(-1, 1, 32, 32)
        across = functional.conv2d(images, row, padding=(0, reach))
        return functional.conv2d(across, row.mT, padding=(reach, 0)).flatten(1)

    return apply


def squared(x: Tensor, query: Tensor) -> Tensor:
    """Squared differences summed over channels, [B, pixels]."""
    return ((x - query) ** 2).sum(1).flatten(1)


def gaussian_taps(width: float, reach: int) -> Tensor:
    """The taps of a soft window."""
    return torch.exp(-(torch.arange(-reach, reach + 1) ** 2) / (2 * width**2))


class Row:
    """A row of the table: ours, plain PyTorch on so many images, and what is counted."""

    def __init__(self, name: str, ours: Any, plain: Any, *, per: str = "pair") -> None:
        self.name, self.ours, self.plain, self.per = name, ours, plain, per


def rows_of(data: pspc.ImageSet, few: pspc.ImageSet, queries: int) -> Iterator[Row]:
    """Every row of the table."""
    rng, images = np.random.default_rng(0), torch.from_numpy(data.images[:PLAIN_IMAGES].copy())
    clean, noise = data.batch(np.arange(queries)), rng.standard_normal((queries, *data.shape))

    def noisy(sigma: float) -> tuple[Any, Tensor]:
        z = (clean + sigma * noise).astype(np.float32)
        return z, torch.from_numpy(z)

    z, _ = noisy(0.2964)
    D: Any = pspc.PSPCSquare(data, patch_sizes=3)
    yield Row("square 3, sigma .30", lambda D=D, z=z: D(z, 0.2964), None)
    for side, sigma in ((3, 0.2964), (7, 1.088), (15, 3.257)):
        (z, z_plain), D = noisy(sigma), pspc.LS(data, window_sizes=side)
        box = convolved(torch.ones(side))
        plain = lambda z=z_plain, box=box, sigma=sigma: one_pass(lambda x, q: box(squared(x, q)), images, z, sigma)  # noqa: E731
        yield Row(f"LS {side}, sigma {sigma:g}", lambda D=D, z=z, sigma=sigma: D(z, sigma), plain)
    for width, reach in ((0.6, 3), (1.1, 6)):
        (z, z_plain), D = noisy(0.2964), pspc.SoftPSPC(data, width)
        soft = convolved(gaussian_taps(width, reach))
        plain = lambda z=z_plain, soft=soft: two_passes(  # noqa: E731
            lambda x, q: soft(squared(x, q)), soft, images, z, 0.2964
        )
        yield Row(f"soft {width:g}, sigma .30", lambda D=D, z=z: D(z, 0.2964), plain)
    for sigma in (0.34, 2.0):
        (z, z_plain), pca = noisy(sigma), pspc.PCALocality(data, 0.05)
        masks = torch.from_numpy(pca.value_masks(sigma).T.astype(np.float32))
        plain = lambda z=z_plain, masks=masks, sigma=sigma: one_pass(  # noqa: E731
            lambda x, q: ((x - q) ** 2).flatten(1) @ masks, images, z, sigma, values=True
        )
        yield Row(f"PCA .05, sigma {sigma:g}", lambda D=pca, z=z, sigma=sigma: D(z, sigma), plain)
    weights = rng.random((2, 1024, 1024))
    (z, z_plain), (forward, back) = noisy(10.0), torch.from_numpy(weights.astype(np.float32))
    D = pspc.FilteredPosteriorMean(
        data, precision=weights[0].reshape(-1, 32, 32), response=weights[1].reshape(-1, 32, 32)
    )
    plain = lambda: two_passes(lambda x, q: squared(x, q) @ forward.T, lambda w: w @ back, images, z_plain, 10.0)  # noqa: E731
    yield Row("rows [1024, 1024], sigma 10", lambda D=D, z=z: D(z, 10.0), plain)
    residuals, out = torch.rand(len(data), 1024), torch.empty(len(data), 1024)
    # Energies in both passes, and the response in one.
    products = lambda: [torch.matmul(residuals, forward, out=out) for _ in range(3 * queries)]  # noqa: E731
    yield Row("GEMM, three times", products, None)
    yield from equivariant_rows(few, clean[:1], noise[:1])


def equivariant_rows(few: pspc.ImageSet, clean: Any, noise: Any) -> Iterator[Row]:
    """One query on images with all their shifts."""
    images = torch.from_numpy(few.images[:CHUNK].copy())

    def rolled(box: Callable[[Tensor], Tensor], z: Tensor, sigma: float) -> None:
        # A few shifts, which take as long as any.
        for shift in ((0, 0), (5, 9), (16, 16), (31, 1)):
            one_pass(lambda x, q: box(squared(x, q)), images.roll(shift, (2, 3)), z, sigma)

    for side, sigma in ((3, 0.2964), (7, 1.088), (15, 3.257)):
        z = (clean + sigma * noise).astype(np.float32)
        box, D = convolved(torch.ones(side)), pspc.ELS(few, window_sizes=side)
        z_plain = torch.from_numpy(z)
        plain = lambda z=z_plain, box=box, sigma=sigma: rolled(box, z, sigma)  # noqa: E731
        yield Row(f"ELS {side}, sigma {sigma:g}", lambda D=D, z=z, sigma=sigma: D(z, sigma), plain, per="image")
        B = pspc.BBELS(few, window_sizes=side)
        yield Row(f"BBELS {side}, sigma {sigma:g}", lambda D=B, z=z, sigma=sigma: D(z, sigma), None, per="image")


def measured(row: Row, images: int, few: int, queries: int, rounds: int) -> dict[str, Any]:
    """The least time of ours and of plain PyTorch, in microseconds a pair or in seconds for 50,000 images."""
    times: dict[str, list[float]] = {"ours": [], "pytorch": []}
    for _ in range(rounds):
        for name, work in (("ours", row.ours), ("pytorch", row.plain)):
            if work is not None:
                start = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - start)
    found: dict[str, Any] = {"row": row.name, "unit": "us" if row.per == "pair" else "s"}
    for name, seconds in times.items():
        if row.per == "pair":
            pairs = queries * (images if name == "ours" else PLAIN_IMAGES)
            scale = 1e6 / pairs
        else:
            scale = 50_000 / few if name == "ours" else 50_000 * 1024 / (4 * CHUNK)
        found[name] = min(seconds) * scale if seconds else None
    return found


def main() -> None:
    """Times all rows, prints a table and writes family.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--data", help="data set, a name or a file; random images without it")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--few", type=int, default=4_000, help="images of the equivariant members")
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.data:
        images = pspc.load(args.data, max_size=args.images, xflip=False).images
    else:
        images = np.random.default_rng(0).integers(0, 256, (args.images, 3, 32, 32), np.uint8)
    data, few = pspc.ImageSet(images), pspc.ImageSet(images[: args.few])
    torch.set_flush_denormal(True)
    table = []
    for row in rows_of(data, few, args.queries):
        table.append(measured(row, len(data), len(few), args.queries, args.rounds))
        ours, plain = table[-1]["ours"], table[-1]["pytorch"]
        beside = "" if plain is None else f"  PyTorch {plain:8.2f}, {plain / ours:5.1f} times"
        print(f"{row.name:28s} {ours:8.2f} {table[-1]['unit']}{beside}", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    machine = platform.processor() or platform.machine()
    report = {"processor": machine, "threads": pspc.num_threads(), "rows": table}
    (args.out / "family.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
