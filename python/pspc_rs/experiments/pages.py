"""What the HTML pages share: one file each, with pictures embedded, without scripts and network."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pspc_rs.extras import import_extra
from pspc_rs.files import replacing

_LONG_LIST = 12


@dataclass(frozen=True)
class Table:
    """A table of text; ``num_rows`` counts those that are not shown, too.

    ``marked`` are the cells that stand out, as (row, column). Where there is a ``link``, every cell of the first column
    leads to it, with the text of the cell after it.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    num_rows: int = 0
    marked: frozenset[tuple[int, int]] = frozenset()
    link: str = ""


@dataclass(frozen=True)
class Record:
    """A JSON object that opens at a click."""

    name: str
    content: Mapping[str, Any]
    is_open: bool = False


def render_page(template: str, **content: Any) -> str:
    """A page, or a part of one, as HTML. What is on it is escaped; the same content gives the same text.

    Args:
        template: the name of a template in ``templates``.
        content: what the template shows.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    page: str = _environment(import_templates()).get_template(template).render(**content)
    return page


def write_page(target: Path, page: str) -> Path:
    """Writes a page and returns its path.

    Args:
        target: the file.
        page: its text.

    Raises:
        OutputError: the page cannot be written.
    """
    with replacing(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


@cache
def _environment(jinja2: Any) -> Any:
    """What fills in templates, each of which is read once."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pspc_rs.experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"rounded": _rounded, "fact": _fact}
    return environment


def import_templates() -> Any:
    """The module jinja2, which fills in the pages.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return import_extra("jinja2", "a report", "report")


def png_source(content: bytes) -> str:
    """The address of an embedded PNG file.

    Example:
        >>> png_source(b"PNG")
        'data:image/png;base64,UE5H'
    """
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _rounded(cell: str) -> str:
    """A number with more than four digits rounded to them; anything else as it is."""
    if "." not in cell and "e" not in cell:
        return cell
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell


def _fact(value: Any) -> str:
    """A value of a JSON object as text; of a long list the beginning and the end, and how long it is."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, list):
        return _short(value)
    texts = [_short(one) for one in value]
    if any(len(text) > 200 for text in texts):
        return f"{len(value)} entries"
    if len(texts) <= 2 * _LONG_LIST:
        return ", ".join(texts) or "none"
    return f"{', '.join(texts[:_LONG_LIST])}, … {texts[-1]} ({len(texts)} entries)"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
