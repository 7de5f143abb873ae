"""From the objects in an EDM pickle to a network of ours that is proven to be the same."""

import inspect
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from pspc_rs.errors import DataError
from pspc_rs.files import decode_errors, require_path
from pspc_rs.networks.edm_pickle.objects import EmbeddedObject, StoredModuleDict, StoredTensor, read_objects
from pspc_rs.networks.registry import (
    ARCHITECTURES,
    PRECONDITIONERS,
    SHARED_ARGUMENTS,
    build_on_meta,
    check_tensors,
    load_weights,
    preconditioner_class,
)
from pspc_rs.networks.saved import save_network
from pspc_rs.provenance import sha256, versions

_PICKLE_START = b"\x80"
_LEAST_BYTES_PER_NUMBER = 2
_MAX_DEPTH = 8
_MAX_MODULES = 1 << 15
_MAX_VALUES = 1 << 12
_MAX_TEXT = 1 << 12
# What decides what a module computes, besides its tensors.
_ATTRIBUTES = {
    "UNetBlock": ("in_channels", "out_channels", "emb_channels", "num_heads", "skip_scale", "adaptive_scale"),
    "Conv2d": ("in_channels", "out_channels", "up", "down", "fused_resample"),
    "GroupNorm": ("num_groups", "eps"),
    "Linear": ("in_features", "out_features"),
    "PositionalEmbedding": ("num_channels", "max_positions", "endpoint"),
}
# Published networks compute their limits in single precision, which is off by a few per cent for the VP process.
_LIMIT_TOLERANCE = 0.05

_StoredModule = EmbeddedObject | StoredModuleDict


@dataclass(frozen=True)
class EdmSnapshot:
    """What is worth keeping of an EDM pickle.

    Attributes:
        network: the averaged network.
        dataset_kwargs: what the file says of its training data; empty where it says nothing.
    """

    network: nn.Module
    dataset_kwargs: dict[str, Any]


def read_edm_pickle(path: str | os.PathLike[str]) -> nn.Module:
    """The averaged network ("ema") of an EDM pickle: on the CPU, float32, in evaluation mode, without gradients.

    Nothing in the file is executed, imported or looked up; see ``pspc_rs.networks.edm_pickle``.

    Args:
        path: the file, such as ``edm-cifar10-32x32-uncond-vp.pkl``.

    Returns:
        A module called as ``net(x, sigma, class_labels=None)``.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged, holds what does not belong in such a file, or its network is not the architecture that
            it claims to be. The message names what was found.

    Example:
        >>> net = read_edm_pickle("edm-cifar10-32x32-uncond-vp.pkl")  # doctest: +SKIP
        >>> import pickle, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "net.pkl")
        ...     _ = path.write_bytes(pickle.dumps({"ema": print}))
        ...     read_edm_pickle(path)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        pspc_rs.errors.DataError: ...
    """
    return read_edm_snapshot(path).network


def read_edm_snapshot(path: str | os.PathLike[str]) -> EdmSnapshot:
    """The network of an EDM pickle, and what the file says of its data. See ``read_edm_pickle``."""
    file_path = require_path(path)
    with decode_errors(file_path), file_path.open("rb") as file:
        # Tensors are views of the mapped file until they are copied into the network, one by one.
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _snapshot(data, str(file_path))


def convert_edm_pickle(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, dtype: str = "float32"
) -> nn.Module:
    """Writes the network of an EDM pickle to a safetensors file, with where it comes from, and returns it.

    The source code that the pickle carries is left behind. The metadata get name and SHA-256 of the pickle and what it
    says of its training data.

    Args:
        source: the pickle.
        target: the file to write, see ``save_network``.
        dtype: how parameters are stored: "float32", "float16" or "bfloat16".

    Raises:
        MissingFileError: there is no such pickle.
        DataError: it is damaged, or holds what does not belong in such a file.
        OutputError: the file cannot be written.
        MissingDependencyError: safetensors is not installed.

    Example:
        >>> source, target = "edm-cifar10-32x32-uncond-vp.pkl", "net.safetensors"
        >>> net = convert_edm_pickle(source, target)  # doctest: +SKIP
    """
    source_path = require_path(source)
    snapshot = read_edm_snapshot(source_path)
    metadata = {
        "source": {"file": source_path.name, "sha256": sha256(source_path)},
        "dataset_kwargs": snapshot.dataset_kwargs,
        "versions": versions(),
    }
    save_network(snapshot.network, Path(target), metadata, dtype=dtype)
    return snapshot.network


