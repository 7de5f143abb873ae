"""Stores: the images of any source, streamed once into a `.npy` file with labels and fingerprint beside it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bad_files import encoded, random_images, write_folder, write_mnist, write_zip
from command_line import SCRIPT, fail, succeed
from pspc_rs.data import ImageSet, image_arrays, load, save_edm_zip, save_store, store, streams
from pspc_rs.data.store_record import labels_path, record_path
from pspc_rs.errors import DataError, InvalidValueError, MissingFileError, OutputError, PspcError, PspcWarning
from pspc_rs.outputs import output_lock, parts_of, sha256
from pspc_rs.provenance import peak_memory

IMAGES = random_images(23, 3, 6, 5)
LABELS = np.arange(23) % 4


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    make_batches_small(monkeypatch)


def make_batches_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of four images, of which every second is saved."""
    four = 4 * IMAGES[0].nbytes
    monkeypatch.setattr(image_arrays, "_CHUNK_BYTES", four)
    monkeypatch.setattr(streams, "BATCH_BYTES", four)
    monkeypatch.setattr(store, "_SAVED_EVERY", 2 * four)


def files_of_classes() -> dict[str, bytes]:
    pairs = enumerate(zip(IMAGES, LABELS, strict=True))
    return {f"{label}/{index:02d}.png": encoded(image) for index, (image, label) in pairs}


def saved(file: Path, array: Any) -> Path:
    np.save(file, array)
    return file


def saved_npz(file: Path) -> Path:
    np.savez(file, images=IMAGES, labels=LABELS)
    return file


SOURCES: dict[str, Callable[[Path], Any]] = {
    "ImageSet": lambda folder: ImageSet(IMAGES, LABELS),
    "EDM archive": lambda folder: save_edm_zip(ImageSet(IMAGES, LABELS), folder / "a.zip"),
    "folder": lambda folder: write_folder(folder / "classes", files_of_classes()),
    "archive of a folder": lambda folder: write_zip(folder / "classes.zip", files_of_classes()),
    "npz": lambda folder: saved_npz(folder / "a.npz"),
    "npy": lambda folder: saved(folder / "floats.npy", IMAGES / 300),
    "IDX": lambda folder: write_mnist(folder / "mnist", IMAGES[:, :1], LABELS.astype(np.uint8), packed=False),
}
"""The same images in several forms, made in a folder."""


def contents(file: Path) -> list[bytes]:
    """The bytes of a store, of its labels and of its record but for the time."""
    record = json.loads(record_path(file).read_text())
    del record["store"]["modified_ns"]
    labels = labels_path(file)
    return [file.read_bytes(), labels.read_bytes() if labels.exists() else b"", json.dumps(record).encode()]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("kind", SOURCES)
def test_a_store_holds_what_its_source_holds(tmp_path: Path, kind: str) -> None:
    source, file = SOURCES[kind](tmp_path), tmp_path / "store.npy"
    data = load(source)
    assert save_store(source, file) == file
    stored = load(file)
    np.testing.assert_array_equal(stored.images, data.images)
    assert stored.dtype == data.dtype and not stored.images.flags.writeable
    if data.labels is None:
        assert stored.labels is None
    else:
        np.testing.assert_array_equal(stored.labels, data.labels)
    for xflip in (False, True):
        assert load(file, xflip=xflip).fingerprint == load(source, xflip=xflip).fingerprint
    np.testing.assert_array_equal(np.load(file), data.images)
    assert not parts_of(file).exists()


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("kind", SOURCES)
def test_the_choice_of_images_is_that_of_load(tmp_path: Path, kind: str) -> None:
    source = SOURCES[kind](tmp_path)
    for number, (most, classes) in enumerate([(7, None), (5, [3, 1]), (None, [2]), (100, [0])]):
        if load(source).labels is not None or classes is None:
            file = save_store(source, tmp_path / f"{number}.npy", max_size=most, classes=classes)
            assert load(file).fingerprint == load(source, max_size=most, classes=classes).fingerprint


