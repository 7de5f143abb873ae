"""Our network files: safetensors with a description of the network in the metadata. Nothing in such a file can be run.

The metadata key ``pspc_rs`` holds JSON: ``{"format": 1, <the description of registry.py>, "metadata": {...}}``. The
tensors have the names of ``network.state_dict()``. Parameters may be stored in half precision; buffers (frequencies,
noise tables, filters) are always float32. Everything is float32 once loaded.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pspc_rs.arrays import import_safetensors
from pspc_rs.checks import one_of
from pspc_rs.errors import DataError, InvalidValueError
from pspc_rs.files import replacing, require_path
from pspc_rs.networks.registry import build_on_meta, check_tensors, describe_network, load_weights
from pspc_rs.provenance import plain

FORMAT = 1
"""Version of the layout."""

_KEY = "pspc_rs"
_STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_MAX_TENSORS = 1 << 17


def save_network(
    module: nn.Module,
    path: str | os.PathLike[str],
    metadata: Mapping[str, object] | None = None,
    *,
    dtype: str = "float32",
) -> None:
    """Writes a network to a safetensors file.

    Args:
        module: a network of ``build_network``, on any device.
        path: the file, replaced at once when everything is written.
        metadata: further facts that JSON can hold, such as data, steps and losses.
        dtype: how parameters are stored: "float32", "float16" or "bfloat16".

    Raises:
        DTypeError: the module is no network of ours, or the metadata cannot be recorded.
        InvalidValueError: a tensor is not finite, or not in that dtype; or the dtype is unknown.
        OutputError: the file cannot be written.
        MissingDependencyError: safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from pspc_rs.networks import build_network
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
        ...     "architecture": "SongUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network(net, folder + "/net.safetensors", {"steps": 0}, dtype="float16")
        ...     read_metadata(folder + "/net.safetensors")["metadata"]
        {'steps': 0}
    """
    one_of("dtype", dtype, _STORED)
    record = {"format": FORMAT, **describe_network(module), "metadata": plain(metadata or {})}
    text = json.dumps(record, allow_nan=False)
    parameters = {name for name, _ in module.named_parameters()}
    tensors = {
        name: _stored_tensor(name, tensor, dtype if name in parameters else "float32")
        for name, tensor in module.state_dict().items()
    }
    # Not save_file, whose files none but their owner may read.
    content = import_safetensors("a network file", "torch").save(tensors, metadata={_KEY: text})
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)


def read_network(path: str | os.PathLike[str]) -> nn.Module:
    """The network in a file of ``save_network``: on the CPU, float32, in evaluation mode, without gradients.

    Args:
        path: the file.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged, of another kind, or its tensors are not those of the network it describes.
        MissingDependencyError: safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from pspc_rs.networks import build_network
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
        ...     "architecture": "SongUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network(net, folder + "/net.safetensors")
        ...     read_network(folder + "/net.safetensors").sigma_data
        0.5
    """
    with _open(path) as file:
        description = _read_record(file, path)
        description.pop("metadata")
        network = build_on_meta(description, path)
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        check_tensors(path, {name: list(one.get_shape()) for name, one in slices.items()}, network)
        for name, one in slices.items():
            if one.get_dtype() not in _STORED.values():
                allowed = ", ".join(_STORED.values())
                raise DataError(f"{path}: {name} is stored as {one.get_dtype()}; allowed are {allowed}")
        return load_weights(network, ((name, file.get_tensor(name)) for name in slices), path)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of the network in a file of ``save_network``, and under "metadata" what else was recorded.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged or of another kind.
        MissingDependencyError: safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from pspc_rs.networks import build_network
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
        ...     "architecture": "SongUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_network(net, folder + "/net.safetensors", {"steps": 5})
        ...     found = read_metadata(folder + "/net.safetensors")
        >>> found["architecture"], found["metadata"]
        ('SongUNet', {'steps': 5})
    """
    with _open(path) as file:
        return _read_record(file, path)


def _stored_tensor(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """A tensor of its own memory on the CPU, rounded to dtype."""
    rounded = tensor.detach().to("cpu", getattr(torch, dtype)).clone(memory_format=torch.contiguous_format)
    if not bool(rounded.isfinite().all()):
        raise InvalidValueError(f"{name} holds numbers that are not finite in {dtype}, so the network is not saved")
    return rounded


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[Any]:
    required = require_path(path)
    safetensors = import_safetensors("a network file")
    try:
        with safetensors.safe_open(required, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise DataError(f"{required} is no safetensors file, or a damaged one: {error}") from error
    except OSError as error:
        raise DataError(f"{required} cannot be read: {error}") from error


def _read_record(file: Any, path: object) -> dict[str, Any]:
    """The JSON in the metadata, with its format checked."""
    text = (file.metadata() or {}).get(_KEY)
    if text is None:
        raise DataError(
            f"{path} has no metadata {_KEY!r}: it is a safetensors file that does not say which network it holds"
        )
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the metadata {_KEY!r} are no JSON: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        version = record.get("format") if isinstance(record, dict) else record
        raise DataError(f"{path} has the format {version!r:.80}; this version reads format {FORMAT}")
    record.pop("format")
    if not isinstance(record.setdefault("metadata", {}), dict):
        raise DataError(f"{path}: the metadata are a {type(record['metadata']).__name__}; allowed is a dict")
    if len(file.keys()) > _MAX_TENSORS:
        raise DataError(f"{path} has {len(file.keys())} tensors; allowed are {_MAX_TENSORS}")
    return record
