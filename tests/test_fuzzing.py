"""A short run of the fuzz targets with a fixed seed, and faults that the harness must find; `make fuzz` runs more."""

import random
import sys

import pytest

from fuzzing.mutations import mutated
from fuzzing.run import Finding, report, run, run_tasks, shares

COUNT = 6000


def test_nothing_is_found_in_a_short_run() -> None:
    assert report(run(COUNT, seed=20240501)) == ""


def findings(*names: str) -> list[Finding]:
    return list(run_tasks([(name, range(2)) for name in names], 0, "fuzzing.faulty", limit=3.0))


def test_faults_are_found() -> None:
    found = findings("clean", "foreign", "nan", "warning")
    kinds = [(one.target, one.index, one.what.partition(":")[0]) for one in found]
    expected = [("foreign", "KeyError"), ("nan", "not finite"), ("warning", "DeprecationWarning")]
    assert kinds == [(target, index, what) for target, what in expected for index in range(2)]
    assert report(found).count("(2x)") == 3
    assert "foreign:0" in report(found)


def test_hangs_and_crashes_are_found_and_the_rest_goes_on() -> None:
    found = findings("crash", "hang", "nan")
    assert [(one.target, one.index) for one in found] == [
        (name, i) for name in ("crash", "hang", "nan") for i in range(2)
    ]
    assert all("ended with" in one.what for one in found[:2])
    assert all("hang: more than 3 seconds" in one.what for one in found[2:4])


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_too_much_memory_is_found() -> None:
    found = findings("clean", "memory")
    assert [one.target for one in found] == ["memory", "memory"]
    assert "MemoryError" in found[0].what


def test_inputs_follow_from_the_seed() -> None:
    seeds = [b"abc" * 50, b"\x00" * 9]
    first, second = ([mutated(seeds, random.Random(i)) for i in range(200)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 150


@pytest.mark.parametrize(("count", "weights"), [(10, [1, 2]), (7, [1, 1, 1]), (0, [3]), (100_000, [0.5, 3, 1])])
def test_shares_add_up(count: int, weights: list[float]) -> None:
    assert sum(shares(count, weights)) == count
