"""Networks as denoisers: architectures, preconditioners, and the files they are kept in.

They need torch, which is imported when the first of these names is used: ``pip install "pspc-rs[torch]"``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pspc_rs.arrays import import_torch

if TYPE_CHECKING:
    from pspc_rs.networks.adapter import Adapter
    from pspc_rs.networks.description import with_adapter
    from pspc_rs.networks.edm_pickle.convert import convert_edm_pickle
    from pspc_rs.networks.edm_pickle.read import read_edm_pickle
    from pspc_rs.networks.opening import open_network
    from pspc_rs.networks.processes import (
        ContinuousVP,
        CosineVP,
        DiscreteVP,
        Edm,
        FlowMatching,
        NoiseProcess,
        VarianceExploding,
    )
    from pspc_rs.networks.registry import build_network, describe_network
    from pspc_rs.networks.saved import is_safetensors, read_metadata, read_network, save_network
    from pspc_rs.networks.sources import load_network

_HOMES = {
    "Adapter": "adapter",
    "ContinuousVP": "processes",
    "CosineVP": "processes",
    "DiscreteVP": "processes",
    "Edm": "processes",
    "FlowMatching": "processes",
    "NoiseProcess": "processes",
    "VarianceExploding": "processes",
    "build_network": "registry",
    "convert_edm_pickle": "edm_pickle.convert",
    "describe_network": "registry",
    "is_safetensors": "saved",
    "load_network": "sources",
    "open_network": "opening",
    "read_edm_pickle": "edm_pickle.read",
    "read_metadata": "saved",
    "read_network": "saved",
    "save_network": "saved",
    "with_adapter": "description",
}

# Functions of numpy arrays are networks, too.
_WITHOUT_TORCH = ("load_network", "open_network")

__all__ = [
    "Adapter",
    "ContinuousVP",
    "CosineVP",
    "DiscreteVP",
    "Edm",
    "FlowMatching",
    "NoiseProcess",
    "VarianceExploding",
    "build_network",
    "convert_edm_pickle",
    "describe_network",
    "is_safetensors",
    "load_network",
    "open_network",
    "read_edm_pickle",
    "read_metadata",
    "read_network",
    "save_network",
    "with_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _WITHOUT_TORCH:
        import_torch(f"pspc_rs.networks.{name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
