"""Networks as denoisers: `open_network`, architectures, preconditioners, and the files they are kept in.

Torch is imported when the first name that needs it is used, not with this package: ``pip install "pspc-rs[torch]"``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pspc_rs.arrays import import_torch

if TYPE_CHECKING:
    from pspc_rs.networks.adapter import Adapter, with_adapter
    from pspc_rs.networks.clients import DiffusersModel, azula_denoiser
    from pspc_rs.networks.edm_pickle.read import convert_edm_pickle, read_edm_pickle
    from pspc_rs.networks.opening import is_safetensors, load_network, open_network
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
    from pspc_rs.networks.saved import read_metadata, read_network, save_network
    from pspc_rs.networks.weights import read_weights

_MODULES = {
    "Adapter": "adapter",
    "ContinuousVP": "processes",
    "CosineVP": "processes",
    "DiffusersModel": "clients",
    "DiscreteVP": "processes",
    "Edm": "processes",
    "FlowMatching": "processes",
    "NoiseProcess": "processes",
    "VarianceExploding": "processes",
    "azula_denoiser": "clients",
    "build_network": "registry",
    "convert_edm_pickle": "edm_pickle.read",
    "describe_network": "registry",
    "is_safetensors": "opening",
    "load_network": "opening",
    "open_network": "opening",
    "read_edm_pickle": "edm_pickle.read",
    "read_metadata": "saved",
    "read_network": "saved",
    "read_weights": "weights",
    "save_network": "saved",
    "with_adapter": "adapter",
}

# These also take networks that are functions of numpy arrays.
_WITHOUT_TORCH = ("load_network", "open_network")

__all__ = [
    "Adapter",
    "ContinuousVP",
    "CosineVP",
    "DiffusersModel",
    "DiscreteVP",
    "Edm",
    "FlowMatching",
    "NoiseProcess",
    "VarianceExploding",
    "azula_denoiser",
    "build_network",
    "convert_edm_pickle",
    "describe_network",
    "is_safetensors",
    "load_network",
    "open_network",
    "read_edm_pickle",
    "read_metadata",
    "read_network",
    "read_weights",
    "save_network",
    "with_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _WITHOUT_TORCH:
        import_torch(f"pspc_rs.networks.{name}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
