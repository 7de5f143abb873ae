"""What large data come in: WebDataset, Parquet, data sets of Hugging Face, downsampled ImageNet, archives by name."""

import contextlib
import gzip
import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bad_files import encoded, labels_of, random_images, tar_bytes
from command_line import fail, succeed
from pspc_rs.data import (
    ImageSet,
    load,
    read_imagenet,
    read_table,
    read_webdataset,
    save_edm_zip,
    save_store,
    streams,
)
from pspc_rs.data.readers import imagenet
from pspc_rs.errors import (
    DataError,
    DTypeError,
    InvalidValueError,
    MissingDependencyError,
    MissingFileError,
    PspcError,
    PspcWarning,
)

IMAGES = random_images(9, 3, 6, 5)
LABELS = np.array([3, 0, 1, 1, 2, 0, 3, 3, 1])


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BATCH_BYTES", 4 * IMAGES[0].nbytes)
    monkeypatch.setattr(imagenet, "BATCH_BYTES", 4 * 3 * 8 * 8)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf home"))
    monkeypatch.setenv("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def assert_read(source: Path, folder: Path, images: Any = IMAGES, labels: Any = LABELS) -> None:
    """That `load` and a store hold the images and labels, and so do their choices."""
    for data in (load(source), load(save_store(source, folder / "store.npy", overwrite=True))):
        np.testing.assert_array_equal(data.images, images)
        assert labels_of(data) == (None if labels is None else list(labels))
    few = load(source, max_size=2)
    np.testing.assert_array_equal(few.images, images[:2])
    if labels is not None:
        chosen = np.flatnonzero(np.isin(labels, [1, 3]))[:4]
        np.testing.assert_array_equal(load(source, max_size=4, classes=[1, 3]).images, images[chosen])


def samples(images: Any = IMAGES, labels: Any = LABELS) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for index, image in enumerate(images):
        files[f"{index:03d}.png"] = encoded(image)
        if labels is not None:
            files[f"{index:03d}.cls"] = str(labels[index]).encode()
    return files


def write_tar(path: Path, files: dict[str, bytes], packed: bool = False) -> Path:
    # `tar_bytes` writes the files in reverse.
    path.write_bytes(tar_bytes(dict(reversed(files.items())), packed=packed))
    return path


def test_webdatasets_that_the_library_writes(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a-000000.tar")) as sink:
        for index, image in enumerate(IMAGES):
            pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
            sink.write({"__key__": f"{index:04d}", "png": Image.fromarray(pixels), "cls": int(LABELS[index])})
    assert_read(tmp_path / "a-000000.tar", tmp_path)
    (tmp_path / "shards").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "shards" / "b-%06d.tar"), maxcount=4, verbose=0) as sink:
        for index, image in enumerate(IMAGES):
            latent = image.astype(np.float32) / 100
            sink.write({"__key__": f"x/{index:04d}", "npy": latent, "cls": int(LABELS[index]), "txt": "a word"})
    assert len(list((tmp_path / "shards").iterdir())) == 3
    assert_read(tmp_path / "shards", tmp_path, IMAGES.astype(np.float32) / 100)


@pytest.mark.parametrize("packed", [False, True])
def test_webdataset(tmp_path: Path, packed: bool) -> None:
    source = write_tar(tmp_path / ("a.tar.gz" if packed else "a.tar"), samples(), packed)
    assert_read(source, tmp_path)
    assert_read(write_tar(tmp_path / "b.tar", samples(labels=None), packed), tmp_path, labels=None)
    # As `tar cf a.tar .` has the names.
    dotted = {f"./{name}": data for name, data in samples().items()}
    assert_read(write_tar(tmp_path / "c.tar", dotted, packed), tmp_path)
    with pytest.raises(InvalidValueError, match="split is 'test'"):
        load(source, split="test")


