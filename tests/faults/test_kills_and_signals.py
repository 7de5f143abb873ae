"""Long commands that are killed or asked to stop at any moment: nothing half written, then the same bytes."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import fault_runs as faults

pytestmark = pytest.mark.skipif(faults.ON_WINDOWS, reason="POSIX signals")

ROUNDS = 12 if faults.LONG else 2
SIGNALS = [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM), signal.SIGINT]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.prepare(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def undisturbed(home: Path) -> dict[str, tuple[float, dict[str, object]]]:
    """The seconds and the results of every command when nothing happens to it."""
    found = {}
    for command in faults.CHOSEN:
        began, out = time.monotonic(), home / f"undisturbed {command}"
        assert faults.run(home, faults.arguments(command, out))[0] == 0
        found[command] = (time.monotonic() - began, faults.contents(out))
    return found


@pytest.mark.parametrize("command", faults.CHOSEN)
def test_a_command_that_is_killed_at_random_moments_ends_with_the_same_bytes(
    home: Path, undisturbed: dict[str, Any], command: str
) -> None:
    seconds, expected = undisturbed[command]
    moments, out, kills = random.Random(command), home / f"killed {command}", 0
    for _ in range(ROUNDS):
        process = faults.start(home, faults.arguments(command, out))
        with process:
            time.sleep(moments.uniform(0.1, 1) * seconds)
            process.kill()
        kills += process.returncode == -signal.SIGKILL
    assert kills
    assert faults.run(home, faults.arguments(command, out))[0] == 0
    assert faults.contents(out) == expected
    assert faults.leftovers(out) == []


@pytest.mark.parametrize("number", SIGNALS if faults.LONG else SIGNALS[:1])
@pytest.mark.parametrize("command", faults.CHOSEN)
def test_a_signal_ends_a_command_promptly_with_one_line(
    home: Path, undisturbed: dict[str, Any], command: str, number: int
) -> None:
    expected, out = undisturbed[command][1], home / f"signalled {command} {number}"
    process = faults.start(home, faults.arguments(command, out), lambda: _default(number))
    faults.wait_until(process, lambda: faults.has_begun(out))
    time.sleep(0.1)
    process.send_signal(number)
    sent = time.monotonic()
    code, line = faults.finish(process)
    assert code == 128 + number, line
    assert time.monotonic() - sent < 5
    name = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    assert line.startswith(f"Interrupted{name}; "), line
    assert line.endswith("run the same command to continue")
    assert [left for left in faults.leftovers(out) if not left.endswith(".parts")] == []
    assert not {name for name in faults.contents(out) if name in expected and name.endswith("samples.npy")}
    assert faults.run(home, faults.arguments(command, out))[0] == 0
    assert faults.contents(out) == expected


def _default(number: int) -> None:
    # A process that was started in the background may ignore it.
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def test_nohup_keeps_a_command_alive(home: Path) -> None:
    out = home / "nohup"
    process = faults.start(
        home, faults.arguments("sample", out), lambda: _ignore(getattr(signal, "SIGHUP", signal.SIGTERM))
    )
    faults.wait_until(process, lambda: faults.has_begun(out))
    process.send_signal(getattr(signal, "SIGHUP", signal.SIGTERM))
    assert faults.finish(process)[0] == 0


def _ignore(number: int) -> None:
    signal.signal(number, signal.SIG_IGN)
