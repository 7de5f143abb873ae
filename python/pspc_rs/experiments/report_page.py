"""The HTML of a report: plain, accessible, without scripts."""

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["chart", "details", "document", "escape", "picture", "problem", "record", "schedule", "table"]

_LONG_LIST = 12
_WIDE = 1.7

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--ground:#fff;--card:#f6f8fa;--link:#0a58ca}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4af;--line:#3d444d;--ground:#0d1117;--card:#161b22;
--link:#79b8ff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.6rem;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2rem 0 .75rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.25rem 0 .5rem;overflow-wrap:anywhere}
p{margin:.5rem 0}.soft,caption,figcaption{color:var(--soft);font-size:.875rem;overflow-wrap:anywhere}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;list-style:none;padding:0}a{color:var(--link)}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem;align-items:start}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.75rem}
figure img{display:block;max-width:100%;height:auto;margin:0 auto .5rem;background:#fff;border-radius:4px}
figure.wide{grid-column:1/-1}
.scroll{overflow-x:auto;width:fit-content;min-width:min(100%,20rem);max-width:100%;
border:1px solid var(--line);border-radius:8px;margin:.5rem 0}
.scroll:focus-visible{outline:2px solid var(--link)}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;min-width:100%}
caption{text-align:left;padding:.5rem .75rem}
th,td{padding:.25rem .75rem;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}
th{background:var(--card)}th:first-child,td:first-child{text-align:left}
table.facts td,table.facts th{white-space:normal;text-align:left;vertical-align:top;overflow-wrap:anywhere}
table.facts th{width:12rem;font-weight:600}
@media (max-width:30rem){table.facts th{width:7rem}body{padding:.75rem}}
details{margin:.5rem 0}summary{cursor:pointer;overflow-wrap:anywhere}
svg{display:block;width:100%;max-width:44rem;height:auto}svg text{fill:var(--ink);font-size:14px}
svg .grid{stroke:var(--line);stroke-width:1}svg .curve{fill:none;stroke-width:2}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.875rem;padding:0;list-style:none}
.legend span{display:inline-block;width:1.25rem;height:.25rem;vertical-align:middle;margin-right:.35rem}
"""
# Readable on white and on black.
_COLOURS = (
    "#2f81f7",
    "#d2691e",
    "#2da44e",
    "#c03a76",
    "#8a63d2",
    "#8c7300",
    "#008b8b",
    "#777f88",
    "#d1242f",
    "#5c7cfa",
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, summary: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole page.

    Args:
        title: of the page, plain text.
        summary: a sentence below it, plain text.
        sections: (identifier, title, HTML) of each.

    Example:
        >>> document("run", "1 figure", [("figures", "Figures", "<p>x</p>")]).count("<section")
        1
    """
    links = "".join(f'<li><a href="#{name}">{escape(head)}</a></li>' for name, head, _ in sections)
    body = "\n".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(head)}</h2>'
        f"{_in_grid(content) if name == 'figures' else content}</section>"
        for name, head, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><header><h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(summary)}</p><nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f"<main>{body}</main></body></html>\n"
    )


def _in_grid(content: str) -> str:
    return f'<div class="figures">{content}</div>'


def picture(name: str, content: bytes, numbers: str = "") -> str:
    """A PNG file as an embedded figure.

    Args:
        name: the file.
        content: its bytes.
        numbers: the file with the numbers behind it, if there is one.
    """
    width, height = struct.unpack(">II", content[16:24])
    spoken = name.removesuffix(".png").replace("_", " ").replace("/", ", ")
    source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
    wide = ' class="wide"' if width > _WIDE * height else ""
    behind = f"; numbers in {numbers}" if numbers else ""
    return (
        f'<figure{wide}><img src="{source}" width="{width}" height="{height}" alt="{escape(spoken)}">'
        f"<figcaption>{escape(name + behind)}</figcaption></figure>"
    )


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = "") -> str:
    """A table that scrolls sideways where it is wider than the page.

    Example:
        >>> "<td>0.3333</td>" in table("a", ["x"], [["0.33333333"]])
        True
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_rounded(cell))}</td>' for cell in row)}</tr>" for row in rows)
    text = f"{caption}. {note}" if note else caption
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table>'
        f"<caption>{escape(text)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _rounded(cell: str) -> str:
    """A number with more than four digits rounded to them; anything else as it is."""
    if "." not in cell and "e" not in cell:
        return cell
    try:
        return f"{float(cell):.4g}"
    except ValueError:
        return cell


def details(summary: str, content: str, *, is_open: bool = False) -> str:
    """A part that opens at a click."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{content}</details>"


