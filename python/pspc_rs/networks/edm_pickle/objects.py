"""The objects in an EDM pickle: the names that may occur, what stands for them, and the numbers of tensors.

The bytes of a tensor are, in turn, a file of torch's old format: five small pickles, a count, and the numbers.
"""

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pspc_rs.errors import DataError
from pspc_rs.pickles import PickleMachine

_PERSISTENCE_VERSION = 6
_CLASSES = frozenset(
    {
        *("EDMPrecond", "VPPrecond", "VEPrecond", "iDDPMPrecond", "SongUNet", "DhariwalUNet", "UNetBlock"),
        *("Conv2d", "Linear", "GroupNorm", "PositionalEmbedding", "FourierEmbedding"),
        *("EDMLoss", "VPLoss", "VELoss", "AugmentPipe"),
    }
)
_SCALARS = {"f8": "<d", "f4": "<f", "i8": "<q", "i4": "<i"}

_STORAGE_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGE_VERSION = 1001
_STORAGE_SYSTEM = {"protocol_version": _STORAGE_VERSION, "little_endian": True}
_STORAGE_DTYPES = {"torch FloatStorage": "<f4", "torch HalfStorage": "<f2"}
_MAX_STORAGE_OPERATIONS = 64


@dataclass(frozen=True)
class EmbeddedObject:
    """An object of one of EDM's own classes: the name of the class, and the object's attributes."""

    class_name: str
    state: dict[str, Any]


@dataclass
class StoredModuleDict:
    """A ``torch.nn.ModuleDict``: its attributes, which the pickle gives after it was made."""

    class_name: ClassVar[str] = "ModuleDict"
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """Consecutive numbers, still in the memory of the file.

    Attributes:
        dtype: numpy's name of their type.
        raw: their bytes.
        count: how many there are.
    """

    dtype: str
    raw: memoryview
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is a part of a storage.

    Attributes:
        storage: the numbers.
        offset: index of its first number.
        shape: lengths of its axes.
        strides: steps along its axes, in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def load(self) -> Tensor:
        """The tensor in memory of its own."""
        flat = np.frombuffer(self.storage.raw, self.storage.dtype)
        strides = tuple(step * flat.itemsize for step in self.strides)
        seen: NDArray[Any] = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)
        return torch.from_numpy(np.array(seen, seen.dtype.newbyteorder("="), order="C"))


def read_objects(data: memoryview, what: str) -> Any:
    """What an EDM pickle describes: data, `EmbeddedObject`, `StoredModuleDict` and `StoredTensor`.

    Args:
        data: the bytes of the file, which tensors keep as their memory.
        what: what messages call the file.

    Raises:
        DataError: the file is damaged, or holds anything that a network of EDM does not need.
    """
    machine = _EdmMachine(data, what)
    objects = machine.run()
    if machine.end != len(data):
        raise DataError(f"{what} goes on after the end of its pickle, at byte {machine.end} of {len(data)}")
    return objects


@dataclass(frozen=True)
class _Symbol:
    name: str


@dataclass(frozen=True)
class _ScalarType:
    layout: str


