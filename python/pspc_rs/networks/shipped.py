"""Networks that lie in the repository, by name. They are not in the package: they are larger than all of it."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pspc_rs.errors import MissingFileError

SHIPPED: Mapping[str, str] = MappingProxyType({"cifar10-small": "cifar10-ddpmpp-small.safetensors"})
"""The file of each network, by its name."""

_FOLDER = Path("assets", "networks")
_PACKAGE = Path(__file__).resolve().parents[1]


def find_shipped(name: str) -> Path:
    """The file of a network by name, in the clone that the package runs from or that the current folder lies in.

    Args:
        name: one of `SHIPPED`.

    Raises:
        MissingFileError: there is no clone; the message says where the file is.

    Example:
        >>> find_shipped("unet")
        Traceback (most recent call last):
        ...
        pspc_rs.errors.MissingFileError: there is no network 'unet'; known by name are cifar10-small
    """
    if name not in SHIPPED:
        raise MissingFileError(f"there is no network {name!r}; known by name are {', '.join(SHIPPED)}")
    here = Path.cwd()
    # In a clone, the package lies in python/pspc_rs.
    for folder in (_PACKAGE.parents[1], here, *here.parents):
        path = folder / _FOLDER / SHIPPED[name]
        if path.is_file():
            return path
    raise MissingFileError(
        f"the network {name!r} is {(_FOLDER / SHIPPED[name]).as_posix()} of the project's repository, and not in the "
        "installed package; give the path of that file, or run in a clone"
    )
