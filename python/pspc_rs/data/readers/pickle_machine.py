"""The part of a pickle's machine that all closed readers share: a stack, marks, a memo, containers and literals.

`pickle.load` imports and calls whatever a file asks for. A closed reader is handed the operations one by one and knows
what each of its few names stands for; it never imports, never calls and never makes an object of a class that the file
names.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from pspc_rs.errors import DataError

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLE_SIZES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY: dict[str, type] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")


class PickleMachine:
    """Runs operations of a pickle on data alone; subclasses decide what names stand for, and refuse the rest.

    Attributes:
        literals: operations whose argument is pushed as it stands.
        collections: operations on containers that are known, besides the pushing of literals, tuples and the memo.
        allowed: what a refusal says is allowed.

    Args:
        what: what messages call the file.
        budget: number of bytes that strings may be decoded into, that of the file.
    """

    literals: ClassVar[frozenset[str]] = frozenset()
    collections: ClassVar[frozenset[str]] = frozenset()
    allowed: ClassVar[str] = "plain data only"

    def __init__(self, what: str, budget: int) -> None:
        self.what = what
        self._budget = budget
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self, operations: Iterable[tuple[str, Any]]) -> Any:
        """What the pickle describes: the top of the stack when the operation STOP comes."""
        for name, argument in operations:
            if name == "STOP":
                return self._stack.pop()
            self._step(name, argument)
        raise DataError(f"{self.what} is a pickle without an end")

    def find(self, name: str) -> Any:
        """What stands for the global "module name"."""
        raise NotImplementedError

    def call(self, called: Any, arguments: Any) -> Any:
        """What the pickle gets for calling something with arguments."""
        raise NotImplementedError

    def build(self, target: Any, state: Any) -> None:
        """Gives a state to what is on top of the stack."""
        raise NotImplementedError

    def refuse(self, name: str) -> Any:
        """Refuses an operation."""
        raise DataError(f"{self.what} is a pickle with the operation {name}; allowed is {self.allowed}")

    def other(self, name: str) -> None:
        """Any further operation; refused unless a subclass knows it."""
        self.refuse(name)

    def _step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in self.literals:
            self._stack.append(argument)
        elif name in _TUPLE_SIZES:
            self._stack.append(tuple(self.pop(_TUPLE_SIZES[name])))
        elif name in _PUTS:
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._stack.append(self.find(argument if name == "GLOBAL" else " ".join(self.pop(2))))
        elif name == "REDUCE":
            self._stack.append(self.call(*self.pop(2)))
        elif name == "BUILD":
            state = self._stack.pop()
            self.build(self._stack[-1], state)
        elif name not in ("PROTO", "FRAME"):
            self._collect(name)

    def _collect(self, name: str) -> None:
        if name == "MARK":
            self._outer.append(self._stack)
            self._stack = []
        elif name not in self.collections:
            self.other(name)
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in ("LIST", "TUPLE", "DICT"):
            items = self._pop_mark()
            self._stack.append(items if name == "LIST" else tuple(items) if name == "TUPLE" else self._as_dict(items))
        elif name in ("APPEND", "APPENDS"):
            items = self.pop(1) if name == "APPEND" else self._pop_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.pop(2) if name == "SETITEM" else self._pop_mark()
            self._top(dict).update(self._as_dict(items))
        elif name == "ADDITEMS":
            self._top(set).update(self.hashable(self._pop_mark(), "set"))

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
        self._budget -= len(text)
        if self._budget < 0:
            raise DataError(f"{self.what} is a pickle that unfolds into more than it holds")
        return text.encode("latin-1")

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._outer.pop()
        return items

    def _top(self, kind: type) -> Any:
        top = self._stack[-1]
        if not isinstance(top, kind):
            raise DataError(f"{self.what} is a damaged pickle: a {type(top).__name__} is used as a {kind.__name__}")
        return top

    def hashable(self, items: list[Any], kind: str) -> list[Any]:
        """The items, which must be strings or numbers: hashing a tuple of tuples that share parts can take forever."""
        if not all(isinstance(item, str | bytes | int) for item in items):
            raise DataError(f"{self.what}: a {kind} in the pickle has keys other than strings and numbers")
        return items

    def _as_dict(self, items: list[Any]) -> dict[Any, Any]:
        return dict(zip(self.hashable(items[::2], "dict"), items[1::2], strict=True))
