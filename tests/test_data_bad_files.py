"""Damaged and hostile files: always an exception of ours that names the file, and nothing is run or filled up."""

import contextlib
import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bad_files import (
    cifar_files,
    encoded,
    png_chunk,
    png_claiming,
    random_images,
    tar_bytes,
    write_folder,
    write_mnist,
    write_zip,
)
from pspc_rs import files
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
from pspc_rs.data.readers import cifar
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
    nameless = write_zip(tmp_path / "b.zip", {"0.png": encoded(random_images(1, 1, 4, 4)[0])})
    with pytest.raises(DataError, match="holds no images"):
        read_edm_zip(patched_member(nameless, 46, b"\0"))
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
