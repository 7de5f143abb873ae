"""docs/comparing.md: its Python runs as it stands, and it names every protocol, metric and prediction."""

import doctest
import re
from pathlib import Path

import pytest

from pspc_rs import experiments
from pspc_rs.denoisers.predictions import PREDICTIONS
from pspc_rs.experiments import METRICS
from pspc_rs.samplers import PROTOCOLS

PAGE = Path(__file__).parents[1] / "docs" / "comparing.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="tests without the rest of the repository")


def test_the_snippets_run_as_they_stand() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted > 3 and found.failed == 0


def section(title: str) -> str:
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_it_names_every_protocol_with_its_solver() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*?\| `(\w+)` \|", section("Protocols"), re.MULTILINE)
    assert rows == [(name, one.sampler) for name, one in PROTOCOLS.items()]


def test_it_names_every_metric() -> None:
    table = section("Metrics")
    assert re.findall(r"\| `(\w+)` \|$", table, re.MULTILINE) == list(METRICS)
    functions = re.findall(r"`(\w+)[(`]", " ".join(re.findall(r"^\| (.*?) \|", table, re.MULTILINE)))
    assert len(functions) > 8 and all(callable(getattr(experiments, name)) for name in functions)


def test_it_names_every_prediction() -> None:
    table = section("Conventions").partition("\n\n| process")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == PREDICTIONS
