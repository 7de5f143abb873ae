"""A reader for pickles of plain data that cannot run anything.

`pickle.load` calls whatever a file asks it to. This reader never imports, never calls and never creates an object of a
class: it walks the opcodes that `pickletools` parses and keeps containers, numbers, strings and u8 arrays on a stack.
The three numpy names that an array consists of are recognised by their spelling; every other name is refused.
"""

import pickletools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.readers.files import damage_named
from pspc_rs.errors import DataError

_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_NDARRAY = "numpy ndarray"
_DTYPE = "numpy dtype"
# Python 3 writes bytes this way for the old protocols.
_ENCODE = "_codecs encode"
_KNOWN_NAMES = {*_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE}

_LITERALS = {
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class _Name:
    name: str


class _U8:
    """Stands for numpy's u8 dtype."""


class PickledArray:
    """A u8 array found in a pickle."""

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()

    def fill(self, state: Any) -> None:
        """Keep what numpy wrote down: version, shape, dtype, Fortran order, bytes."""
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _U8):
            raise DataError("an array in the pickle is not of dtype uint8")
        self._state = tuple(shape), bool(fortran), raw

    def array(self) -> NDArray[np.uint8]:
        """The array; Python 2 wrote the bytes as a string of latin-1 letters."""
        shape, fortran, raw = self._state
        data = raw.encode("latin-1") if isinstance(raw, str) else raw
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


def read_plain_pickle(data: bytes, what: str) -> Any:
    """The dicts, lists, tuples, numbers, strings and `PickledArray` objects that a pickle describes.

    Raises:
        DataError: the pickle is damaged, or asks for any other name or operation.
    """
    with damage_named(what), warnings.catch_warnings():
        # Damaged strings hold odd escapes, which Python warns of as it would in source code.
        warnings.simplefilter("ignore")
        return _Machine(what, len(data)).run(data)


class _Machine:
    def __init__(self, what: str, budget: int) -> None:
        self._what = what
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._budget = budget

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise DataError(f"{self._what} is a pickle without an end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(_CONSTANTS.get(name, argument))
        elif name in _TUPLE_SIZES:
            self._stack.append(tuple(self._pop(_TUPLE_SIZES[name])))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._push_name(argument if name == "GLOBAL" else " ".join(self._pop(2)))
        elif name == "REDUCE":
            self._reduce(*self._pop(2))
        elif name == "BUILD":
            self._build(self._stack.pop())
        elif name not in ("PROTO", "FRAME"):
            self._collect(name)

    def _collect(self, name: str) -> None:
        if name == "MARK":
            self._outer.append(self._stack)
            self._stack = []
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            self._stack.append([] if name == "EMPTY_LIST" else {})
        elif name in ("LIST", "TUPLE", "DICT"):
            items = self._pop_mark()
            self._stack.append(items if name == "LIST" else tuple(items) if name == "TUPLE" else _as_dict(items))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._pop_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._pop_mark()
            self._top(dict).update(_as_dict(items))
        else:
            raise DataError(f"{self._what} is a pickle with the operation {name}; allowed is plain data only")

    def _pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise DataError(f"{self._what} is a damaged pickle: its stack is empty")
        start = len(self._stack) - count
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._outer.pop()
        return items

    def _top(self, kind: type) -> Any:
        top = self._stack[-1]
        if not isinstance(top, kind):
            raise DataError(f"{self._what} is a damaged pickle: a {type(top).__name__} is used as a {kind.__name__}")
        return top

    def _push_name(self, name: str) -> None:
        if name not in _KNOWN_NAMES:
            raise DataError(
                f"{self._what} is a pickle that asks for {name.replace(' ', '.')}, which was not run; allowed are "
                "plain data and numpy arrays of bytes"
            )
        self._stack.append(_Name(name))

    def _reduce(self, called: Any, arguments: Any) -> None:
        name = called.name if isinstance(called, _Name) else type(called).__name__
        if name in _RECONSTRUCT:
            self._stack.append(PickledArray())
        elif name == _DTYPE and arguments[0] in ("u1", b"u1"):
            self._stack.append(_U8())
        elif name == _ENCODE and arguments[1] == "latin1":
            # A string repeated from the memo must not grow into more than the file holds.
            self._budget -= len(arguments[0])
            if self._budget < 0:
                raise DataError(f"{self._what} is a pickle that unfolds into more than it holds")
            self._stack.append(arguments[0].encode("latin-1"))
        else:
            raise DataError(f"{self._what} is a pickle that calls {name} in an unknown way; allowed is u8 data")

    def _build(self, state: Any) -> None:
        top = self._stack[-1]
        if isinstance(top, PickledArray):
            top.fill(state)
        elif not isinstance(top, _U8):
            raise DataError(f"{self._what} is a pickle that changes a {type(top).__name__}; allowed is u8 data")


def _as_dict(items: list[Any]) -> dict[Any, Any]:
    # Hashing a nested tuple that shares its parts can take forever.
    if not all(isinstance(key, str | bytes | int) for key in items[::2]):
        raise DataError("a dict in the pickle has keys other than strings and numbers")
    return dict(zip(items[::2], items[1::2], strict=True))
