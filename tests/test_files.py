"""Atomic writing: whole files or none, names of their own, nothing left behind by killed processes."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pspc_rs import writing
from pspc_rs.errors import DataError, DTypeError, MissingFileError, OutputError
from pspc_rs.files import as_path, replacing
from pspc_rs.writing import temporary_path

needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_swept", set())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.bin"
    with replacing(target) as temporary:
        temporary.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert [path.name for path in target.parent.iterdir()] == ["a.bin"]
    assert target.read_bytes() == b"old"


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"), replacing(tmp_path / "file" / "a.bin") as temporary:
        temporary.write_bytes(b"x")


def test_an_error_of_ours_keeps_its_kind(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="gone"), replacing(tmp_path / "a.bin"):
        raise MissingFileError("gone")
    assert names(tmp_path) == []


def test_temporary_names_are_used_once_and_fit_the_file_system(tmp_path: Path) -> None:
    targets = [tmp_path / "a", tmp_path / ("b" * 250), tmp_path / ("ä" * 125)]
    for target in targets:
        found = {temporary_path(target) for _ in range(100)}
        assert len(found) == 100
        assert all(len(os.fsencode(path.name)) <= 255 for path in found)
        with replacing(target) as temporary:
            temporary.write_bytes(b"x")
        assert target.read_bytes() == b"x"
    assert names(tmp_path) == sorted(target.name for target in targets)


def test_threads_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    target, errors = tmp_path / "a.bin", []

    def write(letter: bytes) -> None:
        try:
            for _ in range(20):
                with replacing(target) as temporary:
                    temporary.write_bytes(letter * 10_000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert target.read_bytes() in (b"a" * 10_000, b"b" * 10_000, b"c" * 10_000)
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_mode_of_a_new_file_is_that_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    with replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "a.bin")}
    assert len(modes) == 1


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    original = os.fsync

    def noting(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else f"{os.fstat(descriptor).st_size} bytes"
        flushed.append(f"{kind}, {'named' if (tmp_path / 'a.bin').exists() else 'not yet named'}")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    with replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"x" * 7)
    assert flushed[0] == "7 bytes, not yet named"
    assert flushed[1:] == ([] if sys.platform == "win32" else ["folder, named"])


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OutputError, match="Input/output error"), replacing(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"x")
    assert names(tmp_path) == []


WRITER = """
    import sys, time
    from pathlib import Path
    from pspc_rs.files import replacing
    with replacing(Path(sys.argv[1])) as temporary:
        temporary.write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)
"""


def writer(target: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(target)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


@needs_locks
def test_leftovers_of_killed_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    killed, living = writer(tmp_path / "killed.bin"), writer(tmp_path / "living.bin")
    foreign = [".cache.tmp", ".a.123.tmp", ".a.0123456789abcdef01234567.txt", "a.0123456789abcdef01234567.tmp"]
    for name in foreign:
        (tmp_path / name).write_bytes(b"mine")
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        left = [name for name in names(tmp_path) if name not in foreign]
        assert len(left) == 2
        with replacing(tmp_path / "other.bin") as temporary:
            temporary.write_bytes(b"whole")
        after = [name for name in names(tmp_path) if name not in foreign]
        assert [name for name in after if name.endswith(".tmp")] == [name for name in left if "living" in name]
        assert {*foreign, "other.bin"} <= {*names(tmp_path)}
    finally:
        for process in (killed, living):
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@needs_locks
@pytest.mark.parametrize(("hours", "stays"), [(1, True), (25, False)])
def test_leftovers_of_other_machines_are_removed_when_they_are_old(tmp_path: Path, hours: int, stays: bool) -> None:
    left = tmp_path / f".a.bin.{'0' * 24}.tmp"
    left.write_bytes(b"half")
    then = time.time() - hours * 3600
    os.utime(left, (then, then))
    with replacing(tmp_path / "b.bin") as temporary:
        temporary.write_bytes(b"x")
    assert left.exists() == stays


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"a"


def test_paths() -> None:
    assert as_path("a") == as_path(Path("a")) == as_path(BytesPath()) == Path("a")  # type: ignore[arg-type]
    with pytest.raises(MissingFileError, match="empty"):
        as_path("")
    with pytest.raises(DTypeError, match="bytes"):
        as_path(b"a")  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_named_pipes_are_not_read(tmp_path: Path) -> None:
    from pspc_rs.files import read_limited

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no file"):
        read_limited(tmp_path / "pipe")
