"""CIFAR-10, MNIST and numpy files, written and read back."""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_files import cifar_files, idx_bytes, labels_of, random_images, tar_bytes, write_folder, write_mnist
from pspc_rs.data import ImageSet, load, read_cifar10, read_cifar100, read_idx, read_npy, read_npz
from pspc_rs.data.readers import cifar
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingFileError, PspcWarning, ShapeError


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "BATCH_SIZE", 4)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", ["tar.gz", "tar", "folder", "inner folder"])
def test_cifar10(tmp_path: Path, binary: bool, kind: str) -> None:
    images, labels = random_images(24, 3, 32, 32), [index % 10 for index in range(24)]
    files = cifar_files(images, labels, binary)
    if "folder" in kind:
        path = write_folder(tmp_path / "cifar", files)
        path = path / next(iter(files)).split("/")[0] if kind == "inner folder" else path
    else:
        path = tmp_path / "cifar"
        path.write_bytes(tar_bytes(files, packed=kind == "tar.gz"))
    for data in (read_cifar10(path), load(path)):
        np.testing.assert_array_equal(data.images, images[:20])
        assert labels_of(data) == labels[:20]
    np.testing.assert_array_equal(read_cifar10(path, split="test", xflip=True).images, images[20:])
    assert labels_of(read_cifar10(path, classes=[3, 5], max_size=3)) == [3, 5, 3]


@pytest.mark.usefixtures("small_batches")
def test_cifar10_pickles_of_python_3(tmp_path: Path) -> None:
    images = random_images(4, 3, 32, 32)
    for protocol in (2, 3, 4, 5):
        for order in ("C", "F"):
            flat = np.asarray(images.reshape(4, -1), order=order)
            content = {b"data": flat, b"labels": [1, 2, 3, 4], b"more": ("x", None, 2**40, b"y", -1, True)}
            (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol))
            data = read_cifar10(tmp_path, split="test")
            np.testing.assert_array_equal(data.images, images)
            assert labels_of(data) == [1, 2, 3, 4]


@given(num=st.integers(1, 5), height=st.integers(1, 9), width=st.integers(1, 9), packed=st.booleans())
def test_idx(tmp_path_factory: pytest.TempPathFactory, num: int, height: int, width: int, packed: bool) -> None:
    images, labels = random_images(num, 1, height, width), np.arange(num, dtype=np.uint8)[::-1]
    folder = write_mnist(tmp_path_factory.mktemp("idx"), images, labels, packed)
    for data in (read_idx(folder), load(folder), load(next(folder.glob("*images*")))):
        np.testing.assert_array_equal(data.images, images)
        assert labels_of(data) == labels.tolist()


def test_idx_splits_and_missing_labels(tmp_path: Path) -> None:
    train, test = random_images(3, 1, 4, 4), random_images(2, 1, 4, 4, seed=1)
    write_mnist(tmp_path, train, np.zeros(3, np.uint8), packed=True)
    write_mnist(tmp_path, test, np.zeros(2, np.uint8), packed=False, split="t10k")
    np.testing.assert_array_equal(read_idx(tmp_path, split="test").images, test)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    assert read_idx(tmp_path, split="test").labels is None
    with pytest.raises(InvalidValueError, match="split"):
        read_idx(tmp_path, split="validation")
    with pytest.raises(InvalidValueError, match="split"):
        load(tmp_path / "train-images-idx3-ubyte.gz", split="test")
    with pytest.raises(MissingFileError, match="t10k-images"):
        read_idx(write_folder(tmp_path / "empty", {"x": b""}), split="test")


def test_an_unpacked_idx_file_is_mapped_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "x-images.idx").write_bytes(idx_bytes(random_images(3, 1, 4, 4)[:, 0]))
    base: Any = read_idx(tmp_path / "x-images.idx").images
    while not isinstance(base, np.memmap) and base is not None:
        base = base.base
    assert isinstance(base, np.memmap)


