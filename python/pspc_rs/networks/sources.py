"""What a file that is given as a network holds, by its first bytes, and what to do where it is no network."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from pspc_rs.errors import DataError
from pspc_rs.files import decode_errors, require_path

_START_BYTES = 512
_PICKLE_START, _ZIP_START = b"\x80", b"PK"
# The magic number that torch.save wrote first, up to torch 1.5: a pickled integer.
_OLD_TORCH_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_WEIGHTS_ALONE = (
    "which holds weights or pickled objects but no network that can be run; save the network with torch.jit.save, or "
    "give module:callable"
)

# What files are that people give, by their first bytes, and what to do.
_KNOWN_STARTS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch that with git lfs pull"),
    (b"\x89HDF\r\n", "an HDF5 file, as Keras writes; allowed are networks of torch"),
    (b"\x1f\x8b", "a gzip file; unpack it"),
    (b"GGUF", "a GGUF file, which holds weights but no network that can be run"),
    (b"\x93NUMPY", "a numpy array, which is no network"),
)


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like a safetensors file: the length of a header, and the header.

    Raises:
        MissingFileError: there is no such file.
        DataError: it cannot be read.
    """
    return _starts_safetensors(_start_of(require_path(path)))


def kind_of_file(path: Path) -> str:
    """What a file holds: "safetensors", "edm", "torchscript" or "description".

    Raises:
        DataError: something else, which the message names.
    """
    start = _start_of(path)
    # First, as the length that such a file begins with may have any lowest byte.
    if _starts_safetensors(start):
        return "safetensors"
    if start.startswith(_OLD_TORCH_START):
        raise DataError(f"{path} is a file of torch.save in its old format, {_WEIGHTS_ALONE}")
    if start.startswith(_PICKLE_START):
        return "edm"
    if start.startswith(_ZIP_START):
        return _kind_of_archive(path)
    if path.suffix == ".json":
        return "description"
    raise DataError(f"{path} {_what_else(path, start)}")


def read_description(path: Path) -> tuple[str, dict[str, Any]]:
    """The source that a JSON file names, and its other entries.

    Raises:
        DataError: it is no such file.
    """
    with decode_errors(path):
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    source = entries.pop("source", None) if isinstance(entries, dict) else None
    if not isinstance(source, str):
        raise DataError(f"{path} describes no network: it must be a JSON object with the text 'source'")
    if source.endswith(".json"):
        raise DataError(f"{path} has the source {source!r:.80}; allowed are networks, not descriptions of them")
    return source, entries


def is_url(source: str) -> bool:
    """Whether a text is an address of the web, or of a store such as S3.

    Example:
        >>> is_url("https://example.org/net.pkl"), is_url("nets:unet")
        (True, False)
    """
    return "://" in source


def _start_of(path: Path) -> bytes:
    with decode_errors(path), path.open("rb") as file:
        return file.read(_START_BYTES)


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
        raise DataError(f"{path} is a file of torch.save, {_WEIGHTS_ALONE}")
    first = ", ".join(names[:3]) or "nothing"
    raise DataError(f"{path} is a ZIP archive of {len(names)} files ({first:.120}), which hold no network")


def _what_else(path: Path, start: bytes) -> str:
    """What a file is that is no network, as the predicate of a sentence."""
    for known, what in _KNOWN_STARTS:
        if start.startswith(known):
            return f"is {what}"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not a network: the download has failed"
    if path.suffix == ".py":
        return f"is Python source; give module:callable, such as {path.stem}:net"
    if path.suffix == ".onnx":
        return "is an ONNX file, which is not read; load it in a Python function and give module:function"
    if not start:
        return "is empty and holds no network"
    return "holds no network that is known"
