"""The image files in a ZIP archive or in a folder, one by one through Pillow or many at once in the core."""

import os
import re
import threading
import zipfile
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pspc_rs import _core
from pspc_rs.data.decode import SUFFIXES, ImageFile
from pspc_rs.files import MAX_FILE_BYTES, decode_errors, read_limited, read_member, require_path
from pspc_rs.reprs import build_repr

_JUNK_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")

# Patterns, because data sets have many names: a loop over the parts of each takes a second for 50,000.
_NOT_NORMAL = re.compile(r"\\|(?:^|/)\.?(?:/|\Z)")
_JUNK = re.compile(rf"(?:^|/)(?:\.|(?:{'|'.join(map(re.escape, _JUNK_FOLDERS))})(?:/|\Z))")
_IMAGE = re.compile(rf"[^/](?:{'|'.join(map(re.escape, sorted(SUFFIXES)))})\Z", re.ASCII | re.IGNORECASE)


def member_name(stored: str) -> str:
    r"""The name of a member of a ZIP archive, also where a Windows program wrote backslashes.

    Example:
        >>> member_name("cat\\1.png"), member_name("./cat/1.png")
        ('cat/1.png', 'cat/1.png')
    """
    return str(PurePosixPath(stored.replace("\\", "/"))) if _NOT_NORMAL.search(stored) else stored


def is_junk(name: str) -> bool:
    """Whether a file or one of its folders is hidden, or one that macOS, Windows or a NAS puts beside others.

    Args:
        name: a path with forward slashes.

    Example:
        >>> is_junk("@eaDir/1.png/thumb.jpg"), is_junk("cat/1.png")
        (True, False)
    """
    return _JUNK.search(name) is not None


def has_image_suffix(name: str) -> bool:
    """Whether a path with forward slashes ends like that of an image.

    Example:
        >>> has_image_suffix("cat/1.PNG"), has_image_suffix("cat/.png"), has_image_suffix("png")
        (True, False, False)
    """
    return _IMAGE.search(name) is not None


class ZipArchive:
    """The members of a ZIP archive, for reading in memory; nothing is extracted.

    The core reads plain archives; all others, and what is damaged, are left to `zipfile`, which has the messages.

    Args:
        path: the archive.

    Raises:
        DataError: it is no ZIP archive.
        MissingFileError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = require_path(path)
        self._plain = _core.PlainZip.open(self.path)
        self._slow: zipfile.ZipFile | None = None
        self._lock = threading.Lock()
        self._names = self._by_zipfile().namelist() if self._plain is None else self._plain.names()

    def __repr__(self) -> str:
        return build_repr(self, repr(str(self.path)), f"{len(self._names)} members")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._slow is not None:
            self._slow.close()

    def directory(self) -> bytes | None:
        """Names, sizes, places and checksums of all members as they are stored; None if the archive is not plain."""
        return None if self._plain is None else self._plain.directory()

    def members(self) -> dict[str, int]:
        """The positions of the members in the directory, by name; where two have one name, that of the last."""
        return {name: index for index, name in enumerate(self._normal_names)}

    def images(self) -> dict[str, int]:
        """The same for the image files alone."""
        return {
            name: index
            for index, name in enumerate(self._normal_names)
            if has_image_suffix(name) and not is_junk(name) and self._names[index][-1] not in "/\\"
        }

    @cached_property
    def _normal_names(self) -> list[str]:
        return [member_name(stored) for stored in self._names]

    def describe(self, member: int) -> str:
        """What messages call a member, by its position."""
        return f"{self.path}, member {self._names[member]}"

    def read(self, member: int) -> bytes:
        """The bytes of a member, by its position.

        Raises:
            DataError: it is larger than an image can be, damaged, encrypted, or neither stored nor deflated.
        """
        plain = None if self._plain is None else self._plain.read(member, MAX_FILE_BYTES)
        if plain is not None:
            return plain
        archive = self._by_zipfile()
        return read_member(archive, archive.infolist()[member])

    def decode(self, members: list[int], pixels: NDArray[np.uint8]) -> list[int]:
        """Decodes the members that are plain PNGs into `pixels`; returns the positions in `members` of the others."""
        if self._plain is None:
            return list(range(len(members)))
        return self._plain.decode(members, pixels, MAX_FILE_BYTES)

    def _by_zipfile(self) -> zipfile.ZipFile:
        with self._lock:
            if self._slow is None:
                with decode_errors(self.path):
                    self._slow = zipfile.ZipFile(self.path)
        return self._slow


class ZipImages:
    """Images in an archive, for `decode_images`.

    Args:
        archive: the archive, open.
        members: their positions in its directory.
    """

    def __init__(self, archive: ZipArchive, members: list[int]) -> None:
        self._archive = archive
        self._members = members

    def __repr__(self) -> str:
        return build_repr(self, self._archive, f"{len(self._members)} images")

    def __len__(self) -> int:
        return len(self._members)

    def file(self, index: int) -> ImageFile:
        """One of the files."""
        member = self._members[index]
        return ImageFile(self._archive.describe(member), partial(self._archive.read, member))

    def decode_plain(self, indices: range, pixels: NDArray[np.uint8]) -> list[int]:
        """See `decode.ImageFiles`."""
        return self._archive.decode([self._members[index] for index in indices], pixels)


class FolderImages:
    """Images in a folder, for `decode_images`.

    Args:
        folder: the folder.
        names: their paths in it.
    """

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder
        self._names = names

    def __repr__(self) -> str:
        return build_repr(self, repr(str(self._folder)), f"{len(self._names)} images")

    def __len__(self) -> int:
        return len(self._names)

    def file(self, index: int) -> ImageFile:
        """One of the files."""
        path = self._folder / self._names[index]
        return ImageFile(str(path), partial(read_limited, path))

    def decode_plain(self, indices: range, pixels: NDArray[np.uint8]) -> list[int]:
        """See `decode.ImageFiles`."""
        paths = [os.path.join(self._folder, self._names[index]) for index in indices]  # noqa: PTH118 (many times faster)
        return _core.decode_png_files(paths, pixels, MAX_FILE_BYTES)
