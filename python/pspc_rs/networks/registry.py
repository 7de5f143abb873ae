"""Networks by name: from a description that JSON can hold to a module, and back.

A description has four entries::

    {
        "preconditioner": "EDMPrecond",
        "preconditioner_kwargs": {"img_resolution": 32, "img_channels": 3, "label_dim": 0},
        "architecture": "SongUNet",
        "architecture_kwargs": {"model_channels": 128, "channel_mult": [2, 2, 2]},
    }

An architecture is an ``nn.Module`` that is made as ``Class(img_resolution, in_channels, out_channels, label_dim,
**architecture_kwargs)``, checks these arguments with our exceptions, keeps all but the first four in an attribute
``arguments`` that JSON can hold, and is called as ``module(x, noise_labels, class_labels, augment_labels=None)``.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pspc_rs.arrays import import_torch
from pspc_rs.errors import DTypeError, InvalidValueError

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURES: dict[str, str] = {
    "SongUNet": "pspc_rs.networks.edm.song:SongUNet",
    "DhariwalUNet": "pspc_rs.networks.edm.dhariwal:DhariwalUNet",
    "DiT": "pspc_rs.networks.dit:DiT",
}
"""Module and class of each architecture; a module is imported when a network of it is built."""

PRECONDITIONERS: dict[str, str] = {
    "EDMPrecond": "pspc_rs.networks.edm.edm_precond:EDMPrecond",
    "VPPrecond": "pspc_rs.networks.edm.vp_precond:VPPrecond",
    "VEPrecond": "pspc_rs.networks.edm.ve_precond:VEPrecond",
    "iDDPMPrecond": "pspc_rs.networks.edm.iddpm_precond:IDDPMPrecond",
}
"""Module and class of each preconditioner."""

_ENTRIES = ("preconditioner", "preconditioner_kwargs", "architecture", "architecture_kwargs")
# What an architecture gets from the preconditioner.
_SHARED = ("img_resolution", "in_channels", "out_channels", "label_dim")


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
    outer = preconditioner_class(description.get("preconditioner"))
    inner = architecture_class(description.get("architecture"))
    outer_kwargs = _checked("preconditioner_kwargs", description, outer, ("model",))
    inner_kwargs = _checked("architecture_kwargs", description, inner, _SHARED)
    # Checks the shared arguments, too, before anything is made with them.
    frame = outer(_nothing(), **outer_kwargs)
    frame.model = inner(
        frame.img_resolution,
        frame.img_channels,
        frame.img_channels * outer.outputs_per_channel,
        frame.label_dim,
        **inner_kwargs,
    )
    network: nn.Module = frame
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
    model: Any = getattr(module, "model", None)
    return {
        "preconditioner": _name_of(module, PRECONDITIONERS),
        "preconditioner_kwargs": dict(_arguments(module)),
        "architecture": _name_of(model, ARCHITECTURES),
        "architecture_kwargs": dict(_arguments(model)),
    }


def preconditioner_class(name: object) -> Any:
    """The class of a preconditioner.

    Raises:
        InvalidValueError: there is none of that name.
        MissingDependencyError: torch is not installed.

    Example:
        >>> preconditioner_class("iDDPMPrecond").outputs_per_channel
        2
    """
    return _found("preconditioner", name, PRECONDITIONERS)


def architecture_class(name: object) -> Any:
    """The class of an architecture.

    Raises:
        InvalidValueError: there is none of that name.
        MissingDependencyError: torch is not installed.

    Example:
        >>> architecture_class("SongUNet").__name__
        'SongUNet'
    """
    return _found("architecture", name, ARCHITECTURES)


def _check_entries(description: object) -> None:
    if not isinstance(description, Mapping):
        raise DTypeError(f"the description is a {type(description).__name__}; allowed is a dict")
    unknown = [name for name in description if name not in _ENTRIES]
    if unknown:
        raise InvalidValueError(f"the description has an entry {unknown[0]!r:.80}; allowed are {', '.join(_ENTRIES)}")


def _found(what: str, name: object, homes: Mapping[str, str]) -> Any:
    """The class of that name."""
    if not isinstance(name, str) or name not in homes:
        raise InvalidValueError(f"{what} is {name!r:.80}; allowed are {', '.join(homes)}")
    import_torch(f"the network {name}")
    module, _, class_name = homes[name].partition(":")
    return getattr(importlib.import_module(module), class_name)


def _checked(entry: str, description: Mapping[str, Any], made: Any, given_by_us: tuple[str, ...]) -> dict[str, Any]:
    """The keyword arguments of that entry, all of which the class has, and none of which is missing."""
    kwargs = description.get(entry, {})
    if not isinstance(kwargs, Mapping):
        raise DTypeError(f"{entry} is a {type(kwargs).__name__}; allowed is a dict")
    parameters = inspect.signature(made).parameters
    allowed = [name for name in parameters if name not in given_by_us]
    for name in kwargs:
        if name not in allowed:
            raise InvalidValueError(f"{entry} has {name!r:.80}; {made.__name__} takes {', '.join(allowed)}")
    for name in allowed:
        if parameters[name].default is inspect.Parameter.empty and name not in kwargs:
            raise InvalidValueError(f"{entry} lacks {name}, which {made.__name__} needs")
    return dict(kwargs)


def _nothing() -> Any:
    return import_torch("a network").nn.Identity()


def _name_of(module: object, homes: Mapping[str, str]) -> str:
    kind = type(module)
    for name, home in homes.items():
        if home == f"{kind.__module__}:{kind.__qualname__}":
            return name
    raise DTypeError(f"a {kind.__name__} is none of {', '.join(homes)}, so it cannot be described")


def _arguments(module: Any) -> Mapping[str, Any]:
    arguments: Mapping[str, Any] = module.arguments
    return arguments
