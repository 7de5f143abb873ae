"""Damaged and hostile files: always an exception of ours that names the file, and nothing is run or filled up."""

import contextlib
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bad_files import (
    binary_batch,
    cifar_files,
    encoded,
    idx_bytes,
    png_chunk,
    png_claiming,
    python2_batch,
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
    save_edm_zip,
)
from pspc_rs.data.readers import cifar, files
from pspc_rs.data.readers.plain_pickle import read_plain_pickle
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, MissingFileError, PspcError


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "BATCH_SIZE", 2)


def make_zip(folder: Path) -> Path:
    return save_edm_zip(ImageSet(random_images(3, 3, 6, 5), [1, 2, 3]), folder / "a.zip")


def make_image(file_format: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = folder / f"a.{file_format.lower()}"
        file.write_bytes(encoded(random_images(1, 3, 20, 32)[0], file_format))
        return file

    return make


def make_cifar(binary: bool, packed: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = folder / "cifar.tar"
        file.write_bytes(tar_bytes(cifar_files(random_images(12, 3, 32, 32), list(range(6)) * 2, binary), packed))
        return file

    return make


def make_cifar_batch(binary: bool) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_folder(folder, cifar_files(random_images(12, 3, 32, 32), [1] * 12, binary))
        return next(folder.glob("*/data_batch_3*"))

    return make


def make_idx(packed: bool, kind: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        write_mnist(folder, random_images(3, 1, 5, 4), np.arange(3, dtype=np.uint8), packed)
        return next(folder.glob(f"*{kind}*"))

    return make


def make_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", images=random_images(3, 1, 5, 4), labels=np.arange(3))
    return folder / "a.npz"


def make_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", random_images(3, 1, 5, 4))
    return folder / "a.npy"


def read_beside(file: Path) -> ImageSet:
    return read_folder(file.parent)


MAKERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], ImageSet]]] = {
    "edm zip": (make_zip, read_edm_zip),
    "png": (make_image("PNG"), read_beside),
    "jpeg": (make_image("JPEG"), read_beside),
    "bmp": (make_image("BMP"), read_beside),
    "cifar python": (make_cifar(binary=False, packed=True), read_cifar10),
    "cifar binary": (make_cifar(binary=True, packed=True), read_cifar10),
    "cifar python batch": (make_cifar_batch(binary=False), lambda file: read_cifar10(file.parent)),
    "cifar binary batch": (make_cifar_batch(binary=True), lambda file: read_cifar10(file.parent.parent)),
    "idx": (make_idx(packed=False, kind="images"), read_idx),
    "idx gz": (make_idx(packed=True, kind="images"), read_idx),
    "idx labels": (make_idx(packed=False, kind="labels"), lambda file: read_idx(file.parent)),
    "idx labels gz": (make_idx(packed=True, kind="labels"), lambda file: read_idx(file.parent)),
    "npz": (make_npz, read_npz),
    "npy": (make_npy, read_npy),
}


@dataclass(frozen=True)
class Whole:
    """An undamaged file, its content kept out of failure messages."""

    path: Path
    content: bytes = field(repr=False)
    read: Callable[[Path], ImageSet]


