"""docs/posterior.md: its Python runs as it stands, top to bottom."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "posterior.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="tests without the rest of the repository")
def test_the_snippets_run_as_they_stand() -> None:
    pytest.importorskip("sklearn")
    names: dict[str, Any] = {}
    for snippet in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(snippet, names)
    P = names["P"]
    np.testing.assert_allclose(names["share"].sum(axis=1), 1, rtol=0, atol=1e-5)
    documented = re.findall(r"^\| `(\w+)(?:\(\))?` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    attributes = {name for name in vars(P) if not name.startswith("_")} - {"num_components"}
    attributes |= {name for name in vars(type(P)) if not name.startswith("_")}
    assert set(documented) == attributes
    assert np.isfinite(names["found"].value).all()
