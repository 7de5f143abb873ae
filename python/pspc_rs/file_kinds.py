"""What a file that cannot be read is instead, by its first bytes, and what to do with it; addresses given as paths."""

from typing import NamedTuple

START_BYTES = 512
"""So many bytes of a file are enough for `kind_of_start`."""

OLD_TORCH = "a file of torch.save in its old format"
"""The kind of the files that torch.save wrote up to torch 1.5."""

_UNPACK = "unpack it"


class FileKind(NamedTuple):
    """What a file is, "an HDF5 file", and what to do with it, whatever it is wanted for; "" where that depends."""

    name: str
    advice: str = ""


# By their first bytes; the first that fits counts.
_STARTS = (
    (b"version https://git-lfs", FileKind("a pointer of Git LFS, not the file itself", "fetch that with git lfs pull")),
    (b"\x89PNG", FileKind("an image")),
    (b"\xff\xd8\xff", FileKind("an image")),
    (b"GIF8", FileKind("an image")),
    (b"BM", FileKind("an image")),
    (b"\x93NUMPY", FileKind("a numpy array")),
    (b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file")),
    (b"MATLAB 5.0", FileKind("a MATLAB file")),
    (b"PAR1", FileKind("a Parquet file")),
    (b"GGUF", FileKind("a GGUF file of weights")),
    (b"\x1f\x8b", FileKind("packed with gzip", _UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", FileKind("a 7z archive", _UNPACK)),
    (b"Rar!", FileKind("a RAR archive", _UNPACK)),
    (b"\xfd7zXZ\x00", FileKind("packed with xz", _UNPACK)),
    (b"BZh", FileKind("packed with bzip2", _UNPACK)),
    (b"\x28\xb5\x2f\xfd", FileKind("packed with Zstandard", _UNPACK)),
    # The magic number of torch, a pickled integer.
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", FileKind(OLD_TORCH)),
    (b"\x80", FileKind("a pickle")),
    (b"{", FileKind("a text file (JSON)")),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml")


def kind_of_start(start: bytes) -> FileKind | None:
    """What a file is that starts with these bytes; None if that cannot be told.

    Example:
        >>> kind_of_start(b"PAR1").name, kind_of_start(b"BZh9").advice, kind_of_start(b"?")
        ('a Parquet file', 'unpack it', None)
    """
    if start.lstrip().lower().startswith(_PAGES):
        return FileKind("a web page, not the file", "its download has failed")
    return next((kind for magic, kind in _STARTS if start.startswith(magic)), None)


def is_url(path: str) -> bool:
    """Whether a text is an address of the web, or of a store such as S3.

    Example:
        >>> is_url("https://example.org/net.pkl"), is_url("nets:unet")
        (True, False)
    """
    return "://" in path
