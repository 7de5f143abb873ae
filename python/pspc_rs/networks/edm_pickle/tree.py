"""From the objects of an EDM pickle to a flat account of its network: modules, attributes, tensors, description."""

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pspc_rs.errors import DataError
from pspc_rs.networks.edm_pickle.machine import EmbeddedObject, StoredModuleDict
from pspc_rs.networks.edm_pickle.storages import StoredTensor
from pspc_rs.networks.registry import ARCHITECTURES, PRECONDITIONERS, preconditioner_class

_MAX_DEPTH = 8
_MAX_MODULES = 1 << 15
_MAX_VALUES = 1 << 12
_MAX_TEXT = 1 << 12
# What an architecture is given besides its own arguments.
_SHARED = ("img_resolution", "in_channels", "out_channels", "label_dim")

Node = EmbeddedObject | StoredModuleDict


@dataclass
class Account:
    """What a pickle says of its network.

    Attributes:
        modules: every module by its name, in order; "" is the preconditioner.
        tensors: every parameter and buffer by its name, in order.
    """

    modules: dict[str, Node] = field(default_factory=dict)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)

    def number_of_values(self) -> int:
        """How many numbers the tensors have together."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())


def account_of(network: object, what: str) -> Account:
    """The account of a preconditioned network.

    Raises:
        DataError: it is no network, or holds what none of EDM's holds.
    """
    if not isinstance(network, EmbeddedObject) or network.class_name not in PRECONDITIONERS:
        name = network.class_name if isinstance(network, EmbeddedObject) else type(network).__name__
        raise DataError(f"{what} has a {name} for a network; allowed are {', '.join(PRECONDITIONERS)}")
    account = Account()
    for path, node in _walk("", network, 0, what):
        if len(account.modules) >= _MAX_MODULES:
            raise DataError(f"{what} has more than {_MAX_MODULES} modules")
        account.modules[path] = node
        _check_state(path, node.state, what)
        for table in ("_parameters", "_buffers"):
            for name, tensor in _table(node, table, path, what).items():
                if tensor is not None:
                    account.tensors[_joined(path, name)] = _expected(tensor, StoredTensor, _joined(path, name), what)
    return account


def description_of(account: Account, what: str) -> dict[str, Any]:
    """The description of the account's network for ``build_network``.

    Raises:
        DataError: the account does not have what is needed.
    """
    outer, inner = account.modules[""], account.modules.get("model")
    if inner is None or inner.class_name not in ARCHITECTURES:
        name = "nothing" if inner is None else inner.class_name
        raise DataError(f"{what} has {name} for a model; allowed are {', '.join(ARCHITECTURES)}")
    names = [name for name in inspect.signature(preconditioner_class(outer.class_name)).parameters if name != "model"]
    frame = {name: plain_value(outer.state[name], name, what) for name in names if name in outer.state}
    if frame.get("sigma_max") == math.inf:
        frame["sigma_max"] = None
    arguments = _arguments(inner, "model", what)
    if _arguments(outer, "the preconditioner", what).get("model_type", inner.class_name) != inner.class_name:
        raise DataError(f"{what} says that its model is of another type than {inner.class_name}, which it is")
    per_channel = preconditioner_class(outer.class_name).outputs_per_channel
    channels = frame.get("img_channels")
    shared = {
        "img_resolution": frame.get("img_resolution"),
        "in_channels": channels,
        "out_channels": channels * per_channel if isinstance(channels, int) else None,
        "label_dim": frame.get("label_dim"),
    }
    for name in _SHARED:
        if name in arguments and arguments[name] != shared[name]:
            raise DataError(
                f"{what}: the model has {name} {arguments[name]!r:.80}, the preconditioner {shared[name]!r}"
            )
    return {
        "preconditioner": outer.class_name,
        "preconditioner_kwargs": frame,
        "architecture": inner.class_name,
        "architecture_kwargs": {name: value for name, value in arguments.items() if name not in _SHARED},
    }


def plain_value(value: object, name: str, what: str) -> Any:
    """A value as JSON holds it, of limited size: numbers, strings, lists and dicts of them.

    Raises:
        DataError: it is anything else.

    Example:
        >>> plain_value({"a": (1, 2.5)}, "dataset_kwargs", "a.pkl")
        {'a': [1, 2.5]}
    """
    budget = iter(range(_MAX_VALUES))

    def copied(value: object, depth: int) -> Any:
        if next(budget, None) is None or depth > _MAX_DEPTH:
            raise DataError(f"{what}: {name} has too many values, or too deeply nested ones")
        if isinstance(value, int) and value.bit_length() > 63:
            raise DataError(f"{what}: {name} has a number of {value.bit_length()} bits; allowed are 63")
        if isinstance(value, str) and len(value) > _MAX_TEXT:
            raise DataError(f"{what}: {name} has a string of {len(value)} letters; allowed are {_MAX_TEXT}")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return [copied(item, depth + 1) for item in value]
        if isinstance(value, dict) and all(isinstance(key, str) and len(key) <= _MAX_TEXT for key in value):
            return {key: copied(item, depth + 1) for key, item in value.items()}
        raise DataError(f"{what}: {name} holds a {type(value).__name__}; allowed are numbers, strings, lists and dicts")

    return copied(value, 0)


def _walk(path: str, node: Node, depth: int, what: str) -> Iterator[tuple[str, Node]]:
    if depth > _MAX_DEPTH:
        raise DataError(f"{what} has modules that are nested more than {_MAX_DEPTH} deep, or that contain themselves")
    yield path, node
    for name, child in _table(node, "_modules", path, what).items():
        if child is not None:
            where = _joined(path, name)
            if not isinstance(child, EmbeddedObject | StoredModuleDict):
                raise DataError(f"{what}: {where} is a {type(child).__name__}; allowed are modules")
            yield from _walk(where, child, depth + 1, what)


def _table(node: Node, name: str, path: str, what: str) -> dict[str, Any]:
    table = node.state.get(name)
    if not isinstance(table, dict):
        raise DataError(f"{what}: {path or 'the network'} has no {name}, which every module has")
    if not all(isinstance(key, str) and key and "." not in key and len(key) < 256 for key in table):
        raise DataError(f"{what}: {path or 'the network'} has {name} whose names are no plain strings")
    return table


def _check_state(path: str, state: dict[str, Any], what: str) -> None:
    """Refuses hooks and buffers that are not kept: they would have changed what the network does."""
    for name, value in state.items():
        hooked = isinstance(name, str) and name.startswith("_") and "_hook" in name
        if (hooked or name == "_non_persistent_buffers_set") and value:
            raise DataError(f"{what}: {path or 'the network'} has {name}, which cannot be read; it must be empty")


def _arguments(node: Node, name: str, what: str) -> dict[str, Any]:
    if node.state.get("_init_args", ()) != ():
        raise DataError(f"{what}: {name} was made with arguments that have no names")
    kwargs = plain_value(node.state.get("_init_kwargs"), f"the arguments of {name}", what)
    found: dict[str, Any] = _expected(kwargs, dict, f"the arguments of {name}", what)
    return found


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _expected(value: Any, kind: type, name: str, what: str) -> Any:
    if not isinstance(value, kind):
        raise DataError(f"{what}: {name} is a {type(value).__name__}; needed is a {kind.__name__}")
    return value
