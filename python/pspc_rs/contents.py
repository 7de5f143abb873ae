"""A checksum of what a callable consists of, so that results are not kept under the mere name of a function.

It covers the bytecode of a function, the functions and values that it refers to, what it closes over and its defaults;
of an object its class and attributes, of a torch module its weights. Installed packages count by name: with a new
version of numpy a function is still the same. What a function itself changes, such as a counter or a cache, is left
out, since it makes no other function of it. What it reads from files is out of reach.
"""

import dis
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pspc_rs.arrays import is_module, is_torch

_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type(Ellipsis), np.generic, Path)
_CONSTANT = (tuple, frozenset, types.CodeType)
_DEEPEST = 60
# What a class has besides what its author wrote.
_NOT_WRITTEN = {
    "__dict__",
    "__weakref__",
    "__module__",
    "__doc__",
    "__qualname__",
    "__firstlineno__",
    "__static_attributes__",
    "__abstractmethods__",
    "_abc_impl",
}
_OWN_PACKAGE = "pspc_rs"
# What runs before an object is used: what these assign is what it is made of.
_MAKING = {"__init__", "__new__", "__post_init__", "__setstate__"}
_ASSIGNING = {"STORE_GLOBAL", "STORE_DEREF", "STORE_ATTR", "DELETE_GLOBAL", "DELETE_DEREF", "DELETE_ATTR"}
_CHANGING = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "clear"}


def code_checksum(function: object) -> str:
    """The SHA-256 of what a callable consists of, 64 hex digits: the same in another process, another after a change.

    Args:
        function: a function, a method, an object with ``__call__``, or a torch module.

    Example:
        >>> double, triple = (functools.partial(np.multiply, factor) for factor in (2, 3))
        >>> code_checksum(double) == code_checksum(triple)
        False
    """
    contents = _Contents(_package_of(function))
    contents.add(function)
    return contents.digest.hexdigest()


