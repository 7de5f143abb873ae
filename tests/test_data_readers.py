"""Every file format, written and read back."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_files import (
    cifar_files,
    encoded,
    idx_bytes,
    png_claiming,
    random_images,
    tar_bytes,
    write_folder,
    write_mnist,
    write_zip,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pspc_rs.data import (
    ImageSet,
    load,
    read_cifar10,
    read_edm_zip,
    read_folder,
    read_idx,
    read_npy,
    read_npz,
    read_torch_dataset,
    save_edm_zip,
)
from pspc_rs.data.readers import cifar, decode
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingFileError, OutputError, ShapeError


def labels_of(data: ImageSet) -> list[int] | None:
    return None if data.labels is None else data.labels.tolist()


# EDM archives


@given(
    num=st.integers(1, 5),
    channels=st.sampled_from([1, 3, 4]),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    labelled=st.booleans(),
)
def test_edm_archives_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, num: int, channels: int, height: int, width: int, labelled: bool
) -> None:
    images = random_images(num, channels, height, width)
    data = ImageSet(images, list(range(num))[::-1] if labelled else None)
    path = save_edm_zip(data, tmp_path_factory.mktemp("edm") / "a.zip")
    back = read_edm_zip(path)
    np.testing.assert_array_equal(back.images, images)
    assert labels_of(back) == labels_of(data)
    assert back.fingerprint == data.fingerprint


def test_edm_archives_have_edms_layout_and_the_same_bytes_every_time(tmp_path: Path) -> None:
    data = ImageSet(random_images(1002, 1, 2, 3), [7] * 1002, xflip=True)
    first = save_edm_zip(data, tmp_path / "a.zip").read_bytes()
    assert save_edm_zip(data, tmp_path / "b.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        assert names[0] == "00000/img00000000.png"
        assert names[1000:] == ["00001/img00001000.png", "00001/img00001001.png", "dataset.json"]
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("dataset.json"))["labels"][1001] == ["00001/img00001001.png", 7]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "b.zip"]


def test_an_archive_without_labels_says_so(tmp_path: Path) -> None:
    path = save_edm_zip(ImageSet(random_images(1, 3, 2, 2)), tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("dataset.json")) == {"labels": None}


def test_what_no_edm_archive_can_hold(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="2 channels"):
        save_edm_zip(ImageSet(random_images(1, 2, 3, 3)), tmp_path / "a.zip")
    with pytest.raises(DTypeError, match="float32"):
        save_edm_zip(ImageSet(np.zeros((1, 1, 3, 3), np.float32)), tmp_path / "a.zip")
    with pytest.raises(DTypeError, match="ImageSet"):
        save_edm_zip(random_images(1, 1, 3, 3), tmp_path / "a.zip")  # type: ignore[arg-type]
    with pytest.raises(OutputError):
        save_edm_zip(ImageSet(random_images(1, 1, 3, 3)), tmp_path / "missing" / "a.zip")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_archive_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_edm_zip(ImageSet(random_images(1, 1, 3, 3)), tmp_path / "a.zip")
    before = path.read_bytes()

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_edm_zip(ImageSet(random_images(2, 1, 3, 3)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_members_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    images = random_images(3, 1, 4, 4)
    members = {
        "b/2.png": encoded(images[2]),
        "README.txt": b"words",
        "a/9.PNG": encoded(images[0]),
        "__MACOSX/a/._9.png": b"junk",
        "b/10.png": encoded(images[1]),
        "dataset.json": json.dumps({"labels": [["b/2.png", 2], ["a/9.PNG", 0], ["b/10.png", 1], ["gone", 5]]}).encode(),
    }
    data = read_edm_zip(write_zip(tmp_path / "a.zip", members, zipfile.ZIP_DEFLATED))
    np.testing.assert_array_equal(data.images, images)
    assert labels_of(data) == [0, 1, 2]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    original = decode._decode

    def counting(file: decode.ImageFile, expected: Any) -> Any:
        names.append(file.name)
        return original(file, expected)

    monkeypatch.setattr(decode, "_decode", counting)
    return names


def test_only_wanted_images_are_decoded_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(100, 1, 4, 4)
    path = save_edm_zip(ImageSet(images, list(range(50)) * 2), tmp_path / "a.zip")
    names = counted(monkeypatch)
    data = read_edm_zip(path, max_size=3, classes={1, 2}, xflip=True)
    assert len(names) == 3
    assert labels_of(data) == [1, 2, 1]
    np.testing.assert_array_equal(data.images, images[[1, 2, 51]])
    names.clear()
    read_edm_zip(path, xflip=True)
    assert len(names) == len(set(names)) == 100


def test_ctrl_c_stops_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_edm_zip(ImageSet(random_images(400, 1, 65, 65)), tmp_path / "a.zip")
    names = counted(monkeypatch)

    class Interrupted:
        def __enter__(self) -> "Interrupted":
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, count: int) -> None:
            if count > 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(decode, "progress_bar", lambda *_: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        read_edm_zip(path)
    assert len(names) < 400


@pytest.mark.parametrize("progress", [True, False, None])
def test_progress_is_shown_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: bool | None
) -> None:
    path = save_edm_zip(ImageSet(random_images(3, 1, 4, 4)), tmp_path / "a.zip")
    read_edm_zip(path, progress=progress)
    assert ("a.zip" in capsys.readouterr().err) == bool(progress)


# Folders


def test_folders_are_read_recursively_in_the_order_of_their_paths(tmp_path: Path) -> None:
    images = random_images(4, 3, 3, 5)
    names = ["a.png", "b/a.bmp", "b/c/d.tiff", "b.png"]
    formats = ["PNG", "BMP", "TIFF", "PNG"]
    files = {name: encoded(image, kind) for name, image, kind in zip(names, images, formats, strict=True)}
    data = read_folder(write_folder(tmp_path, {**files, ".hidden.png": b"", ".git/x.png": b"", "notes.txt": b""}))
    np.testing.assert_array_equal(data.images, images[[names.index(name) for name in sorted(names)]])
    assert data.labels is None


def test_subfolders_are_classes(tmp_path: Path) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    folder = write_folder(tmp_path, {"dog/1.png": image, "cat/x/1.png": image, "ant/1.png": image, "cat/2.png": image})
    assert labels_of(read_folder(folder)) == [0, 1, 1, 2]
    assert labels_of(read_folder(folder, classes=[2])) == [2]
    write_folder(tmp_path, {"loose.png": image})
    assert read_folder(folder).labels is None


def test_dataset_json_wins_over_subfolders(tmp_path: Path) -> None:
    image = encoded(random_images(1, 1, 2, 2)[0])
    folder = write_folder(tmp_path, {"a/1.png": image, "b/1.png": image})
    (tmp_path / "dataset.json").write_text('{"labels": [["a/1.png", 8], ["b/1.png", 5]]}')
    assert labels_of(read_folder(folder)) == [8, 5]
    (tmp_path / "dataset.json").write_text('{"labels": null}')
    assert read_folder(folder).labels is None


def test_an_unpacked_edm_archive_is_the_same_data_set(tmp_path: Path) -> None:
    data = ImageSet(random_images(3, 3, 4, 4), [1, 0, 1])
    path = save_edm_zip(data, tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "a")
    assert read_folder(tmp_path / "a").fingerprint == data.fingerprint
    (tmp_path / "a" / "dataset.json").unlink()
    assert read_folder(tmp_path / "a").labels is None


def save_image(image: Image.Image, folder: Path, **options: Any) -> ImageSet:
    image.save(folder / "a.png", **options)
    return read_folder(folder)


def test_modes(tmp_path: Path) -> None:
    colours = random_images(1, 3, 4, 4)[0]
    picture = Image.fromarray(np.ascontiguousarray(colours.transpose(1, 2, 0)))
    palette = picture.quantize(4)
    np.testing.assert_array_equal(
        save_image(palette, tmp_path).images[0], np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    )
    transparent = save_image(palette, tmp_path, transparency=b"\x00\x80")
    np.testing.assert_array_equal(np.unique(transparent.images[0, 3]), [0, 128, 255])
    assert save_image(picture.convert("RGBA"), tmp_path).channels == 4
    assert save_image(picture.convert("LA"), tmp_path).channels == 2
    assert set(np.unique(save_image(picture.convert("1"), tmp_path).images)) <= {0, 255}


def test_a_folder_of_jpegs_gives_what_pillow_gives(tmp_path: Path) -> None:
    picture = Image.fromarray(np.kron(np.arange(16).reshape(4, 4) * 16, np.ones((8, 8))).astype(np.uint8))
    picture.save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as back:
        np.testing.assert_array_equal(read_folder(tmp_path).images[0, 0], np.asarray(back))


def test_a_png_written_by_hand(tmp_path: Path) -> None:
    rows = b"".join(b"\x00" + bytes(range(9 * y, 9 * y + 9)) for y in range(2))
    (tmp_path / "a.png").write_bytes(png_claiming(3, 2, rows=rows))
    np.testing.assert_array_equal(read_folder(tmp_path).images[0].transpose(1, 2, 0).ravel(), np.arange(18))


# CIFAR-10


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
    import pickle

    images = random_images(4, 3, 32, 32)
    for protocol in (2, 3, 4):
        for order in ("C", "F"):
            flat = np.asarray(images.reshape(4, -1), order=order)  # type: ignore[call-overload]
            content = {b"data": flat, b"labels": [1, 2, 3, 4], b"more": ("x", None, 2**40, b"y", -1, True)}
            (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol))
            data = read_cifar10(tmp_path, split="test")
            np.testing.assert_array_equal(data.images, images)
            assert labels_of(data) == [1, 2, 3, 4]


# MNIST


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


def test_real_archives(test_data: Path) -> None:
    cats = load(test_data / "afhq-cats-64x64.zip")
    assert (cats.num_stored, cats.shape, cats.labels) == (400, (3, 64, 64), None)
    with zipfile.ZipFile(test_data / "afhq-cats-64x64.zip") as archive:
        name = sorted(name for name in archive.namelist() if name.endswith(".png"))[123]
        with archive.open(name) as file, Image.open(file) as image:
            np.testing.assert_array_equal(cats.images[123].transpose(1, 2, 0), np.asarray(image))
    some = load(test_data / "cifar10-32x32.zip", max_size=64)
    assert (some.num_stored, some.shape) == (64, (3, 32, 32))
    # The first training images of CIFAR-10 are a frog, two trucks, a deer and a car.
    assert some.labels is not None
    assert some.labels[:5].tolist() == [6, 9, 9, 4, 1]


# Numpy files


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


# Torch data sets


class Items:
    """The smallest thing that counts as a torch Dataset."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return self.items[index]


