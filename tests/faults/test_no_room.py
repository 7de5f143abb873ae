"""A full disk, a folder that cannot be written, closed streams, too little memory: one line, and nothing half done."""

import json
import signal
from pathlib import Path

import pytest

import fault_runs as faults

pytestmark = pytest.mark.skipif(faults.ON_WINDOWS, reason="POSIX limits")

SIZES = [0, 600, 3000, 9000] if faults.LONG else [600]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.prepare(tmp_path_factory.mktemp("faults"))


def limit(kind: str, size: int) -> None:
    import resource

    resource.setrlimit(getattr(resource, kind), (size, size))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("command", faults.CHOSEN)
def test_files_that_cannot_grow_end_in_one_line_and_leave_nothing_half_written(
    home: Path, command: str, size: int
) -> None:
    whole, out = home / f"whole {command}", home / f"limited {command} {size}"
    if not whole.exists():
        assert faults.run(home, faults.arguments(command, whole))[0] == 0
    expected = faults.contents(whole)
    code, line = faults.run(home, faults.arguments(command, out), lambda: limit("RLIMIT_FSIZE", size))
    assert code in (0, 1)
    if code == 1:
        assert line.startswith("Error: "), line
        # Python looks for a folder it can write to before torch asks for a temporary file.
        said = ("cannot be written", "cannot be opened or written", "No usable temporary directory")
        assert any(what in line for what in said), line
    for path in out.rglob("*.json") if out.exists() else ():
        json.loads(path.read_text())
    assert [left for left in faults.leftovers(out) if not left.endswith(".parts")] == []
    assert faults.run(home, faults.arguments(command, out))[0] == 0
    assert faults.contents(out) == expected


@pytest.mark.parametrize("command", faults.CHOSEN)
def test_a_folder_that_cannot_be_written_is_found_out_at_once(home: Path, command: str) -> None:
    (home / "file").touch()
    code, line = faults.run(home, faults.arguments(command, home / "file" / "below"))
    assert code == 1
    assert "cannot be written" in line or "cannot be opened or written" in line


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-", "2>/dev/full"] if faults.LONG else ["<&- >&- 2>&-"])
@pytest.mark.parametrize("command", faults.CHOSEN if faults.LONG else ["sample"])
def test_closed_streams_change_nothing(home: Path, command: str, closed: str) -> None:
    if "/dev/full" in closed and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    whole, out = home / f"open {command}", home / f"closed {command} {closed.replace('/', ' ')}"
    if not whole.exists():
        assert faults.run(home, faults.arguments(command, whole))[0] == 0
    code, line = faults.run(home, ["sh", "-c", f'"$@" {closed}', "sh", *faults.arguments(command, out)])
    assert code == 0, line
    assert faults.contents(out) == faults.contents(whole)


def test_stdout_that_cannot_be_written_is_told_and_the_output_is_there(home: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    out = home / "full stdout"
    code, line = faults.run(home, ["sh", "-c", '"$@" >/dev/full', "sh", *faults.arguments("sample", out)])
    assert code == 1
    assert "No space left" in line
    assert (out / "network_samples.npy").exists()


@pytest.mark.parametrize("command", ["sample", "noise reverse"] if faults.LONG else ["sample"])
def test_too_many_images_for_memory_end_in_one_line(home: Path, command: str) -> None:
    out = home / f"memory {command}"
    code, line = faults.run(
        home, faults.arguments(command, out, "--n", 400_000_000), lambda: limit("RLIMIT_AS", 24 << 30)
    )
    assert code == 1 != -signal.SIGABRT
    assert line.startswith("Error: memory ran out"), line
    assert not out.exists()
