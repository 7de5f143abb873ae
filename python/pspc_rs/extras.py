"""Optional packages: imported where they are used, with errors that tell one that is absent from one that is broken."""

import importlib
from typing import Any

from pspc_rs.errors import MissingDependencyError


def import_extra(module: str, purpose: str, extra: str, otherwise: str = "") -> Any:
    """A module of an optional package.

    Args:
        module: its full name: "safetensors.torch".
        purpose: what needs it, the first words of the message: "a network file".
        extra: the extra of this package that brings it; "" for Pillow, which comes with the package itself.
        otherwise: the end of the message: what works without it.

    Raises:
        MissingDependencyError: the package is not installed, and the message names the extra; or it is installed and
            cannot be imported, and the message says why.

    Example:
        >>> import_extra("json", "a file", "none").__name__
        'json'
        >>> import_extra("no_such_package", "a file", "plot")
        Traceback (most recent call last):
        ...
        pspc_rs.errors.MissingDependencyError: a file needs no_such_package: pip install "pspc-rs[plot]"
    """
    package = module.partition(".")[0]
    end = f"; {otherwise}" if otherwise else ""
    try:
        # A package that was made unavailable may still have its parts among the loaded modules.
        importlib.import_module(package)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == package:
            install = f'pip install "pspc-rs[{extra}]"' if extra else "pip install pillow"
            raise MissingDependencyError(f"{purpose} needs {package}: {install}{end}") from error
        raise _broken(purpose, package, error, end) from error
    except Exception as error:  # what a broken package raises while it is imported can be anything
        raise _broken(purpose, package, error, end) from error


def import_pillow() -> Any:
    """The module ``PIL.Image``.

    Raises:
        MissingDependencyError: Pillow is not installed, which the package itself asks for, or cannot be imported.

    Example:
        >>> import_pillow().__name__
        'PIL.Image'
    """
    return import_extra("PIL.Image", "a picture", "")


def _broken(purpose: str, package: str, error: Exception, end: str) -> MissingDependencyError:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return MissingDependencyError(
        f"{purpose} needs {package}, which is installed but cannot be imported: {reason:.300}{end}"
    )