@pytest.fixture(scope="module", params=MAKERS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    make, read = MAKERS[request.param]
    path = make(tmp_path_factory.mktemp("whole"))
    return Whole(path, path.read_bytes(), read)


@given(share=st.floats(0, 1, exclude_max=True), missing=st.integers(1, 40))
def test_truncated_files(whole: Whole, share: float, missing: int) -> None:
    for end in (int(share * len(whole.content)), max(0, len(whole.content) - missing)):
        whole.path.write_bytes(whole.content[:end])
        with pytest.raises(PspcError):
            whole.read(whole.path)
    whole.path.write_bytes(whole.content)
    assert whole.read(whole.path).num_stored > 0


@given(position=st.integers(0, 10**6), value=st.integers(0, 255))
def test_changed_bytes_give_data_or_an_error_of_ours(whole: Whole, position: int, value: int) -> None:
    # Headers are short and interesting, so half of the changes go there.
    at = position % (len(whole.content) if position % 2 else min(160, len(whole.content)))
    whole.path.write_bytes(whole.content[:at] + bytes([value]) + whole.content[at + 1 :])
    with contextlib.suppress(PspcError):
        whole.read(whole.path)
    whole.path.write_bytes(whole.content)


# Images


@pytest.mark.parametrize("size", [(4097, 1), (1, 5000), (60_000, 60_000), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize("first", [True, False])
def test_png_bombs_are_refused_by_their_header(tmp_path: Path, size: tuple[int, int], first: bool) -> None:
    names = ("0.png", "1.png") if first else ("1.png", "0.png")
    members = {names[0]: png_claiming(*size), names[1]: png_claiming(3, 2, rows=bytes(20))}
    with pytest.raises(DataError, match=names[0]):
        read_edm_zip(write_zip(tmp_path / "a.zip", members))
    with pytest.raises(DataError, match=names[0]):
        read_folder(write_folder(tmp_path / "a", members))


def test_no_image_is_decoded_before_its_size_is_known_to_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[int, int]] = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: loaded.append(self.size))
    image = encoded(random_images(1, 1, 9, 9)[0])
    folder = write_folder(tmp_path, {"0.png": png_claiming(4097, 4097), "1.png": image})
    with pytest.raises(DataError, match="4097"):
        read_folder(folder)
    assert loaded == []


def test_mixed_sizes_and_modes_name_the_file_and_both_sizes(tmp_path: Path) -> None:
    grey = random_images(1, 1, 4, 6)[0]
    odd_ones = {
        "6 x 5": encoded(random_images(1, 1, 5, 6)[0]),
        "7 x 4": encoded(random_images(1, 1, 4, 7)[0]),
        "3 channels": encoded(random_images(1, 3, 4, 6)[0]),
        "4 channels": encoded(random_images(1, 4, 4, 6)[0]),
    }
    for words, odd in odd_ones.items():
        folder = write_folder(tmp_path / words, {f"{index:03d}.png": encoded(grey) for index in range(70)})
        (folder / "050.png").write_bytes(odd)
        with pytest.raises(DataError, match=rf"050\.png is .*{words}.*expected are 6 x 4 pixels with 1 channels"):
            read_folder(folder)


def refused(tmp_path: Path, content: bytes, words: str) -> None:
    folder = write_folder(tmp_path, {"bad.png": content})
    with pytest.raises(DataError, match=words) as caught:
        read_folder(folder)
    assert "bad.png" in str(caught.value)


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_deep_colour_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, saved(Image.fromarray(np.zeros((4, 4), np.uint16)), "PNG"), "mode I")
    refused(tmp_path, png_claiming(2, 2, depth=16, color=2, rows=bytes(26)), "16 bits")
    refused(tmp_path, png_claiming(2, 2, depth=16, color=6, rows=bytes(34)), "16 bits")
    refused(tmp_path, saved(Image.fromarray(np.zeros((4, 4), np.uint16)), "TIFF"), "mode I;16")
    refused(tmp_path, b"P6 2 2 65535\n" + bytes(24), "16 bits")
    refused(tmp_path, saved(Image.new("CMYK", (4, 4)), "TIFF"), "mode CMYK")
    refused(tmp_path, saved(Image.new("F", (4, 4)), "TIFF"), "mode F")


def test_moving_pictures_are_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (0, 200)]
    refused(tmp_path, saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), "still")


def test_what_is_no_image(tmp_path: Path) -> None:
    refused(tmp_path, b"", "bad.png")
    refused(tmp_path, b"words", "bad.png")
    # Pillow would hand PostScript to another program.
    refused(tmp_path, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n", "bad.png")
    text = png_chunk(b"zTXt", b"k\x00\x00" + b"junk")
    refused(tmp_path, png_claiming(2, 2, rows=bytes(14)).replace(png_chunk(b"IEND", b""), text), "end is missing")


def test_oversized_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1000)
    refused(tmp_path, bytes(1001), "more than 1000 bytes")


