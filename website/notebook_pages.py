"""Pages from notebooks: each is executed, and its cells, outputs and pictures become Markdown and files beside it."""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

_SECONDS_PER_CELL = 120


def render(notebook: Path) -> None:
    """Executes a notebook and writes its page and its pictures beside it; a cell that fails is an error."""
    document = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(document, timeout=_SECONDS_PER_CELL, resources={"metadata": {"path": folder}}).execute()
    names = {"unique_key": notebook.stem, "output_files_dir": f"{notebook.stem}_files"}
    page, resources = MarkdownExporter().from_notebook_node(document, resources=names)
    for name, content in resources["outputs"].items():
        picture = notebook.parent / name
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(content)
    source = f'<a href="{notebook.name}" download>Download this notebook</a>'
    notebook.with_suffix(".md").write_text(f"{page}\n{source}\n", "utf-8")