def test_real_mnist_survives_idx(tmp_path: Path, test_data: Path) -> None:
    data = load(test_data / "mnist-28x28.npz", split="test")
    assert data.num_stored == 5000
    assert data.shape == (1, 28, 28)
    assert data.labels is not None
    assert sorted(set(data.labels.tolist())) == list(range(10))
    assert load(test_data / "mnist-28x28.npz").num_stored == 20000
    back = read_idx(write_mnist(tmp_path, np.asarray(data.images), data.labels.astype(np.uint8), packed=False))
    assert back.fingerprint == data.fingerprint


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz_keys_in_their_order(tmp_path: Path, write: Callable[..., None]) -> None:
    first, second = random_images(3, 1, 4, 4), random_images(2, 3, 4, 4)
    write(tmp_path / "a.npz", x_train=first[:, 0], y_train=np.arange(3, dtype=np.int32), x_test=second, arr_0=second)
    data = load(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.images, first)
    assert labels_of(data) == [0, 1, 2]
    test = load(tmp_path / "a.npz", split="test")
    np.testing.assert_array_equal(test.images, second)
    assert test.labels is None
    write(tmp_path / "b.npz", second, np.array([4, 5]))
    assert labels_of(read_npz(tmp_path / "b.npz", classes=[5])) == [5]
    write(tmp_path / "c.npz", other=second)
    with pytest.raises(DataError, match="holds other"):
        read_npz(tmp_path / "c.npz")


def test_npz_layouts_and_types(tmp_path: Path) -> None:
    images = random_images(3, 3, 6, 5)
    variants: list[Any] = [np.asfortranarray(images), images.astype(">f4"), images.astype(np.float64)]
    for variant in variants:
        np.savez(tmp_path / "a.npz", images=variant)
        np.testing.assert_array_equal(read_npz(tmp_path / "a.npz").images, images)
        np.save(tmp_path / "a.npy", variant)
        np.testing.assert_array_equal(load(tmp_path / "a.npy").images, images)


def test_channels_last_only_when_told(tmp_path: Path) -> None:
    images = random_images(3, 3, 6, 5)
    np.savez(tmp_path / "a.npz", images=images.transpose(0, 2, 3, 1))
    np.save(tmp_path / "a.npy", images.transpose(0, 2, 3, 1))
    readers: list[tuple[Any, str]] = [(read_npz, "a.npz"), (read_npy, "a.npy")]
    for read, name in readers:
        np.testing.assert_array_equal(read(tmp_path / name, channels_last=True).images, images)
        with pytest.raises(ShapeError, match="channels_last=True"):
            read(tmp_path / name)
    np.save(tmp_path / "b.npy", images[:, 0])
    with pytest.raises(ShapeError, match="four axes"):
        read_npy(tmp_path / "b.npy", channels_last=True)


def test_npy_files_are_mapped_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", random_images(5, 1, 4, 4))
    base: Any = read_npy(tmp_path / "a.npy", max_size=2).images
    while not isinstance(base, np.memmap) and base is not None:
        base = base.base
    assert isinstance(base, np.memmap)


