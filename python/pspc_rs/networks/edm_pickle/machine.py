"""What the names in an EDM pickle stand for, and what may be done with them."""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pspc_rs.data.readers.pickle_machine import PickleMachine
from pspc_rs.errors import DataError
from pspc_rs.networks.edm_pickle.operations import Operations
from pspc_rs.networks.edm_pickle.storages import Storage, StoredTensor, read_storage, stored_tensor

MAX_OPERATIONS = 1 << 20
"""The largest published network takes less than a tenth of that."""

_PERSISTENCE_VERSION = 6
_CLASSES = frozenset(
    {
        *("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond", "SongUNet", "DhariwalUNet", "UNetBlock"),
        *("Conv2d", "Linear", "GroupNorm", "PositionalEmbedding", "FourierEmbedding"),
        *("EDMLoss", "VPLoss", "VELoss", "AugmentPipe"),
    }
)
_SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}
_KNOWN = frozenset(
    {
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("SETITEM", "SETITEMS", "APPEND", "APPENDS", "ADDITEMS"),
        *("MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD"),
    }
)


@dataclass(frozen=True)
class EmbeddedObject:
    """An object of one of EDM's own classes: its class's name and its attributes."""

    class_name: str
    state: dict[str, Any]


@dataclass
class StoredModuleDict:
    """A ``torch.nn.ModuleDict``: its attributes, which come after it was made."""

    class_name: ClassVar[str] = "ModuleDict"
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Symbol:
    name: str


@dataclass(frozen=True)
class _ScalarType:
    layout: str


def read_objects(data: memoryview, what: str) -> Any:
    """What an EDM pickle describes: data, ``EmbeddedObject``, ``StoredModuleDict`` and ``StoredTensor``.

    Args:
        data: the bytes of the file, which tensors keep as their memory.
        what: what messages call the file.

    Raises:
        DataError: the file is damaged, or anything is in it that does not belong into such a file.
    """
    operations = Operations(data, 0, _KNOWN, MAX_OPERATIONS, what)
    found = _EdmMachine(what, len(data)).run(operations)
    if operations.end != len(data):
        raise DataError(f"{what} goes on after the end of its pickle, at byte {operations.end} of {len(data)}")
    return found


