"""Which data set a file or folder is, judged by its content; for one that is none, what it is instead."""

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from pspc_rs.data.decode import SUFFIXES
from pspc_rs.data.readers.archives import has_image_suffix, is_junk, member_name
from pspc_rs.data.readers.array_files import IDX_MAGIC, IDX_NAMES, NPY_MAGIC
from pspc_rs.data.readers.cifar import folder_format, tar_format
from pspc_rs.data.readers.imagenet import has_imagenet, is_imagenet
from pspc_rs.data.readers.tables import ARROW_MAGICS, PARQUET_MAGIC, has_tables
from pspc_rs.data.readers.webdataset import archives_in
from pspc_rs.errors import DataError
from pspc_rs.file_kinds import OLD_TORCH, START_BYTES, FileKind, kind_of_start
from pspc_rs.files import decode_errors, is_gzip, open_file, zip_names
from pspc_rs.reprs import a_few

Format: TypeAlias = Literal[
    "edm_zip", "folder", "cifar10", "cifar100", "idx", "npz", "npy", "imagenet", "table", "webdataset"
]

_KNOWN = (
    "known are EDM archives (ZIP of images), folders of images, archives of CIFAR-10 and CIFAR-100, IDX files (MNIST), "
    "downsampled ImageNet, WebDataset, Parquet, folders of Hugging Face datasets, .npy and .npz"
)
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_AS_ARRAY = "save the array of images as .npy or .npz"
_LOADED = "load it yourself and pass the array or tensor"
_ADVICE = {
    "an image": "give its folder",
    "an HDF5 file": _AS_ARRAY,
    "a MATLAB file": _AS_ARRAY,
    "a pickle": _LOADED,
    OLD_TORCH: _LOADED,
}
"""What to do with files of other kinds whose images are wanted."""

_SEARCH_DEPTH = 3
_MOST_FOLDERS = 200


def format_of(path: Path) -> Format:
    """The format of a file or folder.

    Raises:
        DataError: it has none of the known formats; the message says what it is, where that can be told.
    """
    if path.is_dir():
        return _format_of_folder(path) or "folder"
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder; {_KNOWN}")
    members = zip_names(path)
    return _format_of_file(path) if members is None else _format_of_zip(path, members)


def explain_empty(folder: Path) -> None:
    """Says what is in a folder without images, where that can be told.

    Raises:
        DataError: below the folder lie data sets of another format, or it is one of LMDB or TFRecord.
    """
    inner = _data_sets_below(folder)
    if inner:
        raise DataError(f"{folder} is no data set itself, but these below it can be read: {a_few(inner)}")
    names = _names_in(folder)
    if "data.mdb" in names:
        raise DataError(f"{folder} is an LMDB data set, which is not read; save its images as files or as an array")
    archives = [name for name in names if name.endswith((".tar", ".tar.gz", ".tgz", ".zip", ".npz", ".npy"))]
    if archives:
        raise DataError(f"{folder} has no image files, but {a_few(archives)}; give the path of one of them")


def _format_of_folder(path: Path) -> Format | None:
    """The format of a folder whose files have fixed names, or are tables or tar archives beside no images."""
    if folder_format(path) is not None:
        return folder_format(path)
    if any((path / name).is_file() for name in IDX_NAMES):
        return "idx"
    if has_imagenet(path):
        return "imagenet"
    if any(PurePosixPath(name).suffix.lower() in SUFFIXES for name in _names_in(path)):
        return None
    return "table" if has_tables(path) else "webdataset" if _has_webdataset(path) else None


def _has_webdataset(folder: Path) -> bool:
    archives = archives_in(folder)
    try:
        return bool(archives) and tar_format(archives[0]) == "webdataset"
    except DataError:
        return False


def _data_sets_below(folder: Path) -> list[Path]:
    """The folders below that hold a data set of such a format, not too deep and not too many."""
    found, places = [], [(folder, 0)]
    # The list grows while it is walked through.
    for place, depth in places:
        if place != folder and _format_of_folder(place) is not None:
            found.append(place)
        elif depth < _SEARCH_DEPTH:
            inner = [(place / name, depth + 1) for name in _names_in(place) if (place / name).is_dir()]
            places += inner[: _MOST_FOLDERS - len(places)]
    return found


def _names_in(folder: Path) -> list[str]:
    with decode_errors(folder):
        return sorted(path.name for path in folder.iterdir() if not is_junk(path.name))


def _format_of_zip(path: Path, members: list[str]) -> Format:
    names = map(member_name, members)
    if any(has_image_suffix(name) and not is_junk(name) for name in names):
        return "edm_zip"
    kept = [PurePosixPath(member_name(name)) for name in members if not is_junk(member_name(name))]
    suffixes = Counter(name.suffix.lower() for name in kept)
    if any(name.name in ("data.pkl", "constants.pkl") for name in kept):
        raise DataError(
            f"{path} is a file of torch (torch.save, or a network); as data, load it yourself and pass the tensor"
        )
    in_folders = sum(len(name.parts) > 1 for name in kept if name.suffix == ".npy")
    if suffixes[".npy"] and in_folders == suffixes[".npy"]:
        raise DataError(
            f"{path} holds {a_few([str(name) for name in kept])}: one array per image, such as latents, is not read; "
            "stack them to one array [N, C, H, W] in a .npy or .npz file"
        )
    if not suffixes[".npy"]:
        return "edm_zip"
    return "imagenet" if is_imagenet(path, members) else "npz"


def _format_of_file(path: Path) -> Format:
    with decode_errors(path), open_file(path) as stream:
        start = stream.read(START_BYTES)
    if start[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        return tar_format(path)
    if start.startswith(IDX_MAGIC):
        return "idx"
    if start.startswith(NPY_MAGIC) and not is_gzip(path):
        return "npy"
    if start.startswith((PARQUET_MAGIC, *ARROW_MAGICS)) and not is_gzip(path):
        return "table"
    kind = kind_of_start(start)
    if kind is None and path.suffix.lower() in SUFFIXES:
        kind = FileKind("an image")
    if kind is not None:
        words = [kind.name, kind.advice or _ADVICE.get(kind.name, ""), _KNOWN]
        raise DataError(f"{path} is {'; '.join(filter(None, words))}")
    raise DataError(f"{path} is no known kind of data set (it starts with {start[:8].hex(' ') or 'nothing'}); {_KNOWN}")
