"""The Rust core as a whole: imports without circles and one way, unsafe code only in its rooms."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

LAYERS = (
    {"error", "reserve"},
    {"bank", "monitor", "runs", "simd", "threads"},
    {"atoms", "components", "covariance", "filter", "noise", "reading"},
    {"query", "sources"},
    {"found", "heaviest", "posterior", "regime"},
    {"directions"},
    {"cpu", "cuda"},
    {"posteriors"},
    {"engine", "filtered", "info", "stages"},
    {"rank_evidence"},
    {"lib", "python"},
)
"""The rooms of the core from the bottom up: a file uses files of its own room, of its own layer and of lower ones."""

if not SOURCE.is_dir():
    pytest.skip("the sources of the core are not here", allow_module_level=True)


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE).with_suffix("").parts
    return "::".join(parts[:-1] if parts[-1] == "mod" else parts)


def code_of(file: Path) -> str:
    """The code without comments, strings and tests."""
    text = file.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests")[0]
    return re.sub(r'//[^\n]*|"(?:\\.|[^"\\])*"', "", text)


FILES = {module_of(file): file for file in sorted(SOURCE.rglob("*.rs"))}
CODE = {module: code_of(file) for module, file in FILES.items()}


def paths_of(tree: str) -> list[str]:
    """Every path of a use tree such as ``a::{b, c::{d, e}}``."""
    head, brace, rest = tree.partition("{")
    if not brace:
        return [head.split(" as ")[0].strip()]
    parts, depth, part = [], 0, ""
    for letter in rest[: rest.rindex("}")]:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [head.strip() + path for part in (*parts, part) if part.strip() for path in paths_of(part.strip())]


def absolute(path: str, module: str) -> str | None:
    """A path from the root of the crate, None for those of other crates."""
    home = module.split("::") if module != "lib" else []
    steps = path.split("::")
    if steps[0] == "crate":
        return "::".join(steps[1:])
    if steps[0] in ("self", "super"):
        while steps[0] in ("self", "super"):
            home = home if steps[0] == "self" else home[:-1]
            steps = steps[1:] or ["self"]
            if steps == ["self"]:
                break
        return "::".join([*home, *steps])
    inside = "::".join([*home, steps[0]])
    return "::".join([*home, *steps]) if inside in FILES else None


def exports() -> dict[str, str]:
    """Where the names come from that a room exports for its files: ``simd::Isa`` is ``simd::isa::Isa``."""
    found = {}
    for module, code in CODE.items():
        for tree in re.findall(r"\bpub(?:\([^)]*\))? use ([^;]+);", code):
            for path in paths_of(" ".join(tree.split())):
                target = absolute(path, module)
                if target is not None:
                    home = "" if module == "lib" else f"{module}::"
                    found[home + target.rpartition("::")[2]] = target
    return found


EXPORTS = exports()


def file_of(path: str) -> str:
    """The file in which a path is defined."""
    path = EXPORTS.get(path, path)
    steps = path.split("::")
    for end in range(len(steps), 0, -1):
        known = "::".join(steps[:end])
        if known in FILES:
            return known
        if known in EXPORTS and EXPORTS[known] != path:
            return file_of("::".join([EXPORTS[known], *steps[end:]]))
    return "lib"


def uses(module: str) -> set[str]:
    """The files whose items a file names, in ``use`` or in place; what a room exports for others does not count."""
    code = re.sub(r"\bpub(?:\([^)]*\))? use [^;]+;", "", CODE[module])
    trees = [" ".join(tree.split()) for tree in re.findall(r"\buse ([^;]+);", code)]
    named = [path for tree in trees for path in paths_of(tree)]
    named += re.findall(r"\b(?:crate|super|self)(?:::\w+)+", re.sub(r"\buse [^;]+;", "", code))
    found = {absolute(path, module) for path in named}
    return {file_of(path) for path in found if path is not None} - {module}


GRAPH = {module: uses(module) for module in FILES}


def room_of(module: str) -> str:
    return module.partition("::")[0]


def layer_of(module: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if room_of(module) in rooms)


def test_the_graph_sees_imports() -> None:
    assert GRAPH["engine"] >= {"bank", "components", "cpu", "cuda::entry", "query"}
    assert "simd::isa" in GRAPH["cpu::job"] and "cpu::dense::group" in GRAPH["cpu::sparse::scan"]


def test_no_file_uses_itself_by_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_arrows_point_one_way() -> None:
    assert {room_of(module) for module in FILES} <= set().union(*LAYERS), "a room that has no layer"
    upward = [(module, to) for module, tos in GRAPH.items() for to in sorted(tos) if layer_of(module) < layer_of(to)]
    assert upward == []


def test_the_twins_do_not_know_each_other() -> None:
    other = {"cpu": "cuda", "cuda": "cpu"}
    assert [(a, b) for a, tos in GRAPH.items() for b in tos if other.get(room_of(a)) == room_of(b)] == []


def test_unsafe_code_lives_in_its_rooms() -> None:
    allowed = {"simd", "cuda", "reserve"}
    found = {module for module, code in CODE.items() if re.search(r"\bunsafe\b", code)}
    outside = {module for module in found if room_of(module) not in allowed}
    # The entry passes on the addresses of torch tensors, which its caller vouches for.
    assert outside == {"engine", "python::engine"}


def test_only_one_room_imports_pyo3() -> None:
    assert {room_of(module) for module, code in CODE.items() if re.search(r"\bpyo3\b|\bnumpy::", code)} == {"python"}
