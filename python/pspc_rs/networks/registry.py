"""Networks by name: from a description that JSON can hold, and weights, to a module, and back.

What comes from a file is not taken on trust: the network is first built of the description without memory, then every
tensor is checked against it.

A description has four entries::

    {
        "preconditioner": "EDMPrecond",
        "preconditioner_kwargs": {"img_resolution": 32, "img_channels": 3, "label_dim": 0},
        "architecture": "SongUNet",
        "architecture_kwargs": {"model_channels": 128, "channel_mult": [2, 2, 2]},
    }

An architecture is an ``nn.Module`` that is made as ``Class(img_resolution, in_channels, out_channels, label_dim,
**architecture_kwargs)``, checks these arguments with our exceptions, keeps all but the first four in an attribute
``arguments`` that JSON can hold, and is called as ``module(x, noise_labels, class_labels, augment_labels=None)``. A
module whose buffers must hold certain values has a method ``wrong_constant``, which says in words what is wrong or
returns None.
"""

import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pspc_rs.arrays import import_torch
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingDependencyError, PspcError

if TYPE_CHECKING:
    from torch import Tensor, nn

ARCHITECTURES: dict[str, str] = {
    "SongUNet": "pspc_rs.networks.edm.song:SongUNet",
    "DhariwalUNet": "pspc_rs.networks.edm.dhariwal:DhariwalUNet",
    "DiT": "pspc_rs.networks.dit:DiT",
    "UViT": "pspc_rs.networks.uvit:UViT",
}
"""Module and class of each architecture; a module is imported when a network of it is built."""

PRECONDITIONERS: dict[str, str] = {
    "EDMPrecond": "pspc_rs.networks.edm.preconditioners:EDMPrecond",
    "VPPrecond": "pspc_rs.networks.edm.preconditioners:VPPrecond",
    "VEPrecond": "pspc_rs.networks.edm.preconditioners:VEPrecond",
    "iDDPMPrecond": "pspc_rs.networks.edm.preconditioners:IDDPMPrecond",
}
"""Module and class of each preconditioner."""

SHARED_ARGUMENTS = ("img_resolution", "in_channels", "out_channels", "label_dim")
"""Arguments of an architecture that follow from the preconditioner's."""

_ENTRIES = ("preconditioner", "preconditioner_kwargs", "architecture", "architecture_kwargs")


def build_network(description: Mapping[str, Any]) -> "nn.Module":
    """The preconditioned network of a description, with random weights from torch's default generator.

    Args:
        description: see above; the two entries of keyword arguments may be left out.

    Returns:
        A module called as ``net(x, sigma, class_labels=None)``, in training mode.

    Raises:
        InvalidValueError: a name is unknown, or an argument is missing, unknown or out of range.
        DTypeError: the description or an argument is of the wrong type.
        MissingDependencyError: torch is not installed.

    Example:
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
        ...     "architecture": "SongUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> net.img_channels, net.sigma_data
        (1, 0.5)
    """
    _check_entries(description)
    preconditioner = preconditioner_class(description.get("preconditioner"))
    architecture = architecture_class(description.get("architecture"))
    outer_kwargs = _checked_kwargs("preconditioner_kwargs", description, preconditioner, ("model",))
    inner_kwargs = _checked_kwargs("architecture_kwargs", description, architecture, SHARED_ARGUMENTS)
    # Made around a placeholder first, which checks the shared arguments before anything is made with them.
    network: nn.Module = preconditioner(import_torch("a network").nn.Identity(), **outer_kwargs)
    outer: Any = network
    outer.model = architecture(
        outer.img_resolution,
        outer.img_channels,
        outer.img_channels * preconditioner.outputs_per_channel,
        outer.label_dim,
        **inner_kwargs,
    )
    return network


def describe_network(module: "nn.Module") -> dict[str, Any]:
    """The description that ``build_network`` makes such a network of, with every argument.

    Raises:
        DTypeError: the module is no preconditioned network of ours.

    Example:
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
        ...     "architecture": "DhariwalUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> describe_network(net)["preconditioner_kwargs"]["img_channels"]
        1
    """
    outer: Any = module
    return {
        "preconditioner": _name_of(module, PRECONDITIONERS),
        "preconditioner_kwargs": dict(outer.arguments),
        "architecture": _name_of(outer.model, ARCHITECTURES),
        "architecture_kwargs": dict(outer.model.arguments),
    }