def _snapshot(data: memoryview, what: str) -> EdmSnapshot:
    if data[:1] != _PICKLE_START:
        raise DataError(f"{what} is no pickle: it begins with {bytes(data[:4])!r}")
    objects = read_objects(data, what)
    if not isinstance(objects, dict) or "ema" not in objects:
        raise DataError(f"{what} is no EDM snapshot: it is no dict with an entry 'ema'")
    tree = ModuleTree.of(objects["ema"], what)
    network = build_on_meta(tree.description(), what)
    _check_modules(network, tree)
    check_tensors(what, {name: list(tensor.shape) for name, tensor in tree.tensors.items()}, network)
    # Strides of zero would let a few bytes stand for a network of any size.
    if tree.number_of_values * _LEAST_BYTES_PER_NUMBER > len(data):
        raise DataError(f"{what} has {len(data)} bytes, too few for the {tree.number_of_values} numbers it announces")
    network = load_weights(network, ((name, tensor.load()) for name, tensor in tree.tensors.items()), what)
    _check_limits(network, tree)
    kwargs = plain_value(objects.get("dataset_kwargs") or {}, "dataset_kwargs", what)
    if not isinstance(kwargs, dict):
        raise DataError(f"{what}: dataset_kwargs are a {type(kwargs).__name__}; allowed is a dict")
    return EdmSnapshot(network, kwargs)


