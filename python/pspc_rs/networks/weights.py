"""Weights alone: the tensors of a file, by name, in an architecture that is described apart from them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pspc_rs.arrays import import_safetensors
from pspc_rs.errors import DataError
from pspc_rs.files import require_path
from pspc_rs.networks.registry import build_architecture_on_meta, check_tensors, load_weights
from pspc_rs.networks.sources import is_safetensors, kind_of_file

WEIGHTS_ENTRIES = ("architecture", "architecture_kwargs")
"""Entries of a description that say which network the weights of its source belong to."""


def read_weights(
    path: str | os.PathLike[str], architecture: str, architecture_kwargs: Mapping[str, Any] | None = None
) -> nn.Module:
    """A network of ours with the weights in a file: on the CPU, float32, in evaluation mode, without gradients.

    Nothing in the file is executed: a ``state_dict`` of ``torch.save`` is read by torch's loader of weights alone.

    Args:
        path: a file of ``torch.save(net.state_dict(), path)``, or safetensors.
        architecture: name of the network, see ``pspc_rs.networks.registry``.
        architecture_kwargs: all of its arguments: ``img_resolution``, ``in_channels``, ``out_channels``, ``label_dim``
            for classes, and its own, whose defaults are those of its class.

    Returns:
        F(x, t, class_labels), without a preconditioner; ``open_network`` adapts it.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is damaged, or holds something else than the tensors of this network; the message names the
            first that is missing, too many, or of another shape.
        InvalidValueError: the architecture is unknown, or an argument is missing, unknown or out of range.
        DTypeError: an argument is of the wrong type.
        MissingDependencyError: safetensors is not installed.

    Example:
        >>> import tempfile
        >>> from pspc_rs.networks.uvit import UViT
        >>> small = {"patch_size": 2, "hidden_size": 8, "depth": 2, "num_heads": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(UViT(8, 3, 3, **small).state_dict(), folder + "/net.pth")
        ...     shared = {"img_resolution": 8, "in_channels": 3, "out_channels": 3}
        ...     net = read_weights(folder + "/net.pth", "UViT", {**shared, **small})
        >>> net(torch.zeros(1, 3, 8, 8), torch.zeros(1)).shape
        torch.Size([1, 3, 8, 8])
    """
    file = require_path(path)
    network = build_architecture_on_meta(architecture, architecture_kwargs or {})
    tensors = _safetensors(file) if is_safetensors(file) else _saved_by_torch(file)
    check_tensors(file, {name: list(tensor.shape) for name, tensor in tensors.items()}, network)
    return load_weights(network, tensors.items(), file)


def _safetensors(path: Path) -> dict[str, Tensor]:
    error_class = import_safetensors("a network file").SafetensorError
    try:
        tensors: dict[str, Tensor] = import_safetensors("a network file", "torch").load_file(path)
    except (OSError, error_class) as error:
        raise DataError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    return _real_tensors(path, tensors)


def _saved_by_torch(path: Path) -> dict[str, Tensor]:
    kind = kind_of_file(path)
    if kind != "weights":
        raise DataError(f"{path} is no file of weights (safetensors, or torch.save of a state_dict)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what the damage leads to: KeyError, EOFError, RuntimeError, ...
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} cannot be read as weights: {reason:.300}") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a {type(content).__name__}; allowed is a state_dict, tensors by name")
    return _real_tensors(path, content)


def _real_tensors(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The content, whose values must be dense tensors of real numbers."""
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"{path}: {name!r:.80} is a {type(value).__name__}; allowed is a state_dict, tensors by name: save the "
                "inner dict on its own if the file holds more"
            )
        if not value.is_floating_point() or value.layout != torch.strided:
            raise DataError(
                f"{path}: {name!r:.80} is a {value.layout} tensor of {value.dtype}; allowed are real numbers"
            )
    return {str(name): value for name, value in content.items()}
