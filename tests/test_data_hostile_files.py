"""Hostile pickles, archives and array headers: nothing is run, and nothing is filled up."""

import contextlib
import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_files import (
    binary_batch,
    idx_bytes,
    python2_batch,
    random_images,
    tar_bytes,
    write_folder,
    write_mnist,
    write_zip,
)
from pspc_rs.data import ImageSet, load, read_cifar10, read_idx
from pspc_rs.data.readers import cifar
from pspc_rs.data.readers.plain_pickle import read_plain_pickle
from pspc_rs.denoisers import PSPCFlex
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, PspcError
from pspc_rs.outputs import open_array
from pspc_rs.pickles import PickleMachine


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "BATCH_SIZE", 2)


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


def test_a_pickle_of_too_many_operations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PickleMachine.max_operations <= 1 << 20
    monkeypatch.setattr(PickleMachine, "max_operations", 1 << 10)
    for many in (b"N", b"}", b"(", b"I1\n"):
        with pytest.raises(DataError, match="more than 1024 operations"):
            read_plain_pickle(many * (1 << 10) + b".", "the file")


def test_old_pickles_of_many_lines_are_read() -> None:
    # Each line must be found without a copy of the rest of the file, or this takes minutes.
    assert read_plain_pickle(b"(" + b"I7\n" * 300_000 + b"l.", "the file") == [7] * 300_000
    text = b"a" * 5000
    assert read_plain_pickle(b"S'" + text + b"'\n.", "the file") == text.decode()
    with pytest.raises(DataError):
        read_plain_pickle(b"S'" + text, "the file")


@given(st.binary(max_size=60))
def test_random_bytes_are_no_pickle_that_escapes(code: bytes) -> None:
    with contextlib.suppress(DataError):
        read_plain_pickle(b"(" + code + b".", "the file")


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


def test_missing_and_wrong_batches(tmp_path: Path) -> None:
    images = random_images(2, 3, 32, 32)
    with pytest.raises(DataError, match=r"lacks data_batch_2.*it has data_batch_1"):
        read_cifar10(write_folder(tmp_path / "a", {"data_batch_1": python2_batch(images, [1, 2])}))
    with pytest.raises(DataError, match="no batches"):
        read_cifar10(write_folder(tmp_path / "b", {"other": b""}))
    with pytest.raises(DataError, match="from 1 to 10"):
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
    with pytest.raises(DataError, match=r"2 labels.*3 images"):
        read_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros((3, 1, 1), np.uint8)))
    with pytest.raises(DataError, match="labels"):
        read_idx(tmp_path)


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


@pytest.mark.parametrize("header", ["{'descr': '<f4', (", npy_header("(1,)", "'f4,('")[10:].decode(), ""])
def test_heat_maps_and_arrays_with_broken_headers(tmp_path: Path, header: str) -> None:
    text = header.encode().ljust(117) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))
    (tmp_path / "b.npy").write_bytes(b"PK\x03\x04" + bytes(64))
    data = ImageSet(random_images(2, 1, 2, 2))
    for name in ("a.npy", "b.npy"):
        with pytest.raises(DataError, match=rf"{name} cannot be read as a \.npy file"):
            open_array(tmp_path / name)
        with pytest.raises(DataError, match=f"cannot read heat maps: .*{name}"):
            PSPCFlex(data, heatmaps=tmp_path / name, thresholds=[0.5])
