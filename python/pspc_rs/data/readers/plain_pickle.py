"""A reader for pickles of plain data, in which nothing is run.

Containers, numbers, strings and u8 arrays are read by a `PickleMachine`. The numpy names that an array consists
of are recognised by their spelling; every other name is refused.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DataError
from pspc_rs.files import decode_errors
from pspc_rs.pickles import PickleMachine

_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
# Protocol 5 hands the bytes to a function.
_FROM_BUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")
_NDARRAY = "numpy ndarray"
_DTYPE = "numpy dtype"
# Python 3 writes bytes this way for the old protocols.
_ENCODE = "_codecs encode"
_KNOWN_NAMES = {*_RECONSTRUCT, *_FROM_BUFFER, _NDARRAY, _DTYPE, _ENCODE}


@dataclass(frozen=True)
class _Name:
    name: str


class _U8:
    """Stands for numpy's u8 dtype."""


class PickledArray:
    """A u8 array in a pickle."""

    def __init__(self) -> None:
        self._state: tuple[Any, ...] = ()

    def __repr__(self) -> str:
        return f"PickledArray(shape={self._state[0] if self._state else None})"

    def fill(self, state: Any) -> None:
        """Keeps what numpy wrote down: version, shape, dtype, Fortran order, bytes."""
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
    r"""The dicts, lists, tuples, numbers, strings and `PickledArray` objects that a pickle describes.

    Bytes after the end of the pickle are ignored.

    Args:
        data: the bytes of the file.
        what: what messages call it.

    Raises:
        DataError: the pickle is damaged, or asks for any other name or operation.

    Example:
        >>> read_plain_pickle(b"\x80\x02]K\x07a.", "data_batch_1")
        [7]
    """
    with decode_errors(what), warnings.catch_warnings():
        # Damaged strings hold odd escapes, which Python warns of as it would in source code.
        warnings.simplefilter("ignore")
        return _PlainMachine(memoryview(data), what).run()


class _PlainMachine(PickleMachine):
    operations = frozenset(
        {
            *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
            *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
            *("BYTEARRAY8",),
            *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
            *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "LIST", "DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
            *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
            *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
            *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
        }
    )

    def find(self, name: str) -> _Name:
        if name not in _KNOWN_NAMES:
            raise DataError(
                f"{self.what} is a pickle that asks for {name.replace(' ', '.')}, which was not run; allowed are "
                "plain data and numpy arrays of bytes"
            )
        return _Name(name)

    def call(self, called: Any, arguments: Any) -> Any:
        name = called.name if isinstance(called, _Name) else type(called).__name__
        if name in _RECONSTRUCT:
            return PickledArray()
        if name in _FROM_BUFFER:
            raw, dtype, shape, order = arguments
            array = PickledArray()
            array.fill((1, shape, dtype, order == "F", raw))
            return array
        if name == _DTYPE and arguments[0] in ("u1", b"u1"):
            return _U8()
        if name == _ENCODE and arguments[1] == "latin1":
            return self.bytes_of(arguments[0])
        raise DataError(f"{self.what} is a pickle that calls {name} in an unknown way; allowed is u8 data")

    def build(self, target: Any, state: Any) -> None:
        if isinstance(target, PickledArray):
            target.fill(state)
        elif not isinstance(target, _U8):
            raise DataError(f"{self.what} is a pickle that changes a {type(target).__name__}; allowed is u8 data")