def test_classes_that_no_image_has(tmp_path: Path) -> None:
    source, file = ImageSet(IMAGES, LABELS), tmp_path / "none.npy"
    with pytest.raises(InvalidValueError, match=r"classes are \[1, 9\]; no image of array has \[9\]"):
        save_store(source, file, classes=[1, 9])
    with pytest.raises(DataError, match="has no labels"):
        save_store(ImageSet(IMAGES), file, classes=[1])
    stored = load(save_store(source, tmp_path / "all.npy"), max_size=3, classes=[1])
    np.testing.assert_array_equal(stored.images, IMAGES[LABELS == 1][:3])


class StopError(Exception):
    """Ends a conversion."""


@settings(max_examples=30)
@given(
    stops=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    junk=st.binary(max_size=9),
    kind=st.sampled_from(sorted(SOURCES)),
)
def test_a_conversion_that_is_stopped_and_continued_ends_with_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], junk: bytes, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_batches_small(monkeypatch)
        source = SOURCES[kind](folder)
        whole, file = save_store(source, folder / "whole.npy", max_size=21), folder / "stopped.npy"
        for stop in stops:
            calls = iter(range(stop))

            def progress(done: int, total: int, calls: Iterator[int] = calls) -> None:
                assert not file.exists() or not parts_of(file).exists()
                if next(calls, None) is None:
                    raise StopError

            try:
                save_store(source, file, max_size=21, progress=progress)
            except StopError:
                # What a killed process wrote after its journal.
                for name in ("images", "labels"):
                    with (parts_of(file) / name).open("ab") as end:
                        end.write(junk)
        save_store(source, file, max_size=21)
        assert contents(file) == contents(whole)
        before = file.stat().st_mtime_ns
        assert save_store(source, file, max_size=21).stat().st_mtime_ns == before


