"""`load`: names, downloads, and paths told apart by what they hold."""

import gzip
import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bad_files import cifar_files, encoded, idx_bytes, labels_of, random_images, tar_bytes, write_folder, write_zip
from pspc_rs.data import NAMES, ImageSet, cache_dir, load, named, read_folder, read_npz, save_edm_zip
from pspc_rs.data.readers import cifar
from pspc_rs.errors import (
    DataError,
    DownloadError,
    DTypeError,
    InvalidValueError,
    MissingDependencyError,
    MissingFileError,
    OutputError,
)
from pspc_rs.images import save_png


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a working folder in which no name means anything."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


class FakeRetrieve:
    """Stands for pooch.retrieve: serves the given files, or fails."""

    def __init__(self, files: dict[str, bytes] | Exception) -> None:
        self.files = files
        self.urls: list[str] = []

    def __call__(self, url: str, known_hash: str, fname: str, path: Path, progressbar: bool) -> str:
        self.urls.append(url)
        if isinstance(self.files, Exception):
            raise self.files
        content = self.files[fname]
        if known_hash != f"md5:{hashlib.md5(content).hexdigest()}":
            raise ValueError(f"MD5 hash of {fname} does not match")
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(content)
        return str(path / fname)


def serve(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes] | Exception) -> FakeRetrieve:
    pooch = pytest.importorskip("pooch")
    fake = FakeRetrieve(files)
    monkeypatch.setattr(pooch, "retrieve", fake)
    return fake


def announce(monkeypatch: pytest.MonkeyPatch, name: str, split: str, files: dict[str, bytes]) -> None:
    """Make the given files the ones whose checksums are known."""
    sums = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
    source = named.Source("https://example.org/", {split: sums})
    monkeypatch.setattr(named, "SOURCES", {**named.SOURCES, name: source})


def mnist_files(prefix: str) -> dict[str, bytes]:
    images = random_images(3, 1, 5, 4)
    return {
        f"{prefix}-images-idx3-ubyte.gz": idx_bytes(images[:, 0]),
        f"{prefix}-labels-idx1-ubyte.gz": idx_bytes(np.array([2, 0, 1], np.uint8)),
    }


@pytest.mark.parametrize(("name", "split", "prefix"), [("mnist", "train", "train"), ("fashion-mnist", "test", "t10k")])
def test_mnist_is_downloaded_once(
    monkeypatch: pytest.MonkeyPatch, cache: Path, name: str, split: str, prefix: str
) -> None:
    files = mnist_files(prefix)
    announce(monkeypatch, name, split, files)
    fake = serve(monkeypatch, files)
    for _ in range(2):
        data = load(name, split=split, xflip=True)
        assert labels_of(data) == [2, 0, 1]
        assert (data.name, len(data)) == (f"{name}-{prefix}", 6)
    assert fake.urls == [f"https://example.org/{file}" for file in files]
    assert sorted(file.name for file in (cache / name).iterdir()) == sorted(files)


def test_cifar10_is_downloaded_once_for_both_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "BATCH_SIZE", 2)
    images = random_images(12, 3, 32, 32)
    files = {"cifar-10-python.tar.gz": tar_bytes(cifar_files(images, [1] * 12, binary=False))}
    announce(monkeypatch, "cifar10", "train", files)
    fake = serve(monkeypatch, files)
    np.testing.assert_array_equal(load("cifar10").images, images[:10])
    announce(monkeypatch, "cifar10", "test", files)
    np.testing.assert_array_equal(load("cifar10", split="test").images, images[10:])
    assert len(fake.urls) == 1


def test_a_file_put_into_the_cache_by_hand_needs_no_network(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    files = mnist_files("train")
    announce(monkeypatch, "mnist", "train", files)
    fake = serve(monkeypatch, OSError("no network"))
    write_folder(cache / "mnist", files)
    assert load("mnist").num_stored == 3
    assert fake.urls == []
    (cache / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(DownloadError):
        load("mnist")


@pytest.mark.parametrize("failure", [OSError("no route to host"), ValueError("hash mismatch")])
def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch, cache: Path, failure: Exception) -> None:
    serve(monkeypatch, failure)
    with pytest.raises(DownloadError) as caught:
        load("cifar10")
    message = str(caught.value)
    for part in (
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        str(cache / "cifar10"),
        "c58f30108f718f92721af3b95e74349a",
        str(failure),
        "path",
    ):
        assert part in message


def test_the_wrong_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, mnist_files("train"))
    with pytest.raises(DownloadError, match="does not match"):
        load("mnist")


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("digits", "sklearn", "demo"), ("photos", "sklearn", "demo"), ("mnist", "pooch", "download")],
)
def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str) -> None:
    without(monkeypatch, module)
    with pytest.raises(MissingDependencyError, match=rf'pip install "pspc-rs\[{extra}\]"'):
        load(name)


