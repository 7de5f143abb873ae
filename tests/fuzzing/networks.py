"""The readers of networks that are fuzzed; they need torch."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from edm_pickles import edm_pickle
from edm_vectors import built
from fuzzing.targets import Arrays, Reader, without_result
from pspc_rs.networks import open_network, read_edm_pickle, read_network, save_network

SMALL: dict[str, Any] = {
    "preconditioner": "EDMPrecond",
    "preconditioner_kwargs": {"img_resolution": 4, "img_channels": 1},
    "architecture": "SongUNet",
    "architecture_kwargs": {"model_channels": 4, "channel_mult": [1], "num_blocks": 1},
}


def network() -> Any:
    torch.manual_seed(0)
    return built(SMALL)


def safetensors_seeds() -> list[bytes]:
    from fuzzing.readers import written

    return [written(lambda path: save_network(network(), path))]


def description_seeds() -> list[bytes]:
    entries = {"source": "net.safetensors", "prediction": "x0", "process": "ve", "sigma_min": 0.1, "sigma_max": 5}
    plain = {"source": "net.safetensors"}
    return [json.dumps(one).encode(encoding) for one in (entries, plain) for encoding in ("utf-8", "utf-16")]


def described(file: Path) -> Arrays:
    if not (file.parent / "net.safetensors").exists():
        (file.parent / "net.safetensors").write_bytes(safetensors_seeds()[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        open_network(file)
    return []


def network_readers() -> list[Reader]:
    """The readers of our own files, EDM's pickles and descriptions."""
    return [
        Reader("network", "net.safetensors", safetensors_seeds, without_result(read_network)),
        Reader("edm pickle", "net.pkl", lambda: [edm_pickle(network())], without_result(read_edm_pickle)),
        Reader("description", "net.json", description_seeds, described, 0.5),
    ]
