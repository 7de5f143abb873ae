"""Checksums of callables: what changes them, what does not, and that another process has the same."""

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pspc_rs.contents import code_checksum


def module(folder: Path, source: str, name: str = "nets_of_tests") -> ModuleType:
    """A module of the user's, fresh from its source."""
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    # Not from a cache of bytecode, whose time stamps are too coarse for a test.
    exec(compile(source, str(path), "exec"), made.__dict__)
    return made


def checksum(folder: Path, source: str) -> str:
    return code_checksum(module(folder, source).net)


NET = """
import numpy as np

CURVE = {"a": [1, 2.5]}
SCALE = np.array([0.5, 2.0])


def helper(z):
    return z * CURVE["a"][1]


class Inner:
    power = 2

    def __call__(self, z):
        return z**self.power


inner = Inner()


def net(z, sigma, bias=0.5, *, keyword=(1, "b")):
    def local(x):
        return x + 1
    return local(helper(z)) * SCALE[0] + inner(z) + bias
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return local(helper(z))", "return 2 * local(helper(z))"),
        ("return z * CURVE", "return z - CURVE"),
        ("2.5", "2.75"),
        ("[0.5, 2.0]", "[0.5, 2.5]"),
        ("power = 2", "power = 3"),
        ("return z**self.power", "return z ** -self.power"),
        ("return x + 1", "return x + 2"),
        ("bias=0.5", "bias=0.25"),
        ('(1, "b")', '(1, "c")'),
        ("helper(z))", "np.abs(z))"),
    ],
)
def test_a_change_anywhere_in_what_a_function_uses_is_seen(tmp_path: Path, old: str, new: str) -> None:
    assert NET.count(old) == 1
    assert checksum(tmp_path, NET) == checksum(tmp_path, NET)
    assert checksum(tmp_path, NET) != checksum(tmp_path, NET.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"), [("import numpy", "# a comment\nimport numpy"), ("def helper", "\n\ndef helper")]
)
def test_comments_and_places_play_no_part(tmp_path: Path, old: str, new: str) -> None:
    assert checksum(tmp_path, NET) == checksum(tmp_path, NET.replace(old, new))


def test_other_functions_of_the_module_play_no_part(tmp_path: Path) -> None:
    assert checksum(tmp_path, NET) == checksum(tmp_path, NET + "\n\ndef another(z):\n    return z\n")


def test_a_module_of_the_user_counts_by_its_file(tmp_path: Path) -> None:
    source = "import deeper_of_tests\n\ndef net(z, sigma):\n    return deeper_of_tests.f(z)\n"
    module(tmp_path, "def f(z):\n    return z\n", "deeper_of_tests")
    before = checksum(tmp_path, source)
    assert checksum(tmp_path, source) == before
    module(tmp_path, "def f(z):\n    return -z\n", "deeper_of_tests")
    assert checksum(tmp_path, source) != before


STATEFUL = """
calls, cache, loaded, count = [], {}, None, 0


def net(z, sigma):
    global loaded, count
    count += 1
    calls.append(count)
    cache[count] = z
    loaded = loaded or object()
    return z


class Net:
    def __init__(self, factor):
        self.factor, self.calls, self.seen, self.cache = factor, 0, [], {}

    def __call__(self, z, sigma):
        self.calls += 1
        self.seen.append(sigma)
        self.cache[sigma] = z
        return z * self.factor
"""


def test_what_a_function_changes_itself_plays_no_part(tmp_path: Path) -> None:
    nets = module(tmp_path, STATEFUL)
    for net in (nets.net, nets.Net(3)):
        before = code_checksum(net)
        for _ in range(2):
            net(1.0, 2.0)
            assert code_checksum(net) == before
    assert code_checksum(nets.Net(3)) != code_checksum(nets.Net(4))


def closing_over(value: Any) -> Callable[..., Any]:
    return lambda z, sigma: (value, z)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner) | st.frozensets(st.text()),
    max_leaves=8,
)


@given(plain, plain)
def test_values_are_told_apart_as_their_text_does(one: object, other: object) -> None:
    assert (code_checksum(closing_over(one)) == code_checksum(closing_over(other))) == (text(one) == text(other))
    assert code_checksum(functools.partial(max, one)) == code_checksum(functools.partial(max, one))


def text(value: object) -> str:
    """The value and its types, whatever the order of a set is."""
    if isinstance(value, frozenset):
        return f"set {sorted(map(text, value))}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {[text(one) for one in value]}"
    if isinstance(value, dict):
        return f"dict {[(name, text(one)) for name, one in value.items()]}"
    return f"{type(value).__name__} {value!r}"


def test_arrays_tensors_and_weights_count_by_their_numbers() -> None:
    for make in (np.array, torch.tensor, lambda x: torch.tensor(x).to(torch.bfloat16)):
        assert code_checksum(closing_over(make([1.0, 2.0]))) == code_checksum(closing_over(make([1.0, 2.0])))
        assert code_checksum(closing_over(make([1.0, 2.0]))) != code_checksum(closing_over(make([1.0, 3.0])))
    conv, dropout = torch.nn.Conv2d(1, 1, 3), torch.nn.Dropout(0.5)
    layer = torch.nn.Sequential(conv, dropout)
    net = closing_over(layer)
    before = code_checksum(net)
    layer.eval()
    assert code_checksum(net) == before
    dropout.p = 0.25
    changed = code_checksum(net)
    assert changed != before
    with torch.no_grad():
        conv.weight[0, 0, 0, 0] += 1
    assert code_checksum(net) not in (before, changed)


def test_circles_and_objects_without_attributes_end() -> None:
    circle: list[object] = []
    circle.append(circle)
    assert len(code_checksum(closing_over([circle, object(), iter([]), torch.Generator()]))) == 64


def test_another_process_has_the_same(tmp_path: Path) -> None:
    more = (
        "\n\nWORDS = {'some', 'words', 'in', 'a', 'set'}\n\nfull = lambda z: (net(z, 1), z in WORDS, z in {'x', 'y'})\n"
    )
    source = NET + more
    (tmp_path / "nets_of_process.py").write_text(source)
    code = "import nets_of_process as n; from pspc_rs.contents import code_checksum; print(code_checksum(n.full))"
    found = {
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    }
    assert len(found) == 1