class _EdmMachine(PickleMachine):
    operations = frozenset(
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
    allowed = "a network of EDM"

    def find(self, name: str) -> _Symbol:
        if name not in _CALLS and name not in _EMPTY_OBJECTS:
            raise DataError(
                f"{self.what} is a pickle that asks for {name.replace(' ', '.')!r:.200}, which was not run; allowed is "
                "what a network of EDM consists of"
            )
        return _Symbol(name)

    def call(self, called: Any, arguments: Any) -> Any:
        name = called.name if isinstance(called, _Symbol) else type(called).__name__
        if name not in _CALLS or not isinstance(called, _Symbol) or not isinstance(arguments, tuple):
            raise self._misuse("calls", name)
        try:
            return _CALLS[name](self, *arguments)
        except TypeError as error:
            raise self._misuse("calls", name) from error

    def build(self, target: Any, state: Any) -> None:
        if isinstance(target, StoredModuleDict) and not target.state and isinstance(state, dict):
            target.state = state
        elif not isinstance(target, _ScalarType) or not _is_native(state):
            raise self._misuse("changes", target.name if isinstance(target, _Symbol) else type(target).__name__)

    def other(self, name: str) -> None:
        if name != "NEWOBJ":
            self.refuse(name)
        kind, arguments = self.pop(2)
        make = _EMPTY_OBJECTS.get(kind.name) if isinstance(kind, _Symbol) else None
        if make is None or not isinstance(arguments, tuple) or arguments:
            raise self._misuse("makes", kind.name if isinstance(kind, _Symbol) else type(kind).__name__)
        self.push(make())

    def _misuse(self, verb: str, name: str) -> DataError:
        return DataError(
            f"{self.what} is a pickle that {verb} {name.replace(' ', '.')} in a way that no network of EDM needs; "
            "it was not run"
        )

    def _object(self, meta: Any) -> EmbeddedObject:
        """An object of EDM's persistence mechanism; the source code in it is dropped unread."""
        if not isinstance(meta, dict) or meta.get("type") != "class" or meta.get("version") != _PERSISTENCE_VERSION:
            raise DataError(
                f"{self.what} has an object that is not of version {_PERSISTENCE_VERSION} of EDM's persistence"
            )
        name, state = meta.get("class_name"), meta.get("state")
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
            raise self._misuse("calls", "torch._utils _rebuild_parameter")
        return tensor

    def _tensor(self, *arguments: Any) -> StoredTensor:
        storage, offset, shape, strides, requires_grad, hooks = arguments[:6]
        # Newer versions of torch add metadata; there are none for an ordinary tensor.
        plain = isinstance(requires_grad, bool) and hooks == {} and arguments[6:] in ((), (None,))
        if not isinstance(storage, Storage) or not plain:
            raise self._misuse("calls", "torch._utils _rebuild_tensor_v2")
        return stored_tensor(storage, offset, shape, strides, self.what)

    def _storage(self, data: Any) -> Storage:
        if not isinstance(data, bytes | memoryview):
            raise self._misuse("calls", "torch.storage _load_from_bytes")
        return read_storage(memoryview(data), self.what)

    def _ordered_dict(self) -> dict[Any, Any]:
        return {}

    def _set(self, *items: Any) -> set[Any]:
        if len(items) > 1 or not all(isinstance(item, list) for item in items):
            raise self._misuse("calls", "builtins set")
        return set(self.hashable(items[0], "set")) if items else set()

    def _bytes(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise self._misuse("calls", "_codecs encode")
        return self.bytes_of(text)

    def _scalar_type(self, code: Any, align: Any, copy: Any) -> _ScalarType:
        if not isinstance(code, str) or code not in _SCALARS or not isinstance(align, bool | int):
            raise self._misuse("calls", "numpy dtype")
        return _ScalarType(_SCALARS[code])

    def _scalar(self, kind: Any, data: Any) -> float | int:
        if not isinstance(kind, _ScalarType) or not isinstance(data, bytes | memoryview):
            raise self._misuse("calls", "numpy scalar")
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
"""The names that may be called, and our functions that stand for them."""

_EMPTY_OBJECTS: Mapping[str, Callable[[], Any]] = {
    "torch.nn.modules.container ModuleDict": StoredModuleDict,
    "dnnlib.util EasyDict": dict,
}
"""The classes that may be made, without arguments, and what stands for them."""


def stored_tensor(storage: Storage, offset: object, shape: object, strides: object, what: str) -> StoredTensor:
    """A tensor in a storage, within its bounds.

    Raises:
        DataError: it is not.
    """
    sizes, steps = _lengths(shape), _lengths(strides)
    if sizes is None or steps is None or len(sizes) != len(steps) or not _is_length(offset):
        raise DataError(f"{what} has a tensor whose shape, strides or offset are not integers from 0 up")
    assert isinstance(offset, int)
    last = offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    if 0 in sizes or last >= storage.count:
        raise DataError(
            f"{what} has a tensor of shape {list(sizes)} that reaches beyond the {storage.count} numbers of its storage"
        )
    return StoredTensor(storage, offset, sizes, steps)


def read_storage(data: memoryview, what: str) -> Storage:
    """The storage in the bytes of one tensor: five small pickles, a count, and the numbers.

    Raises:
        DataError: the bytes are anything else.
    """
    where = f"a tensor in {what}"
    end = 0
    parts = []
    for _ in range(5):
        machine = _StorageMachine(data, where, end)
        parts.append(machine.run())
        end = machine.end
    magic, version, system, storage, keys = parts
    if magic != _STORAGE_MAGIC or version != _STORAGE_VERSION:
        raise DataError(f"{where} is not in the format {_STORAGE_VERSION} of torch")
    if not isinstance(system, dict) or any(system.get(name) != value for name, value in _STORAGE_SYSTEM.items()):
        raise DataError(f"{where} was not written on a little-endian machine in the format {_STORAGE_VERSION} of torch")
    if not isinstance(storage, _Announced) or keys != [storage.key]:
        raise DataError(f"{where} is not one storage")
    raw = data[end + 8 :]
    (count,) = struct.unpack("<q", data[end : end + 8])
    width = np.dtype(storage.dtype).itemsize
    if count != storage.count or len(raw) != count * width:
        raise DataError(
            f"{where} announces {storage.count} and {count} numbers of {width} bytes, and {len(raw)} bytes follow"
        )
    return Storage(storage.dtype, raw, count)


@dataclass(frozen=True)
class _Announced:
    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class _StorageType:
    dtype: str


class _StorageMachine(PickleMachine):
    operations = frozenset(
        {
            *("PROTO", "STOP", "MARK", "LONG1", "BININT", "BININT1", "BININT2", "NEWTRUE", "NEWFALSE", "NONE"),
            *("EMPTY_DICT", "EMPTY_LIST", "BINPUT", "LONG_BINPUT", "BINGET", "BINUNICODE", "SETITEM", "SETITEMS"),
            *("TUPLE", "GLOBAL", "BINPERSID", "APPEND"),
        }
    )
    max_operations = _MAX_STORAGE_OPERATIONS
    allowed = "one storage of numbers"

    def find(self, name: str) -> _StorageType:
        if name not in _STORAGE_DTYPES:
            raise DataError(
                f"{self.what} asks for {name.replace(' ', '.')!r:.200}, which was not run; allowed are "
                f"{', '.join(one.replace(' ', '.') for one in _STORAGE_DTYPES)}"
            )
        return _StorageType(_STORAGE_DTYPES[name])

    def other(self, name: str) -> None:
        if name != "BINPERSID":
            self.refuse(name)
        (identity,) = self.pop(1)
        if not isinstance(identity, tuple) or len(identity) != 6:
            raise DataError(f"{self.what} has no storage of six entries")
        kind, storage_type, key, location, count, view = identity
        texts = all(isinstance(text, str) for text in (kind, key, location))
        if not texts or kind != "storage" or not isinstance(storage_type, _StorageType) or view is not None:
            raise DataError(f"{self.what} has a storage of an unknown kind")
        if not _is_length(count):
            raise DataError(f"{self.what} has a storage whose length is not an integer from 0 up")
        self.push(_Announced(storage_type.dtype, key, count))


def _lengths(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, tuple) or len(values) > 8 or not all(map(_is_length, values)):
        return None
    return values


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
