"""The package as a whole: imports without circles and one way, old names, and objects that say what they are."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pspc_rs

ROOT = Path(pspc_rs.__file__).parent

LAYERS = (
    {
        "_core",
        "arrays",
        "checks",
        "contents",
        "deprecation",
        "design_space",
        "errors",
        "extras",
        "files",
        "file_kinds",
        "locks",
        "noise",
        "outputs",
        "pickles",
        "progress",
        "ranks",
        "reprs",
        "signals",
        "threads",
        "writing",
    },
    {"cuda", "data", "images", "notebook", "published", "schedules", "sigmas"},
    {"denoisers", "heatmaps", "networks", "posterior", "provenance", "samplers"},
    {"__init__", "demo", "experiments", "explorer", "testing", "training"},
    {"cli"},
)
"""The rooms of the package from the bottom up: a module imports modules of its own layer and of lower ones."""


def module_of(file: Path) -> str:
    parts = ("pspc_rs", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module, those inside functions too, those for type checkers not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for other in node.orelse:
                yield from imports(other)
        else:
            yield from imports(node)


def names_of(node: ast.Import | ast.ImportFrom, module: str) -> list[str]:
    """The modules and names that an import asks for, in full."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    home = node.module or ""
    if node.level:
        package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
        home = ".".join([*package[: len(package) - node.level + 1], *([home] if home else [])])
    return [f"{home}.{alias.name}" for alias in node.names]


def targets(module: str, source: str) -> set[str]:
    """The modules of the package that a module imports, with the packages that are run on the way to them.

    The packages that the module itself lies in are left out, unless one of their own names is imported.
    """
    found: set[str] = set()
    for node in imports(ast.parse(source)):
        for name in names_of(node, module):
            if name.split(".")[0] != "pspc_rs":
                continue
            target = name if name in MODULES or name == "pspc_rs._core" else name.rpartition(".")[0]
            parents = {target[:end] for end, letter in enumerate(target) if letter == "."}
            found |= {target, *(parent for parent in parents if not f"{module}.".startswith(f"{parent}."))}
    return found - {module}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return {module: targets(module, file.read_text(encoding="utf-8")) for module, file in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def layer_of(module: str) -> int:
    room = room_of(module)
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


def test_no_module_imports_itself_by_a_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_arrows_point_one_way(graph: dict[str, set[str]]) -> None:
    assert {room_of(module) for module in graph} <= set().union(*LAYERS), "a room that has no layer"
    upward = [(module, to) for module, tos in graph.items() for to in sorted(tos) if layer_of(module) < layer_of(to)]
    assert upward == []


def test_the_graph_has_the_imports_of_functions_and_packages() -> None:
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from pspc_rs import demo
def f():
    import pspc_rs.cli.front
    from ..sigmas import edm_sigmas
    from pspc_rs import schedules, _core, load
"""
    assert targets("pspc_rs.data.load", source) == {
        "pspc_rs",
        "pspc_rs._core",
        "pspc_rs.cli",
        "pspc_rs.cli.front",
        "pspc_rs.schedules",
        "pspc_rs.sigmas",
    }


@pytest.mark.parametrize("name", ["networks", "experiments", "training", "heatmaps", "images"])
def test_sub_modules_are_attributes_and_import_nothing_heavy(name: str) -> None:
    heavy = ("torch", "matplotlib", "PIL", "tqdm", "click")
    code = (
        f"import sys, pspc_rs; assert {name!r} in dir(pspc_rs); early = set(sys.modules); "
        f"assert pspc_rs.{name}.__name__ == 'pspc_rs.{name}'; "
        f"print([m for m in {heavy!r} if m in early], [m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[] []"


def test_what_pspc_rs_has_not() -> None:
    with pytest.raises(AttributeError, match=r"pspc_rs.*no attribute 'nothing'"):
        _ = pspc_rs.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("noise", "initial_noise", "samplers.initial_noise"),
        ("noise", "noise_like", "samplers.noise.noise_like"),
        ("noise", "image_shape", "checks.image_shape"),
        ("design_space", "vp_sigmas", "samplers.design_space.vp_sigmas"),
        ("design_space", "Schedule", "samplers.design_space.NoiseSchedule"),
        ("design_space", "find_schedule", "samplers.design_space.noise_schedule"),
    ],
)
def test_old_names_work_on_and_say_what_to_write(module: str, old: str, new: str) -> None:
    home, _, name = f"pspc_rs.{new}".rpartition(".")
    with pytest.warns(
        DeprecationWarning, match=rf"pspc_rs\.{module}\.{old} is deprecated; write {home}\.{name}"
    ) as caught:
        moved = getattr(importlib.import_module(f"pspc_rs.{module}"), old)
    assert moved is getattr(importlib.import_module(home), name)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("module", ["noise", "design_space"])
def test_every_old_name_has_a_new_place(module: str) -> None:
    old = importlib.import_module(f"pspc_rs.{module}")
    places = inspect.getclosurevars(old.__getattr__).nonlocals["places"]
    for name in places:
        with pytest.warns(DeprecationWarning, match=name):
            getattr(old, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = old.nothing


def test_public_objects_say_what_they_are() -> None:
    packages = ["", ".data", ".denoisers", ".experiments", ".heatmaps", ".networks", ".samplers", ".training"]
    modules = [importlib.import_module(f"pspc_rs{package}") for package in packages]
    public = {name: getattr(module, name) for module in modules for name in module.__all__}
    silent = {
        name
        for name, value in public.items()
        if inspect.isclass(value) and not inspect.isabstract(value) and value.__repr__ is object.__repr__
    }
    assert silent == set()
