"""What a file that is given as a network holds, by its first bytes, and what to do where it is no network."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any, NoReturn

from pspc_rs.errors import DataError
from pspc_rs.file_kinds import OLD_TORCH, START_BYTES, FileKind, kind_of_start
from pspc_rs.files import decode_errors, require_path

_PICKLE_START, _ZIP_START = b"\x80", b"PK"
_WEIGHTS_ALONE = (
    "which holds weights or pickled objects but no network that can be run; save the network with torch.jit.save, give "
    "module:callable, or, for an architecture of ours, name it in a .json file"
)


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like a safetensors file: the length of a header, and the header.

    Raises:
        MissingFileError: there is no such file.
        DataError: it cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "net")
        ...     _ = path.write_bytes((2).to_bytes(8, "little") + b"{}")
        ...     is_safetensors(path)
        True
    """
    return _starts_safetensors(_start_of(require_path(path)))


def kind_of_file(path: Path) -> str:
    """What a file holds: "safetensors", "edm", "torchscript", "description", or "weights" for a file of torch.save.

    Raises:
        DataError: something else, which the message names.
    """
    start = _start_of(path)
    # First, as the length that such a file begins with may have any lowest byte.
    if _starts_safetensors(start):
        return "safetensors"
    kind = kind_of_start(start)
    if kind is not None and kind.name == OLD_TORCH:
        return "weights"
    if start.startswith(_PICKLE_START):
        return "edm"
    if start.startswith(_ZIP_START):
        return _kind_of_archive(path)
    if path.suffix == ".json":
        return "description"
    raise DataError(f"{path} {_what_else(path, start, kind)}")


def refuse_weights(path: Path) -> NoReturn:
    """Says that a file of ``torch.save`` is no network by itself.

    Raises:
        DataError: always.
    """
    old = (kind := kind_of_start(_start_of(path))) is not None and kind.name == OLD_TORCH
    raise DataError(f"{path} is {OLD_TORCH if old else 'a file of torch.save'}, {_WEIGHTS_ALONE}")


def read_description(path: Path) -> tuple[str, dict[str, Any]]:
    """The source that a JSON file names, and its other entries.

    Raises:
        DataError: it is no such file.
    """
    with decode_errors(path):
        entries = json.loads(path.read_bytes())
    source = entries.pop("source", None) if isinstance(entries, dict) else None
    if not isinstance(source, str):
        raise DataError(f"{path} describes no network: it must be a JSON object with the text 'source'")
    if source.endswith(".json"):
        raise DataError(f"{path} has the source {source!r:.80}; allowed are networks, not descriptions of them")
    return source, entries


def _start_of(path: Path) -> bytes:
    with decode_errors(path), path.open("rb") as file:
        return file.read(START_BYTES)


def _starts_safetensors(start: bytes) -> bool:
    # The length of the header takes 8 bytes; none is so long that it needs more than 4 of them.
    return start[4:9] == bytes(4) + b"{"


def _kind_of_archive(path: Path) -> str:
    with decode_errors(path), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inner = {"/".join(name.split("/")[1:]) for name in names}
    if any(name.startswith("code/") for name in inner):
        return "torchscript"
    if {"archive_format", "models/model.json"} & inner or "serialized_exported_program.json" in names:
        raise DataError(
            f"{path} is an exported program of torch.export, which is not read; save the network with torch.jit.save, "
            "or load it in a Python function and give module:function"
        )
    if "data.pkl" in inner:
        return "weights"
    first = ", ".join(names[:3]) or "nothing"
    raise DataError(f"{path} is a ZIP archive of {len(names)} files ({first:.120}), which hold no network")


def _what_else(path: Path, start: bytes, kind: FileKind | None) -> str:
    """What a file is that is no network, as the predicate of a sentence."""
    if kind is not None:
        return f"is {kind.name}; {kind.advice or 'it holds no network that can be run'}"
    if path.suffix == ".py":
        return f"is Python source; give module:callable, such as {path.stem}:net"
    if path.suffix == ".onnx":
        return "is an ONNX file, which is not read; load it in a Python function and give module:function"
    if not start:
        return "is empty and holds no network"
    return "holds no network that is known"