SLOWLY = """
import sys, time
from pspc_rs.data import image_arrays, save_store, store
image_arrays._CHUNK_BYTES, store._SAVED_EVERY = 1 << 14, 1 << 15
print("begun", flush=True)
save_store("source.npy", "killed.npy", progress=lambda done, total: time.sleep(0.004))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_conversion_that_is_killed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    np.save(tmp_path / "source.npy", random_images(4000, 1, 16, 16))
    kills, file = 0, tmp_path / "killed.npy"
    for wait in (0.02, 0.06, 0.11):
        command = [sys.executable, "-c", SLOWLY]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "begun\n"
            time.sleep(wait)
            process.kill()
        kills += process.returncode == -signal.SIGKILL
        with pytest.raises(MissingFileError):
            load(file)
    assert kills == 3 and 0 < json.loads((parts_of(file) / "journal.json").read_text())["count"] < 4000
    assert subprocess.run([sys.executable, "-c", SLOWLY], cwd=tmp_path, capture_output=True, check=True)
    whole = save_store(tmp_path / "source.npy", tmp_path / "whole.npy")
    assert contents(file) == contents(whole)


@pytest.mark.parametrize("step", ["unlink", "save_array", "write_record", "replace"])
def test_a_conversion_that_is_stopped_while_it_completes_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    source, file = ImageSet(IMAGES, LABELS), tmp_path / "a.npy"
    save_store(ImageSet(IMAGES[:2]), file)

    place = Path if step in ("unlink", "replace") else store
    original: Any = getattr(place, step)

    def stop(first: Any, *more: Any, **options: Any) -> Any:
        if step != "replace" or first.name == "images":
            raise StopError
        return original(first, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(place, step, stop)
        with pytest.raises(StopError):
            save_store(source, file, overwrite=True)
    if step == "unlink":
        assert load(file).num_stored == 2
    else:
        assert not file.exists()
    save_store(source, file, overwrite=True)
    assert load(file).fingerprint == source.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.labels.npy", "a.npy"]


def test_two_conversions_of_one_store_refuse_each_other(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    with output_lock(file), pytest.raises(OutputError, match="is being written by another run"):
        code = "import sys, lock_holders; from pathlib import Path; lock_holders.hold(Path(sys.argv[1]))"
        lock = parts_of(tmp_path / "b.npy") / "lock"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen([sys.executable, "-c", code, str(lock)], env=environment) as other:
            try:
                while not lock.with_name("held").exists():
                    assert other.poll() is None
                    time.sleep(0.01)
                save_store(ImageSet(IMAGES), tmp_path / "b.npy")
            finally:
                other.kill()
    assert not (tmp_path / "b.npy").exists()


def test_what_is_there_is_replaced_on_demand_only(tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    np.save(file, IMAGES)
    with pytest.raises(OutputError, match="is there already, and is no store; replace it with --overwrite"):
        save_store(ImageSet(IMAGES, LABELS), file)
    save_store(ImageSet(IMAGES, LABELS), file, overwrite=True)
    with pytest.raises(OutputError, match=r"made from something else: source\.fingerprint was"):
        save_store(ImageSet(IMAGES), file)
    assert load(file).labels is not None
    save_store(ImageSet(IMAGES), file, overwrite=True)
    assert load(file).labels is None and not labels_path(file).exists()
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(OutputError, match=r"b\.json is there already, and is no record of a store"):
        save_store(ImageSet(IMAGES), tmp_path / "b.npy")
    with pytest.raises(InvalidValueError, match=r"b\.dat does not end in \.npy"):
        save_store(ImageSet(IMAGES), tmp_path / "b.dat")
    assert (tmp_path / "b.json").read_text() == "{}"


@pytest.mark.usefixtures("small_batches")
def test_a_conversion_of_something_else_is_not_continued(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 11:
            raise StopError

    file = tmp_path / "a.npy"
    with pytest.raises(StopError):
        save_store(ImageSet(IMAGES), file, progress=stop)
    with pytest.raises(OutputError, match="was begun from something else"):
        save_store(ImageSet(IMAGES[1:]), file)
    save_store(ImageSet(IMAGES[1:]), file, overwrite=True)
    np.testing.assert_array_equal(load(file).images, IMAGES[1:])
    for text in ("", "[]", '{"settings": null, "read": -1}', '{"shape": [1, 2]}'):
        parts_of(file).mkdir()
        (parts_of(file) / "journal.json").write_text(text)
        save_store(ImageSet(IMAGES[1:]), file)
        shutil.rmtree(parts_of(file), ignore_errors=True)


def test_a_store_is_opened_without_being_read(tmp_path: Path) -> None:
    file, pixels = tmp_path / "a.npy", np.zeros((2, 4, 64, 64), np.float32)
    save_store(ImageSet(pixels), file)
    num = 1 << 16
    with file.open("r+b") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (num, *pixels.shape[1:])}
        )
        # Four GiB, of which none takes room on the disk.
        stream.truncate(stream.tell() + num * pixels[0].nbytes)
    record, found = json.loads(record_path(file).read_text()), file.stat()
    record["store"] |= {"shape": [num, 4, 64, 64], "size": found.st_size, "modified_ns": found.st_mtime_ns}
    record_path(file).write_text(json.dumps(record))
    before, expected = peak_memory(), record["store"]["fingerprints"][1]
    data = load(file, xflip=True)
    assert data.fingerprint == expected and len(data) == 2 * num
    assert load(file, max_size=num - 1).num_stored == num - 1
    after = peak_memory()
    assert before is None or after is None or after - before < 1 << 28


def test_a_changed_store_is_looked_at_again(tmp_path: Path) -> None:
    file = save_store(ImageSet(IMAGES / np.float32(255), LABELS), tmp_path / "a.npy")
    copied = Path(shutil.copy(file, tmp_path / "b.npy"))
    assert load(copied).labels is None
    shutil.copy(record_path(file), record_path(copied))
    shutil.copy(labels_path(file), labels_path(copied))
    assert load(copied).fingerprint == load(file).fingerprint
    pixels = np.load(copied, mmap_mode="r+")
    pixels[3, 1, 2, 0] = 5
    pixels.flush()
    assert load(copied).fingerprint != load(file).fingerprint
    pixels[3, 1, 2, 0] = np.nan
    pixels.flush()
    del pixels
    with pytest.raises(InvalidValueError, match=r"images hold nan at \[3, 1, 2, 0\]"):
        load(copied)


def test_lost_and_damaged_files_beside_a_store(tmp_path: Path) -> None:
    file = save_store(ImageSet(IMAGES, LABELS), tmp_path / "a.npy")
    good = labels_path(file).read_bytes()
    labels_path(file).write_bytes(good[:-8])
    with pytest.raises(DataError, match=r"a\.labels\.npy is damaged, or not the labels"):
        load(file)
    labels_path(file).unlink()
    with pytest.raises(DataError, match=r"a\.labels\.npy is missing"):
        load(file)
    np.save(labels_path(file), np.zeros(3))
    record = json.loads(record_path(file).read_text())
    record["store"]["labels_sha256"] = sha256(labels_path(file))
    record_path(file).write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"holds float64 of shape \(3,\); expected is int64 of shape \(23,\)"):
        load(file)
    record["store"]["format"] = 2
    record_path(file).write_text(json.dumps(record))
    with pytest.warns(PspcWarning, match="is not a record that this version reads"):
        assert load(file).labels is None
    for text in ("{", "[]", '{"store": 3}', '{"seed": 0}'):
        record_path(file).write_text(text)
        assert load(file).labels is None
    truncated = file.read_bytes()[:-1]
    file.write_bytes(truncated)
    with pytest.raises(DataError, match="announces"):
        load(file)


@pytest.mark.usefixtures("small_batches")
def test_bad_images_stop_a_conversion_and_leave_no_store(tmp_path: Path) -> None:
    pixels = np.zeros((9, 1, 8, 8), np.float32)
    pixels[7, 0, 2, 3] = np.inf
    np.save(tmp_path / "bad.npy", pixels)
    mixed = {f"{index:02d}.png": encoded(random_images(1, 3, 6 + index // 15, 5)[0]) for index in range(17)}
    damaged = {f"{index:02d}.png": encoded(IMAGES[index])[: None if index < 15 else 40] for index in range(17)}
    cases: list[tuple[Path, type[PspcError], str]] = [
        (tmp_path / "bad.npy", InvalidValueError, "inf"),
        (write_folder(tmp_path / "mixed", mixed), DataError, r"15\.png is 5 x 7|from 15 on"),
        (write_folder(tmp_path / "damaged", damaged), DataError, r"15\.png"),
        (write_zip(tmp_path / "damaged.zip", damaged), DataError, r"15\.png"),
    ]
    for source, kind, words in cases:
        with pytest.raises(kind, match=words):
            save_store(source, tmp_path / "a.npy", overwrite=True)
        assert not (tmp_path / "a.npy").exists()


def test_a_disk_without_room_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(OutputError, match=f"it needs {IMAGES.nbytes} bytes, and the disk has 5 free"):
        save_store(ImageSet(IMAGES), tmp_path / "a.npy")
    assert not (tmp_path / "a.npy").exists()


def test_the_command_converts_and_goes_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    file = tmp_path / "a store.npy"
    printed = succeed("data", "convert", tmp_path / "a.npz", file, "--classes", "1,2", "--max-size", 4)
    assert f"{file}: 4 images of [3, 6, 5]" in printed
    assert load(file).fingerprint == load(tmp_path / "a.npz", classes=[1, 2], max_size=4).fingerprint
    assert load(file).fingerprint in succeed("data", "info", file)
    assert "is there already" in fail(1, "data", "convert", tmp_path / "a.npz", file)
    succeed("data", "convert", tmp_path / "a.npz", file, "--overwrite")
    assert load(file).num_stored == 23


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_says_that_the_command_continues(tmp_path: Path) -> None:
    np.save(tmp_path / "source.npy", random_images(4000, 1, 16, 16))
    slow = SLOWLY.partition("save_store(")[0] + (
        "import pspc_rs.progress as p\nold = p.ProgressBar.__call__\n"
        "p.ProgressBar.__call__ = lambda *a: (time.sleep(0.01), old(*a))\nfrom pspc_rs.cli import main\nmain()"
    )
    words = [sys.executable, "-c", slow, "data", "convert", "source.npy", "out.npy"]
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process started in the background ignores it
    try:
        process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, earlier)
    with process:
        while not (tmp_path / ".out.npy.parts" / "journal.json").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.strip().splitlines()[-1] == "Interrupted; what is done is kept, run the same command to continue"
    assert not (tmp_path / "out.npy").exists()
    assert subprocess.run([*SCRIPT, *words[3:]], cwd=tmp_path, capture_output=True, check=False).returncode == 0
    np.testing.assert_array_equal(load(tmp_path / "out.npy").images, np.load(tmp_path / "source.npy"))