@pytest.mark.parametrize(
    ("package", "part", "call"),
    [
        ("PIL", "Image", lambda folder: read_folder(write_folder(folder, {"a.png": b""}))),
        ("PIL", "Image", lambda folder: save_png(folder / "b.png", np.zeros((2, 2), np.uint8))),
        ("sklearn", "datasets", lambda _: load("digits")),
        ("pooch", "", lambda _: load("mnist")),
    ],
)
@pytest.mark.parametrize("failure", ["ImportError", "OSError", "AttributeError", "ModuleNotFoundError"])
def test_a_broken_package_is_not_called_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, part: str, call: Any, failure: str
) -> None:
    without(monkeypatch, package)
    monkeypatch.delitem(sys.modules, package)
    broken = write_folder(tmp_path / "site" / package, {"__init__.py": b"", f"{part or '__init__'}.py": b""})
    (broken / f"{part or '__init__'}.py").write_text(f"raise {failure}('libodd.so.9: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    with pytest.raises(MissingDependencyError, match=f"needs {package}, which is installed but cannot .*: libodd"):
        call(tmp_path)


def test_a_cache_that_cannot_be_made_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pooch")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="PSPC_CACHE_DIR names another place"):
        load("mnist")


@pytest.mark.parametrize("home", ["~nobody-of-this-name/cache", "~"])
def test_a_home_that_is_unknown_is_no_folder_called_tilde(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    if home == "~":
        monkeypatch.delenv("PSPC_CACHE_DIR")
        monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: f"~/.cache/{name}")
    else:
        monkeypatch.setenv("PSPC_CACHE_DIR", home)
    with pytest.raises(OutputError, match="PSPC_CACHE_DIR"):
        cache_dir()


def test_every_source_has_a_checksum_for_every_file() -> None:
    for source in named.SOURCES.values():
        assert set(source.files) == {"train", "test"}
        for files in source.files.values():
            assert all(len(md5) == 32 and int(md5, 16) for md5 in files.values())


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_dir() == cache
    monkeypatch.delenv("PSPC_CACHE_DIR")
    assert cache_dir().is_absolute()
    assert "pspc-rs" in cache_dir().parts
    monkeypatch.setenv("PSPC_CACHE_DIR", "~/x")
    assert cache_dir() == Path.home() / "x"


def test_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    bunch = datasets.load_digits()
    data = load("digits")
    assert (data.num_stored, data.shape, data.dtype) == (1797, (1, 8, 8), np.dtype(np.uint8))
    np.testing.assert_array_equal(np.rint(data.images[:, 0] * (16 / 255)), bunch.images)
    assert set(np.unique(data.images).tolist()) == {round(value * 255 / 16) for value in range(17)}
    np.testing.assert_array_equal(data.labels, bunch.target)
    assert len(load("digits", classes=[3], max_size=5, xflip=True)) == 10


def test_photos() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = load("photos")
    assert (data.num_stored, data.shape, data.dtype) == (4000, (3, 32, 32), np.dtype(np.uint8))
    assert data.labels is not None
    assert np.bincount(data.labels).tolist() == [2000, 2000]
    assert data.fingerprint == load("photos").fingerprint
    assert len(np.unique(data.images.reshape(4000, -1), axis=0)) > 3900
    means = [data.images[data.labels == label].mean((0, 2, 3)) for label in (0, 1)]
    pictures = [picture.mean((0, 1)) for picture in datasets.load_sample_images().images]
    np.testing.assert_allclose(means, pictures, atol=25)


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_what_has_no_test_split(name: str) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(InvalidValueError, match="split"):
        load(name, split="test")


def test_splits_are_refused_where_there_are_none(tmp_path: Path) -> None:
    data = ImageSet(random_images(2, 1, 4, 4))
    np.save(tmp_path / "a.npy", data.images)
    for source in (data, data.images, list(data.images), save_edm_zip(data, tmp_path / "a.zip"), tmp_path / "a.npy"):
        with pytest.raises(InvalidValueError, match="split"):
            load(source, split="test")
        with pytest.raises(InvalidValueError, match="allowed are train, test"):
            load(source, split="valid")


def test_arrays_and_sets_pass_through() -> None:
    images = random_images(4, 3, 5, 6)
    for source in (images, ImageSet(images)):
        data = load(source, max_size=3)
        assert data.num_stored == 3
        assert np.shares_memory(data.images, images)
        assert len(load(source, xflip=True)) == 8
    assert load(ImageSet(images, xflip=True)).xflip
    with pytest.raises(DataError, match="no labels"):
        load(images, classes=[1])
    for wrong in (3, None, SimpleNamespace()):
        with pytest.raises(DTypeError):
            load(wrong)


def test_suffixes_do_not_matter(tmp_path: Path) -> None:
    data = ImageSet(random_images(2, 3, 4, 4), [5, 6])
    np.savez(tmp_path / "a.npz", images=data.images, labels=np.array([5, 6]))
    (tmp_path / "a.npz").rename(tmp_path / "array.zip")
    save_edm_zip(data, tmp_path / "edm.npz")
    for name in ("array.zip", "edm.npz"):
        assert load(tmp_path / name).fingerprint == data.fingerprint
        assert load(str(tmp_path / name)).fingerprint == data.fingerprint


def test_a_name_wins_over_a_folder_of_that_name_unless_a_path_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    write_folder(Path("digits"), {"train-images-idx3-ubyte": idx_bytes(random_images(1, 1, 2, 2)[:, 0])})
    assert load("digits").num_stored == 1797
    assert load("./digits").num_stored == load(Path("digits")).num_stored == 1


def test_unknown_names_list_the_known_ones_and_near_misses(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError) as caught:
        load("fashion_mnist")
    assert all(name in str(caught.value) for name in NAMES)
    assert "did you mean fashion-mnist" in str(caught.value)
    (tmp_path / "images.zip").touch()
    with pytest.raises(MissingFileError, match=r"did you mean .*images\.zip"):
        load(tmp_path / "image.zip")
    with pytest.raises(MissingFileError):
        load(tmp_path / "no" / "such" / "folder")


@pytest.mark.parametrize("read", [load, read_folder, read_npz])
def test_an_empty_path_is_not_the_current_folder(read: Callable[..., ImageSet]) -> None:
    Path("0.png").write_bytes(encoded(random_images(1, 1, 2, 2)[0]))
    assert read_folder(".").num_stored == 1
    with pytest.raises(MissingFileError, match="path is empty"):
        read("")


def test_an_address_is_not_downloaded() -> None:
    with pytest.raises(MissingFileError, match=r"web address; .* download the file first"):
        load("https://example.org/cifar10.zip")


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(path)
    message = str(caught.value)
    assert path.name in message
    assert len(message) < 600
    return message


def test_latents_are_named_briefly(tmp_path: Path) -> None:
    members = {f"00000/img-mean-std-{index:08d}.npy": b"" for index in range(3000)}
    message = refusal(write_zip(tmp_path / "a.zip", {**members, "dataset.json": b"{}"}))
    assert "00000/img-mean-std-00000000.npy" in message
    assert "2998 more" in message
    assert "one array per image" in message
    keys = write_zip(tmp_path / "b.npz", {f"{index}.npy": b"" for index in range(3000)})
    assert "and 2997 more; expected for split 'train'" in refusal(keys)


def test_a_tar_of_other_files_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "shard.tar").write_bytes(tar_bytes({f"{index:04d}.txt": b"" for index in range(200)}, packed=False))
    message = refusal(tmp_path / "shard.tar")
    assert "tar archive of 0199.txt" in message
    assert "unpack it" in message


