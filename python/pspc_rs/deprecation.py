"""Names and arguments of earlier versions: they work on, and a DeprecationWarning says what to write."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved_names(module: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module whose names have moved (PEP 562).

    Args:
        module: the module that had the names.
        places: for each name its new place, ``"package.module.name"``.

    Example:
        >>> old = moved_names("pspc_rs.rooms", {"grid": "pspc_rs.sigmas.edm_sigmas"})
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     old("grid").__name__
        'edm_sigmas'
        >>> print(caught[0].message)
        pspc_rs.rooms.grid is deprecated; write pspc_rs.sigmas.edm_sigmas
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(f"{module}.{name} is deprecated; write {places[name]}", DeprecationWarning, stacklevel=2)
        home, _, new = places[name].rpartition(".")
        return getattr(importlib.import_module(home), new)

    return get


def overwriting(resume: bool | None, overwrite: bool) -> bool:
    """The ``overwrite=`` of a call that had ``resume=`` in earlier versions.

    Args:
        resume: what the caller gave as ``resume``, None for nothing. False meant to begin anew.
        overwrite: what the caller gave as ``overwrite``.

    Example:
        >>> overwriting(None, True)
        True
    """
    if resume is None:
        return overwrite
    warnings.warn(
        "resume= is deprecated: a run with the same settings is always continued; write overwrite=True to replace one "
        "with others",
        DeprecationWarning,
        stacklevel=3,
    )
    return overwrite or not resume