class _Contents:
    """A walk over an object and what it refers to.

    Args:
        package: the package of the callable; its modules count by their code even where it is installed.
    """

    def __init__(self, package: str) -> None:
        self.digest = hashlib.sha256()
        self._package = package
        self._seen: dict[int, object] = {}
        self._depth = 0

    def add(self, value: object) -> None:
        """Adds an object to the checksum."""
        if isinstance(value, _PLAIN):
            self._write(type(value).__name__, repr(value))
        elif id(value) in self._seen or self._depth > _DEEPEST:
            self._write("seen", type(value).__name__)
        else:
            # Constants that are equal may be one object or two.
            if not isinstance(value, _CONSTANT):
                self._seen[id(value)] = value  # kept, so that no other object gets its number
            self._depth += 1
            self._add_new(value)
            self._depth -= 1

    def _add_new(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            self._array(value)
        elif is_torch(value):
            self._tensor(value)
        elif isinstance(value, list | tuple):
            self._all(type(value).__name__, value)
        elif isinstance(value, Mapping):
            self._all(type(value).__name__, (part for item in value.items() for part in item))
        elif isinstance(value, set | frozenset):
            self._write(type(value).__name__, *sorted(self._apart(one) for one in value))
        elif isinstance(value, types.CodeType):
            self._code(value)
        elif isinstance(value, types.ModuleType):
            self._module(value)
        elif isinstance(value, type):
            self._class(value)
        else:
            self._callable_or_object(value)

    def _callable_or_object(self, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self._all("method", (value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self._all("partial", (value.func, value.args, value.keywords))
        elif isinstance(value, staticmethod | classmethod):
            self._all(type(value).__name__, (value.__func__,))
        elif isinstance(value, property):
            self._all("property", (value.fget,))
        elif hasattr(value, "__wrapped__"):
            self._all("wrapped", (value.__wrapped__,))
        elif isinstance(value, types.BuiltinFunctionType | np.ufunc):
            self._write("builtin", _name_of(value))
        else:
            self._object(value)

    def _function(self, function: types.FunctionType) -> None:
        self._write("function", _name_of(function))
        if not self._is_own(function.__module__):
            return
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        closed = {name: _content_of(cell) for name, cell in cells}
        used = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
        changed = set(_changed_names(function.__code__))
        values = {name: value for name, value in {**used, **closed}.items() if name not in changed}
        self._all("code", (function.__code__, function.__defaults__, function.__kwdefaults__, values))

    def _code(self, code: types.CodeType) -> None:
        self._write("code", code.co_code.hex(), code.co_varnames, code.co_names, code.co_freevars, code.co_flags)
        self._all("constants", code.co_consts)

    def _class(self, kind: type) -> None:
        self._write("class", _name_of(kind))
        if self._is_own(kind.__module__):
            written = {name: value for name, value in vars(kind).items() if name not in _NOT_WRITTEN}
            self._all("body", (kind.__bases__, written))

    def _module(self, module: types.ModuleType) -> None:
        self._write("module", module.__name__)
        if self._is_own(module.__name__) and module.__file__:
            try:
                self.digest.update(Path(module.__file__).read_bytes())
            except OSError:
                self._write("unreadable")

    def _object(self, value: Any) -> None:
        self._all("object", (type(value),))
        if isinstance(fingerprint := getattr(value, "fingerprint", None), str):
            self._write("fingerprint", fingerprint)
        elif _is_script(value):
            self._write("script", value.inlined_graph)
            self._all("weights", dict(value.state_dict()).items())
        elif is_module(value):
            hidden = ("_", "training", "dynamo_ctx")
            plain = {name: one for name, one in self._attributes(value) if not name.startswith(hidden)}
            self._all("module", (plain, value._parameters, value._buffers, value._modules))
        else:
            self._all("attributes", (dict(self._attributes(value)),))

    def _attributes(self, value: Any) -> Iterator[tuple[str, object]]:
        """The attributes of an object without those that its own methods change."""
        kinds = [kind for kind in type(value).__mro__ if self._is_own(kind.__module__)]
        methods = [one for kind in kinds for one in vars(kind).values() if isinstance(one, types.FunctionType)]
        working = [one.__code__ for one in methods if one.__name__ not in _MAKING]
        changed = {name for code in working for name in _changed_names(code)}
        slots = {name: getattr(value, name, None) for kind in type(value).__mro__ for name in _slots(kind)}
        for name, one in {**slots, **getattr(value, "__dict__", {})}.items():
            if name not in changed:
                yield name, one

    def _array(self, array: np.ndarray[Any, Any]) -> None:
        self._write("array", array.dtype.str, array.shape)
        if array.dtype.hasobject:
            self._all("objects", array.ravel().tolist())
        else:
            self.digest.update(np.ascontiguousarray(array).tobytes())

    def _tensor(self, tensor: Any) -> None:
        self._write("tensor", tensor.dtype, tuple(tensor.shape), tensor.layout)
        torch = sys.modules["torch"]
        if not tensor.is_meta and tensor.layout == torch.strided:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            self.digest.update(flat.view(torch.uint8).numpy().tobytes())

    def _all(self, kind: str, values: Iterable[object]) -> None:
        self._write(kind)
        for value in values:
            self.add(value)
        self._write("end")

    def _write(self, *words: object) -> None:
        for word in words:
            text = str(word).encode(errors="surrogatepass")
            self.digest.update(len(text).to_bytes(8, "little") + text)

    def _apart(self, value: object) -> str:
        contents = _Contents(self._package)
        contents.add(value)
        return contents.digest.hexdigest()

    def _is_own(self, module: str | None) -> bool:
        """Whether a module counts by its code: it is not installed, or belongs to the package of the callable."""
        top = (module or "").partition(".")[0]
        if top == self._package and top != _OWN_PACKAGE:
            return True
        file = getattr(sys.modules.get(module or ""), "__file__", None)
        if file is None:
            return top == "__main__"
        return not any(Path(file).is_relative_to(folder) for folder in _installed())


@functools.cache
def _installed() -> tuple[Path, ...]:
    """The folders of the standard library, of installed packages and of this one."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(path) for name in names if (path := sysconfig.get_path(name))}
    return (*folders, Path(__file__).parent)


def _package_of(value: Any) -> str:
    named = value if hasattr(value, "__qualname__") else type(value)
    return str(named.__module__ or "").partition(".")[0]


def _name_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that code looks up, that of inner functions too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _content_of(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return "empty"


def _changed_names(code: types.CodeType) -> Iterator[str]:
    """The globals, enclosing variables and attributes that code assigns to, or calls a method of that changes them."""
    steps = list(dis.get_instructions(code))
    for index, step in enumerate(steps):
        before = [str(one.argval) for one in steps[max(0, index - 2) : index]]
        if step.opname in _ASSIGNING:
            yield str(step.argval)
        elif step.argval in _CHANGING and before:
            yield before[-1]
        elif step.opname == "STORE_SUBSCR" and before:
            yield before[0]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _changed_names(constant)


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _is_script(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.jit.ScriptModule)