def test_data_sets_below_a_folder_are_named(tmp_path: Path) -> None:
    raw = {"MNIST/raw/train-images-idx3-ubyte": idx_bytes(random_images(1, 1, 2, 2)[:, 0]), "readme.txt": b""}
    message = refusal(write_folder(tmp_path / "root", raw))
    assert str(tmp_path / "root" / "MNIST" / "raw") in message
    assert load(tmp_path / "root" / "MNIST" / "raw").num_stored == 1
    assert "LMDB" in refusal(write_folder(tmp_path / "lsun", {"data.mdb": b"", "lock.mdb": b""}))
    assert "shard.tar; give the path" in refusal(write_folder(tmp_path / "web", {"shard.tar": b""}))


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file; save the array"),
        (b"version https://git-lfs", "a pointer of Git LFS"),
        (b"\x80\x02}q\x00.", "a pickle; load it yourself and pass the array"),
        (b"<!DOCTYPE html>", "a web page, not the file; its download has failed"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
        (b"\xff\xd8\xff\xe0", "an image; give its folder"),
        (b"", "starts with nothing"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path: Path, start: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(start + bytes(20) if start else b"")
    assert words in refusal(tmp_path / "file")


def test_tensors_of_torch_are_to_be_loaded_first(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for new in (True, False):
        torch.save(torch.zeros(2, 1, 8, 8), tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        assert "pass the" in refusal(tmp_path / "a.pt")
        assert "torch.save" in refusal(tmp_path / "a.pt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        load(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png.*no file"):
        load(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="the system has no such file names")
def test_messages_about_odd_file_names_can_be_printed(tmp_path: Path) -> None:
    name = b"caf\xe9.png"
    (tmp_path / os.fsdecode(name)).write_bytes(b"junk")
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    message = str(caught.value).encode("utf-8").decode()
    assert "caf\\udce9.png" in message
    assert "0x" not in message


def test_a_single_image_is_told_to_give_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="give its folder"):
        load(tmp_path / "a.png")


def test_a_packed_file_of_words(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"words" * 200))
    with pytest.raises(DataError, match="no known kind"):
        load(tmp_path / "a.gz")
