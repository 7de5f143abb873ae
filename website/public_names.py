"""The public names of the package, each with the path under which the reference has it."""

import importlib
import re
from functools import cache
from pathlib import Path

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
PACKAGES = ("", ".denoisers", ".samplers", ".data", ".heatmaps", ".networks", ".training", ".experiments", ".testing")
"""The packages whose ``__all__`` is public, those that say most about a name first."""

_ENTRY = re.compile(r"^::: (pspc_rs[\w.]*)", re.MULTILINE)


def public() -> list[str]:
    """Every public name, in full; sub-modules are left out."""
    names = []
    for package in PACKAGES:
        module = importlib.import_module(f"pspc_rs{package}")
        names += [f"pspc_rs{package}.{name}" for name in module.__all__ if f".{name}" not in _MODULES]
    return names


def entries() -> list[str]:
    """The names that the pages of the reference describe, in full."""
    return [name for page in sorted(REFERENCE.glob("*.md")) for name in _ENTRY.findall(page.read_text("utf-8"))]


@cache
def _targets() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in entries():
        parts = name.split(".")
        for start in range(len(parts)):
            found.setdefault(".".join(parts[start:]), name)
    return found


def target_of(name: str) -> str | None:
    """The entry of the reference that a name in running text stands for: ``pspc.PSPCSquare`` or ``samplers.sample``."""
    return _targets().get(name.removeprefix("pspc."))


_MODULES = {*PACKAGES, ".errors", ".images", ".schedules", ".sigmas"}
