"""Data sets by name: two that scikit-learn carries, three that are downloaded once, three that users put there."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.image_set import ImageSet
from pspc_rs.errors import DownloadError, MissingFileError, OutputError
from pspc_rs.extras import import_extra
from pspc_rs.files import cache_dir, decode_errors
from pspc_rs.progress import on_terminal

_CROP_SIDE = 32
_NUM_CROPS = 4000
_SCALES = (2, 3, 4)
_SEED = 2411


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: a base address, and for each split the names and MD5 checksums of its files."""

    url: str
    files: Mapping[str, Mapping[str, str]]


_CIFAR10_FILES = {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}

SOURCES: Mapping[str, Source] = {
    "cifar10": Source("https://www.cs.toronto.edu/~kriz/", {"train": _CIFAR10_FILES, "test": _CIFAR10_FILES}),
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train": {
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            },
            "test": {
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
        },
    ),
    "fashion-mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train": {
                "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            },
            "test": {
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            },
        },
    ),
}
"""The data sets that `fetch` knows."""


ARCHIVES: Mapping[str, str] = {
    "ffhq-64": "ffhq-64x64",
    "afhqv2-64": "afhqv2-64x64",
    "imagenet-64": "imagenet-64x64",
}
"""Data sets that nobody may pass on, by the names of the archives that EDM's preparation makes of them."""


def find_archive(name: str) -> Path:
    """The archive, or the store, of a data set of `ARCHIVES`.

    Raises:
        MissingFileError: neither is there; the message says which file belongs where.
    """
    folder, stem = cache_dir() / name, ARCHIVES[name]
    found = next((folder / f"{stem}{end}" for end in (".npy", ".zip") if (folder / f"{stem}{end}").is_file()), None)
    if found is None:
        raise MissingFileError(
            f"{name} is not downloaded here: put {stem}.zip, as EDM's preparation of the data set makes it, or a store "
            f"{stem}.npy made from it by pspc-rs data convert, into {folder}. The variable PSPC_CACHE_DIR names "
            "another place"
        )
    return found


def fetch(name: str, split: str) -> Path:
    """The first file of a split; all files of the split are downloaded unless the cache has them already.

    Raises:
        DownloadError: no network, or a file with another checksum.
        OutputError: the cache folder cannot be made.
        MissingDependencyError: a download is needed and pooch is not installed.
    """
    source = SOURCES[name]
    folder = cache_dir() / name
    paths = [_fetch_file(source.url, file, md5, folder) for file, md5 in source.files[split].items()]
    return paths[0]


def _fetch_file(url: str, file: str, md5: str, folder: Path) -> Path:
    path = folder / file
    if path.is_file() and _md5(path) == md5:
        return path
    purpose = f"{url}{file} has to be downloaded (or put into {folder} by hand), which"
    pooch = import_extra("pooch", purpose, "download")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made to keep a download: {error}. The variable PSPC_CACHE_DIR names another place"
        ) from error
    try:
        pooch.retrieve(url + file, f"md5:{md5}", fname=file, path=folder, progressbar=on_terminal())
    except (OSError, ValueError) as error:
        raise DownloadError(
            f"{url}{file} could not be downloaded: {error}. Without a network put a copy with the MD5 checksum {md5} "
            f"into {folder}, or give the path of any data set instead of a name"
        ) from error
    return path


def _md5(path: Path) -> str:
    with decode_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digits() -> ImageSet:
    """1,797 handwritten digits, 8 x 8 grey, with labels 0 .. 9 (scikit-learn's `load_digits`).

    The values v = 0 .. 16 become the bytes round(255 v / 16).

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    bunch = _sklearn_datasets().load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return ImageSet(pixels, bunch.target, name="digits")


def photos() -> ImageSet:
    """4,000 colour crops, 32 x 32, of two photographs (scikit-learn's `load_sample_images`); label = photograph.

    Each photograph is reduced by 2, 3 and 4 (means of square blocks); the positions of the crops are drawn without
    repetition, with a fixed seed, and so is their order.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    # RandomState promises that its numbers never change.
    random = np.random.RandomState(_SEED)
    pictures = _sklearn_datasets().load_sample_images().images
    crops, labels = [], []
    for label, picture in enumerate(pictures):
        for scale, count in zip(_SCALES, _shares(_NUM_CROPS // len(pictures), len(_SCALES)), strict=True):
            crops.append(_random_crops(_reduced(picture, scale), count, random))
            labels += [label] * count
    order = random.permutation(len(labels))
    return ImageSet(np.concatenate(crops)[order], np.array(labels)[order], name="photos")


def _sklearn_datasets() -> Any:
    return import_extra("sklearn.datasets", "a data set of scikit-learn (digits, photos)", "demo")


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _reduced(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    height, width, channels = picture.shape
    rows, columns = height // scale, width // scale
    blocks = picture[: rows * scale, : columns * scale].reshape(rows, scale, columns, scale, channels)
    reduced: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return reduced


def _random_crops(picture: NDArray[np.uint8], count: int, random: np.random.RandomState) -> NDArray[np.uint8]:
    windows = np.lib.stride_tricks.sliding_window_view(picture, (_CROP_SIDE, _CROP_SIDE), axis=(0, 1))
    rows, columns = windows.shape[:2]
    tops, lefts = np.divmod(random.choice(rows * columns, count, replace=False), columns)
    crops: NDArray[np.uint8] = windows[tops, lefts]
    return crops


EMBEDDED: Mapping[str, Callable[[], ImageSet]] = {"digits": digits, "photos": photos}
"""The data sets that need no download."""
