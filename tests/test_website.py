"""The documentation site: every public name and every page has its place, and links lead somewhere."""

import importlib
import inspect
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

site: Any = pytest.importorskip("build_site", reason="tests without the rest of the repository")
names: Any = pytest.importorskip("public_names")


def resolved(name: str) -> Any:
    home, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(home), last)
    except ModuleNotFoundError:
        return getattr(resolved(home), last)


def test_the_reference_has_every_public_name() -> None:
    pytest.importorskip("torch")
    entries = names.entries()
    assert len(entries) == len(set(entries))
    described = [resolved(name) for name in entries]
    missing = [name for name in names.public() if not any(resolved(name) is one for one in described)]
    assert missing == []


def test_the_reference_describes_every_class_and_function() -> None:
    pytest.importorskip("torch")
    silent = [name for name in names.entries() if callable(resolved(name)) and not inspect.getdoc(resolved(name))]
    assert silent == []


def test_every_class_and_function_of_the_reference_has_an_example() -> None:
    pytest.importorskip("torch")
    objects = {name: resolved(name) for name in names.entries()}
    without = [
        name
        for name, value in objects.items()
        if callable(value)
        and not (inspect.isclass(value) and issubclass(value, Exception))
        and ">>>" not in (inspect.getdoc(value) or "")
    ]
    assert without == []


def pages_of(nav: Any) -> Iterator[str]:
    for item in nav:
        if isinstance(item, str):
            yield item
        else:
            for target in item.values():
                yield from [target] if isinstance(target, str) else pages_of(target)


def test_every_page_has_a_place_in_the_navigation() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    sources = {file.relative_to(ROOT / "docs") for end in ("md", "ipynb") for file in (ROOT / "docs").rglob(f"*.{end}")}
    pages = {source.with_suffix(".md").as_posix() for source in sources} | set(site.ROOT_PAGES.values())
    assert sorted(pages_of(nav)) == sorted(pages)


@pytest.mark.parametrize(
    ("link", "on_site"),
    [
        ("[the family](../family.md#sources)", "[the family](../family.md#sources)"),
        ("[../family.md](../family.md)", "[The family: every posterior mean denoiser](../family.md)"),
        ("[words](../../CONTRIBUTING.md)", "[words](../contributing.md)"),
        ("[words](../../Makefile)", "[words](https://host/us/blob/main/Makefile)"),
        ("[words](#here), [paper](https://arxiv.org/abs/1)", "[words](#here), [paper](https://arxiv.org/abs/1)"),
        ("```\n[words](nowhere.md)\n```", "```\n[words](nowhere.md)\n```"),
    ],
)
def test_links_of_the_repository_become_those_of_the_site(link: str, on_site: str) -> None:
    assert site.page_text(link, "docs/engine", "engine/overview.md", "https://host/us/") == on_site


def test_links_to_files_are_words_where_no_code_host_is_known() -> None:
    assert site.page_text("see [the Makefile](Makefile).", "", "contributing.md", "") == "see the Makefile."


def test_a_broken_link_is_refused() -> None:
    with pytest.raises(site.BrokenLinkError, match=r"docs/engine/overview\.md: \.\./nowhere\.md"):
        site.page_text("[words](../nowhere.md)", "docs/engine", "engine/overview.md", "")


@pytest.mark.parametrize("name", ["PSPCSquare", "pspc.PSPCSquare", "pspc_rs.PSPCSquare"])
def test_names_in_running_text_find_their_entry(name: str) -> None:
    assert names.target_of(name) == "pspc_rs.PSPCSquare"
    assert names.target_of("nothing") is None


def test_formulas_become_mathml_and_unknown_commands_are_refused() -> None:
    pytest.importorskip("latex2mathml")
    pytest.importorskip("markdown")
    markdown = importlib.import_module("site_markdown")
    assert "<msup>" in markdown.mathml("x^2", "inline")
    with pytest.raises(ValueError, match=r"\\nothing is not understood"):
        markdown.mathml(r"\nothing x", "block")
