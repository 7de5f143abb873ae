"""Our network files: safetensors with a description of the network in the metadata. Nothing in such a file can be run.

The metadata key ``pspc_rs`` holds JSON: ``{"format": 1, <the description of registry.py>, "metadata": {...}}``. The
tensors have the names of ``network.state_dict()``. Parameters may be stored in half precision; buffers (frequencies,
noise tables, filters) are always float32. Everything is float32 once loaded.
"""

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pspc_rs.data.readers.files import existing
from pspc_rs.errors import DataError, InvalidValueError, MissingDependencyError, PspcError
from pspc_rs.files import replacing
from pspc_rs.networks.registry import build_network, describe_network
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
    if dtype not in _STORED:
        raise InvalidValueError(f"dtype is {dtype!r:.80}; allowed are {', '.join(_STORED)}")
    record = {"format": FORMAT, **describe_network(module), "metadata": plain(metadata or {})}
    text = json.dumps(record, allow_nan=False)
    parameters = {name for name, _ in module.named_parameters()}
    tensors = {
        name: _storable(name, tensor, dtype if name in parameters else "float32")
        for name, tensor in module.state_dict().items()
    }
    write = _safetensors("torch").save_file
    with replacing(Path(path)) as temporary:
        write(tensors, temporary, metadata={_KEY: text})


def read_network(path: str | os.PathLike[str]) -> nn.Module:
    """The network in a file of ``save_network``: on the CPU, float32, in evaluation mode, without gradients.

    Args:
        path: the file.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged, of another kind, or its tensors are not those of the network it describes.
        MissingDependencyError: safetensors is not installed.
    """
    with _opened(path) as file:
        description = _record(file, path)
        description.pop("metadata")
        with described_by(path), torch.device("meta"):
            network = build_network(description)
        expected = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        check_tensors(path, {name: list(file.get_slice(name).get_shape()) for name in file.keys()}, expected)  # noqa: SIM118
        for name in expected:
            stored = file.get_slice(name).get_dtype()
            if stored not in _STORED.values():
                raise DataError(f"{path}: {name} is stored as {stored}; allowed are {', '.join(_STORED.values())}")
        return filled(network, ((name, file.get_tensor(name)) for name in expected), path)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The description of the network in a file of ``save_network``, and under "metadata" what else was recorded.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged or of another kind.
        MissingDependencyError: safetensors is not installed.
    """
    with _opened(path) as file:
        return _record(file, path)


def check_tensors(what: object, found: Mapping[str, list[int]], expected: Mapping[str, list[int]]) -> None:
    """Refuses tensors that are not exactly those expected, by name and shape.

    Raises:
        DataError: one is missing, or too many, or has another shape.

    Example:
        >>> check_tensors("a.safetensors", {"w": [2]}, {"w": [3]})
        Traceback (most recent call last):
        ...
        pspc_rs.errors.DataError: a.safetensors: w has shape [2]; the network it describes has [3]
    """
    for name in expected:
        if name not in found:
            raise DataError(f"{what} lacks the tensor {name}, which the network it describes has")
    for name, shape in found.items():
        if name not in expected:
            raise DataError(f"{what} has a tensor {name!r:.80}, which the network it describes has not")
        if shape != expected[name]:
            raise DataError(f"{what}: {name} has shape {shape}; the network it describes has {expected[name]}")


@contextmanager
def described_by(what: object) -> Iterator[None]:
    """Complaints about a description as complaints about the file that it comes from."""
    try:
        yield
    except (PspcError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        if isinstance(error, MissingDependencyError):
            raise
        raise DataError(f"{what} describes a network that cannot be built: {error}") from error


def filled(network: nn.Module, tensors: Iterator[tuple[str, Tensor]], what: object) -> nn.Module:
    """A network that was built without memory, with these tensors as float32, ready for use.

    Args:
        network: one built under ``torch.device("meta")``.
        tensors: all of its tensors by name, in the right shapes; their memory is not kept.
        what: the file they come from.

    Raises:
        DataError: a tensor holds NaN or infinities.
    """
    network = network.to_empty(device="cpu")
    homes = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in tensors:
            homes[name].copy_(tensor)
            if not bool(homes[name].isfinite().all()):
                raise DataError(f"{what}: {name} holds NaN or infinities")
    return network.eval().requires_grad_(False)


def _storable(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """A tensor of its own memory on the CPU, rounded to dtype."""
    rounded = tensor.detach().to("cpu", getattr(torch, dtype)).clone(memory_format=torch.contiguous_format)
    if not bool(rounded.isfinite().all()):
        raise InvalidValueError(f"{name} holds numbers that are not finite in {dtype}, so the network is not saved")
    return rounded


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    found = existing(path)
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(found, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise DataError(f"{found} is no safetensors file, or a damaged one: {error}") from error
    except OSError as error:
        raise DataError(f"{found} cannot be read: {error}") from error


def _safetensors(part: str = "") -> Any:
    try:
        return importlib.import_module(f"safetensors.{part}" if part else "safetensors")
    except ImportError as error:
        raise MissingDependencyError('a network file needs safetensors: pip install "pspc-rs[torch]"') from error


def _record(file: Any, path: object) -> dict[str, Any]:
    """The JSON in the metadata, of which format and the names of entries were checked."""
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
        found = record.get("format") if isinstance(record, dict) else record
        raise DataError(f"{path} has the format {found!r:.80}; this version reads format {FORMAT}")
    record.pop("format")
    if not isinstance(record.setdefault("metadata", {}), dict):
        raise DataError(f"{path}: the metadata are a {type(record['metadata']).__name__}; allowed is a dict")
    if len(file.keys()) > _MAX_TENSORS:
        raise DataError(f"{path} has {len(file.keys())} tensors; allowed are {_MAX_TENSORS}")
    return record
