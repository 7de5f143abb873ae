"""Files: opened with errors of ours, read within limits; written by `pspc_rs.writing`."""

import gzip
import lzma
import math
import os
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs import _core
from pspc_rs.errors import DataError, DTypeError, MissingFileError, OutputError, PspcError
from pspc_rs.writing import replacing as replacing  # noqa: PLC0414

MAX_SIDE = 4096
"""Largest height or width of an image in a file."""

MAX_FILE_BYTES = MAX_SIDE * MAX_SIDE * 4 + (1 << 20)
"""Largest size of a file of one image, or of labels: that of the largest image without compression."""

# A deflate stream expands by at most 1032 : 1.
_MAX_EXPANSION = 1032

_DECODE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    SyntaxError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    tokenize.TokenError,
    zipfile.BadZipFile,
)

_GZIP_MAGIC = b"\x1f\x8b"


def cache_dir() -> Path:
    """The folder for what is downloaded or computed once: PSPC_CACHE_DIR, or else the user's cache folder.

    The folder need not exist yet.

    Raises:
        OutputError: the home folder is unknown.

    Example:
        >>> import os
        >>> os.environ["PSPC_CACHE_DIR"] = "somewhere"
        >>> cache_dir().name
        'somewhere'
        >>> del os.environ["PSPC_CACHE_DIR"]
    """
    chosen = os.environ.get("PSPC_CACHE_DIR")
    if chosen:
        try:
            return Path(chosen).expanduser()
        except RuntimeError as error:
            raise OutputError(f"PSPC_CACHE_DIR is {chosen!r}, but there is no such home folder") from error
    from platformdirs import user_cache_dir

    folder = Path(user_cache_dir("pspc-rs"))
    if not folder.is_absolute():
        raise OutputError("there is no home folder to keep a cache in; the variable PSPC_CACHE_DIR names another place")
    return folder


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path as a Path.

    Raises:
        DTypeError: path is neither a string nor a path.
        MissingFileError: path is empty, which Path would take for the current folder.
    """
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"path is a {type(path).__name__}; allowed are strings and paths")
    text = os.fsdecode(path)
    if text == "":
        raise MissingFileError("the path is empty (a variable that is not set?); the current folder is '.'")
    return Path(text)


def require_path(path: str | os.PathLike[str]) -> Path:
    """The path of a file or folder that exists.

    Raises:
        DTypeError: path is neither a string nor a path.
        MissingFileError: nothing has this path.
    """
    found = as_path(path)
    if not found.exists():
        raise MissingFileError(f"{found} does not exist")
    return found


@contextmanager
def decode_errors(what: object) -> Iterator[None]:
    """Turns what a decoder raises on damaged input into a DataError that names the file.

    Example:
        >>> with decode_errors("a"):  # doctest: +ELLIPSIS
        ...     int("x")
        Traceback (most recent call last):
        ...
        pspc_rs.errors.DataError: a cannot be read, it is damaged or not what it seems: invalid literal for int() ...
    """
    try:
        yield
    except PspcError:
        raise
    except _DECODE_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{what} cannot be read, it is damaged or not what it seems: {reason}") from error


def is_gzip(path: Path) -> bool:
    """Whether the file starts like a gzip stream."""
    with decode_errors(path), path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def open_file(path: Path) -> BinaryIO:
    """The file's bytes, decompressed if it is a gzip stream."""
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")


def read_limited(path: Path) -> bytes:
    """All bytes of a file, at most `MAX_FILE_BYTES`.

    Raises:
        DataError: the file is larger, or cannot be read.
    """
    if not path.is_file():
        # Opening a named pipe would wait for its other end.
        raise DataError(f"{path} is no file, or a link to none")
    with decode_errors(path), path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path} has more than {MAX_FILE_BYTES} bytes, too many for one image of at most {MAX_SIDE} px")
    return data


def check_announced(announced: int, stored: int, what: object) -> None:
    """Refuses a header that announces more bytes than `stored` compressed bytes can hold.

    Raises:
        DataError: it does.
    """
    if announced > _MAX_EXPANSION * stored:
        raise DataError(f"{what} announces {announced} bytes, more than the {stored} bytes of the file can hold")


def read_u8(stream: BinaryIO, shape: tuple[int, ...], what: object) -> NDArray[np.uint8]:
    """The rest of a stream as bytes of the given shape.

    Raises:
        DataError: the stream is shorter or longer.
    """
    flat = np.empty(math.prod(shape), np.uint8)
    done = 0
    while done < len(flat):
        count = stream.readinto(flat[done : done + (1 << 24)].data)  # type: ignore[attr-defined]
        if not count:
            raise DataError(f"{what} ends after {done} of the {len(flat)} bytes that its header announces")
        done += count
    if stream.read(1):
        raise DataError(f"{what} goes on after the {len(flat)} bytes that its header announces")
    return flat.reshape(shape)


def zip_names(path: Path) -> list[str] | None:
    """The names of the members of a ZIP archive, or None if the file is none.

    Raises:
        DataError: the file is damaged.
    """
    plain = _core.PlainZip.open(path)
    if plain is not None:
        return plain.names()
    with decode_errors(path):
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()


@contextmanager
def open_zip(path: str | os.PathLike[str]) -> Iterator[zipfile.ZipFile]:
    """A ZIP archive, opened for reading in memory; nothing is extracted.

    Raises:
        DataError: it is no ZIP archive.
        MissingFileError: there is no such file.
    """
    found = require_path(path)
    with decode_errors(found):
        archive = zipfile.ZipFile(found)
    with archive:
        yield archive


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int = MAX_FILE_BYTES) -> bytes:
    """The bytes of one member, stored or deflated, at most `limit`.

    Raises:
        DataError: the member is larger, damaged, encrypted or compressed in another way.
    """
    what = f"{archive.filename}, member {member.filename}"
    check_member(member, what)
    if member.file_size > limit:
        raise DataError(f"{what} announces {member.file_size} bytes; allowed are at most {limit}")
    with decode_errors(what):
        return archive.read(member)


def check_member(member: zipfile.ZipInfo, what: str) -> None:
    """Refuses a member that cannot be decompressed safely.

    Raises:
        DataError: it is encrypted, compressed in an unusual way, or announces a size that cannot be.
    """
    if member.flag_bits & 1:
        raise DataError(f"{what} is encrypted; allowed are members without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{what} has compression method {member.compress_type}; allowed are stored and deflated")
    check_announced(member.file_size, member.compress_size, what)
