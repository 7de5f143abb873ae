"""How a network is to be adapted, as JSON says it.

A description file is a network source of its own, so that every command takes it where it takes a network::

    {
        "source": "unet.pt",
        "prediction": "eps",
        "process": {"name": "vp-linear", "num_steps": 1000},
        "pixels": [0, 1]
    }

"source" is a path relative to the file, or an import path; all other entries may be left out.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pspc_rs.data.readers.files import damage_named
from pspc_rs.errors import DataError, DTypeError, InvalidValueError
from pspc_rs.networks.adapter import Adapter
from pspc_rs.networks.processes import (
    ContinuousVP,
    CosineVP,
    DiscreteVP,
    Edm,
    FlowMatching,
    NoiseProcess,
    VarianceExploding,
)

PROCESSES: dict[str, Callable[..., NoiseProcess]] = {
    "ve": VarianceExploding,
    "edm": Edm,
    "vp-linear": DiscreteVP.linear,
    "vp-scaled-linear": DiscreteVP.scaled_linear,
    "vp-cosine": DiscreteVP.cosine,
    "vp-betas": DiscreteVP.of_betas,
    "vp-table": DiscreteVP,
    "vp-sde": ContinuousVP,
    "vp-angle": CosineVP,
    "flow": FlowMatching,
}
"""Noise processes by name; their further entries are the arguments of these."""

_TABLES = ("alphas_cumprod", "betas")


def with_adapter(network: Callable[..., Any], description: Mapping[str, Any]) -> Adapter:
    """The network behind the adapter of a description.

    Args:
        network: the raw network.
        description: entries are the arguments of `Adapter`. "prediction" is "x0" if not given, and "process", one of
            ``PROCESSES`` or a dict with such a "name" and its arguments, is "ve". A table of numbers may be the name
            of a buffer of the network: ``{"name": "vp-table", "alphas_cumprod": "alpha_t"}``.

    Raises:
        InvalidValueError: an entry is unknown or out of range.
        DTypeError: one is of the wrong type.

    Example:
        >>> D = with_adapter(lambda x: 0 * x, {"prediction": "residual", "blind": True, "sigma_max": 0.8})
        >>> D.prediction, D.sigma_max
        ('residual', 0.8)
    """
    entries = {"prediction": "x0", "process": "ve", **description}
    allowed = [name for name in inspect.signature(Adapter).parameters if name != "net"]
    _check_names("the description", entries, allowed)
    process = named_process(entries.pop("process"), network)
    return Adapter(network, process=process, **entries)


def named_process(process: object, network: object = None) -> NoiseProcess:
    """The noise process of a name, or of a dict with a name and arguments.

    Raises:
        InvalidValueError: the name or an argument is unknown or out of range.
        DTypeError: it is neither.

    Example:
        >>> named_process({"name": "edm", "sigma_data": 1.0})
        Edm(sigma_data=1.0)
    """
    entries = {"name": process} if isinstance(process, str) else process
    if not isinstance(entries, Mapping):
        raise DTypeError(f"process is {process!r:.80}; allowed are names, and dicts with a name")
    name = entries.get("name")
    if not isinstance(name, str) or name not in PROCESSES:
        raise InvalidValueError(f"process has the name {name!r:.80}; allowed are {', '.join(PROCESSES)}")
    make = PROCESSES[name]
    given = {key: value for key, value in entries.items() if key != "name"}
    parameters = inspect.signature(make).parameters
    _check_names(f"the process {name}", given, list(parameters))
    missing = [key for key, one in parameters.items() if one.default is one.empty and key not in given]
    if missing:
        raise InvalidValueError(f"the process {name} needs {', '.join(missing)}")
    for key in _TABLES:
        if isinstance(given.get(key), str):
            given[key] = _buffer(network, given[key])
    return make(**given)


def read_description(path: Path) -> dict[str, Any]:
    """The entries of a description file, of which "source" is a text.

    Raises:
        DataError: the file is no JSON object, or has no source.
    """
    with damage_named(path):
        entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, dict) or not isinstance(entries.get("source"), str):
        raise DataError(f"{path} describes no network: it must be a JSON object with the text 'source'")
    if entries["source"].endswith(".json"):
        raise DataError(
            f"{path} has the source {entries['source']!r:.80}; allowed are networks, not descriptions of them"
        )
    return entries


def _buffer(network: object, name: str) -> Any:
    table = getattr(network, name, None)
    if table is None or not hasattr(table, "shape"):
        raise InvalidValueError(f"the network has no table {name!r:.80}")
    return table


def _check_names(what: str, entries: Mapping[str, Any], allowed: list[str]) -> None:
    for name in entries:
        if name not in allowed:
            raise InvalidValueError(f"{what} has an entry {name!r:.80}; allowed are {', '.join(allowed) or 'none'}")