def test_items_of_every_kind() -> None:
    images = random_images(3, 3, 4, 5)
    pictures = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
    kinds: list[list[Any]] = [
        list(images),
        [(image,) for image in images],
        [(image, label) for label, image in enumerate(images)],
        [[picture, np.int64(label), "extra"] for label, picture in enumerate(pictures)],
    ]
    for items in kinds:
        data = load(Items(items))
        np.testing.assert_array_equal(data.images, images)
        assert labels_of(data) in (None, [0, 1, 2])
        assert (data.labels is None) == (not isinstance(items[0], tuple | list) or len(items[0]) == 1)
        assert data.name == "Items"


def test_each_item_is_asked_for_once() -> None:
    dataset = Items([(np.zeros((4, 4), np.uint8), index % 2) for index in range(6)])
    assert read_torch_dataset(dataset, max_size=2).num_stored == 2
    assert dataset.asked == [0, 1]
    dataset.asked.clear()
    assert labels_of(ImageSet.from_torch(dataset, classes=[1], max_size=2, xflip=True)) == [1, 1]
    assert dataset.asked == list(range(6))


def test_value_ranges() -> None:
    items = Items([np.array([[0, 0.5, 1]], np.float32)])
    np.testing.assert_allclose(read_torch_dataset(items, value_range=(0, 1)).images.ravel(), [-1, 0, 1])
    np.testing.assert_allclose(read_torch_dataset(items).images.ravel(), [0, 0.5, 1])
    with pytest.raises(InvalidValueError, match="outside value_range"):
        read_torch_dataset(items, value_range=(0, 0.9))
    for wrong in ((1, 0), (0, float("nan")), (0, 0)):
        with pytest.raises(InvalidValueError, match="value_range"):
            read_torch_dataset(items, value_range=wrong)
    with pytest.raises(DTypeError, match="value_range"):
        read_torch_dataset(Items([np.zeros((2, 2), np.uint8)]), value_range=(0, 1))


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([], DataError),
        ([np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 3), np.uint8)], ShapeError),
        ([np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.float32)], DTypeError),
        ([np.zeros(3, np.uint8)], ShapeError),
        ([np.zeros((8, 9, 3), np.uint8)], ShapeError),
        ([(np.zeros((2, 2), np.uint8), 1), np.zeros((2, 2), np.uint8)], DataError),
        ([(np.zeros((2, 2), np.uint8), 1.5)], DTypeError),
        ([(np.zeros((2, 2), np.uint8), "cat")], DTypeError),
        (["image"], DTypeError),
        ([np.full((2, 2), np.nan, np.float32)], InvalidValueError),
    ],
)
def test_items_that_do_not_fit(items: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_torch_dataset(Items(items))


def test_a_real_torch_dataset() -> None:
    torch = pytest.importorskip("torch")
    images = torch.rand(4, 3, 5, 6)
    dataset = torch.utils.data.TensorDataset(images, torch.tensor([3, 1, 2, 0]))
    data = load(dataset, classes=[1, 2])
    np.testing.assert_array_equal(data.images, images[1:3].numpy())
    assert labels_of(data) == [1, 2]
    with pytest.raises(DTypeError):
        load(torch.utils.data.IterableDataset())


def test_gzip_of_an_unknown_file(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"words" * 200))
    with pytest.raises(DataError, match="no known kind"):
        load(tmp_path / "a.gz")
