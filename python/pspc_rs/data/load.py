"""One door to every data set: a name, a path, an array or a torch Dataset."""

import difflib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pspc_rs.data import demo
from pspc_rs.data.arrays import as_flag, check_split, is_array, refuse_test_split
from pspc_rs.data.download import SOURCES, fetch
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers import (
    read_cifar10,
    read_edm_zip,
    read_folder,
    read_idx,
    read_npy,
    read_npz,
    read_torch_dataset,
)
from pspc_rs.data.readers.sniff import kind_of
from pspc_rs.errors import MissingFileError

_DEMOS: Mapping[str, Callable[[], ImageSet]] = {"digits": demo.digits, "photos": demo.photos}

NAMES = (*_DEMOS, *SOURCES)
"""The data sets that `load` knows by name."""


def load(
    name_or_path: Any,
    *,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    split: str = "train",
    progress: bool | None = None,
) -> ImageSet:
    """The data set behind a name, a path, an array or a torch `Dataset`.

    Names: ``digits`` (8 x 8 grey) and ``photos`` (32 x 32 colour) come with scikit-learn; ``cifar10``, ``mnist`` and
    ``fashion-mnist`` are downloaded once into `cache_dir()` and checked. A string that is one of these names means that
    data set; ``./mnist`` or ``Path("mnist")`` means the folder.

    Paths: an EDM archive (ZIP), a folder of images, CIFAR-10 (tar.gz or folder, Python or binary version), an IDX file
    or folder (MNIST), .npz or .npy. What a file holds decides, not its suffix.

    Args:
        name_or_path: name, path, `ImageSet`, array or tensor [N, C, H, W] or [N, H, W], or torch `Dataset`.
        xflip: count horizontal flips as further data; an `ImageSet` that has them keeps them.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        split: ``"train"`` or ``"test"``, for data that is divided so (CIFAR-10, IDX folders, .npz).
        progress: show a progress bar; None shows it on a terminal, for more than 2000 images.

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
    check_split(split)
    as_flag(xflip, "xflip")
    options: dict[str, Any] = {"max_size": max_size, "classes": classes, "xflip": xflip}
    if isinstance(name_or_path, str | os.PathLike):
        if name_or_path in SOURCES:
            return _load_path(fetch(str(name_or_path), split), split, progress, options)
        if name_or_path not in _DEMOS:
            return _load_path(_existing(Path(name_or_path)), split, progress, options)
        refuse_test_split(split, str(name_or_path))
        return _DEMOS[str(name_or_path)]().select(**options)
    refuse_test_split(split, f"a {type(name_or_path).__name__}")
    if isinstance(name_or_path, ImageSet):
        return name_or_path.select(max_size, classes, xflip or name_or_path.xflip)
    if is_array(name_or_path):
        return ImageSet(name_or_path, None, xflip).select(max_size, classes)
    return read_torch_dataset(name_or_path, progress=progress, **options)


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    siblings = [str(path.parent / other.name) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), [*NAMES, *siblings], n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise MissingFileError(f"{path} is neither a path that exists nor a known name ({', '.join(NAMES)}){hint}")


def _load_path(path: Path, split: str, progress: bool | None, options: dict[str, Any]) -> ImageSet:
    kind = kind_of(path)
    if kind in ("edm_zip", "folder", "npy"):
        refuse_test_split(split, str(path))
    match kind:
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
