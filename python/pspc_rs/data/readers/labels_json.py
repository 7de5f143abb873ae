"""The `dataset.json` of the EDM layout: {"labels": [[name, label], ...]} or {"labels": null}."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.readers.files import damage_named
from pspc_rs.errors import DataError

LABELS_FILE = "dataset.json"
"""Name of the label file, beside the images' folders."""


def parse_labels(text: bytes, names: Sequence[str], what: str) -> NDArray[np.int64] | None:
    """The label of each name in order, or None where the file holds no labels; names of no image are ignored."""
    with damage_named(what):
        content = json.loads(text)
    entries = content.get("labels") if isinstance(content, dict) else content
    if entries is None:
        return None
    if not isinstance(content, dict) or not isinstance(entries, list):
        raise DataError(f'{what} is not of the form {{"labels": [[name, label], ...]}} or {{"labels": null}}')
    known = _as_mapping(entries, what)
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(f"{what} has no label for {missing[0]} ({len(missing)} of {len(names)} images have none)")
    return np.array([known[name] for name in names], np.int64)


def _as_mapping(entries: list[Any], what: str) -> dict[str, int]:
    known: dict[str, int] = {}
    for entry in entries:
        match entry:
            case [str(name), int(label)] if not isinstance(label, bool) and -(2**63) <= label < 2**63:
                pass
            case _:
                raise DataError(f"{what} holds the entry {str(entry)[:80]}; allowed are [name, integer]")
        if known.setdefault(name, label) != label:
            raise DataError(f"{what} gives {name} the labels {known[name]} and {label}")
    return known
