"""How the benchmarks measure: seconds, peak memory, and the arithmetic that a level takes."""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

HEIGHT = WIDTH = 32
CHANNELS = 3
# Sides of square windows, the first the full image, and noise levels at which a schedule uses them.
SQUARES = [
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
# Operations of one 2^x with its argument and the sum it enters.
POWER = 10


def best_time(run: Callable[[], Any], repeats: int, *, warm: bool = False) -> tuple[float, Any]:
    """Median seconds of a few runs, after one to warm up unless that was done, and the last result."""
    result = None if warm else run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return median(times), result


def resident(field: str) -> float:
    """Resident memory of this process in MB, now (VmRSS) or at most (VmHWM); NaN where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def peak_memory(run: Callable[[], Any]) -> tuple[float, Any]:
    """By how many MB the resident memory rises at most while ``run`` runs, and the result."""
    clear = Path("/proc/self/clear_refs")
    try:
        clear.write_text("5")  # forget the highest value so far
    except OSError:
        return float("nan"), run()
    before = resident("VmRSS")
    result = run()
    return resident("VmHWM") - before, result


def operations(side: int, sigma: float, masks: Any = None) -> float:
    """Arithmetic operations on single values that both passes take for one pair, a fused multiply-add being one.

    Counted as the engine does them: residuals of every pixel and channel (two operations, one in the expanded form),
    the sums over windows by additions (sides up to 4 directly, longer ones as running sums; for masks one per piece of
    a run), one power of two per window, and in the second pass the adjoint and one multiply-add per pixel and channel.
    Rows of windows without weight are skipped, so just above sigma = .1 it is an upper bound; below, only the first
    pass is counted, as if it were done in floats (fixed point of sixteen bits takes half as many instructions).
    """
    pixels = HEIGHT * WIDTH
    residuals = pixels * CHANNELS * (1 if sigma >= 0.5 else 2)
    if side == HEIGHT and masks is None:
        return residuals + pixels * CHANNELS
    if masks is not None:
        windows = len(masks)
        sums = adjoint = _pieces(masks)
    else:
        columns = WIDTH - side + 1
        windows = columns * columns
        if side <= 4:
            sums = adjoint = (side - 1) * (HEIGHT * columns + windows)
        else:
            sums, adjoint = 2 * (pixels + windows), 2 * (HEIGHT * columns + pixels)
    if sigma < 0.1:
        return residuals + sums + windows
    return 2 * (residuals + sums) + 2 * POWER * windows + adjoint + pixels * CHANNELS


def _pieces(masks: Any) -> float:
    """Additions for the sums over masks: powers of two into which their runs are cut, and the tables of these."""
    total, longest = 0, 1
    for row in masks.reshape(-1, masks.shape[-1]).tolist():
        for run in "".join("x" if bit else " " for bit in row).split():
            total += len(run).bit_count()
            longest = max(longest, len(run))
    return total + (longest.bit_length() - 1) * masks.shape[-1] * masks.shape[-2]