# ZIP archives


def patched_member(path: Path, offset: int, packed: bytes) -> Path:
    """An archive whose central directory is changed in place."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + offset : start + offset + len(packed)] = packed
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("offset", "packed", "words"),
    [
        (8, struct.pack("<H", 1), "encrypted"),
        (10, struct.pack("<H", 12), "compression method 12"),
        (24, struct.pack("<I", 2**31), "announces 2147483648 bytes"),
        (16, struct.pack("<I", 0), "CRC"),
    ],
)
def test_members_that_are_not_what_they_say(tmp_path: Path, offset: int, packed: bytes, words: str) -> None:
    path = write_zip(tmp_path / "a.zip", {"0.png": encoded(random_images(1, 1, 4, 4)[0])})
    with pytest.raises(DataError, match=rf"0\.png.*{words}"):
        read_edm_zip(patched_member(path, offset, packed))
    np.savez(tmp_path / "b.npz", images=random_images(2, 1, 4, 4))
    with pytest.raises(DataError, match=words):
        read_npz(patched_member(tmp_path / "b.npz", offset, packed))


def test_archives_without_images(tmp_path: Path) -> None:
    for members in ({}, {"a.txt": b"x"}, {"folder.png/": b""}):
        with pytest.raises(DataError, match="holds no images"):
            load(write_zip(tmp_path / "a.zip", members))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("\xff", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1, 2]", "not of the form"),
        ('{"labels": 3}', "not of the form"),
        ('{"labels": [["other.png", 1]]}', "no label for a.png"),
        ('{"labels": [["a.png", 1.5]]}', "allowed are"),
        ('{"labels": [["a.png", true]]}', "allowed are"),
        ('{"labels": [["a.png", [1, 0]]]}', "allowed are"),
        ('{"labels": [["a.png"]]}', "allowed are"),
        ('{"labels": [["a.png", 9223372036854775808]]}', "allowed are"),
        ('{"labels": [["a.png", ' + "9" * 5000 + "]]}", "cannot be read"),
        ('{"labels": [["a.png", 1], ["a.png", 2]]}', "labels 1 and 2"),
    ],
)
def test_bad_label_files(tmp_path: Path, text: str, words: str) -> None:
    members = {"a.png": encoded(random_images(1, 1, 2, 2)[0]), "dataset.json": text.encode("latin-1")}
    with pytest.raises(DataError, match=words) as caught:
        read_edm_zip(write_zip(tmp_path / "a.zip", members))
    assert "dataset.json" in str(caught.value)
    with pytest.raises(DataError, match=words):
        read_folder(write_folder(tmp_path / "a", members))


def test_classes_need_labels_and_have_to_exist(tmp_path: Path) -> None:
    path = save_edm_zip(ImageSet(random_images(2, 1, 2, 2)), tmp_path / "a.zip")
    with pytest.raises(DataError, match="no labels"):
        read_edm_zip(path, classes=[0])
    path = save_edm_zip(ImageSet(random_images(2, 1, 2, 2), [3, 4]), tmp_path / "b.zip")
    with pytest.raises(InvalidValueError, match=r"\[3, 4\]"):
        read_edm_zip(path, classes=[0])


# Pickles


class Hostile:
    """Writes a file when it is unpickled by ordinary means."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (f"touch '{self.trace}'",)


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_pickles_run_nothing(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    batch = {"data": Hostile(trace), "labels": [0, 1]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol))
    with pytest.raises(DataError, match=r"(posix|nt)\.system|operation"):
        read_cifar10(tmp_path, split="test")
    assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n.",
        b"cnumpy\nload\n.",
        b"cnumpy\nndarray\n(K\x05tR.",
        b"cnumpy\nndarray\n)\x81.",
        b"cnumpy\nndarray\n}b.",
        b"cnumpy\ndtype\n(S'O8'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01(K\x02tNI00\nS'ab'\ntb.",
        b"\x82\x01.",
        b"Pname\n.",
        b"(K\x01K\x02",
        b"K\x01",
        b".",
        b"0.",
        b"t.",
        b"u.",
        b"]K\x01s.",
        b"g5\n.",
        b"}]K\x01s.",
        b"}((tK\x01s.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"T\xff\xff\xff\x7fab.",
        b"I" + b"9" * 5000 + b"\n.",
        b"c_codecs\nencode\nq\x01X\x64\x00\x00\x00"
        + b"a" * 100
        + b"q\x02U\x06latin1q\x03"
        + b"h\x01h\x02h\x03\x86R" * 9,
    ],
)
def test_what_a_pickle_may_not_do(code: bytes) -> None:
    with pytest.raises(DataError):
        read_plain_pickle(code, "the file")


