"""Where the numbers in a file come from: what identifies data and models, one record for every command, its settings.

A record says everything about a run, when and where it was made included. Settings are the part that decides the
numbers: equal settings give equal numbers, and results are kept under a key made of them.
"""

import importlib.metadata
import platform
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pspc_rs import _core
from pspc_rs.contents import code_checksum
from pspc_rs.data import ImageSet
from pspc_rs.outputs import plain, save_record, settings_key, sha256
from pspc_rs.threads import num_threads

__all__ = [
    "Clock",
    "build",
    "data_settings",
    "describe_data",
    "installed_version",
    "machine_settings",
    "model_settings",
    "peak_memory",
    "plain",
    "provenance",
    "save_record",
    "settings_key",
    "sha256",
    "versions",
]


class Clock:
    """When a piece of work began and how long it has taken.

    Example:
        >>> Clock().seconds >= 0
        True
    """

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._start = time.perf_counter()

    def __repr__(self) -> str:
        return f"Clock(started {self.started.isoformat(timespec='seconds')}, {self.seconds:.1f} s)"

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start


def provenance(
    command: str,
    options: Mapping[str, object],
    *,
    data: ImageSet | None = None,
    output: Path | None = None,
    clock: Clock | None = None,
    **facts: object,
) -> dict[str, Any]:
    """A JSON-serialisable record of what was computed, from what, with what, and how long it took.

    Args:
        command: what made the output.
        options: every setting, as the user gave it or as its default.
        data: the data set, recorded by name, fingerprint, shape and flips.
        output: the finished file, recorded by name and SHA-256.
        clock: started with the work; gives start time (UTC) and wall seconds.
        facts: further entries, such as the noise level or the resolved schedule.

    Raises:
        DTypeError: an option or fact that JSON cannot hold.

    Example:
        >>> record = provenance("denoise", {"seed": 0}, sigma=np.float64(1.5))
        >>> record["options"]["seed"], record["sigma"], record["versions"]["numpy"] == np.__version__
        (0, 1.5, True)
    """
    record: dict[str, Any] = {"command": command, "options": plain(options)}
    record |= {name: plain(value) for name, value in facts.items()}
    if data is not None:
        record["data"] = describe_data(data)
    record["versions"] = versions()
    record["build"] = build()
    if output is not None:
        record["output"] = {"file": output.name, "sha256": sha256(output)}
    if clock is not None:
        record["started"] = clock.started.isoformat(timespec="seconds")
        record["wall_seconds"] = round(clock.seconds, 3)
    record["peak_memory_bytes"] = peak_memory()
    return record


def describe_data(data: ImageSet) -> dict[str, Any]:
    """What identifies a data set: name, fingerprint, number and shape of images, dtype, flips, what else it has."""
    described: dict[str, Any] = {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_stored": data.num_stored,
        "num_images": len(data),
        "shape": list(data.shape),
        "dtype": data.dtype.name,
        "xflip": data.xflip,
    }
    if data.scaling is not None:
        described["scaling"] = data.scaling.settings
    return described if data.log_prior is None else {**described, "log_prior": True}


def versions() -> dict[str, str | None]:
    """Versions of the package, numpy, torch (None where it is not installed) and Python.

    Example:
        >>> sorted(versions())
        ['numpy', 'pspc_rs', 'python', 'torch']
    """
    return {
        "pspc_rs": installed_version("pspc-rs"),
        "numpy": np.__version__,
        "torch": installed_version("torch"),
        "python": platform.python_version(),
    }


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not installed; nothing is imported."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def build() -> dict[str, str | int]:
    """How the engine was built and what it runs on: profile, CPU features, CUDA state, number of threads.

    Example:
        >>> build()["num_threads"] >= 1
        True
    """
    return {**dict(_core.build_info()), "num_threads": num_threads()}


def peak_memory() -> int | None:
    """The largest resident memory of this process so far in bytes; None on Windows, which has no count of it."""
    if sys.platform == "win32":
        return None
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def data_settings(data: ImageSet) -> dict[str, Any]:
    """What identifies the data; not where they lie or what they are called."""
    return {"data": {name: value for name, value in describe_data(data).items() if name != "name"}}


def machine_settings() -> dict[str, Any]:
    """What decides the last bits of a computation: the versions, and the instruction set of the CPU."""
    return {"versions": versions(), "isa": build()["isa"]}


def model_settings(model: object) -> dict[str, Any]:
    """What identifies a denoiser or network: its own ``settings``, or the name and the code of a function.

    See `pspc_rs.contents` for what a change of the code is.

    Example:
        >>> settings = model_settings(lambda z, sigma: 0 * z)
        >>> sorted(settings), len(settings["code_sha256"])
        (['code_sha256', 'denoiser'], 64)
    """
    settings = getattr(model, "settings", None)
    if isinstance(settings, Mapping):
        return dict(plain(settings))
    named = model if hasattr(model, "__qualname__") else type(model)
    return {"denoiser": f"{named.__module__}.{named.__qualname__}", "code_sha256": code_checksum(model)}
