"""Builds the documentation site: gathers its pages in out/docs, then runs Zensical, where a broken link is an error.

python website/build_site.py [--repository URL]
"""

import argparse
import os
import posixpath
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGED = ROOT / "out" / "docs"
ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "RELEASE.md": "release.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's root that are pages of the site, and their names there."""

_FENCE = re.compile(r"^(```+).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[(?P<words>[^\[\]]*)\]\((?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)")


@cache
def title_of(file: str) -> str:
    """The first heading of a page of the repository."""
    return (ROOT / file).read_text("utf-8").partition("\n")[0].removeprefix("# ")


class BrokenLinkError(Exception):
    """A page links to a file that does not exist."""


def page_text(markdown: str, home: str, page: str, repository: str) -> str:
    """A page of the repository as a page of the site.

    A link to another page stays one; where its words are the name of the file, they become the title of the page. A
    link to any other file of the repository goes to the code host, or, where none is known, only its words are left.

    Args:
        markdown: the text of the file.
        home: its folder in the repository, ``"docs/engine"``, or ``""`` for the root.
        page: the path of the page on the site.
        repository: address of the repository on its code host, or ``""``.

    Raises:
        BrokenLinkError: a link to a file that does not exist.
    """

    def mended(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(home, link["path"]))
        if not (ROOT / target).exists():
            raise BrokenLinkError(f"{posixpath.join(home, posixpath.basename(page))}: {link['path']}")
        on_site = ROOT_PAGES.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        anchor = link["anchor"] or ""
        if on_site is not None:
            on_site = re.sub(r"\.ipynb$", ".md", on_site)
            words = title_of(target) if link["words"].endswith(".md") else link["words"]
            return f"[{words}]({posixpath.relpath(on_site, posixpath.dirname(page) or '.')}{anchor})"
        if repository:
            return f"[{link['words']}]({repository.rstrip('/')}/blob/main/{target}{anchor})"
        return link["words"]

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(mended, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(mended, markdown[end:])])


def gather(repository: str) -> None:
    """Writes every page to out/docs: those of docs/, of the root, and of notebooks, which are executed."""
    shutil.rmtree(STAGED, ignore_errors=True)
    shutil.copytree(ROOT / "docs", STAGED)
    import notebook_pages  # the tests of page_text need no Jupyter

    with ThreadPoolExecutor(2) as pool:  # each has a process of its own
        list(pool.map(notebook_pages.render, sorted(STAGED.rglob("*.ipynb"))))
    pages = {file.relative_to(STAGED).as_posix(): file for file in sorted(STAGED.rglob("*.md"))}
    for page, file in pages.items():
        home = posixpath.join("docs", posixpath.dirname(page)).rstrip("/")
        file.write_text(page_text(file.read_text("utf-8"), home, page, repository), "utf-8")
    for source, page in ROOT_PAGES.items():
        (STAGED / page).write_text(page_text((ROOT / source).read_text("utf-8"), "", page, repository), "utf-8")


def main() -> None:
    """Builds the site in out/site."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", default="", metavar="URL", help="address of the repository on its code host")
    arguments = parser.parse_args()
    try:
        gather(arguments.repository)
    except BrokenLinkError as error:
        sys.exit(f"broken link in {error}")
    paths = os.pathsep.join([str(ROOT / "website"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    sys.exit(subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode)


if __name__ == "__main__":
    main()