def test_channels_last_files_are_read_with_a_word(tmp_path: Path) -> None:
    for channels, height, width in ((3, 32, 24), (1, 28, 28), (4, 8, 8)):
        images = random_images(3, channels, height, width)
        np.savez(tmp_path / "a.npz", arr_0=images.transpose(0, 2, 3, 1))
        np.save(tmp_path / "a.npy", images.transpose(0, 2, 3, 1))
        for name in ("a.npz", "a.npy"):
            with pytest.warns(PspcWarning, match=r"looks like \[N, H, W, C\] and is taken so"):
                data = load(tmp_path / name)
            np.testing.assert_array_equal(data.images, images)
            np.testing.assert_array_equal(load(tmp_path / name, channels_last=True).images, images)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6)),
    channels_last=st.sampled_from([None, True, False]),
)
def test_no_layout_is_taken_for_another_in_silence(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, int, int, int], channels_last: bool | None
) -> None:
    num, first, middle, last = shape
    images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    file = tmp_path_factory.mktemp("layout") / "a.npy"
    np.save(file, images)
    as_last = images.transpose(0, 3, 1, 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data = load(file, channels_last=channels_last)
        except ShapeError as error:
            assert channels_last is None
            assert "channels_last=True" in str(error)
            assert "channels_last=False" in str(error)
            return
    assert data.num_stored == num
    np.testing.assert_array_equal(data.images, as_last if channels_last or caught else images)
    assert bool(caught) <= (channels_last is None and last <= 4 < min(first, middle))
    # Parts of a set keep its layout, whatever they look like.
    np.testing.assert_array_equal(data.subset([0]).images, data.images[:1])


def test_every_layout_can_be_said(tmp_path: Path) -> None:
    images = random_images(2, 8, 16, 4)
    np.save(tmp_path / "a.npy", images)
    sources: list[Any] = [images, list(images), tmp_path / "a.npy"]
    for source in sources:
        with pytest.raises(ShapeError, match="channels_last=False"):
            load(source)
        np.testing.assert_array_equal(load(source, channels_last=False).images, images)
        assert load(source, channels_last=True).shape == (4, 8, 16)
    with pytest.raises(DTypeError, match="channels_last is 1"):
        load(images, channels_last=1)  # type: ignore[arg-type]
    for other in (ImageSet(images, channels_last=False), write_folder(tmp_path / "folder", {"a.txt": b""})):
        with pytest.raises(InvalidValueError, match="channels_last"):
            load(other, channels_last=True)


def cifar100_files(images: Any, labels: list[int], binary: bool, split: str) -> dict[str, bytes]:
    flat = images.reshape(len(images), -1)
    if binary:
        records = [bytes([label // 5, label]) + row.tobytes() for row, label in zip(flat, labels, strict=True)]
        return {f"cifar-100-binary/{split}.bin": b"".join(records), "cifar-100-binary/fine_label_names.txt": b""}
    content = {b"data": flat, b"fine_labels": labels, b"coarse_labels": [label // 5 for label in labels]}
    meta = pickle.dumps({b"fine_label_names": []})
    return {"cifar-100-python/meta": meta, f"cifar-100-python/{split}": pickle.dumps(content, 2)}


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", ["tar.gz", "folder", "inner folder"])
def test_cifar100(tmp_path: Path, binary: bool, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "BATCH_SIZE", 2)
    images, labels = random_images(12, 3, 32, 32), [0, 99, 50, 7, 8, 9, 10, 11, 12, 13, 98, 1]
    files = cifar100_files(images[:10], labels[:10], binary, "train")
    files |= cifar100_files(images[10:], labels[10:], binary, "test")
    path = write_folder(tmp_path / "data", files)
    if kind == "inner folder":
        path /= next(iter(files)).split("/")[0]
    if kind == "tar.gz":
        path = tmp_path / "data.bin"
        path.write_bytes(tar_bytes(files))
    for data in (load(path), read_cifar100(path)):
        np.testing.assert_array_equal(data.images, images[:10])
        assert labels_of(data) == labels[:10]
        assert data.name == "cifar100-train"
    test = load(path, split="test", classes=[98])
    np.testing.assert_array_equal(test.images, images[10:11])


def test_cifar100_files_that_are_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "BATCH_SIZE", 2)
    images = random_images(2, 3, 32, 32)
    with pytest.raises(DataError, match=r"0 \.\. 99"):
        read_cifar100(write_folder(tmp_path / "a", cifar100_files(images, [0, 100], False, "test")), split="test")
    ten = {"test": pickle.dumps({"data": images.reshape(2, -1), "labels": [1, 2]}), "meta": b""}
    with pytest.raises(DataError, match="lacks an array 'data' or a list 'fine_labels'; it has data, labels"):
        load(write_folder(tmp_path / "b", ten), split="test")
    with pytest.raises(DataError, match="expected are 10 records of 3074"):
        load(write_folder(tmp_path / "c", {"cifar-100-binary/train.bin": bytes(3074)}))