def test_a_huge_memo_index_costs_nothing() -> None:
    assert read_plain_pickle(b"K\x07r\xff\xff\xff\xff.", "the file") == 7


@given(st.binary(max_size=60))
def test_random_bytes_are_no_pickle_that_escapes(code: bytes) -> None:
    try:
        read_plain_pickle(b"(" + code + b".", "the file")
    except DataError:
        pass


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ([1], "expected is a dict"),
        ({}, "lacks"),
        ({"data": 3, "labels": [1, 2]}, "lacks"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, 10]}, "0 .. 9"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1, "a"]}, "0 .. 9"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "shape"),
        ({"data": np.zeros((2, 3071), np.uint8), "labels": [1, 1]}, "shape"),
        ({"data": np.zeros((3, 3072), np.uint8), "labels": [1, 1, 1]}, "shape"),
        ({"data": np.zeros((2, 3072), np.int8), "labels": [1, 1]}, "pickle"),
        ({"data": np.zeros((2, 3072), np.float32), "labels": [1, 1]}, "pickle"),
        ({"data": np.array([None]), "labels": [1, 1]}, "pickle"),
    ],
)
def test_batches_of_another_shape(tmp_path: Path, batch: Any, words: str) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(DataError, match=words):
        read_cifar10(tmp_path, split="test")


# CIFAR-10 archives


def test_missing_and_wrong_batches(tmp_path: Path) -> None:
    images = random_images(2, 3, 32, 32)
    with pytest.raises(DataError, match=r"lacks data_batch_2.*found were data_batch_1"):
        read_cifar10(write_folder(tmp_path / "a", {"data_batch_1": python2_batch(images, [1, 2])}))
    with pytest.raises(DataError, match="no batches"):
        read_cifar10(write_folder(tmp_path / "b", {"other": b""}))
    with pytest.raises(DataError, match="10 to|to 10"):
        read_cifar10(write_folder(tmp_path / "c", {"test_batch.bin": binary_batch(images, [1, 10])}), split="test")
    with pytest.raises(DataError, match="expected are 2 records"):
        read_cifar10(write_folder(tmp_path / "d", {"test_batch.bin": bytes(3073)}), split="test")


def test_archives_that_unpack_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "_MAX_TOTAL", 1 << 20)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(tar_bytes({"filler": bytes(2 << 20)}))
    with pytest.raises(DataError, match="unpacks to more"):
        read_cifar10(path)
    # A long-name header makes tarfile itself read as much as the header says.
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    path.write_bytes(gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + bytes(4 << 20)))
    with pytest.raises(DataError, match="unpacks to more"):
        read_cifar10(path)


def test_members_that_are_no_files(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("data_batch_1", tarfile.DIRTYPE), ("data_batch_2", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    with pytest.raises(DataError):
        read_cifar10(tmp_path / "a.tar")


# IDX


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**31, 1, 1), (0, 28, 28), (2, 28, 29), (2, 28, 27)])
def test_idx_headers_are_checked_against_the_length(tmp_path: Path, packed: bool, shape: tuple[int, ...]) -> None:
    content = struct.pack(">4B3I", 0, 0, 8, 3, *shape) + bytes(2 * 28 * 28)
    (tmp_path / "x-images").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match="x-images"):
        read_idx(tmp_path / "x-images")


