"""The numbers of a tensor: bytes that are, in turn, a file of torch's old format."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pspc_rs.data.readers.pickle_machine import PickleMachine
from pspc_rs.errors import DataError
from pspc_rs.networks.edm_pickle.operations import Operations

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_SYSTEM = {"protocol_version": _VERSION, "little_endian": True}
_DTYPES = {"torch FloatStorage": "<f4", "torch HalfStorage": "<f2"}
_MAX_OPERATIONS = 64
_KNOWN = frozenset(
    {
        *("PROTO", "STOP", "MARK", "LONG1", "BININT", "BININT1", "BININT2", "NEWTRUE", "NEWFALSE", "NONE"),
        *("EMPTY_DICT", "EMPTY_LIST", "BINPUT", "LONG_BINPUT", "BINGET", "BINUNICODE", "SETITEM", "SETITEMS"),
        *("TUPLE", "GLOBAL", "BINPERSID", "APPEND"),
    }
)


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, still in the memory of the file.

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


def stored_tensor(storage: Storage, offset: object, shape: object, strides: object, what: str) -> StoredTensor:
    """A tensor in a storage, within its bounds.

    Raises:
        DataError: it is not.
    """
    sizes, steps = _lengths(shape), _lengths(strides)
    if sizes is None or steps is None or len(sizes) != len(steps) or not _is_length(offset):
        raise DataError(f"{what} has a tensor whose shape, strides or offset are no whole numbers from 0 up")
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
        operations = Operations(data, end, _KNOWN, _MAX_OPERATIONS, where)
        parts.append(_StorageMachine(where, len(data)).run(operations))
        end = operations.end
    magic, version, system, storage, keys = parts
    if magic != _MAGIC or version != _VERSION:
        raise DataError(f"{where} is not in the format {_VERSION} of torch")
    if not isinstance(system, dict) or any(system.get(name) != value for name, value in _SYSTEM.items()):
        raise DataError(f"{where} was not written on a little-endian machine in the format {_VERSION} of torch")
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
    literals = frozenset(("LONG1", "BININT", "BININT1", "BININT2", "BINUNICODE"))
    collections = frozenset(("EMPTY_DICT", "EMPTY_LIST", "SETITEM", "SETITEMS", "TUPLE", "APPEND"))
    allowed = "one storage of numbers"

    def find(self, name: str) -> _StorageType:
        if name not in _DTYPES:
            raise DataError(
                f"{self.what} asks for {name.replace(' ', '.')!r:.200}, which was not run; allowed are "
                f"{', '.join(one.replace(' ', '.') for one in _DTYPES)}"
            )
        return _StorageType(_DTYPES[name])

    def call(self, called: Any, arguments: Any) -> None:
        self.refuse("REDUCE")

    def build(self, target: Any, state: Any) -> None:
        self.refuse("BUILD")

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
            raise DataError(f"{self.what} has a storage of no whole number of entries")
        self.push(_Announced(storage_type.dtype, key, count))


def _lengths(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, tuple) or len(values) > 8 or not all(map(_is_length, values)):
        return None
    return values


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40
