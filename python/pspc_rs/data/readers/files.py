"""How every reader opens a file: errors of ours, and no allocation that the file's real size cannot justify."""

import gzip
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DataError
from pspc_rs.files import decode_errors, require_path

damage_named = decode_errors
existing = require_path

MAX_SIDE = 4096
"""No image may be higher or wider than this."""

MAX_FILE_BYTES = MAX_SIDE * MAX_SIDE * 4 + (1 << 20)
"""No single image or side file may be larger than the largest image allowed, uncompressed."""

# No deflate stream expands by more than 1032 : 1.
_MAX_EXPANSION = 1032

GZIP_MAGIC = b"\x1f\x8b"


def is_gzip(path: Path) -> bool:
    """Whether the file starts like a gzip stream."""
    with damage_named(path), path.open("rb") as file:
        return file.read(2) == GZIP_MAGIC


def open_file(path: Path) -> BinaryIO:
    """The file's bytes, decompressed if it is a gzip stream."""
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")


def read_limited(path: Path) -> bytes:
    """The whole of a file that should be small."""
    with damage_named(path), path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"{path} has more than {MAX_FILE_BYTES} bytes, too many for one image of at most {MAX_SIDE} px")
    return data


def check_announced(announced: int, stored: int, what: object) -> None:
    """Refuse a header that announces more bytes than `stored` compressed bytes can hold."""
    if announced > _MAX_EXPANSION * stored:
        raise DataError(f"{what} announces {announced} bytes, more than the {stored} bytes of the file can hold")


def read_u8(stream: BinaryIO, shape: tuple[int, ...], what: object) -> NDArray[np.uint8]:
    """The rest of a stream as bytes of the given shape; the length has to fit exactly."""
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


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive opened for reading in memory; nothing is ever extracted."""
    with damage_named(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int = MAX_FILE_BYTES) -> bytes:
    """One member, stored or deflated, of at most `limit` bytes."""
    what = f"{archive.filename}, member {member.filename}"
    check_member(member, what)
    if member.file_size > limit:
        raise DataError(f"{what} announces {member.file_size} bytes; allowed are at most {limit}")
    with damage_named(what):
        return archive.read(member)


def check_member(member: zipfile.ZipInfo, what: str) -> None:
    """Refuse what cannot be decompressed safely: encryption, unusual compression, sizes that cannot be."""
    if member.flag_bits & 1:
        raise DataError(f"{what} is encrypted; allowed are members without a password")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{what} has compression method {member.compress_type}; allowed are stored and deflated")
    check_announced(member.file_size, member.compress_size, what)
