"""`open_network`: from what names a network to a denoiser. Programs in files are run only for those who trust them."""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pspc_rs.arrays import import_torch
from pspc_rs.checks import flag
from pspc_rs.denoisers import Network
from pspc_rs.denoisers.modules import in_one_line
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingFileError, ShapeError
from pspc_rs.file_kinds import is_url
from pspc_rs.networks.shipped import SHIPPED, find_shipped
from pspc_rs.networks.sources import is_safetensors, kind_of_file, read_description, refuse_weights

__all__ = ["SOURCES", "NetworkFunction", "is_safetensors", "load_network", "open_network", "program_in"]

NetworkFunction = Callable[..., Any]
"""D(x, sigma) or D(x, sigma, class_labels)."""

SOURCES = (
    "cifar10-small, module:callable, a safetensors file of ours, an EDM pickle, a TorchScript file, a folder of "
    "diffusers, or a .json file that describes one of these"
)
"""What names a network."""


def open_network(
    source: object,
    *,
    adapter: Mapping[str, Any] | None = None,
    shape: tuple[int, int, int] | None = None,
    max_batch: int | None = None,
    device: str | None = None,
    dtype: str = "float32",
    trust: bool = False,
) -> Network:
    """The denoiser D(z, sigma) of a network, wherever it comes from; its ``net`` is the network itself.

    Networks from files are in evaluation mode, in float32 and without gradients. Sources, told apart by what is in
    them:

    - a callable;
    - "cifar10-small", a small network of CIFAR-10 that lies in the project's repository;
    - an import path ``module:callable``, also of a module in the current folder, which is run;
    - a safetensors file of ``save_network``;
    - a pickle as EDM's networks are published in, of which nothing is executed;
    - a TorchScript file, which is a program that can read and write files;
    - a folder of a diffusers ``UNet2DModel`` or of a pipeline with one;
    - a JSON file that names one of these as "source" and says how it is to be adapted::

        {
            "source": "unet.pt",
            "prediction": "eps",
            "process": {"name": "vp-linear", "num_steps": 1000},
            "pixels": [0, 1]
        }

    In it, "source" is a path relative to the file, or an import path; all other entries may be left out. With
    "architecture" and "architecture_kwargs", the source may be a file of weights alone; see ``read_weights``.

    Args:
        source: one of these.
        adapter: how the network is adapted, if it is no denoiser of [-1, 1] images yet; see ``with_adapter``.
        shape: ``(channels, height, width)`` of the images it is wanted for.
        max_batch: largest batch given to it at once.
        device: where it computes, such as "cuda"; the CPU, or where a module is, if None.
        dtype: "float32", or "bfloat16" or "float16" for autocast.
        trust: that a file may bring a program with it that is run: a TorchScript file, or a JSON file whose source is
            one or is an import path. Without it there is a DeprecationWarning; a later version will refuse such files.

    Raises:
        MissingFileError: there is no such file.
        InvalidValueError: the source is none of these, a web address, cannot be imported, or an argument is out of
            range.
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
    _warn_of_program(source, trust)
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
    """Deprecated: write ``open_network(source).net``.

    Example:
        >>> def net(x, t):
        ...     return x
        >>> open_network(net).net is net  # in its place
        True
    """
    warnings.warn("load_network is deprecated; write open_network(source).net", DeprecationWarning, stacklevel=2)
    _warn_of_program(source, False)
    return _network_of(source)


def program_in(source: object) -> str | None:
    """What a file that is given as a network would run, as a sentence; None if it runs nothing.

    An import path that is given as such runs its module, as everybody expects, and counts for nothing here.

    Raises:
        DataError: the file is damaged or holds no network.

    Example:
        >>> program_in("nets:unet") is None
        True
    """
    path = Path(source) if isinstance(source, str | Path) else None
    if path is None or not path.is_file():
        return None
    kind = kind_of_file(path)
    if kind == "torchscript":
        return f"{path} is TorchScript, a program that can read and write files"
    if kind != "description":
        return None
    named, beside = _named_source(path)
    return program_in(named) if beside else f"{path} names the import path {named}, whose module is run"


def _warn_of_program(source: object, trust: bool) -> None:
    if flag("trust", trust):
        return
    program = program_in(source)
    if program is not None:
        warnings.warn(
            f"{program}; if you trust it, write open_network(..., trust=True); a later version will refuse it without",
            DeprecationWarning,
            stacklevel=3,
        )


def _network_of(source: object) -> NetworkFunction:
    if callable(source):
        return source
    if not isinstance(source, str | Path):
        raise DTypeError(f"the network is a {type(source).__name__}; allowed are callables, {SOURCES}")
    path = Path(source)
    if not str(source).strip():
        raise InvalidValueError(f"the network is an empty text; allowed are {SOURCES}")
    if is_url(str(source)):
        raise InvalidValueError(
            f"the network {str(source)!r:.200} is a web address; nothing is downloaded here, so download the file "
            "first and give its path"
        )
    if path.is_dir():
        import_torch(f"the network {path}")
        from pspc_rs.networks.diffusers_folder import read_diffusers

        return read_diffusers(path)
    if path.is_file():
        return _read_file(path)
    if str(source) in SHIPPED:
        return _read_file(find_shipped(str(source)))
    if ":" in str(source) and not path.drive:
        return _import(str(source))
    raise MissingFileError(f"there is no network {str(source)!r}; allowed are {SOURCES}")


def _read_file(path: Path) -> NetworkFunction:
    import_torch(f"the network {path}")
    from pspc_rs.networks.edm_pickle.read import read_edm_pickle
    from pspc_rs.networks.saved import read_network

    match kind_of_file(path):
        case "safetensors":
            return read_network(path)
        case "edm":
            return read_edm_pickle(path)
        case "torchscript":
            return _read_torchscript(path)
        case "weights":
            refuse_weights(path)
        case _:
            return _read_description(path)


def _read_torchscript(path: Path) -> NetworkFunction:
    import torch

    from pspc_rs.networks.registry import check_weights

    try:
        with warnings.catch_warnings():
            # That the format is deprecated concerns whoever wrote the file.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as TorchScript: {error}") from error
    check_weights(path, network)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    frozen: NetworkFunction = network.eval()
    return frozen


def _read_description(path: Path) -> NetworkFunction:
    """The network that a JSON file names as its source, adapted as the file says."""
    from pspc_rs.networks.adapter import with_adapter
    from pspc_rs.networks.weights import WEIGHTS_ENTRIES, read_weights

    source, _ = _named_source(path)
    entries = read_description(path)[1]
    architecture = [entries.pop(name, None) for name in WEIGHTS_ENTRIES]
    described = any(entry is not None for entry in architecture)
    return with_adapter(read_weights(source, *architecture) if described else _network_of(source), entries)


def _named_source(path: Path) -> tuple[str, bool]:
    """The source that a JSON file names, relative to where commands run, and whether it is no import path."""
    source, _ = read_description(path)
    beside = path.parent / source
    is_import_path = ":" in source and not is_url(source) and not beside.exists()
    return (source, False) if is_import_path else (source if is_url(source) else str(beside), True)


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
    except Exception as error:  # what a module raises while it is run can be anything
        hint = f"; write {module_name.removesuffix('.py')}:{name}" if module_name.endswith(".py") else ""
        raise InvalidValueError(f"the network {path} cannot be imported: {in_one_line(error)}{hint}") from error
    finally:
        sys.path.remove(current_folder)
    if not callable(imported) or isinstance(imported, type):
        kind = "class" if isinstance(imported, type) else type(imported).__name__
        raise InvalidValueError(f"the network {path} is a {kind}; allowed is a function D(x, sigma) or a module")
    network: NetworkFunction = imported
    return network
