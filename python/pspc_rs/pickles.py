"""Pickles read as data: a machine that walks their operations and runs nothing.

`pickle.load` imports and calls whatever a file asks for. The machine here keeps containers, numbers and strings on a
stack; what a name stands for, and what may be done with it, is decided by a subclass, which refuses everything else. It
never imports, never calls and never makes an object of a class that the file names.
"""

import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, cast

from pspc_rs.errors import DataError

MAX_OPERATIONS = 1 << 20
"""No pickle may have more operations; the largest published network takes less than a tenth of that."""

_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TEXTS = {"SHORT_BINUNICODE": "<B", "BINUNICODE": "<I", "BINUNICODE8": "<Q"}
_LONG_BYTES = {"BINBYTES": "<I", "BINBYTES8": "<Q", "BYTEARRAY8": "<Q"}
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINBYTES"),
        *(*_TEXTS, *_LONG_BYTES),
    }
)
_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_GLOBALS = ("GLOBAL", "STACK_GLOBAL")
_PROTOCOLS = range(2, 6)
_LONGEST_NAME = 256


class PickleMachine:
    r"""Reads one pickle of a row of bytes; a subclass says which operations and names may occur.

    Args:
        data: the bytes; long strings of bytes in them are kept as views.
        what: what messages call the file.
        start: where the pickle begins.

    Attributes:
        operations: names of the operations that may occur; others are refused before their argument is read.
        max_operations: how many of them there may be.
        allowed: what a refusal says is allowed.

    Example:
        >>> class Numbers(PickleMachine):
        ...     operations = frozenset(("PROTO", "STOP", "BININT1", "TUPLE1"))
        >>> Numbers(memoryview(b"\x80\x04K\x07\x85."), "a.pkl").run()
        (7,)
        >>> Numbers(memoryview(b"cos\nsystem\n."), "a.pkl").run()
        Traceback (most recent call last):
        ...
        pspc_rs.errors.DataError: a.pkl is a pickle with the operation GLOBAL; allowed is plain data
    """

    operations: ClassVar[frozenset[str]] = frozenset()
    max_operations: ClassVar[int] = MAX_OPERATIONS
    allowed: ClassVar[str] = "plain data"

    def __init__(self, data: memoryview, what: str, start: int = 0) -> None:
        self.what = what
        self._reader = _Operations(data, start, what)
        self._decodable_bytes = len(data)
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.what!r}, at byte {self.end})"

    @property
    def end(self) -> int:
        """Where the pickle ends, once it was read."""
        return self._reader.end

    def run(self) -> Any:
        """What the pickle describes: the top of the stack at its end.

        Raises:
            DataError: the bytes end too early, or an operation, name or call is not allowed. A damaged pickle can raise
                a ValueError, LookupError or TypeError besides, see ``files.decode_errors``.
        """
        for name, argument in self._reader.take(self.max_operations, self.operations, self.refuse):
            self._step(name, argument)
        return self._stack.pop()

    def find(self, name: str) -> Any:
        """What stands for the global "module name"."""
        self.refuse("GLOBAL")

    def call(self, called: Any, arguments: Any) -> Any:
        """The result of calling something with arguments."""
        self.refuse("REDUCE")

    def build(self, target: Any, state: Any) -> None:
        """Gives a state to what is on top of the stack."""
        self.refuse("BUILD")

    def other(self, name: str) -> None:
        """Any further operation."""
        self.refuse(name)

    def refuse(self, name: str) -> Any:
        """Refuses an operation.

        Raises:
            DataError: always.
        """
        raise DataError(f"{self.what} is a pickle with the operation {name}; allowed is {self.allowed}")

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self._stack.append(value)

    def pop(self, count: int) -> list[Any]:
        """Takes values from the stack, the last one pushed last."""
        if count > len(self._stack):
            raise DataError(f"{self.what} is a damaged pickle: its stack is empty")
        start = len(self._stack) - count
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def bytes_of(self, text: str) -> bytes:
        """Bytes that an old protocol wrote as latin-1 letters."""
        # A string repeated from the memo must not grow into more than the file holds.
        self._decodable_bytes -= len(text)
        if self._decodable_bytes < 0:
            raise DataError(f"{self.what} is a pickle that unfolds into more than it holds")
        return text.encode("latin-1")

    def hashable(self, items: list[Any], kind: str) -> list[Any]:
        """The items, which must be strings or numbers: hashing a tuple of tuples that share parts can take forever."""
        if not all(isinstance(item, str | bytes | int) for item in items):
            raise DataError(f"{self.what}: a {kind} in the pickle has keys other than strings and numbers")
        return items

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _LITERALS:
            self.push(argument)
        elif name in _TUPLE_SIZES:
            self.push(tuple(self.pop(_TUPLE_SIZES[name])))
        elif name in _PUTS:
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in _GETS:
            self.push(self._memo[argument])
        elif name in _GLOBALS:
            self.push(self.find(argument if name == "GLOBAL" else " ".join(self.pop(2))))
        elif name == "REDUCE":
            self.push(self.call(*self.pop(2)))
        elif name == "BUILD":
            state = self._stack.pop()
            self.build(self._stack[-1], state)
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._collect(name)

    def _collect(self, name: str) -> None:
        if name == "MARK":
            self._outer.append(self._stack)
            self._stack = []
        elif name in _EMPTY:
            self.push(_EMPTY[name]())
        elif name in ("LIST", "TUPLE", "DICT"):
            items = self._pop_mark()
            self.push(items if name == "LIST" else tuple(items) if name == "TUPLE" else self._as_dict(items))
        elif name in ("APPEND", "APPENDS"):
            items = self.pop(1) if name == "APPEND" else self._pop_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.pop(2) if name == "SETITEM" else self._pop_mark()
            self._top(dict).update(self._as_dict(items))
        elif name == "ADDITEMS":
            self._top(set).update(self.hashable(self._pop_mark(), "set"))
        else:
            self.other(name)

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._outer.pop()
        return items

    def _top(self, kind: type) -> Any:
        top = self._stack[-1]
        if not isinstance(top, kind):
            raise DataError(f"{self.what} is a damaged pickle: a {type(top).__name__} is used as a {kind.__name__}")
        return top

    def _as_dict(self, items: list[Any]) -> dict[Any, Any]:
        return dict(zip(self.hashable(items[::2], "dict"), items[1::2], strict=True))


