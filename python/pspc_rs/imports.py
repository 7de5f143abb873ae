"""Packages that are imported where they are needed: one that is absent is told from one that is broken."""

import importlib
from types import ModuleType

from pspc_rs.errors import MissingDependencyError


def import_needed(module: str, purpose: str, install: str) -> ModuleType:
    """A module of another package.

    Args:
        module: its name, "torch" or "safetensors.torch".
        purpose: what needs it, the first words of the message: "as_torch=True".
        install: what to install: "pspc-rs[torch]".

    Raises:
        MissingDependencyError: the package is not installed, or is installed and cannot be imported; the message says
            which, and why.

    Example:
        >>> import_needed("no_such_package", "this example", "pspc-rs[torch]")
        Traceback (most recent call last):
        ...
        pspc_rs.errors.MissingDependencyError: this example needs no_such_package: pip install "pspc-rs[torch]"
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise _broken(package, purpose, error) from error
        raise MissingDependencyError(f'{purpose} needs {package}: pip install "{install}"') from error
    except Exception as error:
        # A shared library that is missing or does not fit raises ImportError, OSError, AttributeError or RuntimeError.
        raise _broken(package, purpose, error) from error


def _broken(package: str, purpose: str, error: Exception) -> MissingDependencyError:
    return MissingDependencyError(f"{purpose} needs {package}, which is installed but cannot be imported: {error}")