def record(name: str, content: Mapping[str, Any], *, is_open: bool = False) -> str:
    """A JSON object as a table of facts, nested objects in their cells."""
    return details(name, f'<div class="scroll">{_facts(content)}</div>', is_open=is_open)


def _facts(content: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(str(key))}</th><td>{_fact(value)}</td></tr>' for key, value in content.items()
    )
    return f'<table class="facts"><tbody>{rows}</tbody></table>'


def _fact(value: Any) -> str:
    if isinstance(value, Mapping) and value:
        return _facts(value)
    if isinstance(value, list):
        return escape(_list(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return escape(value if isinstance(value, str) else json.dumps(value))


def _list(values: Sequence[Any]) -> str:
    """A list on a line; of a long one the beginning and the end, and how long it is."""
    texts = [
        f"{one:.4g}" if isinstance(one, float) else one if isinstance(one, str) else json.dumps(one) for one in values
    ]
    if any(len(text) > 200 for text in texts):
        return f"{len(values)} entries"
    if len(texts) <= 2 * _LONG_LIST:
        return ", ".join(texts) or "none"
    return f"{', '.join(texts[:_LONG_LIST])}, … {texts[-1]} ({len(texts)} entries)"


def schedule(name: str, content: Mapping[str, Any]) -> str:
    """A schedule's values by noise level, and where they come from."""
    values = content.get("patch_sizes", content.get("thresholds", []))
    sigmas = content.get("sigmas", [])
    size = " x ".join(str(side) for side in content.get("image_size", []))
    caption = f"{name}: {content.get('name', '')}, images of {size}"
    what = "side" if content.get("kind") == "patch" else "threshold"
    rows = [[str(sigma), str(value)] for sigma, value in zip(sigmas, values, strict=False)]
    origin = content.get("provenance")
    behind = record("Where it comes from", origin) if isinstance(origin, Mapping) and origin else ""
    return f"<h3>{escape(caption)}</h3>{table(caption, ['sigma', what], rows)}{behind}"


def problem(name: str, why: str) -> str:
    """A line about a file that cannot be shown."""
    return f"<p><code>{escape(name)}</code>: {escape(why)}</p>"


def chart(title: str, curves: Mapping[str, Mapping[float, float]]) -> str:
    """Curves over the noise level as a drawing in the page, both axes logarithmic; empty where nothing is positive.

    Args:
        title: what a screen reader says.
        curves: y by sigma, by name; points that are not positive are left out.

    Example:
        >>> chart("errors", {"a": {1.0: 0.5, 0.1: 0.2}}).count("<polyline")
        1
        >>> chart("errors", {"a": {1.0: 0.0}})
        ''
    """
    logs = {
        name: sorted((math.log10(x), math.log10(y)) for x, y in curve.items() if x > 0 and 0 < y < math.inf)
        for name, curve in curves.items()
    }
    points = [point for curve in logs.values() for point in curve]
    if not points:
        return ""
    (left, right), (low, high) = (_limits([point[axis] for point in points]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return 60 + 570 * (x - left) / (right - left), 20 + 270 * (high - y) / (high - low)

    lines = []
    for value in _ticks(left, right):
        x, _ = place(math.log10(value), low)
        lines.append(f'<line class="grid" x1="{x:.1f}" y1="20" x2="{x:.1f}" y2="290"/>')
        lines.append(f'<text x="{x:.1f}" y="308" text-anchor="middle">{value:g}</text>')
    for value in _ticks(low, high):
        _, y = place(left, math.log10(value))
        lines.append(f'<line class="grid" x1="60" y1="{y:.1f}" x2="630" y2="{y:.1f}"/>')
        lines.append(f'<text x="54" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for index, curve in enumerate(logs.values()):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in curve)
        lines.append(f'<polyline class="curve" stroke="{_colour(index)}" points="{path}"/>')
    lines.append('<text x="345" y="328" text-anchor="middle">noise level sigma</text>')
    legend = "".join(
        f'<li><span style="background:{_colour(index)}"></span>{escape(name)}</li>' for index, name in enumerate(logs)
    )
    return (
        f'<svg viewBox="0 0 640 335" role="img" aria-label="{escape(title)}">{"".join(lines)}</svg>'
        f'<ul class="legend">{legend}</ul>'
    )


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis in decades, with a margin."""
    low, high = min(values), max(values)
    margin = max(0.05 * (high - low), 0.1)
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two logarithms, and twice and five times these where there are few."""
    steps = (1,) if high - low > 2 else (1, 2, 5)
    values = [step * 10.0**decade for decade in range(math.floor(low), math.ceil(high)) for step in steps]
    return [value for value in values if low <= math.log10(value) <= high]


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]
