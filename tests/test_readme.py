"""The README: its Python and its commands on embedded data run as they stand, and its links lead to files."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from command_line import succeed

README = Path(__file__).parents[1] / "README.md"

pytestmark = pytest.mark.skipif(not README.is_file(), reason="tests without the rest of the repository")


def test_the_commands_on_embedded_data_run_as_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^pspc-rs (.* --data (?:digits|photos) .*)$", text, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        succeed(*shlex.split(command))
    assert list(tmp_path.rglob("*.npy")) and list(tmp_path.rglob("*.png"))


def test_the_links_lead_to_files() -> None:
    links = re.findall(r"\]\(([^()\s#:]+)(?:#[^()\s]*)?\)", README.read_text(encoding="utf-8"))
    assert len(links) > 10
    assert [link for link in links if not (README.parent / link).is_file()] == []


def test_the_snippets_run_as_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert snippets
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(snippet, names)
    x = names["x"]
    assert isinstance(x, np.ndarray)
    assert x.shape == (4, 3, 32, 32)
    assert np.isfinite(x).all()
