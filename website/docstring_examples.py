"""Docstrings as mkdocstrings reads them: a section "Example:" holds a doctest, as "Examples:" does."""

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^Example:$", re.MULTILINE)


class ExampleSections(griffe.Extension):
    """Renames the sections; mkdocstrings would take "Example:" for a note in prose and show the doctest as quotes."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = _HEADING.sub("Examples:", obj.docstring.value)
