"""`open_network`: from what names a network to a denoiser. Nothing that comes in a file is run."""

import importlib
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pspc_rs.arrays import import_torch
from pspc_rs.denoisers import Network
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingFileError, ShapeError
from pspc_rs.files import decode_errors, require_path

NetworkFunction = Callable[..., Any]
"""D(x, sigma) or D(x, sigma, class_labels)."""

SOURCES = (
    "module:callable, a safetensors file of ours, an EDM pickle, a TorchScript file, a diffusers folder, or a .json "
    "file that describes one of these"
)
"""What names a network."""

_PICKLE_START, _ZIP_START = b"\x80", b"PK"


def open_network(
    source: object,
    *,
    adapter: Mapping[str, Any] | None = None,
    shape: tuple[int, int, int] | None = None,
    max_batch: int | None = None,
    device: str | None = None,
    dtype: str = "float32",
) -> Network:
    """The denoiser D(z, sigma) of a network, wherever it comes from; its ``net`` is the network itself.

    Networks from files are in evaluation mode, in float32 and without gradients. Sources, told apart by what is in
    them:

    - a callable;
    - an import path ``module:callable``, also of a module in the current folder;
    - a safetensors file of ``save_network``;
    - a pickle as EDM's networks are published in, of which nothing is executed;
    - a TorchScript file;
    - a folder of a diffusers ``UNet2DModel`` or of a pipeline with one;
    - a JSON file that names one of these as "source" and says how it is to be adapted::

        {
            "source": "unet.pt",
            "prediction": "eps",
            "process": {"name": "vp-linear", "num_steps": 1000},
            "pixels": [0, 1]
        }

    In it, "source" is a path relative to the file, or an import path; all other entries may be left out.

    Args:
        source: one of these.
        adapter: how the network is adapted, if it is no denoiser of [-1, 1] images yet; see ``with_adapter``.
        shape: ``(channels, height, width)`` of the images it is wanted for.
        max_batch: largest batch given to it at once.
        device: where it computes, such as "cuda"; the CPU, or where a module is, if None.
        dtype: "float32", or "bfloat16" or "float16" for autocast.

    Raises:
        MissingFileError: there is no such file.
        InvalidValueError: the source is none of these, cannot be imported, or an argument is out of range.
        DTypeError: the source is neither a callable nor text.
        DataError: a file is damaged or holds no network.
        ShapeError: the network is for images of another shape.
        MissingDependencyError: a package for it is not installed.

    Example:
        >>> import numpy as np
        >>> net = lambda x, t: x - x.mean()   # what it takes for the noise
        >>> D = open_network(net, adapter={"prediction": "residual"})
        >>> D(np.array([[[[1.0, 3.0]]]]), 0.5)
        array([[[[2., 2.]]]])
    """
    net = _network_of(source)
    if adapter is not None:
        import_torch("an adapter")
        from pspc_rs.networks.adapter import with_adapter

        net = with_adapter(net, adapter)
    known_shape = getattr(net, "shape", None)
    if known_shape is not None and shape is not None and tuple(known_shape) != tuple(shape):
        raise ShapeError(f"the network is for images of shape {list(known_shape)}, not {list(shape)}")
    return Network(net, shape=shape, max_batch=max_batch, device=device, dtype=dtype)


def load_network(source: object) -> NetworkFunction:
    """Deprecated: write ``open_network(source).net``."""
    warnings.warn("load_network is deprecated; write open_network(source).net", DeprecationWarning, stacklevel=2)
    return _network_of(source)


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like a safetensors file: the length of a header, and the header.

    Raises:
        MissingFileError: there is no such file.
        DataError: it cannot be read.
    """
    return _starts_safetensors(_start_of(require_path(path)))


def _network_of(source: object) -> NetworkFunction:
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
        return _import(str(source))
    raise MissingFileError(f"there is no network {str(source)!r}; allowed are {SOURCES}")


def _read_file(path: Path) -> NetworkFunction:
    import_torch(f"the network {path}")
    from pspc_rs.networks.edm_pickle.read import read_edm_pickle
    from pspc_rs.networks.saved import read_network

    start = _start_of(path)
    # First, as the length that such a file begins with may have any lowest byte.
    if _starts_safetensors(start):
        return read_network(path)
    if start.startswith(_PICKLE_START):
        return read_edm_pickle(path)
    if start.startswith(_ZIP_START):
        return _read_torchscript(path)
    if path.suffix == ".json":
        return _read_description(path)
    raise DataError(f"{path} holds no network; allowed are {SOURCES}")


def _start_of(path: Path) -> bytes:
    with decode_errors(path), path.open("rb") as file:
        return file.read(9)


def _starts_safetensors(start: bytes) -> bool:
    # The length of the header takes 8 bytes; none is so long that it needs more than 4 of them.
    return start[4:] == bytes(4) + b"{"


def _read_torchscript(path: Path) -> NetworkFunction:
    import torch

    with decode_errors(path), zipfile.ZipFile(path) as archive:
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


def _read_description(path: Path) -> NetworkFunction:
    """The network that a JSON file names as its source, adapted as the file says."""
    from pspc_rs.networks.adapter import with_adapter

    with decode_errors(path):
        entries = json.loads(path.read_bytes())
    source = entries.pop("source", None) if isinstance(entries, dict) else None
    if not isinstance(source, str):
        raise DataError(f"{path} describes no network: it must be a JSON object with the text 'source'")
    if source.endswith(".json"):
        raise DataError(f"{path} has the source {source!r:.80}; allowed are networks, not descriptions of them")
    beside = path.parent / source
    is_import_path = ":" in source and not beside.exists()
    return with_adapter(_network_of(source if is_import_path else beside), entries)


def _import(path: str) -> NetworkFunction:
    """The callable of an import path; modules in the current folder are found too."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise InvalidValueError(f"the network {path!r} is no import path; allowed are {SOURCES}")
    current_folder = str(Path.cwd())
    sys.path.insert(0, current_folder)
    try:
        imported: Any = importlib.import_module(module_name)
        for part in name.split("."):
            imported = getattr(imported, part)
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"the network {path} cannot be imported: {error}") from error
    finally:
        sys.path.remove(current_folder)
    if not callable(imported) or isinstance(imported, type):
        kind = "class" if isinstance(imported, type) else type(imported).__name__
        raise InvalidValueError(f"the network {path} is a {kind}; allowed is a function D(x, sigma) or a module")
    network: NetworkFunction = imported
    return network