class _Operations:
    """The operations of one pickle as pairs of name and argument.

    ``read`` and ``readline`` make it the file that the readers of `pickletools` need.
    """

    def __init__(self, data: memoryview, start: int, what: str) -> None:
        self._data = data
        self._what = what
        self._name = "an operation"
        self.end = start

    def take(self, limit: int, allowed: frozenset[str], refuse: Callable[[str], object]) -> Iterator[tuple[str, Any]]:
        """The operations up to STOP; one that is not allowed is refused before its argument is read."""
        for _ in range(limit):
            self._name = "an operation"
            code = self._view(1)[0]
            opcode = _OPCODES.get(code)
            self._name = f"0x{code:02x}" if opcode is None else opcode.name
            if opcode is None or self._name not in allowed:
                refuse(self._name)
                return
            yield self._name, self._argument(opcode)
            if self._name == "STOP":
                return
        raise DataError(f"{self._what} is a pickle of more than {limit} operations")

    def read(self, count: int) -> bytes:
        """The next bytes."""
        return bytes(self._view(count))

    def readline(self) -> bytes:
        """The bytes up to the end of the line, or of all."""
        length = _LONGEST_NAME
        # Doubled, so that many short lines do not each copy what is left of the file.
        while (found := bytes(self._data[self.end : self.end + length]).find(b"\n")) < 0:
            if self.end + length >= len(self._data):
                return self.read(len(self._data) - self.end)
            length *= 2
        return self.read(found + 1)

    def _argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        if opcode.arg is None:
            return None
        if self._name in _TEXTS:
            return str(self._counted(_TEXTS[self._name]), "utf-8")
        if self._name in _LONG_BYTES:
            return self._counted(_LONG_BYTES[self._name])
        if self._name == "GLOBAL":
            return f"{self._module_or_name()} {self._module_or_name()}"
        argument: Any = opcode.arg.reader(cast(Any, self))
        if self._name == "PROTO" and argument not in _PROTOCOLS:
            raise DataError(f"{self._what} is a pickle of protocol {argument}; allowed are 2 to 5")
        return argument

    def _counted(self, layout: str) -> memoryview:
        (count,) = struct.unpack(layout, self._view(struct.calcsize(layout)))
        return self._view(count)

    def _module_or_name(self) -> str:
        text = bytes(self._data[self.end : self.end + _LONGEST_NAME])
        length = text.find(b"\n")
        if length < 0:
            raise DataError(f"{self._what}: GLOBAL at byte {self.end} has no name of at most {_LONGEST_NAME} letters")
        self.end += length + 1
        return text[:length].decode("utf-8")

    def _view(self, count: int) -> memoryview:
        taken = self._data[self.end : self.end + count]
        if len(taken) < count:
            raise DataError(
                f"{self._what} ends after {len(self._data)} bytes, in the middle of {self._name} at byte {self.end}"
            )
        self.end += count
        return taken
