"""Two commands in one folder at once: an output of one run alone, or all rows of both."""

import csv
import json
import random
import time
from pathlib import Path

import pytest

import fault_runs as faults

pytestmark = pytest.mark.skipif(faults.ON_WINDOWS, reason="POSIX processes")

ROUNDS = 12 if faults.LONG else 1
IN_USE = "is being written by another run; wait for its end, or choose another folder"
OTHER = "with other settings: seed was"
TABLES = {"compare": "mse.csv", "fit-schedule": "fit.csv", "patch-study": "patch_study.csv"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.prepare(tmp_path_factory.mktemp("faults"))


def numbers(out: Path) -> dict[str, object]:
    """What a run computed."""
    return {name: value for name, value in faults.contents(out).items() if value is not None}


@pytest.mark.parametrize("command", faults.LOCKED if faults.LONG else ["sample"])
def test_one_of_two_runs_with_different_seeds_writes_and_the_other_says_why_not(home: Path, command: str) -> None:
    # More steps than elsewhere, so that a run lasts until the other one asks for its output.
    more = ["--n-steps", "20"] if command == "sample" else []
    alone = {}
    for seed in (0, 1):
        assert faults.run(home, faults.arguments(command, f"alone {command} {seed}", "--seed", seed, *more))[0] == 0
        alone[seed] = numbers(home / f"alone {command} {seed}")
    assert alone[0] != alone[1]
    moments, refused = random.Random(command), 0
    for number in range(ROUNDS):
        out = home / f"both {command} {number}"
        first = faults.start(home, faults.arguments(command, out, "--seed", 0, *more))
        time.sleep(moments.uniform(0, 1))
        second = faults.start(home, faults.arguments(command, out, "--seed", 1, *more))
        (code, line), (other_code, other_line) = faults.finish(first), faults.finish(second)
        assert sorted((code, other_code)) == [0, 1]
        loser = line if code else other_line
        assert IN_USE in loser or OTHER in loser, loser
        refused += IN_USE in loser
        winner = 0 if code == 0 else 1
        assert numbers(out) == alone[winner]
        assert faults.leftovers(out) == []
        for record in out.glob("*.json"):
            settings = json.loads(record.read_text())
            assert settings.get("settings", settings)["seed"] == winner
    assert refused


@pytest.mark.parametrize("command", TABLES if faults.LONG else ["compare"])
@pytest.mark.parametrize("same", [True, False] if faults.LONG else [False])
def test_both_of_two_runs_finish_and_no_row_is_lost(home: Path, command: str, same: bool) -> None:
    def rows(out: Path) -> set[tuple[tuple[str, str], ...]]:
        with (out / TABLES[command]).open() as file:
            return {tuple(row.items()) for row in csv.DictReader(file)}

    seeds = (0, 0) if same else (0, 1)
    expected = set()
    for seed in seeds:
        out = home / f"alone {command} {seed}"
        assert faults.run(home, faults.arguments(command, out, "--seed", seed))[0] == 0
        expected |= rows(out)
    moments = random.Random(command)
    for number in range(ROUNDS):
        out = home / f"both {command} {same} {number}"
        running = []
        for seed in seeds:
            running.append(faults.start(home, faults.arguments(command, out, "--seed", seed)))
            time.sleep(moments.uniform(0, 0.5))
        ends = [faults.finish(process) for process in running]
        assert [code for code, _ in ends] == [0, 0], ends
        assert rows(out) == expected
        assert faults.leftovers(out) == []
