"""What decides the numbers of an experiment, as JSON holds it, and short keys made of it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pspc_rs.data import ImageSet
from pspc_rs.provenance import build, describe_data, plain, versions
from pspc_rs.samplers import noise_source

_KEY_DIGITS = 12


def data_settings(data: ImageSet) -> dict[str, Any]:
    """What identifies the data; where they lie and what they are called plays no part."""
    return {"data": {name: value for name, value in describe_data(data).items() if name != "name"}}


def numeric_settings() -> dict[str, Any]:
    """What decides the last bits: versions, instruction set, and the source of normal numbers."""
    return {"versions": versions(), "isa": build()["isa"], "noise": f"{noise_source()} generator"}


def model_settings(model: object) -> dict[str, Any]:
    """What identifies a denoiser or network: its own ``settings``, or the name of a function.

    A function that does something else under the same name cannot be told from the first.

    Example:
        >>> import pspc_rs as pspc
        >>> model_settings(max)
        {'denoiser': 'builtins.max'}
    """
    settings = getattr(model, "settings", None)
    if isinstance(settings, Mapping):
        return dict(plain(settings))
    named = model if hasattr(model, "__qualname__") else type(model)
    return {"denoiser": f"{named.__module__}.{named.__qualname__}"}


def settings_key(settings: Mapping[str, object]) -> str:
    """Twelve hex digits of the SHA-256 of the settings, independent of their order.

    Example:
        >>> settings_key({"a": 1, "b": 2.5}) == settings_key({"b": 2.5, "a": 1})
        True
    """
    text = json.dumps(plain(settings), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]
