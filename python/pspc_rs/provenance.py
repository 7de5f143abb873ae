"""Where the numbers in a file come from: one record, the same for every command."""

import hashlib
import importlib.metadata
import json
import math
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pspc_rs import _core
from pspc_rs.data import ImageSet
from pspc_rs.errors import DTypeError
from pspc_rs.files import replacing


class Clock:
    """When a piece of work began and how long it has taken.

    Example:
        >>> Clock().seconds >= 0
        True
    """

    def __init__(self) -> None:
        self.started = datetime.now(UTC)
        self._start = time.perf_counter()

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


def save_record(path: Path, record: Mapping[str, object]) -> None:
    """Writes a record as indented JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def describe_data(data: ImageSet) -> dict[str, Any]:
    """What identifies a data set: name, fingerprint, number and shape of images, dtype, flips."""
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "num_stored": data.num_stored,
        "num_images": len(data),
        "shape": list(data.shape),
        "dtype": data.dtype.name,
        "xflip": data.xflip,
    }


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
    return {**dict(_core.build_info()), "num_threads": _core.num_threads()}


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_memory() -> int | None:
    """The largest resident memory of this process so far in bytes; None on Windows, which has no count of it."""
    if sys.platform == "win32":
        return None
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def plain(value: object) -> Any:
    """The value as JSON holds it: paths as strings, arrays and tuples as lists, schedules by their fields.

    Infinite numbers become "inf" and "-inf", NaN becomes "nan": JSON has no numbers for them.

    Raises:
        DTypeError: a value that JSON cannot hold.

    Example:
        >>> plain({"sigmas": np.array([1.5, 2.0]), "path": Path("a"), "limit": float("inf")})
        {'sigmas': [1.5, 2.0], 'path': 'a', 'limit': 'inf'}
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    raise DTypeError(f"a {type(value).__name__} cannot be recorded: {value!r:.80}")