def test_folders_in_an_archive_are_no_classes(tmp_path: Path) -> None:
    files = {f"{label}/{index}.png": encoded(IMAGES[index]) for index, label in enumerate(LABELS)}
    with pytest.warns(PspcWarning, match=r"no sample of a\.tar has a label, .* unpack it"):
        assert load(write_tar(tmp_path / "a.tar", files)).labels is None


def test_the_wanted_files_of_a_webdataset(tmp_path: Path) -> None:
    files: dict[str, bytes] = {}
    for index, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        files |= {f"{index}.rgb.png": encoded(image), f"{index}.seg.PNG": encoded(255 - image)}
        files |= {f"{index}.kind": f" {label}\n".encode(), f"{index}.pkl": b"never read", f"._{index}.rgb.png": b""}
    source = write_tar(tmp_path / "a.tar", files)
    with pytest.raises(DataError, match=r"sample 0 has several images, rgb\.png, seg\.png"):
        load(source)
    for suffix, images in (("rgb.png", IMAGES), ("seg.png", 255 - IMAGES)):
        data = read_webdataset(source, image=suffix, label="kind")
        np.testing.assert_array_equal(data.images, images)
        assert labels_of(data) == list(LABELS)
    succeed("data", "convert", source, tmp_path / "a.npy", "--image", "rgb.png", "--label", "kind")
    assert load(tmp_path / "a.npy").fingerprint == ImageSet(IMAGES, LABELS).fingerprint
    with pytest.raises(InvalidValueError, match="without its dot"):
        read_webdataset(source, image=".png")
    with pytest.raises(DataError, match="has no image"):
        read_webdataset(source, image="jpg")
    assert "--image is for stores" in fail(2, "data", "convert", source, tmp_path / "a.zip", "--image", "png")


@pytest.mark.parametrize("packed", [False, True])
def test_truncated_webdatasets_are_refused_wherever_they_end(tmp_path: Path, packed: bool) -> None:
    data = write_tar(tmp_path / "whole.tar", samples(), packed).read_bytes()
    ends = len(gzip.decompress(data) if packed else data) - 10240
    assert ends > 0
    last = len(data) - 9 if packed else data.rindex(b"008.") + 1024
    for length in [*range(600, last, 509), last]:
        (tmp_path / "a.tar").write_bytes(data[:length])
        with pytest.raises(DataError):
            load(tmp_path / "a.tar")


def test_damaged_webdatasets_are_refused(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, bytes], str]] = [
        ({"a.png": encoded(IMAGES[0])[:40]}, "sample a"),
        (
            {"a.png": encoded(IMAGES[0]), "b.png": encoded(IMAGES[0][:, :4])},
            r"images from 1 on: they are uint8 \[3, 4, 5\]",
        ),
        ({"a.png": encoded(IMAGES[0]), "a.cls": b"cat"}, "label b'cat'; allowed are integers"),
        ({"a.png": encoded(IMAGES[0]), "a.cls": b"9" * 30}, "64 bits"),
        ({"a.png": encoded(IMAGES[0]), "a.cls": b"1", "b.png": encoded(IMAGES[0])}, "labels for some images only"),
        ({"a.png": encoded(IMAGES[0]), "b.cls": b"1"}, "sample b has no image"),
        ({"a.npy": b"\x93NUMPY\x01\x00"}, "sample a"),
    ]
    for array in (np.array([{}]), np.zeros((2, 2)), np.zeros((1, 2, 2), np.complex64)):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        cases.append(({"a.npy": buffer.getvalue()}, "sample a"))
    for files, words in cases:
        with pytest.raises(DataError, match=words):
            load(write_tar(tmp_path / "a.tar", files))
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for _ in range(2):
            member = tarfile.TarInfo("a.png")
            member.size = len(encoded(IMAGES[0]))
            archive.addfile(member, io.BytesIO(encoded(IMAGES[0])))
    with pytest.raises(DataError, match="the suffix png twice"):
        load(tmp_path / "twice.tar")
    with pytest.raises(DataError, match="only those of CIFAR-10, CIFAR-100 and WebDataset"):
        load(write_tar(tmp_path / "words.tar", {"a.txt": b"words"}))