class _EdmMachine(PickleMachine):
    literals = frozenset(
        {
            *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
            *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
        }
    )
    collections = frozenset(
        {
            *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_SET", "TUPLE"),
            *("SETITEM", "SETITEMS", "APPEND", "APPENDS", "ADDITEMS"),
        }
    )
    allowed = "a network of EDM"

    def find(self, name: str) -> _Symbol:
        if name not in _CALLS and name not in _MADE:
            raise DataError(
                f"{self.what} is a pickle that asks for {name.replace(' ', '.')!r:.200}, which was not run; allowed is "
                "what a network of EDM consists of"
            )
        return _Symbol(name)

    def call(self, called: Any, arguments: Any) -> Any:
        name = called.name if isinstance(called, _Symbol) else type(called).__name__
        if name not in _CALLS or not isinstance(called, _Symbol):
            raise self._odd("calls", name)
        if not isinstance(arguments, tuple):
            raise self._odd("calls", name)
        try:
            return _CALLS[name](self, *arguments)
        except TypeError as error:
            raise self._odd("calls", name) from error

    def build(self, target: Any, state: Any) -> None:
        if isinstance(target, StoredModuleDict) and not target.state and isinstance(state, dict):
            target.state = state
        elif not isinstance(target, _ScalarType) or not _is_native(state):
            raise self._odd("changes", target.name if isinstance(target, _Symbol) else type(target).__name__)

    def other(self, name: str) -> None:
        if name != "NEWOBJ":
            self.refuse(name)
        kind, arguments = self.pop(2)
        made = _MADE.get(kind.name) if isinstance(kind, _Symbol) else None
        if made is None or not isinstance(arguments, tuple) or arguments:
            raise self._odd("makes", kind.name if isinstance(kind, _Symbol) else type(kind).__name__)
        self.push(made())

    def _odd(self, verb: str, name: str) -> DataError:
        return DataError(
            f"{self.what} is a pickle that {verb} {name.replace(' ', '.')} in a way that no network of EDM needs; "
            "it was not run"
        )

    def _object(self, about: Any) -> EmbeddedObject:
        """An object of EDM's persistence mechanism; the source code in it is dropped unread."""
        if not isinstance(about, dict) or about.get("type") != "class" or about.get("version") != _PERSISTENCE_VERSION:
            raise DataError(
                f"{self.what} has an object that is not of version {_PERSISTENCE_VERSION} of EDM's persistence"
            )
        name, state = about.get("class_name"), about.get("state")
        if not isinstance(name, str) or name not in _CLASSES:
            shown = repr(name)[:80] if isinstance(name, str) else f"a {type(name).__name__}"
            raise DataError(
                f"{self.what} has an object of the class {shown}; allowed are {', '.join(sorted(_CLASSES))}"
            )
        if not isinstance(state, dict):
            raise DataError(f"{self.what} has an object of the class {name} without a dict of attributes")
        return EmbeddedObject(name, state)

    def _parameter(self, tensor: Any, requires_grad: Any, hooks: Any) -> StoredTensor:
        if not isinstance(tensor, StoredTensor) or not isinstance(requires_grad, bool) or hooks != {}:
            raise self._odd("calls", "torch._utils _rebuild_parameter")
        return tensor

    def _tensor(self, *arguments: Any) -> StoredTensor:
        storage, offset, shape, strides, requires_grad, hooks = arguments[:6]
        # Newer versions of torch add metadata; there are none for an ordinary tensor.
        plain = isinstance(requires_grad, bool) and hooks == {} and arguments[6:] in ((), (None,))
        if not isinstance(storage, Storage) or not plain:
            raise self._odd("calls", "torch._utils _rebuild_tensor_v2")
        return stored_tensor(storage, offset, shape, strides, self.what)

    def _storage(self, data: Any) -> Storage:
        if not isinstance(data, bytes | memoryview):
            raise self._odd("calls", "torch.storage _load_from_bytes")
        return read_storage(memoryview(data), self.what)

    def _ordered_dict(self) -> dict[Any, Any]:
        return {}

    def _set(self, *items: Any) -> set[Any]:
        if len(items) > 1 or not all(isinstance(item, list) for item in items):
            raise self._odd("calls", "builtins set")
        return set(self.hashable(items[0], "set")) if items else set()

    def _bytes(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise self._odd("calls", "_codecs encode")
        return self.bytes_of(text)

    def _scalar_type(self, code: Any, align: Any, copy: Any) -> _ScalarType:
        if not isinstance(code, str) or code not in _SCALARS or not isinstance(align, bool | int):
            raise self._odd("calls", "numpy dtype")
        return _ScalarType(_SCALARS[code])

    def _scalar(self, kind: Any, data: Any) -> float | int:
        if not isinstance(kind, _ScalarType) or not isinstance(data, bytes | memoryview):
            raise self._odd("calls", "numpy scalar")
        if len(data) != struct.calcsize(kind.layout):
            raise DataError(f"{self.what} has a number of {len(data)} bytes; needed are {struct.calcsize(kind.layout)}")
        number: float | int = struct.unpack(kind.layout, data)[0]
        if not math.isfinite(number):
            raise DataError(f"{self.what} has a number that is {number}; all must be finite")
        return number


def _is_native(state: Any) -> bool:
    """Whether this is how numpy describes a plain little-endian number."""
    if not isinstance(state, tuple) or len(state) != 8:
        return False
    return all(
        type(one) is type(wanted) and one == wanted
        for one, wanted in zip(state, (3, "<", None, None, None, -1, -1, 0), strict=True)
    )


_CALLS: Mapping[str, Callable[..., Any]] = {
    "torch_utils.persistence _reconstruct_persistent_obj": _EdmMachine._object,
    "torch._utils _rebuild_parameter": _EdmMachine._parameter,
    "torch._utils _rebuild_tensor_v2": _EdmMachine._tensor,
    "torch.storage _load_from_bytes": _EdmMachine._storage,
    "collections OrderedDict": _EdmMachine._ordered_dict,
    "builtins set": _EdmMachine._set,
    "__builtin__ set": _EdmMachine._set,
    "_codecs encode": _EdmMachine._bytes,
    "numpy dtype": _EdmMachine._scalar_type,
    "numpy.core.multiarray scalar": _EdmMachine._scalar,
    "numpy._core.multiarray scalar": _EdmMachine._scalar,
}
"""What may be called, and our own function that answers."""

_MADE: Mapping[str, Callable[[], Any]] = {
    "torch.nn.modules.container ModuleDict": StoredModuleDict,
    "dnnlib.util EasyDict": dict,
}
"""What may be made without arguments, and what stands for it."""
