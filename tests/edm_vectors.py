"""Numbers computed by the published EDM networks, and our networks with the same weights."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pspc_rs.networks import build_network
from pspc_rs.networks.edm.preconditioners import Preconditioner

NETWORKS = (
    "ddpmpp_edm",
    "ddpmpp_edm_cond",
    "ncsnpp_edm",
    "ncsnpp_edm_3level_cond",
    "ncsnpp_ve",
    "ddpmpp_vp",
    "adm_edm",
    "adm_edm_2heads",
    "adm_iddpm",
    "song_skip_skip",
    "song_residual_skip_box",
)

_FRAME = ("img_resolution", "img_channels", "label_dim", "use_fp16")


@cache
def vectors(folder: Path, name: str) -> dict[str, NDArray[Any]]:
    """All arrays of one file."""
    with np.load(folder / "edm-vectors" / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def meta(folder: Path, name: str) -> dict[str, Any]:
    """What a file says about itself."""
    about: dict[str, Any] = json.loads(str(vectors(folder, name)["meta"]))
    return about


def description(folder: Path, name: str) -> dict[str, Any]:
    """The description of a file's network, from the arguments the published class was made with."""
    about = meta(folder, name)
    kwargs = dict(about["init_kwargs"])
    architecture = kwargs.pop("model_type")
    frame = {key: kwargs.pop(key) for key in _FRAME if key in kwargs}
    return {
        "preconditioner": about["class_name"],
        "preconditioner_kwargs": frame,
        "architecture": architecture,
        "architecture_kwargs": kwargs,
    }


def built(description: dict[str, Any]) -> Preconditioner:
    """The network of a description."""
    net = build_network(description)
    assert isinstance(net, Preconditioner)
    return net


def network(folder: Path, name: str, dtype: torch.dtype = torch.float32) -> Preconditioner:
    """The network of a file with its weights, in evaluation mode."""
    net = built(description(folder, name))
    state = {
        key.removeprefix("state/"): torch.from_numpy(array)
        for key, array in vectors(folder, name).items()
        if key.startswith("state/")
    }
    net.load_state_dict(state, strict=True)
    return net.eval().requires_grad_(False).to(dtype)


def tensor(array: NDArray[Any], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An array as a tensor of that type."""
    return torch.from_numpy(np.array(array)).to(dtype)


def relative_error(found: Any, wanted: Any) -> float:
    """Largest deviation over the largest value."""
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a - b).max() / np.abs(b).max())