def huggingface(kind: str) -> Any:
    """The images as a data set of Hugging Face, with images or with arrays in its first column."""
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["a", "b", "c", "d"])
    if kind == "images":
        features = datasets.Features({"image": datasets.Image(), "label": label})
        images: list[Any] = [Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0))) for one in IMAGES]
        return datasets.Dataset.from_dict({"image": images, "label": LABELS.tolist()}, features=features)
    features = datasets.Features({"x": datasets.Array3D((3, 6, 5), kind), "label": label})
    values = [one.astype(kind) for one in IMAGES]
    return datasets.Dataset.from_dict({"x": values, "label": LABELS.tolist()}, features=features)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("kind", ["images", "uint8", "float32"])
@pytest.mark.filterwarnings("ignore")
def test_what_hugging_face_writes(tmp_path: Path, kind: str) -> None:
    data = huggingface(kind)
    expected = IMAGES.astype(np.float32) if kind == "float32" else IMAGES
    data.save_to_disk(tmp_path / "disk", num_shards=3)
    assert_read(tmp_path / "disk", tmp_path, expected)
    assert_read(next((tmp_path / "disk").glob("*-00000-*.arrow")), tmp_path, expected[:3], LABELS[:3])
    data.to_parquet(tmp_path / "a.parquet")
    assert_read(tmp_path / "a.parquet", tmp_path, expected)
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"train": data, "test": data.select([4])}).save_to_disk(tmp_path / "splits")
    assert_read(tmp_path / "splits", tmp_path, expected)
    np.testing.assert_array_equal(load(tmp_path / "splits", split="test").images, expected[4:5])


def parquet(path: Path, image: Any, label: Any = None, **options: Any) -> Path:
    """A Parquet file with columns "image" and "label"."""
    pyarrow = pytest.importorskip("pyarrow")
    columns = {"image": image} if label is None else {"image": image, "label": label}
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path, **options)
    return path


def test_parquet_files_of_bytes_and_of_fixed_arrays(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    files = [encoded(image) for image in IMAGES]
    assert_read(parquet(tmp_path / "a.parquet", files, LABELS, row_group_size=2), tmp_path)
    structs = [{"bytes": one, "path": None} for one in files]
    assert_read(parquet(tmp_path / "b.parquet", structs, LABELS.astype(np.uint8), compression="zstd"), tmp_path)
    rows = pa.FixedSizeListArray.from_arrays(pa.array(IMAGES.reshape(-1)), 5)
    planes = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(rows, 6), 3)
    assert_read(parquet(tmp_path / "c.parquet", planes, LABELS, row_group_size=4), tmp_path)
    grey = [image[0].astype(np.int64).tolist() for image in IMAGES]
    assert_read(parquet(tmp_path / "d.parquet", grey), tmp_path, IMAGES[:, :1], None)
    for name, part in (
        ("train-0.parquet", slice(5)),
        ("train-1.parquet", slice(5, None)),
        ("test-0.parquet", slice(3)),
    ):
        parquet(tmp_path / "hub" / "data" / name, files[part], LABELS[part])
    assert_read(tmp_path / "hub", tmp_path)
    np.testing.assert_array_equal(load(tmp_path / "hub", split="test").images, IMAGES[:3])
    with pa.OSFile(str(tmp_path / "e.arrow"), "wb") as sink:
        table = pa.table({"image": files, "label": LABELS})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=4)
    assert_read(tmp_path / "e.arrow", tmp_path)