@pytest.mark.parametrize("magic", [b"\x00\x00\x0d\x03", b"\x00\x00\x08\x01", b"\x00\x00\x08\x02", b"PNG\x03"])
def test_other_idx_types(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "x-images").write_bytes(magic + bytes(60))
    with pytest.raises(DataError, match="expected is an IDX header"):
        read_idx(tmp_path / "x-images")


def test_idx_labels_that_do_not_fit(tmp_path: Path) -> None:
    write_mnist(tmp_path, random_images(3, 1, 2, 2), np.zeros(2, np.uint8), packed=False)
    with pytest.raises(DataError, match="2 labels.*3 images"):
        read_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros((3, 1, 1), np.uint8)))
    with pytest.raises(DataError, match="labels"):
        read_idx(tmp_path)


# Numpy files


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    hostile = np.array([Hostile(trace)], object)
    np.save(tmp_path / "a.npy", hostile)
    np.savez(tmp_path / "a.npz", images=hostile)
    np.savez(tmp_path / "b.npz", images=random_images(1, 1, 2, 2), labels=hostile)
    for name in ("a.npy", "a.npz", "b.npz"):
        with pytest.raises(DataError, match="pickled"):
            load(tmp_path / name)
    assert not trace.exists()


def npy_header(shape: str, dtype: str = "'|u1'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "header",
    [
        npy_header("(99999999999, 28, 28)"),
        npy_header("(-1, 28, 28)"),
        npy_header("(2, 28, 27)"),
        npy_header("(2, 28, 28.0)"),
        npy_header("'words'"),
        npy_header("(2, 28, 28)", "'|V1, broken'"),
        npy_header("__import__('os')"),
        b"\x93NUMPY\x09\x00",
    ],
)
def test_npy_headers_are_checked_against_the_length(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(header + bytes(2 * 28 * 28))
    with pytest.raises(DataError, match=r"a\.npy"):
        load(tmp_path / "a.npy")
    write_zip(tmp_path / "a.npz", {"images.npy": header + bytes(2 * 28 * 28)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=r"a\.npz"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("images", "error"),
    [
        (np.full((2, 3, 4, 4), np.nan, np.float32), InvalidValueError),
        (np.zeros((2, 3, 4, 4), np.int32), DTypeError),
        (np.array([["a"]]), PspcError),
        (np.zeros((0, 3, 4, 4), np.uint8), DataError),
        (np.zeros(4, [("x", np.uint8)]), PspcError),
    ],
)
def test_numpy_files_of_what_is_no_image(tmp_path: Path, images: Any, error: type[Exception]) -> None:
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "a.npz", images=images)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(error):
            load(tmp_path / name)


# Paths


@pytest.mark.parametrize("read", [read_edm_zip, read_folder, read_cifar10, read_idx, read_npy, read_npz, load])
def test_missing_paths_and_other_types(tmp_path: Path, read: Callable[..., ImageSet]) -> None:
    with pytest.raises(MissingFileError, match="gone"):
        read(tmp_path / "gone")
    with pytest.raises(DTypeError):
        read(3)


@pytest.mark.parametrize("read", [read_edm_zip, read_folder, read_cifar10, read_idx, read_npy, read_npz, load])
def test_empty_folders_and_files(tmp_path: Path, read: Callable[..., ImageSet]) -> None:
    with pytest.raises(PspcError):
        read(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(PspcError):
        read(tmp_path / "empty")


def test_labels_of_an_archive_are_json_only(tmp_path: Path) -> None:
    members = {"a.png": encoded(random_images(1, 1, 2, 2)[0]), "dataset.json": json.dumps({"other": 1}).encode()}
    assert read_edm_zip(write_zip(tmp_path / "a.zip", members)).labels is None