def build_on_meta(description: Mapping[str, Any], what: object) -> "nn.Module":
    """The network of a file's description on torch's device "meta": its tensors take no memory yet.

    Args:
        description: see ``build_network``.
        what: the file it comes from.

    Raises:
        DataError: no such network can be built.
    """
    torch = import_torch("a network file")
    try:
        with torch.device("meta"):
            return build_network(description)
    except MissingDependencyError:
        raise
    except (PspcError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise DataError(f"{what} describes a network that cannot be built: {error}") from error


def build_architecture_on_meta(name: object, kwargs: Mapping[str, Any]) -> "nn.Module":
    """The network F of an architecture, without a preconditioner, on torch's device "meta".

    Args:
        name: name of the architecture.
        kwargs: all of its arguments, the shared ones among them.

    Raises:
        InvalidValueError: the name is unknown, or an argument is missing, unknown or out of range.
        DTypeError: an argument is of the wrong type.
        MissingDependencyError: torch is not installed.

    Example:
        >>> shared = {"img_resolution": 8, "in_channels": 3, "out_channels": 3}
        >>> build_architecture_on_meta("DiT", {**shared, "hidden_size": 8, "num_heads": 2}).patch_size
        4
    """
    architecture = architecture_class(name)
    checked = _checked_kwargs("architecture_kwargs", {"architecture_kwargs": kwargs}, architecture, ())
    with import_torch("a network file").device("meta"):
        network: nn.Module = architecture(**checked)
    return network


def check_tensors(what: object, shapes: Mapping[str, list[int]], network: "nn.Module") -> None:
    """Refuses tensors that are not exactly those of the network, by name and shape.

    Args:
        what: the file they come from.
        shapes: their shapes by name.
        network: the network that the file describes.

    Raises:
        DataError: one is missing, or too many, or has another shape.

    Example:
        >>> from torch import nn
        >>> check_tensors("a.safetensors", {"weight": [2, 3]}, nn.Linear(3, 4, bias=False))
        Traceback (most recent call last):
        ...
        pspc_rs.errors.DataError: a.safetensors: weight has shape [2, 3]; the network it describes has [4, 3]
    """
    expected = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    for name in expected:
        if name not in shapes:
            raise DataError(f"{what} lacks the tensor {name}, which the network it describes has")
    for name, shape in shapes.items():
        if name not in expected:
            raise DataError(f"{what} has a tensor {name!r:.80}, which the network it describes does not have")
        if shape != expected[name]:
            raise DataError(f"{what}: {name} has shape {shape}; the network it describes has {expected[name]}")


def load_weights(network: "nn.Module", tensors: "Iterable[tuple[str, Tensor]]", what: object) -> "nn.Module":
    """The network with these tensors as float32, on the CPU, in evaluation mode and without gradients.

    Args:
        network: one of ``build_on_meta``.
        tensors: all of its tensors by name, in the right shapes; each is copied before the next is taken.
        what: the file they come from.

    Raises:
        DataError: a tensor holds NaN or infinities, or a filter or noise table has other values than it must have.
    """
    torch = import_torch("a network file")
    network = network.to_empty(device="cpu")
    weights = network.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in tensors:
            weights[name].copy_(tensor)
            if not bool(weights[name].isfinite().all()):
                raise DataError(f"{what}: {name} holds NaN or infinities")
    for name, module in network.named_modules():
        wrong = module.wrong_constant() if hasattr(module, "wrong_constant") else None
        if wrong is not None:
            raise DataError(f"{what}: {name}.{wrong}" if name else f"{what}: {wrong}")
    return network.eval().requires_grad_(False)


def check_weights(what: object, network: "nn.Module") -> None:
    """Refuses a network with a parameter that is not finite, or with NaN in a buffer.

    Infinities in buffers are allowed: attention masks hold them.

    Args:
        what: the file it comes from.
        network: the network, with its weights.

    Raises:
        DataError: it has one; the message names it.
    """
    for name, parameter in network.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            raise DataError(f"{what}: {name} holds NaN or infinities")
    for name, buffer in network.named_buffers():
        if bool(buffer.isnan().any()):
            raise DataError(f"{what}: {name} holds NaN")


def preconditioner_class(name: object) -> Any:
    """The class of a preconditioner.

    Raises:
        InvalidValueError: there is none of that name.
        MissingDependencyError: torch is not installed.

    Example:
        >>> preconditioner_class("iDDPMPrecond").outputs_per_channel
        2
    """
    return _class("preconditioner", name, PRECONDITIONERS)


def architecture_class(name: object) -> Any:
    """The class of an architecture.

    Raises:
        InvalidValueError: there is none of that name.
        MissingDependencyError: torch is not installed.

    Example:
        >>> architecture_class("SongUNet").__name__
        'SongUNet'
    """
    return _class("architecture", name, ARCHITECTURES)


def _check_entries(description: object) -> None:
    if not isinstance(description, Mapping):
        raise DTypeError(f"the description is a {type(description).__name__}; allowed is a dict")
    unknown = [name for name in description if name not in _ENTRIES]
    if unknown:
        raise InvalidValueError(f"the description has an entry {unknown[0]!r:.80}; allowed are {', '.join(_ENTRIES)}")


def _class(kind: str, name: object, paths: Mapping[str, str]) -> Any:
    if not isinstance(name, str) or name not in paths:
        raise InvalidValueError(f"{kind} is {name!r:.80}; allowed are {', '.join(paths)}")
    import_torch(f"the network {name}")
    module, _, class_name = paths[name].partition(":")
    return getattr(importlib.import_module(module), class_name)


def _checked_kwargs(entry: str, description: Mapping[str, Any], made: Any, left_out: tuple[str, ...]) -> dict[str, Any]:
    """The keyword arguments in that entry: the class has each of them, and none of its own is missing."""
    kwargs = description.get(entry, {})
    if not isinstance(kwargs, Mapping):
        raise DTypeError(f"{entry} is a {type(kwargs).__name__}; allowed is a dict")
    parameters = inspect.signature(made).parameters
    allowed = [name for name in parameters if name not in left_out]
    for name in kwargs:
        if name not in allowed:
            raise InvalidValueError(f"{entry} has {name!r:.80}; {made.__name__} takes {', '.join(allowed)}")
    for name in allowed:
        if parameters[name].default is inspect.Parameter.empty and name not in kwargs:
            raise InvalidValueError(f"{entry} lacks {name}, which {made.__name__} needs")
    return dict(kwargs)


def _name_of(module: object, paths: Mapping[str, str]) -> str:
    kind = type(module)
    for name, path in paths.items():
        if path == f"{kind.__module__}:{kind.__qualname__}":
            return name
    raise DTypeError(f"a {kind.__name__} is none of {', '.join(paths)}, so it cannot be described")
