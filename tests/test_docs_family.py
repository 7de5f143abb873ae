"""docs/family.md: its Python runs as it stands, and every member it names exists."""

import doctest
import re
from pathlib import Path

import pytest

import pspc_rs as pspc

PAGE = Path(__file__).parents[1] / "docs" / "family.md"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="tests without the rest of the repository")


def test_the_snippets_run_as_they_stand() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted > 5 and found.failed == 0


def test_every_member_it_names_exists() -> None:
    members = re.findall(r"^\| `(\w+)[(`]", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(members) > 8 and all(hasattr(pspc, name) for name in members)