@dataclass
class ModuleTree:
    """The modules and tensors of the network in a pickle.

    Attributes:
        what: what messages call the file.
        modules: every module by its name, in order; "" is the preconditioner.
        tensors: every parameter and buffer by its name, in order.
    """

    what: str
    modules: dict[str, _StoredModule] = field(default_factory=dict)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ModuleTree({self.what!r}, {len(self.modules)} modules, {len(self.tensors)} tensors)"

    @classmethod
    def of(cls, network: object, what: str) -> "ModuleTree":
        """The tree of a preconditioned network.

        Raises:
            DataError: it is no network, or holds what none of EDM's holds.
        """
        if not isinstance(network, EmbeddedObject) or network.class_name not in PRECONDITIONERS:
            name = network.class_name if isinstance(network, EmbeddedObject) else type(network).__name__
            raise DataError(f"{what} has a {name} for a network; allowed are {', '.join(PRECONDITIONERS)}")
        tree = cls(what)
        for path, module in _walk("", network, 0, what):
            if len(tree.modules) >= _MAX_MODULES:
                raise DataError(f"{what} has more than {_MAX_MODULES} modules")
            tree.modules[path] = module
            _check_state(path, module.state, what)
            for table in ("_parameters", "_buffers"):
                for name, tensor in _table(module, table, path, what).items():
                    if tensor is not None:
                        full_name = _joined(path, name)
                        tree.tensors[full_name] = _expected(tensor, StoredTensor, full_name, what)
        return tree

    @property
    def number_of_values(self) -> int:
        """How many numbers the tensors have together."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    def description(self) -> dict[str, Any]:
        """The description of the network for ``build_network``.

        Raises:
            DataError: the modules do not have what is needed.
        """
        what, outer, inner = self.what, self.modules[""], self.modules.get("model")
        if inner is None or inner.class_name not in ARCHITECTURES:
            name = "nothing" if inner is None else inner.class_name
            raise DataError(f"{what} has {name} for a model; allowed are {', '.join(ARCHITECTURES)}")
        arguments = _arguments(inner, "model", what)
        if _arguments(outer, "the preconditioner", what).get("model_type", inner.class_name) != inner.class_name:
            raise DataError(f"{what} says that its model is of another type than {inner.class_name}, which it is")
        preconditioner = preconditioner_class(outer.class_name)
        names = [name for name in inspect.signature(preconditioner).parameters if name != "model"]
        outer_kwargs = {name: plain_value(outer.state[name], name, what) for name in names if name in outer.state}
        if outer_kwargs.get("sigma_max") == math.inf:
            outer_kwargs["sigma_max"] = None
        channels = outer_kwargs.get("img_channels")
        outputs = channels * preconditioner.outputs_per_channel if isinstance(channels, int) else None
        shared = (outer_kwargs.get("img_resolution"), channels, outputs, outer_kwargs.get("label_dim"))
        for name, value in zip(SHARED_ARGUMENTS, shared, strict=True):
            if name in arguments and arguments[name] != value:
                raise DataError(f"{what}: the model has {name} {arguments[name]!r:.80}, the preconditioner {value!r}")
        return {
            "preconditioner": outer.class_name,
            "preconditioner_kwargs": outer_kwargs,
            "architecture": inner.class_name,
            "architecture_kwargs": {name: arguments[name] for name in arguments if name not in SHARED_ARGUMENTS},
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


def _check_modules(network: nn.Module, tree: ModuleTree) -> None:
    """Refuses a network that differs from the tree in its modules, their order or their attributes."""
    built, what = dict(network.named_modules()), tree.what
    for (name, module), (stored_name, stored) in zip(built.items(), tree.modules.items(), strict=False):
        if name != stored_name:
            raise DataError(f"{what} has the module {stored_name!r} where its architecture has {name!r}")
        if name and stored.class_name != type(module).__name__:
            raise DataError(
                f"{what}: {name} is a {stored.class_name}; in its architecture it is a {type(module).__name__}"
            )
        for attribute in _ATTRIBUTES.get(stored.class_name, ()):
            _check_attribute(f"{name}.{attribute}", stored.state.get(attribute), getattr(module, attribute), what)
    if len(built) != len(tree.modules):
        raise DataError(f"{what} has {len(tree.modules)} modules; its architecture has {len(built)}")


def _check_attribute(name: str, stored: object, built: object, what: str) -> None:
    agree = isinstance(stored, bool | int | float) and isinstance(built, bool | int | float)
    if not agree or not math.isclose(float(stored), float(built), rel_tol=1e-9):  # type: ignore[arg-type]
        shown = plain_value(stored, name, what)
        raise DataError(f"{what}: {name} is {shown!r:.80}; in its architecture it is {built!r}")


def _check_limits(network: Any, tree: ModuleTree) -> None:
    """Refuses a network whose range of noise levels is not that of the file, where the file has one."""
    for name in ("sigma_min", "sigma_max"):
        stored, built = tree.modules[""].state.get(name), getattr(network, name)
        agree = isinstance(stored, float | int) and math.isclose(stored, built, rel_tol=_LIMIT_TOLERANCE)
        if stored is not None and not agree:
            shown = plain_value(stored, name, tree.what)
            raise DataError(f"{tree.what}: {name} is {shown!r:.80}; that of its network is {built:g}")


def _walk(path: str, module: _StoredModule, depth: int, what: str) -> Iterator[tuple[str, _StoredModule]]:
    if depth > _MAX_DEPTH:
        raise DataError(f"{what} has modules that are nested more than {_MAX_DEPTH} deep, or that contain themselves")
    yield path, module
    for name, child in _table(module, "_modules", path, what).items():
        if child is not None:
            child_path = _joined(path, name)
            if not isinstance(child, EmbeddedObject | StoredModuleDict):
                raise DataError(f"{what}: {child_path} is a {type(child).__name__}; allowed are modules")
            yield from _walk(child_path, child, depth + 1, what)


def _table(module: _StoredModule, name: str, path: str, what: str) -> dict[str, Any]:
    table = module.state.get(name)
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


def _arguments(module: _StoredModule, name: str, what: str) -> dict[str, Any]:
    if module.state.get("_init_args", ()) != ():
        raise DataError(f"{what}: {name} was made with arguments that have no names")
    kwargs = plain_value(module.state.get("_init_kwargs"), f"the arguments of {name}", what)
    arguments: dict[str, Any] = _expected(kwargs, dict, f"the arguments of {name}", what)
    return arguments


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _expected(value: Any, kind: type, name: str, what: str) -> Any:
    if not isinstance(value, kind):
        raise DataError(f"{what}: {name} is a {type(value).__name__}; needed is a {kind.__name__}")
    return value
