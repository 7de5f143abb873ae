"""Runs the fuzz targets: ``python tests/fuzzing/run.py --count 100000``; ``make fuzz`` calls it.

Every input follows from (seed, target, index), so a finding can be repeated alone with ``--only``. Inputs run in a
process of their own, under limits of memory and time. A finding is

- an exception that is none of ours (a panic of the core is one),
- a warning that is neither ours nor numpy's,
- a result with NaN or infinities,
- an input that takes longer than the limit, or ends the process.
"""

import argparse
import importlib
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

SECONDS_PER_INPUT = 20.0
SECONDS_TO_START = 120.0
MEMORY = 3 << 30
_POLL = 0.05


@dataclass(frozen=True)
class Finding:
    """What is wrong with one input.

    Attributes:
        target: the name of the target.
        index: of the input.
        what: the exception, or what happened instead.
        where: the innermost lines of the traceback.
    """

    target: str
    index: int
    what: str
    where: str = ""

    @property
    def kind(self) -> tuple[str, str, str]:
        """What makes two findings the same fault."""
        return self.target, self.what.partition(":")[0], self.where.rpartition("\n")[2]


def check(target: Any, seed: int, index: int, folder: Path) -> Finding | None:
    """Runs one input in this process."""
    import numpy as np

    from pspc_rs.arrays import is_array, numpy_view
    from pspc_rs.errors import PspcError, PspcWarning

    source = random.Random(f"{seed} {target.name} {index}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", PspcWarning)
            # Numpy's own about overflow; what comes of it is looked at below.
            warnings.simplefilter("ignore", RuntimeWarning)
            for array in target.run(source, folder):
                found = numpy_view(array) if is_array(array) else np.zeros(0)
                if found.dtype.kind == "f" and not np.isfinite(found).all():
                    return Finding(target.name, index, f"not finite: {np.count_nonzero(~np.isfinite(found))} numbers")
    except PspcError:
        return None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        lines = traceback.extract_tb(error.__traceback__)[-4:]
        where = "\n".join(f"{Path(line.filename).name}:{line.lineno} {line.name}" for line in lines)
        return Finding(target.name, index, f"{type(error).__name__}: {error!s:.300}", where)
    return None


def _limit_memory() -> None:
    """Lets this process have so much more memory than it has now, where the system can limit it."""
    if sys.platform == "linux":
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


Task: TypeAlias = tuple[str, range]
"""The name of a target, and the inputs that it is to run."""


def work(module: str, tasks: Sequence[Task], seed: int, place: Any, findings: Any) -> None:
    """Runs the inputs of some targets; the body of a worker process.

    Args:
        module: whose function ``targets`` gives them.
        tasks: what to run.
        seed: of all inputs.
        place: an array of two shared integers: the number of the task, and the input that runs.
        findings: the queue that findings are put into.
    """
    known = {target.name: target for target in importlib.import_module(module).targets()}
    with tempfile.TemporaryDirectory() as home:
        # What is imported and built at first use does not count.
        for number, (name, _) in enumerate(tasks):
            place[:] = (number, -1)
            check(known[name], seed, -1, new_folder(Path(home, "warm", name)))
        _limit_memory()
        for number, (name, indices) in enumerate(tasks):
            for index in indices:
                place[:] = (number, index)
                found = check(known[name], seed, index, new_folder(Path(home, name)))
                if found is not None:
                    findings.put(found)
    findings.close()
    findings.join_thread()


def new_folder(path: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def run_tasks(
    tasks: Sequence[Task], seed: int, module: str = "fuzzing.targets", limit: float = SECONDS_PER_INPUT
) -> Iterator[Finding]:
    """The findings of some targets; after a hang or a crash a new process goes on with the next input.

    Args:
        tasks: what to run.
        seed: of all inputs.
        module: whose function ``targets`` gives the targets.
        limit: seconds that an input may take.
    """
    context = multiprocessing.get_context("spawn")
    while tasks:
        place, findings = context.Array("q", [0, -1]), context.Queue()
        process = context.Process(target=work, args=(module, tasks, seed, place, findings), daemon=True)
        process.start()
        ended = yield from _watched(process, place, findings, limit)
        if ended is None:
            return
        (number, index), what = ended
        name, indices = tasks[number]
        yield Finding(name, index, what)
        rest = range(max(index + 1, indices.start), indices.stop)
        # A target that ends the process before its first input would do so again.
        tasks = [(name, rest)] * (index >= 0) + list(tasks[number + 1 :])


def _watched(
    process: Any, place: Any, findings: Any, limit: float
) -> Generator[Finding, None, tuple[tuple[int, int], str] | None]:
    """Yields what a worker finds; returns None when it is done, or the input that ended it, and how."""
    seen, since = (0, -1), time.monotonic()
    while True:
        process.join(_POLL)
        has_ended = process.exitcode is not None
        while not findings.empty():
            yield findings.get()
        if has_ended:
            return None if process.exitcode == 0 else (tuple(place), f"the process ended with {process.exitcode}")
        if tuple(place) != seen:
            seen, since = tuple(place), time.monotonic()
        elif time.monotonic() - since > (SECONDS_TO_START if seen[1] < 0 else limit):
            process.kill()
            process.join()
            return seen, f"hang: more than {limit:g} seconds"


def shares(count: int, weights: Sequence[float]) -> list[int]:
    """A count divided in proportion to weights, without a remainder.

    Example:
        >>> shares(10, [1, 2])
        [3, 7]
    """
    total, ends = sum(weights), [0]
    for position in range(1, len(weights) + 1):
        ends.append(round(count * sum(weights[:position]) / total))
    return [end - start for start, end in pairwise(ends)]


def run(count: int, seed: int, only: str | None = None) -> list[Finding]:
    """The findings of so many inputs over all targets, or of one target.

    Args:
        count: number of inputs in all.
        seed: of all inputs.
        only: the name of a target, or "name:index" for one input.
    """
    from fuzzing.targets import targets

    name, _, index = (only or "").partition(":")
    chosen = [target for target in targets() if name in ("", target.name)]
    if index:
        return list(run_tasks([(name, range(int(index), int(index) + 1))], seed))
    numbers = shares(count, [target.share for target in chosen])
    return list(run_tasks([(target.name, range(number)) for target, number in zip(chosen, numbers, strict=True)], seed))


def report(found: Iterable[Finding]) -> str:
    """One paragraph per fault, with its first input and how often it was met."""
    kinds: dict[tuple[str, str, str], list[Finding]] = {}
    for one in found:
        kinds.setdefault(one.kind, []).append(one)
    texts = [
        f"{group[0].target}:{group[0].index} ({len(group)}x) {group[0].what}\n{group[0].where}"
        for group in kinds.values()
    ]
    return "\n\n".join(texts)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="number of inputs in all")
    parser.add_argument("--seed", type=int, default=0, help="decides all inputs")
    parser.add_argument("--only", help="a target, or target:index for one input")
    options = parser.parse_args()
    start = time.monotonic()
    found = run(options.count, options.seed, options.only)
    print(f"{report(found)}\n{len(found)} findings in {time.monotonic() - start:.0f} s" if found else "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
