"""NVIDIA GPUs: which there are, and what ``device=`` means."""

import ctypes
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from pspc_rs import _core
from pspc_rs.arrays import is_torch
from pspc_rs.errors import CudaError, DTypeError, InvalidValueError, PspcError
from pspc_rs.files import cache_dir

_NEWEST_NVRTC, _OLDEST_NVRTC = 13, 12
_NOT_BUILT = "CUDA cannot be used: this build has no GPU engine"


def devices() -> list[str]:
    """The names of this machine's GPUs; number ``i`` is ``device="cuda:i"``.

    Raises:
        CudaError: there is no driver, or one that is too old or does not start; or the engine was built without CUDA.
        MissingDependencyError: NVRTC, CUDA's run-time compiler, is not installed.

    Example:
        >>> try:
        ...     names = devices()
        ... except PspcError as error:
        ...     print(str(error).startswith("CUDA cannot be used"))
        ... else:
        ...     print(all(isinstance(name, str) for name in names))
        True
    """
    if not _is_built():
        raise CudaError(_NOT_BUILT)
    _load_nvrtc()
    return [name for _, name, _ in _core.cuda_devices()]


def state() -> str:
    """What there is of CUDA on this machine, in one line."""
    if not _is_built():
        return _NOT_BUILT
    _load_nvrtc()
    return _core.cuda_state()


def resolve(device: str) -> int | None:
    """The number of the GPU that ``device`` means, None for the CPU.

    Args:
        device: ``"cpu"``; ``"cuda"`` or ``"cuda:1"``, a GPU by number; ``"auto"``, the first GPU if one can be used,
            else the CPU.

    Raises:
        DTypeError: device is not a string.
        InvalidValueError: another name.
        CudaError: a GPU is asked for and cannot be used; the message says why.
        MissingDependencyError: NVRTC is not installed.

    Example:
        >>> resolve("cpu") is None
        True
    """
    if not isinstance(device, str):
        raise DTypeError(f"device is {device!r:.80}; allowed are 'cpu', 'cuda', 'cuda:N' and 'auto'")
    if device == "cpu":
        return None
    if device == "auto":
        return 0 if _usable() else None
    kind, colon, number = str(device).partition(":")
    if kind != "cuda" or (colon and not number.isdecimal()):
        raise InvalidValueError(f"device is {device!r}; allowed are 'cpu', 'cuda', 'cuda:N' and 'auto'")
    ordinal = int(number) if colon else 0
    names = devices()
    if ordinal >= len(names):
        raise CudaError(f"CUDA cannot be used: there is no GPU {ordinal}, this machine has {len(names)}")
    return ordinal


def resolve_on_rank(device: str) -> int | None:
    """As `resolve`, on one of several ranks: those of a machine take its GPUs in turn, unless a number is given.

    Raises:
        DTypeError, InvalidValueError, CudaError, MissingDependencyError: see `resolve`.

    Example:
        >>> resolve_on_rank("cpu") is None
        True
    """
    ordinal = resolve(device)
    if ordinal is None or ":" in device:
        return ordinal
    return int(os.environ.get("LOCAL_RANK", "0")) % len(devices())


def engine(bank: _core.Bank, ordinal: int | None) -> _core.Engine:
    """The engine for the images of ``bank`` on a GPU, or on the CPU if ``ordinal`` is None.

    Kernels compiled for the GPU are kept in the user's cache folder.

    Raises:
        CudaError: the GPU cannot be used; the message says why.
        MissingDependencyError: NVRTC is not installed.
    """
    if ordinal is None:
        return _core.Engine(bank)

    _load_nvrtc()
    try:
        folder = str(cache_dir() / "kernels")
    except (ImportError, PspcError):
        folder = None
    return _core.Engine(bank, ordinal, folder)


def on_gpu(z: object) -> bool:
    """Whether z is a torch tensor on an NVIDIA GPU."""
    if not is_torch(z) or z.device.type != "cuda":
        return False
    # AMD's GPUs go by the same name.
    return sys.modules["torch"].version.cuda is not None


def _is_built() -> bool:
    """Whether the engine has its part for GPUs, which a build from source may leave out."""
    return hasattr(_core, "cuda_state")


def _usable() -> bool:
    try:
        return len(devices()) > 0 and _core.cuda_state().count("NVRTC") == 1
    except PspcError:
        return False


@cache
def _load_nvrtc() -> None:
    """Loads NVRTC from the packages of the extra ``cuda``, or of torch, where the engine then finds it.

    NVRTC looks for its library of built-in functions by name only, so that is loaded first.
    """
    spec = importlib.util.find_spec("nvidia")
    for folder in map(Path, spec.submodule_search_locations or () if spec else ()):
        for version in (_NEWEST_NVRTC, _OLDEST_NVRTC):
            # Up to CUDA 12 every library had a package of its own; from 13 on they share one.
            for package in (f"cu{version}", "cuda_nvrtc"):
                library = folder / package / "lib" / f"libnvrtc.so.{version}"
                if library.is_file() and all(map(_load, [*library.parent.glob("libnvrtc-builtins.so.*"), library])):
                    return
    if importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.pathfinder") is not None:
        from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib

        try:
            load_nvidia_dynamic_lib("nvrtc")
        except (DynamicLibNotFoundError, RuntimeError):
            return


def _load(library: Path) -> Any:
    try:
        return ctypes.CDLL(str(library))
    except OSError:
        return None
