"""The cache of decoded pixels: never stale, never half, bounded, and never needed."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bad_files import Bytes, encoded, labels_of, random_images, write_zip
from command_line import succeed
from pspc_rs.data import ImageSet, decode, load, pixel_cache, read_edm_zip, save_edm_zip
from pspc_rs.data.readers import image_files
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, PspcWarning

IMAGES = random_images(6, 3, 8, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(pixel_cache, "_LEAST_BYTES", 1)
    monkeypatch.setattr(pixel_cache, "_warned", [])
    return tmp_path / "cache" / "pixels"


def write(path: Path, images: Bytes = IMAGES, labels: Sequence[int] | None = None) -> Path:
    """An archive of images, with their labels or some of them."""
    members = {f"{index:02}.png": encoded(image) for index, image in enumerate(images)}
    listed = None if labels is None else [list(pair) for pair in zip(members, labels, strict=False)]
    return write_zip(path, {**members, "dataset.json": json.dumps({"labels": listed}).encode()})


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write(tmp_path / "a.zip", labels=[0, 1] * 3)


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.is_dir() else []


def is_mapped(array: object) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def test_a_second_reading_maps_the_pixels(archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(archive)
    assert len(entries(cache)) == 2 and not is_mapped(first.images)
    monkeypatch.setattr(image_files, "decode_images", None)
    second = load(archive, xflip=True)
    assert is_mapped(second.images) and not second.images.flags.writeable
    np.testing.assert_array_equal(second.images, IMAGES)
    assert labels_of(second) == labels_of(first) == [0, 1] * 3
    some = load(archive, classes=[1], max_size=2)
    np.testing.assert_array_equal(some.images, IMAGES[[1, 3]])
    assert labels_of(some) == [1, 1]
    assert load(archive).fingerprint == first.fingerprint
    with pytest.raises(InvalidValueError, match="classes are"):
        load(archive, classes=[7])


def test_data_without_class_labels_stay_so(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip")
    for _ in range(2):
        assert load(path).labels is None
        with pytest.raises(DataError, match="has no labels"):
            load(path, classes=[1])
    path = write(tmp_path / "b.zip", labels=[2, 3, 1])
    with pytest.raises(DataError, match="no label for"):
        load(path)


def test_a_part_is_not_kept(archive: Path, cache: Path) -> None:
    load(archive, max_size=3)
    assert entries(cache) == []
    load(archive, max_size=6)
    assert len(entries(cache)) == 2


@pytest.mark.parametrize("off", ["argument", "variable", "small"])
def test_the_cache_can_be_turned_off(archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, off: str) -> None:
    if off == "variable":
        monkeypatch.setenv("PSPC_CACHE_GB", "0")
    elif off == "small":
        monkeypatch.setattr(pixel_cache, "_LEAST_BYTES", IMAGES.nbytes + 1)
    for _ in range(2):
        assert not is_mapped(load(archive, cache=off != "argument").images)
    assert entries(cache) == []


@pytest.mark.parametrize("value", ["many", "-1", "nan", "inf"])
def test_bad_settings(archive: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("PSPC_CACHE_GB", value)
    with pytest.raises(InvalidValueError, match=r"PSPC_CACHE_GB is .*from 0 on, in GB"):
        load(archive)
    load(archive, cache=False)
    with pytest.raises(DTypeError, match="cache"):
        load(archive, cache="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("change", ["pixels", "order", "labels", "time", "another archive"])
def test_a_changed_archive_is_read_anew(tmp_path: Path, archive: Path, cache: Path, change: str) -> None:
    load(archive)
    before, kept = archive.stat(), entries(cache)
    images, labels = IMAGES.copy(), [0, 1] * 3
    if change == "pixels":
        images[3, 0, 0, 0] ^= 1
    elif change == "order":
        images[[0, 1]] = images[[1, 0]]
    elif change == "labels":
        labels[2] = 5
    write(archive, images, labels)
    if change != "time":
        os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    if change == "another archive":
        archive = Path(shutil.copy2(archive, tmp_path / "b.zip"))
    data = load(archive)
    np.testing.assert_array_equal(data.images, images)
    assert labels_of(data) == labels
    assert entries(cache) != kept
    # What an earlier state left is gone.
    assert len(entries(cache)) == (4 if change == "another archive" else 2)


def test_the_same_size_and_time_do_not_deceive(tmp_path: Path) -> None:
    path, when = tmp_path / "a.zip", 10**18
    sizes = set()
    for shade in (3, 4):
        # Written without compression, both archives have the same size.
        pixels = np.full((2, 1, 8, 8), shade, np.uint8)
        save_edm_zip(ImageSet(pixels), path)
        os.utime(path, ns=(when, when))
        sizes.add(path.stat().st_size)
        for _ in range(2):
            np.testing.assert_array_equal(load(path).images, pixels)
    assert len(sizes) == 1


def test_an_archive_that_changes_while_it_is_read_is_not_kept(
    archive: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = decode.decode_images

    def changing(*arguments: object) -> object:
        images = original(*arguments)  # type: ignore[arg-type]
        write(archive, IMAGES[::-1])
        return images

    monkeypatch.setattr(image_files, "decode_images", changing)
    load(archive)
    assert entries(cache) == []


def damage(path: Path, kind: str) -> None:
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "gone":
        path.unlink()
    else:
        np.save(path, np.zeros((6, 3, 8, 8)) if kind == "floats" else np.zeros(6, np.uint8))


@pytest.mark.parametrize("kind", ["truncated", "empty", "gone", "floats", "fewer axes"])
@pytest.mark.parametrize("which", [0, 1])
def test_damaged_entries_are_made_anew(archive: Path, cache: Path, kind: str, which: int) -> None:
    load(archive)
    damage(cache / entries(cache)[which], kind)
    data = load(archive)
    np.testing.assert_array_equal(data.images, IMAGES)
    assert labels_of(data) == [0, 1] * 3
    assert is_mapped(load(archive).images)


def test_those_used_longest_ago_make_room(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(50, 3, 16, 16)
    paths = [write(tmp_path / f"{name}.zip", images) for name in "abc"]
    # Room for two.
    monkeypatch.setenv("PSPC_CACHE_GB", str(2.5 * images.nbytes / 1e9))
    for index, path in enumerate(paths[:2]):
        load(path)
        for entry in cache.iterdir():
            os.utime(entry, (index, index))
    # The first is now the one used last.
    assert is_mapped(load(paths[0]).images)
    load(paths[2])
    assert [is_mapped(load(path, max_size=50).images) for path in (paths[0], paths[2])] == [True, True]
    assert len(entries(cache)) == 4
    monkeypatch.setenv("PSPC_CACHE_GB", str(0.5 * images.nbytes / 1e9))
    other = write(tmp_path / "d.zip", images)
    load(other)
    assert not is_mapped(load(other).images)


def test_a_folder_that_cannot_be_written_is_told_once(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(PspcWarning, match="not kept for the next time: .*cache=False"):
        load(archive)
    np.testing.assert_array_equal(load(archive).images, IMAGES)
    monkeypatch.setenv("PSPC_CACHE_DIR", "~nobody-of-this-name/cache")
    np.testing.assert_array_equal(load(archive).images, IMAGES)


def test_archives_that_only_zipfile_reads_are_not_kept(archive: Path, cache: Path) -> None:
    with zipfile.ZipFile(archive, "a") as content:
        content.comment = b"words"
    np.testing.assert_array_equal(read_edm_zip(archive).images, IMAGES)
    assert entries(cache) == []


LOADING = """
import sys
from pspc_rs.data import load, pixel_cache
pixel_cache._LEAST_BYTES = 1
print("ready", flush=True)
sys.stdin.readline()
print(load(sys.argv[1]).fingerprint)
"""


def start(path: Path) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", LOADING, str(path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_processes_fill_the_cache_at_once(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.zip", random_images(400, 3, 32, 32))
    expected = load(path, cache=False).fingerprint
    processes = [start(path) for _ in range(2)]
    for process in processes:
        go(process)
    assert [process.communicate()[0].strip() for process in processes] == [expected] * 2
    assert len(entries(cache)) == 2
    assert is_mapped(load(path).images) and load(path).fingerprint == expected


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_writer_leaves_nothing_that_is_read(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "a.zip", random_images(30, 3, 512, 512))
    expected = load(path, cache=False).fingerprint
    started = 0
    for delay in (0.0, 0.005, 0.02):
        process = start(path)
        go(process)
        # Killed once the writing has begun, sooner or later.
        until = time.monotonic() + 20
        while not entries(cache) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.communicate()
        started += bool(entries(cache))
        assert load(path).fingerprint == expected
        assert is_mapped(load(path).images) and load(path).fingerprint == expected
        for entry in cache.iterdir():
            entry.unlink()
    assert started == 3


def test_commands_can_leave_the_cache_alone(archive: Path, tmp_path: Path, cache: Path) -> None:
    words = ["denoise", "--t-idx", "3", "--data", archive, "--denoiser", "gaussian", "--n", "2", "--device", "cpu"]
    succeed(*words, "--no-cache", "--outdir", tmp_path / "without")
    assert not cache.parent.exists()
    succeed(*words, "--outdir", tmp_path / "with")
    assert len(entries(cache)) == 2 and (cache.parent / "gaussian").exists()
    outputs = [tmp_path / run / "gaussian_outputs_t_03_of_18.npy" for run in ("without", "with")]
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    # It decides no number: the same command with or without it goes on.
    assert "is complete already" in succeed(*words, "--no-cache", "--outdir", tmp_path / "with")
