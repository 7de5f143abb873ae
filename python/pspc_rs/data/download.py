"""Data sets that are downloaded once: CIFAR-10, MNIST and Fashion-MNIST."""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pspc_rs.data.cache import cache_dir
from pspc_rs.errors import DownloadError, MissingDependencyError


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: a base address, and the MD5 of each of its files by split."""

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


def fetch(name: str, split: str) -> Path:
    """The first file of a split, downloaded with all others of that split unless the cache has them already.

    Raises:
        DownloadError: no network, or a file with another checksum.
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
    try:
        import pooch
    except ImportError as error:
        raise MissingDependencyError(
            f'{url}{file} has to be downloaded, which needs pooch: pip install "pspc-rs[download]" '
            f"(or put the file into {folder} by hand)"
        ) from error
    try:
        pooch.retrieve(url + file, f"md5:{md5}", fname=file, path=folder, progressbar=sys.stderr.isatty())
    except (OSError, ValueError) as error:
        raise DownloadError(
            f"{url}{file} could not be downloaded: {error}. Without a network put a copy with the MD5 checksum {md5} "
            f"into {folder}, or give the path of any data set instead of a name"
        ) from error
    return path


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
