"""The tutorials: notebooks without outputs, whose cells run from top to bottom.

`make docs` executes all of them; the ordinary tests only the quickest, `make test-long` all.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "tutorials").glob("*.ipynb"))
QUICK = "explain_patch"
LONG = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="tests without the rest of the repository")


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    cells = code_cells(notebook)
    assert len(cells) > 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if notebook.stem != QUICK and not LONG:
        pytest.skip("make docs and make test-long run it")
    pytest.importorskip("sklearn")
    matplotlib = pytest.importorskip("matplotlib")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names: dict[str, Any] = {"__name__": notebook.stem}
    for number, cell in enumerate(code_cells(notebook)):
        source = "".join(line for line in cell["source"] if not line.startswith("%"))
        exec(compile(source, f"{notebook.stem}, code cell {number}", "exec"), names)
    pyplot.close("all")
