"""The README: its first lines of Python run as they stand."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.skipif(not README.is_file(), reason="tests without the rest of the repository")
def test_the_first_snippet_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    snippet = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert snippet is not None
    names: dict[str, object] = {}
    exec(snippet[1], names)
    x = names["x"]
    assert isinstance(x, np.ndarray)
    assert x.shape == (4, 3, 32, 32)
    assert np.isfinite(x).all()
