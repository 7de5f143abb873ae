"""Where networks come from: import paths and files, each read without running anything that came in a file."""

import importlib
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pspc_rs.arrays import import_torch
from pspc_rs.data.readers.files import damage_named
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingFileError

NetworkFunction = Callable[..., Any]
"""D(x, sigma) or D(x, sigma, class_labels)."""

SOURCES = (
    "module:callable, a safetensors file of ours, an EDM pickle, a TorchScript file, a diffusers folder, or a .json "
    "file that describes one of these"
)
"""What names a network."""

_PICKLE, _ZIP = b"\x80", b"PK"


def load_network(source: object) -> NetworkFunction:
    """The network of a source as D(x, sigma) of [-1, 1] images: on the CPU, float32, in evaluation mode.

    Sources, told apart by what is in them:

    - a callable, which is returned as it is;
    - an import path ``module:callable``, also of a module in the current folder;
    - a safetensors file of ``save_network``;
    - a pickle as EDM's networks are published in, of which nothing is executed;
    - a TorchScript file;
    - a folder of a diffusers ``UNet2DModel`` or of a pipeline with one;
    - a JSON file that names one of these as "source" and says how it is to be adapted, see ``with_adapter``.

    Raises:
        MissingFileError: there is no such file.
        InvalidValueError: the source is none of these, or cannot be imported.
        DataError: a file is damaged or holds no network.
        MissingDependencyError: a package for it is not installed.

    Example:
        >>> load_network("torch:sigmoid").__name__
        'sigmoid'
    """
    if callable(source):
        return source
    if not isinstance(source, str | Path):
        raise DTypeError(f"the network is a {type(source).__name__}; allowed are callables, {SOURCES}")
    path = Path(source)
    if path.is_dir():
        import_torch(f"the network {path}")
        from pspc_rs.networks.diffusers_folder import read_diffusers

        return read_diffusers(path)
    if path.is_file():
        return _read_file(path)
    if ":" in str(source) and not path.drive:
        return _imported(str(source))
    raise MissingFileError(f"there is no network {str(source)!r}; allowed are {SOURCES}")


def _read_file(path: Path) -> NetworkFunction:
    import_torch(f"the network {path}")
    from pspc_rs.networks.description import read_description, with_adapter
    from pspc_rs.networks.edm_pickle.read import read_edm_pickle
    from pspc_rs.networks.saved import is_safetensors, read_network

    with damage_named(path), path.open("rb") as file:
        head = file.read(2)
    if is_safetensors(path):
        return read_network(path)
    if head[:1] == _PICKLE:
        return read_edm_pickle(path)
    if head == _ZIP:
        return _read_torchscript(path)
    if path.suffix == ".json":
        description = read_description(path)
        return with_adapter(load_network(_beside(path, description.pop("source"))), description)
    raise DataError(f"{path} holds no network; allowed are {SOURCES}")


def _read_torchscript(path: Path) -> NetworkFunction:
    import torch

    with damage_named(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if not any(name.split("/")[1:2] == ["code"] for name in names):
        raise DataError(
            f"{path} is a file of torch.save, which holds weights or pickled objects but no network that can be run; "
            "save the network with torch.jit.save, or give module:callable"
        )
    try:
        with warnings.catch_warnings():
            # That the format is deprecated concerns whoever wrote the file.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as TorchScript: {error}") from error
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    frozen: NetworkFunction = network.eval()
    return frozen


def _beside(file: Path, source: str) -> str:
    """A source as the file that names it sees it: a path relative to that file's folder, or an import path."""
    path = file.parent / source
    return str(path) if path.exists() or ":" not in source else source


def _imported(path: str) -> NetworkFunction:
    """The callable behind an import path; modules in the current folder are found too."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise InvalidValueError(f"the network {path!r} is no import path; allowed are {SOURCES}")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"the network {path} cannot be imported: {error}") from error
    finally:
        sys.path.remove(here)
    if not callable(found) or isinstance(found, type):
        kind = "class" if isinstance(found, type) else type(found).__name__
        raise InvalidValueError(f"the network {path} is a {kind}; allowed is a function D(x, sigma) or a module")
    network: NetworkFunction = found
    return network
