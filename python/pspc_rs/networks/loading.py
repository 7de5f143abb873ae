"""From a description and tensors of a file to a network ready for use, with nothing taken on trust."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pspc_rs.errors import DataError, MissingDependencyError, PspcError
from pspc_rs.networks.edm.convolution import Conv2d, resample_kernel
from pspc_rs.networks.edm.iddpm_precond import IDDPMPrecond
from pspc_rs.networks.registry import build_network


def outlined(description: Mapping[str, Any], what: object) -> nn.Module:
    """The network of a description without memory for its tensors (on torch's device "meta").

    Args:
        description: see ``registry``.
        what: the file it comes from.

    Raises:
        DataError: no such network can be built.
    """
    try:
        with torch.device("meta"):
            return build_network(description)
    except MissingDependencyError:
        raise
    except (PspcError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise DataError(f"{what} describes a network that cannot be built: {error}") from error


def check_tensors(what: object, found: Mapping[str, list[int]], network: nn.Module) -> None:
    """Refuses tensors that are not exactly those of the network, by name and shape.

    Args:
        what: the file they come from.
        found: their shapes.
        network: the network that the file describes.

    Raises:
        DataError: one is missing, or too many, or has another shape.

    Example:
        >>> check_tensors("a.safetensors", {"weight": [2, 3]}, nn.Linear(3, 4, bias=False))
        Traceback (most recent call last):
        ...
        pspc_rs.errors.DataError: a.safetensors: weight has shape [2, 3]; the network it describes has [4, 3]
    """
    expected = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in expected:
        if name not in found:
            raise DataError(f"{what} lacks the tensor {name}, which the network it describes has")
    for name, shape in found.items():
        if name not in expected:
            raise DataError(f"{what} has a tensor {name!r:.80}, which the network it describes has not")
        if shape != expected[name]:
            raise DataError(f"{what}: {name} has shape {shape}; the network it describes has {expected[name]}")


def filled(network: nn.Module, tensors: Iterable[tuple[str, Tensor]], what: object) -> nn.Module:
    """An outlined network with these tensors as float32, in evaluation mode and without gradients.

    Args:
        network: one of ``outlined``.
        tensors: all of its tensors by name, in the right shapes; their memory is not kept.
        what: the file they come from.

    Raises:
        DataError: a tensor holds NaN or infinities, or a filter or noise table is none.
    """
    network = network.to_empty(device="cpu")
    homes = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in tensors:
            homes[name].copy_(tensor)
            if not bool(homes[name].isfinite().all()):
                raise DataError(f"{what}: {name} holds NaN or infinities")
    _check_constants(network, what)
    return network.eval().requires_grad_(False)


def _check_constants(network: nn.Module, what: object) -> None:
    """Buffers that follow from the description must hold what follows from it."""
    for name, module in network.named_modules():
        if isinstance(module, Conv2d) and module.resample_filter is not None:
            wanted = resample_kernel(module.taps)
            if not torch.allclose(module.resample_filter, wanted, rtol=0, atol=1e-6):
                raise DataError(f"{what}: {name}.resample_filter is not the filter of {list(module.taps)}")
        if isinstance(module, IDDPMPrecond) and not bool((module.u.diff() < 0).all() and module.u[-1] == 0):
            raise DataError(f"{what}: u is no table of falling noise levels that ends with 0")
