"""Pickles as EDM's training script writes them, made from our networks, so that tests can spoil them."""

import collections
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn

from pspc_rs.networks import describe_network
from pspc_rs.networks.edm.preconditioners import Preconditioner

_TABLES = ("_parameters", "_buffers", "_modules")
_SOURCE = "import os\nos._exit(3)\n"
_OWN = (bool, int, float, str)


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    raise AssertionError("a pickle was executed")


class Embedded:
    """An object as EDM's persistence mechanism writes it."""

    def __init__(self, class_name: str, state: dict[str, Any], **meta: Any) -> None:
        self.meta: dict[str, Any] = {
            "type": "class",
            "version": 6,
            "module_src": _SOURCE,
            "class_name": class_name,
            "state": state,
        }
        self.meta |= meta

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.meta["state"]
        return found

    def child(self, path: str) -> "Embedded":
        """A module inside, by its dotted name."""
        node: Any = self
        for name in path.split("."):
            state = node.state if isinstance(node, Embedded) else node.__dict__
            node = state["_modules"][name]
        assert isinstance(node, Embedded)
        return node

    def __reduce__(self) -> tuple[Any, ...]:
        return _reconstruct_persistent_obj, (self.meta,)


def embedded(net: nn.Module) -> Embedded:
    """A preconditioned network of ours as the objects that EDM's script would write."""
    assert isinstance(net, Preconditioner)
    described = describe_network(net)
    frame, inner = described["preconditioner_kwargs"], described["architecture_kwargs"]
    top = _object(net, described["preconditioner"])
    top.state["_init_kwargs"] = {**frame, **inner, "model_type": described["architecture"]}
    limits = {"sigma_min": net.sigma_min, "sigma_max": net.sigma_max}
    top.state.update({name: value for name, value in frame.items() if name not in limits} | limits)
    shared = {"img_resolution": net.img_resolution, "in_channels": net.img_channels, "label_dim": net.label_dim}
    outputs = net.img_channels * net.outputs_per_channel
    top.child("model").state["_init_kwargs"] = {**shared, "out_channels": outputs, **inner}
    return top


def _object(module: nn.Module, class_name: str) -> Embedded:
    state: dict[str, Any] = {
        "training": False,
        "_non_persistent_buffers_set": set(),
        "_forward_hooks": collections.OrderedDict(),
    }
    state |= {name: value for name, value in vars(module).items() if isinstance(value, _OWN) and name[0] != "_"}
    state |= {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers)}
    state["_modules"] = {name: _child(child) for name, child in module._modules.items()}
    state |= {"_init_args": (), "_init_kwargs": {}}
    return Embedded(class_name, state)


def _child(module: nn.Module | None) -> Any:
    if module is None:
        return None
    if not isinstance(module, nn.ModuleDict):
        return _object(module, type(module).__name__)
    table = nn.ModuleDict()
    vars(table)["_modules"] = {name: _child(child) for name, child in module._modules.items()}
    return table


def dumped(snapshot: Any, protocol: int = 4) -> bytes:
    """The bytes of a pickle; names of EDM's modules can be found while it is written."""
    buffer = io.BytesIO()
    with _edm_modules():
        pickle.Pickler(buffer, protocol).dump(snapshot)
    return buffer.getvalue()


def edm_pickle(net: nn.Module, protocol: int = 4, change: Callable[[Embedded], object] | None = None) -> bytes:
    """A snapshot with a network, after a change to its objects."""
    top = embedded(net)
    if change is not None:
        change(top)
    loss = Embedded("EDMLoss", {"P_mean": -1.2, "P_std": 1.2, "sigma_data": 0.5})
    snapshot = {"ema": top, "loss_fn": loss, "augment_pipe": None, "dataset_kwargs": {"path": "a.zip", "xflip": False}}
    return dumped(snapshot, protocol)


@contextmanager
def _edm_modules() -> Iterator[None]:
    module = ModuleType("torch_utils.persistence")
    vars(module)["_reconstruct_persistent_obj"] = _reconstruct_persistent_obj
    names = {"torch_utils": ModuleType("torch_utils"), "torch_utils.persistence": module}
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    sys.modules.update(names)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
