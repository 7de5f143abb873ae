"""`load`: the data set behind a name, a path, an array or a torch Dataset."""

import difflib
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from pspc_rs.arrays import is_array
from pspc_rs.checks import flag, one_of
from pspc_rs.data.decode import SUFFIXES
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.named import EMBEDDED, SOURCES, fetch
from pspc_rs.data.readers.array_files import IDX_MAGIC, IDX_NAMES, NPY_MAGIC, read_idx, read_npy, read_npz
from pspc_rs.data.readers.cifar import CIFAR10_PATHS, read_cifar10
from pspc_rs.data.readers.image_files import read_edm_zip, read_folder
from pspc_rs.errors import DataError, InvalidValueError, MissingFileError
from pspc_rs.files import decode_errors, is_gzip, open_file, zip_names
from pspc_rs.progress import Progress

NAMES = (*EMBEDDED, *SOURCES)
"""The data sets that `load` knows by name."""

Format: TypeAlias = Literal["edm_zip", "folder", "cifar10", "idx", "npz", "npy"]

_TAR_MAGIC = b"ustar"
_TAR_MAGIC_AT = 257


def load(
    name_or_path: Any,
    *,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    split: str = "train",
    progress: bool | Progress | None = None,
) -> ImageSet:
    """The data set behind a name, a path, an array or a torch `Dataset`.

    Names: ``digits`` (8 x 8 grey) and ``photos`` (32 x 32 colour) come with scikit-learn; ``cifar10``, ``mnist`` and
    ``fashion-mnist`` are downloaded once into `cache_dir()` and checked. A string that equals one of these names means
    that data set; ``./mnist`` or ``Path("mnist")`` means the folder.

    Paths: an EDM archive (ZIP), a folder of images, CIFAR-10 (tar.gz or folder, Python or binary version), an IDX file
    or folder (MNIST), .npz or .npy. The content of a file decides, not its suffix.

    Args:
        name_or_path: name, path, `ImageSet`, array or tensor [N, C, H, W] or [N, H, W], or torch `Dataset`.
        xflip: count horizontal flips as further data; an `ImageSet` that has them keeps them.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        split: ``"train"`` or ``"test"``, for data that is divided so (CIFAR-10, IDX folders, .npz).
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.

    Returns:
        The data as an `ImageSet`.

    Raises:
        DataError: unknown format, damaged files, no images, images of mixed sizes.
        DownloadError: no network, or a file with another checksum.
        DTypeError, InvalidValueError, ShapeError: arrays or options that cannot be used.
        MissingDependencyError: the name needs the extra ``demo`` or ``download``.
        MissingFileError: neither a known name nor a path that exists.

    Example:
        >>> load("digits", classes=[0, 1])
        ImageSet('digits', 360 images of [1, 8, 8] uint8, 2 classes, xflip=False)
        >>> import numpy as np
        >>> load(np.zeros((2, 3, 8, 8), np.uint8), xflip=True)
        ImageSet('array', 2 images of [3, 8, 8] uint8, no labels, xflip=True)
    """
    one_of("split", split, ("train", "test"))
    options: dict[str, Any] = {"max_size": max_size, "classes": classes, "xflip": xflip}
    if isinstance(name_or_path, str | os.PathLike):
        if name_or_path in SOURCES:
            return _load_path(fetch(str(name_or_path), split), split, progress, options)
        if name_or_path not in EMBEDDED:
            return _load_path(_require_data(Path(name_or_path)), split, progress, options)
        _refuse_test_split(split, str(name_or_path))
        return EMBEDDED[str(name_or_path)]().select(**options)
    _refuse_test_split(split, f"a {type(name_or_path).__name__}")
    if isinstance(name_or_path, ImageSet):
        return name_or_path.select(max_size, classes, flag("xflip", xflip) or name_or_path.xflip)
    if is_array(name_or_path):
        return ImageSet(name_or_path, None, xflip).select(max_size, classes)
    return ImageSet.from_torch(name_or_path, progress=progress, **options)


def _require_data(path: Path) -> Path:
    if path.exists():
        return path
    siblings = [str(path.parent / other.name) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), [*NAMES, *siblings], n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise MissingFileError(f"{path} is neither a path that exists nor a known name ({', '.join(NAMES)}){hint}")


def _load_path(path: Path, split: str, progress: bool | Progress | None, options: dict[str, Any]) -> ImageSet:
    found = _format_of(path)
    if found in ("edm_zip", "folder", "npy"):
        _refuse_test_split(split, str(path))
    match found:
        case "edm_zip":
            return read_edm_zip(path, progress=progress, **options)
        case "folder":
            return read_folder(path, progress=progress, **options)
        case "npy":
            return read_npy(path).select(**options)
        case "cifar10":
            return read_cifar10(path, split=split, **options)
        case "idx":
            return read_idx(path, split=split, **options)
        case "npz":
            return read_npz(path, split=split, **options)


def _refuse_test_split(split: str, what: str) -> None:
    if split == "test":
        raise InvalidValueError(f"split is 'test', but {what} is not divided into training and test images")


def _format_of(path: Path) -> Format:
    """The format of a file or folder, judged by its content.

    Raises:
        DataError: it has none of the known formats.
    """
    if path.is_dir():
        return _format_of_folder(path)
    members = zip_names(path)
    if members is None:
        return _format_of_file(path)
    suffixes = {PurePosixPath(name).suffix.lower() for name in members}
    return "npz" if ".npy" in suffixes and not suffixes & SUFFIXES else "edm_zip"


def _format_of_folder(path: Path) -> Format:
    if any((path / file).is_file() for file in CIFAR10_PATHS):
        return "cifar10"
    if any((path / file).is_file() for file in IDX_NAMES):
        return "idx"
    return "folder"


def _format_of_file(path: Path) -> Format:
    with decode_errors(path), open_file(path) as stream:
        start = stream.read(512)
    if start[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        return "cifar10"
    if start.startswith(IDX_MAGIC):
        return "idx"
    if start.startswith(NPY_MAGIC) and not is_gzip(path):
        return "npy"
    hint = "; for a single image give its folder" if path.suffix.lower() in SUFFIXES else ""
    raise DataError(
        f"{path} is no known kind of data set (it starts with {start[:8].hex(' ') or 'nothing'}){hint}; known are EDM "
        "archives (ZIP of images), folders of images, CIFAR-10 archives, IDX files (MNIST), .npy and .npz"
    )
