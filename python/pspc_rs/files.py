"""Files: written so that a reader never sees half of one, and read with errors that name them."""

import contextlib
import lzma
import os
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pspc_rs.errors import DataError, DTypeError, MissingFileError, OutputError, PspcError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` to write to; renamed to it at the end, removed if anything goes wrong.

    Missing parent folders are made.

    Raises:
        OutputError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "deep", "a.txt")
        ...     with replacing(path) as temporary:
        ...         _ = temporary.write_text("done")
        ...     path.read_text()
        'done'
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error
    finally:
        # Gone after the rename; and where it could never be made, it cannot be removed either.
        with contextlib.suppress(OSError):
            temporary.unlink()


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path as a Path.

    Raises:
        DTypeError: it is neither a string nor a path.

    Example:
        >>> as_path("a.zip").suffix
        '.zip'
    """
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"path is a {type(path).__name__}; allowed are strings and paths")
    return Path(path)


def require_path(path: str | os.PathLike[str]) -> Path:
    """The path as a Path, where there must be a file or folder.

    Raises:
        DTypeError: path is neither a string nor a path.
        MissingFileError: there is nothing at the path.

    Example:
        >>> require_path("/no/such/file")
        Traceback (most recent call last):
        ...
        pspc_rs.errors.MissingFileError: /no/such/file does not exist
    """
    required = as_path(path)
    if not required.exists():
        raise MissingFileError(f"{required} does not exist")
    return required


# What decoders are known to raise for damaged input.
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


@contextmanager
def decode_errors(what: object) -> Iterator[None]:
    """Turns whatever a decoder raises for damaged input into a DataError that names the file.

    Raises:
        DataError: the input is damaged; errors of this package pass as they are.

    Example:
        >>> with decode_errors("a.json"):
        ...     {}["images"]
        Traceback (most recent call last):
        ...
        pspc_rs.errors.DataError: a.json cannot be read, it is damaged or not what it seems: 'images'
    """
    try:
        yield
    except PspcError:
        raise
    except _DECODE_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{what} cannot be read, it is damaged or not what it seems: {reason}") from error
