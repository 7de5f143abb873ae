"""From an EDM pickle to a file of ours."""

import os
from pathlib import Path

from torch import nn

from pspc_rs.data.readers.files import existing
from pspc_rs.networks.edm_pickle.read import read_edm_snapshot
from pspc_rs.networks.saved import save_network
from pspc_rs.provenance import sha256, versions


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
    """
    found = existing(source)
    snapshot = read_edm_snapshot(found)
    metadata = {
        "source": {"file": found.name, "sha256": sha256(found)},
        "dataset_kwargs": snapshot.dataset_kwargs,
        "versions": versions(),
    }
    save_network(snapshot.network, Path(target), metadata, dtype=dtype)
    return snapshot.network
