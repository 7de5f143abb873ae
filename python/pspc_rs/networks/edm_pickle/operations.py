"""From the bytes of a pickle to its operations, without copying what is long."""

import pickletools
import struct
from collections.abc import Iterator
from typing import Any

from pspc_rs.errors import DataError

_NAMES = {ord(operation.code): operation.name for operation in pickletools.opcodes}
_NUMBERS = {
    "BININT": "<i",
    "BININT1": "<B",
    "BININT2": "<H",
    "BINFLOAT": ">d",
    "BINGET": "<B",
    "LONG_BINGET": "<I",
    "BINPUT": "<B",
    "LONG_BINPUT": "<I",
    "PROTO": "<B",
    "FRAME": "<Q",
}
_TEXTS = {"SHORT_BINUNICODE": "<B", "BINUNICODE": "<I", "BINUNICODE8": "<Q"}
_BYTES = {"SHORT_BINBYTES": "<B", "BINBYTES": "<I", "BINBYTES8": "<Q"}
_PROTOCOLS = range(2, 6)
_LONGEST_NAME = 256


class Operations:
    r"""The operations of one pickle in a row of bytes, as pairs of name and argument.

    Args:
        data: the bytes; long strings of bytes in them are handed out as views.
        start: where the pickle begins.
        known: names of the operations that may occur; any other is refused before its argument is read.
        limit: how many there may be.
        what: what messages call the file.

    Attributes:
        end: where the pickle ended, once all operations were taken.

    Raises:
        DataError: the bytes end too early, or an operation is not known.

    Example:
        >>> list(Operations(memoryview(b"\x80\x04K\x07."), 0, frozenset({"PROTO", "BININT1", "STOP"}), 9, "a.pkl"))
        [('PROTO', 4), ('BININT1', 7), ('STOP', None)]
    """

    def __init__(self, data: memoryview, start: int, known: frozenset[str], limit: int, what: str) -> None:
        self._data = data
        self._known = known
        self._limit = limit
        self._what = what
        self.end = start

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        for _ in range(self._limit):
            name = self._name()
            yield name, self._argument(name)
            if name == "STOP":
                return
        raise DataError(f"{self._what} is a pickle of more than {self._limit} operations")

    def _name(self) -> str:
        code = self._take(1, "an operation")[0]
        name = _NAMES.get(code, f"0x{code:02x}")
        if name not in self._known:
            raise DataError(f"{self._what} is a pickle with the operation {name}, which no such file needs")
        return name

    def _argument(self, name: str) -> Any:
        if name in _NUMBERS:
            (number,) = self._unpack(_NUMBERS[name], name)
            if name == "PROTO" and number not in _PROTOCOLS:
                raise DataError(f"{self._what} is a pickle of protocol {number}; allowed are 2 to 5")
            return number
        if name in _TEXTS:
            return str(self._counted(_TEXTS[name], name), "utf-8")
        if name in _BYTES:
            return self._counted(_BYTES[name], name)
        if name == "LONG1":
            return int.from_bytes(self._counted("<B", name), "little", signed=True)
        if name == "GLOBAL":
            return f"{self._line(name)} {self._line(name)}"
        return None

    def _unpack(self, layout: str, name: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self._take(struct.calcsize(layout), name))

    def _counted(self, layout: str, name: str) -> memoryview:
        (count,) = self._unpack(layout, name)
        return self._take(count, name)

    def _line(self, name: str) -> str:
        text = bytes(self._data[self.end : self.end + _LONGEST_NAME])
        length = text.find(b"\n")
        if length < 0:
            raise DataError(f"{self._what}: {name} at byte {self.end} has no name of at most {_LONGEST_NAME} letters")
        self.end += length + 1
        return text[:length].decode("utf-8")

    def _take(self, count: int, name: str) -> memoryview:
        taken = self._data[self.end : self.end + count]
        if len(taken) < count:
            raise DataError(
                f"{self._what} ends after {len(self._data)} bytes, in the middle of {name} at byte {self.end}"
            )
        self.end += count
        return taken
