"""docs/combinations.md: its Python runs as it stands."""

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "combinations.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="tests without the rest of the repository")
def test_the_snippets_run_as_they_stand() -> None:
    found = doctest.testfile(str(PAGE), module_relative=False)
    assert found.attempted > 5 and found.failed == 0
