"""Networks as denoisers: architectures, preconditioners, and the files they are kept in.

They need torch, which is imported when the first of these names is used: ``pip install "pspc-rs[torch]"``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pspc_rs.networks.edm_pickle.convert import convert_edm_pickle
    from pspc_rs.networks.edm_pickle.read import read_edm_pickle
    from pspc_rs.networks.registry import build_network, describe_network
    from pspc_rs.networks.saved import is_safetensors, read_metadata, read_network, save_network

_HOMES = {
    "build_network": "registry",
    "convert_edm_pickle": "edm_pickle.convert",
    "describe_network": "registry",
    "is_safetensors": "saved",
    "read_edm_pickle": "edm_pickle.read",
    "read_metadata": "saved",
    "read_network": "saved",
    "save_network": "saved",
}

__all__ = [
    "build_network",
    "convert_edm_pickle",
    "describe_network",
    "is_safetensors",
    "read_edm_pickle",
    "read_metadata",
    "read_network",
    "save_network",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
