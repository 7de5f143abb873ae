"""`load`: the data set behind a name, a path, an array or a torch Dataset."""

import difflib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pspc_rs.arrays import is_array
from pspc_rs.checks import flag, one_of
from pspc_rs.data.formats import explain_empty, format_of
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.named import ARCHIVES, EMBEDDED, SOURCES, fetch, find_archive
from pspc_rs.data.readers.array_files import read_idx, read_npy, read_npz
from pspc_rs.data.readers.cifar import read_cifar10, read_cifar100
from pspc_rs.data.readers.image_files import NoImagesError, read_edm_zip, read_folder
from pspc_rs.data.readers.imagenet import read_imagenet
from pspc_rs.data.readers.tables import read_table
from pspc_rs.data.readers.webdataset import read_webdataset
from pspc_rs.errors import InvalidValueError, MissingFileError
from pspc_rs.file_kinds import is_url
from pspc_rs.files import as_path
from pspc_rs.progress import Progress

NAMES = (*EMBEDDED, *SOURCES, *ARCHIVES)
"""The data sets that `load` knows by name."""


_DIVIDED: Mapping[str, Callable[..., ImageSet]] = {
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "idx": read_idx,
    "npz": read_npz,
    "imagenet": read_imagenet,
    "table": read_table,
}
"""The readers of formats that are divided into training and test images."""


def load(
    name_or_path: Any,
    *,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    split: str = "train",
    progress: bool | Progress | None = None,
    channels_last: bool | None = None,
    cache: bool = True,
) -> ImageSet:
    """The data set behind a name, a path, an array or a torch `Dataset`.

    Names: ``digits`` (8 x 8 grey) and ``photos`` (32 x 32 colour) come with scikit-learn; ``cifar10``, ``mnist`` and
    ``fashion-mnist`` are downloaded once into `cache_dir()` and checked; ``ffhq-64``, ``afhqv2-64`` and ``imagenet-64``
    are the archives of EDM, or stores made from them, where they lie in a folder of that name in `cache_dir()`. A
    string that equals one of these names means that data set; ``./mnist`` or ``Path("mnist")`` means the folder.

    Paths: an EDM archive (ZIP), a folder of images or a ZIP of it, CIFAR-10 or CIFAR-100 (tar.gz or folder, Python or
    binary version), an IDX file or folder (MNIST), downsampled ImageNet (`read_imagenet`), a WebDataset
    (`read_webdataset`), Parquet or a data set of Hugging Face (`read_table`), .npz or .npy, a store included. The
    content of a file decides, not its suffix.

    Args:
        name_or_path: name, path, `ImageSet`, array or tensor [N, C, H, W] or [N, H, W], or torch `Dataset`.
        xflip: count horizontal flips as further data; an `ImageSet` that has them keeps them.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        split: ``"train"`` or ``"test"``, for data that is divided so (CIFAR-10, IDX folders, .npz).
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.
        channels_last: for arrays, torch data sets, .npy and .npz: True for images [N, H, W, C], False for
            [N, C, H, W]. None takes files of colour or square images that look like the former as such, with a
            `PspcWarning`, and refuses others that look so.
        cache: keep the decoded pixels of image archives for the next time, see `read_edm_zip`; other formats are read
            anew.

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
    flag("cache", cache)
    options: dict[str, Any] = {
        "max_size": max_size,
        "classes": classes,
        "xflip": xflip,
        "channels_last": None if channels_last is None else flag("channels_last", channels_last),
    }
    if isinstance(name_or_path, str | os.PathLike):
        if name_or_path not in EMBEDDED:
            return _load_path(find_source(name_or_path, split), split, progress, options, cache=cache)
        _refuse_test_split(split, str(name_or_path))
        _refuse_layout(options.pop("channels_last"), str(name_or_path))
        return EMBEDDED[str(name_or_path)]().select(**options)
    _refuse_test_split(split, f"a {type(name_or_path).__name__}")
    if isinstance(name_or_path, ImageSet):
        _refuse_layout(channels_last, "an ImageSet")
        return name_or_path.select(max_size, classes, flag("xflip", xflip) or name_or_path.xflip)
    if is_array(name_or_path):
        return ImageSet(name_or_path, None, xflip, channels_last=channels_last).select(max_size, classes)
    return ImageSet.from_torch(name_or_path, progress=progress, **options)


def find_source(name_or_path: str | os.PathLike[str], split: str) -> Path:
    """The file or folder behind a path, or behind a name that is not embedded.

    Raises:
        DownloadError: a data set has to be downloaded, and cannot be.
        MissingFileError: nothing has this path or name.
    """
    if name_or_path in ARCHIVES:
        _refuse_test_split(split, str(name_or_path))
        return find_archive(str(name_or_path))
    return fetch(str(name_or_path), split) if name_or_path in SOURCES else _require_data(name_or_path)


def _require_data(name_or_path: str | os.PathLike[str]) -> Path:
    path = as_path(name_or_path)
    if path.exists():
        return path
    if is_url(os.fsdecode(name_or_path)):
        raise MissingFileError(
            f"{name_or_path} is a web address; nothing is downloaded here, so download the file first and give its path"
        )
    siblings = [str(path.parent / other.name) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), [*NAMES, *siblings], n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise MissingFileError(f"{path} is neither a path that exists nor a known name ({', '.join(NAMES)}){hint}")


def _load_path(
    path: Path, split: str, progress: bool | Progress | None, options: dict[str, Any], *, cache: bool
) -> ImageSet:
    found = format_of(path)
    if found in ("edm_zip", "folder", "npy", "webdataset"):
        _refuse_test_split(split, str(path))
    if found not in ("npy", "npz"):
        _refuse_layout(options.pop("channels_last"), str(path))
    if found in ("imagenet", "table"):
        options["progress"] = progress
    match found:
        case "webdataset":
            return read_webdataset(path, progress=progress, **options)
        case "edm_zip":
            return read_edm_zip(path, progress=progress, cache=cache, **options)
        case "folder":
            return _read_folder(path, progress, options)
        case "npy":
            return read_npy(path, **options)
    return _DIVIDED[found](path, split=split, **options)


def _read_folder(path: Path, progress: bool | Progress | None, options: dict[str, Any]) -> ImageSet:
    try:
        return read_folder(path, progress=progress, **options)
    except NoImagesError:
        explain_empty(path)
        raise


def _refuse_test_split(split: str, what: str) -> None:
    if split == "test":
        raise InvalidValueError(f"split is 'test', but {what} is not divided into training and test images")


def _refuse_layout(channels_last: bool | None, what: str) -> None:
    if channels_last is not None:
        raise InvalidValueError(
            f"channels_last is {channels_last}, but {what} is no array; it is for arrays, .npy, .npz and torch Datasets"
        )
