"""docs/programs.md: its Python runs as it stands, as far as the programs are installed."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "programs.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="tests without the rest of the repository")
def test_the_snippets_run_as_they_stand() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    names: dict[str, Any] = {"x": np.zeros(1)}
    text = PAGE.read_text(encoding="utf-8")
    snippets = re.findall(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 7
    for needed, snippet in snippets:
        # k-diffusion imports much that is not needed here; its own tests in tests/clients run it.
        if needed != "k_diffusion" and (not needed or find_spec(needed) is not None):
            exec(snippet, names)
            assert np.isfinite(np.asarray(names["x"])).all()
    assert names["loss"].item() > 0
    assert names.get("score", 1.0) > 0.5
