"""The site's extension of Python-Markdown: formulas as MathML, and names of the package as links to the reference.

Browsers draw MathML themselves, so that pages need no script and nothing from elsewhere.
"""

import html
import re
from functools import cache
from typing import Any

import public_names
from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.postprocessors import Postprocessor

_INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
_BLOCK = re.compile(r'(?<=<div class="arithmatex">)\\\[(.*?)\\\](?=</div>)', re.DOTALL)
_CODE = re.compile(
    r"(?P<skipped><(a|pre|h[1-6]|autoref)\b.*?</\2>)|<code>(?P<name>[\w.]+)(?:\([^<]*\))?</code>", re.DOTALL
)
_FUNCTION = re.compile(r"(<mi>(?:log|exp|tan|Cov)</mi>)(?!<mo[^>]*>&#x00028;)")
_UNKNOWN = re.compile(r"\\[A-Za-z]+")
_AFTER_RAW_HTML = -1  # priority of what runs when the page is whole


@cache
def mathml(formula: str, display: str) -> str:
    """A LaTeX formula as MathML; display is ``"inline"`` or ``"block"``.

    Raises:
        ValueError: a command that the converter does not know, which it would leave as it is.
    """
    converted = convert(html.unescape(formula).strip(), display=display)
    unknown = _UNKNOWN.search(converted)
    if unknown:
        raise ValueError(f"{unknown[0]} is not understood in the formula {formula!r}")
    return _FUNCTION.sub(r'\1<mspace width="0.17em"/>', converted)


def math_fence(source: str, language: str, class_name: str, options: Any, md: Markdown, **_: Any) -> str:
    """A fence ``math``, as code hosts have it: one formula in a line of its own."""
    return f'<div class="{class_name}">{mathml(source, "block")}</div>'


def _linked(match: re.Match[str]) -> str:
    name = match["name"]
    target = public_names.target_of(name) if name else None
    code = match[0].replace("(", "(<wbr>") if name else match[0]
    return f'<autoref identifier="{target}" optional>{code}</autoref>' if target else code


class _Page(Postprocessor):
    def run(self, text: str) -> str:
        text = _BLOCK.sub(lambda match: mathml(match[1], "block"), text)
        text = _INLINE.sub(lambda match: mathml(match[1], "inline"), text)
        return _CODE.sub(_linked, text)


class SiteExtension(Extension):
    """What Zensical calls for every page and every docstring."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - the name that Python-Markdown calls
        """Runs after all other steps."""
        md.postprocessors.register(_Page(md), "pspc_rs_page", _AFTER_RAW_HTML)


def makeExtension(**options: Any) -> SiteExtension:  # noqa: N802 - the name that Python-Markdown looks for
    """The extension, as Python-Markdown asks a module for it."""
    return SiteExtension(**options)