def test_columns_of_a_table_by_name(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    files = [encoded(image) for image in IMAGES]
    columns = {"before": files, "after": files[::-1], "kind": LABELS, "label": ["cat"] * 9, "note": ["word"] * 9}
    source = tmp_path / "a.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), source)
    with pytest.raises(DataError, match=r"has the columns before, after, kind, .*none of which is surely of images"):
        load(source)
    data = read_table(source, image="after", label="kind")
    np.testing.assert_array_equal(data.images, IMAGES[::-1])
    assert labels_of(data) == list(LABELS)
    with pytest.warns(PspcWarning, match="column 'label' is of string; labels are integers. They are left out"):
        assert read_table(source, image="before").labels is None
    with pytest.raises(DTypeError, match="column 'label' is of string"):
        read_table(source, image="before", label="label")
    with pytest.raises(InvalidValueError, match="image is 'img', but the columns of"):
        read_table(source, image="img")
    succeed("data", "convert", source, tmp_path / "a.npy", "--image", "before", "--label", "kind")
    assert load(tmp_path / "a.npy").fingerprint == ImageSet(IMAGES, LABELS).fingerprint
    with pytest.raises(InvalidValueError, match="only tables and WebDataset have"):
        save_store(ImageSet(IMAGES), tmp_path / "b.npy", image="x")


def test_bad_tables_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file, good = tmp_path / "a.parquet", [encoded(image) for image in IMAGES]
    cases: list[tuple[Any, Any, str]] = [
        ([{"bytes": None, "path": "/etc/passwd"}, {"bytes": good[0], "path": None}], None, "row 0 holds no bytes"),
        ([*good[:3], None], None, "row 3 holds no bytes"),
        ([good[0], good[1][:40]], None, "row 1"),
        ([good[0], encoded(IMAGES[1][:, :4])], None, r"images from 1 on: they are uint8 \[3, 4, 5\]"),
        (good[:2], [1, None], "1 labels are missing"),
        ([[[1, 2], [3]]], None, "one shape"),
        ([[[1, 2], [3, 4]], None], None, "missing"),
        ([[[1, None]]], None, "missing"),
        ([[[1, 256]]], None, "integers from 1 to 256"),
        ([[[[[1]]]]], None, "arrays of shape"),
        ([[[]]], None, "entries"),
        ([[[True]]], None, "holds bool"),
        ([], None, "no images|none of which"),
    ]
    for image, label, words in cases:
        with pytest.raises(DataError, match=words):
            load(parquet(file, image, label))
    with pytest.raises(InvalidValueError, match="nan"):
        load(parquet(file, [[[0.5, float("nan")]]]))
    whole = parquet(file, good, LABELS).read_bytes()
    for length in range(4, len(whole), 97):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load(file)


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_tables_raise_errors_of_ours(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    pa = pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("damaged")
    source = parquet(folder / "a.parquet", [encoded(image) for image in IMAGES], LABELS)
    if data.draw(st.booleans()):
        source = folder / "b.arrow"
        table = pytest.importorskip("pyarrow.parquet").read_table(folder / "a.parquet")
        with pa.OSFile(str(source), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    whole = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    source.write_bytes(whole)
    with contextlib.suppress(PspcError):
        assert load(source).images.shape[1:] == IMAGES.shape[1:]


def test_folders_of_hugging_face_name_files_beside_them_only(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for state, words in (
        ({"_data_files": [{"filename": "../a.arrow"}]}, r"names the file '\.\./a\.arrow'"),
        ({"_data_files": [{}]}, "names the file None"),
        ({"_data_files": [{"filename": "a.arrow"}]}, r"lacks a\.arrow"),
        ({"_data_files": []}, "holds no Parquet or Arrow files"),
        ({}, "lists no files"),
        ([], "holds no JSON object"),
    ):
        (tmp_path / "state.json").write_text(json.dumps(state))
        with pytest.raises(DataError, match=words):
            load(tmp_path)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["../x", "test"]}')
    with pytest.raises(InvalidValueError, match=r"split is 'train', but .* has \.\./x, test"):
        load(tmp_path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and more")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r'needs pyarrow: pip install "pspc-rs\[tables\]"'):
        load(tmp_path / "a.parquet")


def imagenet_batch(path: Path, images: Any, labels: Any, save: Callable[..., None] = np.savez, **more: Any) -> Path:
    """A batch of downsampled ImageNet, with labels from 0 on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, data=images.reshape(len(images), -1), labels=np.asarray(labels) + 1, mean=np.zeros(3), **more)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_downsampled_imagenet(tmp_path: Path, save: Callable[..., None]) -> None:
    images, labels, folder = random_images(25, 3, 8, 8), np.arange(25) * 41, tmp_path / "imagenet"
    for number in range(1, 12):
        part = slice(2 * number - 2, 2 * number)
        imagenet_batch(folder / f"train_data_batch_{number}.npz", images[part], labels[part], save)
    imagenet_batch(folder / "val_data.npz", images[22:], labels[22:], save)
    (folder / "readme.txt").write_text("words")
    for data in (read_imagenet(folder), load(folder), load(save_store(folder, tmp_path / "a.npy"))):
        np.testing.assert_array_equal(data.images, images[:22])
        assert labels_of(data) == list(labels[:22])
    assert load(folder).name == "imagenet-8-train"
    np.testing.assert_array_equal(load(folder, split="test").images, images[22:])
    np.testing.assert_array_equal(load(folder / "train_data_batch_3.npz", classes=[205]).images, images[5:6])
    (folder / "train_data_batch_4.npz").unlink()
    with pytest.raises(DataError, match=r"lacks train_data_batch_4\.npz"):
        load(folder)


def test_bad_batches_of_imagenet_are_refused(tmp_path: Path) -> None:
    images, file = random_images(4, 3, 8, 8), tmp_path / "train_data_batch_1.npz"
    whole = imagenet_batch(file, images, np.arange(4)).read_bytes()
    for labels, words in (
        ([-1, 0, 0, 0], "0 to 1; allowed are 1 .. 1000"),
        ([0] * 3 + [1000], "1 to 1001"),
        ([0], "4 integers"),
    ):
        with pytest.raises(DataError, match=words):
            load(imagenet_batch(file, images, labels))
    for length in range(10, len(whole), 61):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load(file)
    imagenet_batch(file, images, np.arange(4))
    imagenet_batch(tmp_path / "train_data_batch_2.npz", random_images(2, 3, 4, 4), [0, 1])
    with pytest.raises(DataError, match="holds images of side 4; the first has side 8"):
        load(tmp_path)
    np.savez(tmp_path / "train_data_batch_2.npz", data=np.zeros((2, 12), np.float32), labels=[1, 2])
    with pytest.raises(DataError, match=r"data is float32 \[2, 12\]; expected is uint8"):
        load(tmp_path)
    np.savez(tmp_path / "train_data_batch_2.npz", data=np.array([[{}] * 12]), labels=[1])
    with pytest.raises(DataError, match="pickled"):
        load(tmp_path)


@pytest.mark.parametrize(("name", "stem"), [("ffhq-64", "ffhq"), ("afhqv2-64", "afhqv2"), ("imagenet-64", "imagenet")])
def test_archives_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stem: str) -> None:
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path))
    with pytest.raises(MissingFileError) as caught:
        load(name)
    message = str(caught.value)
    assert f"put {stem}-64x64.zip" in message and str(tmp_path / name) in message and "://" not in message
    (tmp_path / name).mkdir()
    archive = save_edm_zip(ImageSet(IMAGES, LABELS), tmp_path / name / f"{stem}-64x64.zip")
    assert load(name).fingerprint == load(archive).fingerprint
    save_store(name, tmp_path / name / f"{stem}-64x64.npy", max_size=3)
    assert load(name).num_stored == 3
    with pytest.raises(InvalidValueError, match="split is 'test'"):
        load(name, split="test")
    archive.unlink()
    assert load(name, xflip=True).num_stored == 3
