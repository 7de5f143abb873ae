"""What all commands have in common: flags, defaults, groups of options, errors in one line, progress."""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import fail, invoke, names, random_data, succeed
from pspc_rs.cli import main
from pspc_rs.progress import ProgressBar


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and the current folder are the test's own."""
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("current"))


def leaves(group: click.Group, *path: str) -> Iterator[tuple[list[str], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield [*path, name], command


COMMANDS = list(leaves(main))
FLAGS = {
    "--xflip": True,
    "--xflip=True": True,
    "--xflip=true": True,
    "--xflip True": True,
    "--xflip=1": True,
    "--no-xflip": False,
    "--no_xflip": False,
    "--xflip=False": False,
    "--xflip False": False,
    "--XFLIP=no": False,
    "--no-xflip=False": True,
    "--no_xflip=False": True,
}


@pytest.mark.parametrize(("words", "expected"), FLAGS.items())
def test_flags_take_a_value_too(monkeypatch: pytest.MonkeyPatch, words: str, expected: bool) -> None:
    for path, command in COMMANDS:
        if "--xflip" not in [name for one in command.params for name in one.opts]:
            continue
        given: dict[str, Any] = {}
        monkeypatch.setattr(command, "callback", lambda given=given, **options: given.update(options))
        required = {"--target": "a:b", "--arch": "dit-s2", "--t-idx": "0", "--denoisers": "empirical", "--queries": "1"}
        needed = [
            word for one in command.params if one.required for word in (one.opts[0], required.get(one.opts[0], "x"))
        ]
        assert invoke(*path, *needed, *words.split()).exit_code == 0
        assert given["xflip"] is expected, path


@given(st.lists(st.sampled_from(["--save-images", "--save-images=no", "--overwrite=True", "--overwrite", "--verbose"])))
def test_the_last_of_several_flags_counts(words: list[str]) -> None:
    command = main.commands["sample"]
    context = command.make_context("sample", ["--outdir", "o", "--data", "d", *words])
    assert context.params["overwrite"] == any(word.startswith("--overwrite") for word in words)
    assert context.params["save_images"] == ("--save-images" in words)


def test_other_values_of_flags_are_refused() -> None:
    assert "'maybe'; allowed are True and False" in fail(2, "sample", "--xflip=maybe", "--data", "a", "--outdir", "o")
    assert "unexpected extra argument" in fail(2, "sample", "--xflip", "maybe", "--data", "a", "--outdir", "o")


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_help_shows_groups_and_full_sentences(path: list[str], command: click.Command) -> None:
    text = succeed(*path, "--help")
    assert "--resume" not in text
    assert re.search(r"General:\n(.*\n)* +-h, --help", text)
    for one in command.params:
        if isinstance(one, click.Option) and not one.hidden:
            assert one.help, one.name
            assert " ".join(str(one.help).split()[:3]) in " ".join(text.split()), one.name


def test_summaries_are_not_cut() -> None:
    for group in ([], ["noise"], ["figure"], ["data"], ["network"]):
        assert "..." not in succeed(*group, "--help").partition("Commands:")[2]


def test_commands_share_their_defaults() -> None:
    shared: dict[str, set[object]] = {"xflip": set(), "device": set(), "n_samples": set()}
    for path, command in COMMANDS:
        for one in command.params:
            # Pictures and pages show a few images, or all that there are.
            if (
                one.name in shared
                and not getattr(one, "hidden", False)
                and not (path[0] in ("explain", "figure") and one.name == "n_samples")
            ):
                shared[one.name].add(one.default)
    assert shared == {"xflip": {True}, "device": {"auto"}, "n_samples": {50}}


def test_commands_show_only_what_they_take() -> None:
    forward, maps = (succeed(*path, "--help") for path in (["noise", "forward"], ["heatmaps"]))
    assert "--batch" not in forward and "--device" not in forward
    assert "--smoothing" not in maps and "--num-draws" not in maps and "cfdm" not in maps
    data = random_data(Path("data.npy"), 9, 1, 4, 4)
    result = invoke("noise", "forward", "--data", data, "--outdir", "out", "--batch", 3, "--n", 2, "--n-steps", 2)
    assert result.exit_code == 0
    assert "--batch is deprecated" in result.stderr


NETWORKS = """
import torch


def raising(z, sigma):
    raise ValueError("first\\nsecond")


def labelled(z, sigma, class_labels):
    return z


def hungry(z, sigma):
    raise MemoryError


def nan(z, sigma):
    return z * float("nan")
"""
RAISED = {
    "raising": "failed: ValueError: first; --verbose shows where",
    "labelled": "missing 1 required positional argument: 'class_labels' (it was called without class labels)",
    "hungry": "raised MemoryError; --verbose shows where",
    "nan": "holds nan",
}


@pytest.mark.parametrize("command", ["sample", "denoise", "noise reverse", "compare", "heatmaps"])
@pytest.mark.parametrize("name", RAISED)
def test_what_a_network_raises_is_one_line_that_names_it(tmp_path: Path, command: str, name: str) -> None:
    if (command, name) == ("heatmaps", "nan"):
        pytest.skip("heat maps of a function without gradients are refused before they are NaN")
    Path("nets_of_habits.py").write_text(NETWORKS)
    data = random_data(tmp_path / "data.npy", 9, 1, 4, 4)
    words: list[object] = [*command.split(), "--data", data, "--outdir", tmp_path / "out", "--n", 2, "--n-steps", 3]
    words += ["--target" if command == "compare" else "--network", f"nets_of_habits:{name}"]
    words += ["--denoisers", "empirical"] if command == "compare" else []
    words += [] if command in ("compare", "noise reverse") else ["--denoiser", "network"]
    words += ["--t-idx", 1] if command == "denoise" else []
    line = fail(1, *words)
    assert RAISED[name] in line
    if name != "nan":
        assert f"nets_of_habits.{name}" in line
        shown = invoke(*words, "--verbose").stderr
        assert "Traceback (most recent call last)" in shown
        assert shown == invoke("--verbose", *words).stderr
    assert not list((tmp_path / "out").glob("*.np*")) if (tmp_path / "out").exists() else True


def test_a_module_that_fails_when_it_is_imported_is_named(tmp_path: Path) -> None:
    Path("broken_of_habits.py").write_text("x = 1 / 0\n")
    data = random_data(tmp_path / "data.npy", 9, 1, 4, 4)
    words = ["sample", "--denoiser", "network", "--network", "broken_of_habits:x", "--data", data, "--outdir", "out"]
    line = fail(1, *words)
    assert "the network broken_of_habits:x cannot be imported: ZeroDivisionError: division by zero" in line
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["../..", "a/b", "..", "", "/tmp/x", "a\\b", "c:d", "a\nb"])
def test_names_of_files_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    data = random_data(tmp_path / "data.npy", 9, 1, 4, 4)
    words = ["fit-schedule", "--data", data, "--outdir", tmp_path / "out", "--target", "empirical", "--name", name]
    assert "is not the name of a file in --outdir" in fail(2, *words)
    assert names(tmp_path) == ["data.npy"]


def test_a_folder_that_cannot_be_written_is_found_before_data_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in ("sample", "denoise", "noise forward", "heatmaps"):
        more = ["--t-idx", 0] if command == "denoise" else []
        line = fail(1, *command.split(), "--data", "missing", "--outdir", tmp_path / "file" / "below", *more)
        assert "cannot be written" in line, command


def test_progress_is_lines_where_stderr_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with ProgressBar("img", "reading") as progress:
        progress(4, 4)
    assert re.fullmatch(r"reading: 100%.* 4/4 \[.*\]\n", stderr.getvalue())
    with ProgressBar("img", "reading", delay=60) as progress:
        progress(4, 4)
    assert stderr.getvalue().count("\n") == 1


@pytest.mark.parametrize("stream", [None, "closed", "full"])
def test_progress_that_cannot_be_shown_ends_nothing(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    broken = None if stream is None else Full()
    if stream == "closed" and broken is not None:
        broken.close()
    monkeypatch.setattr(sys, "stderr", broken)
    with ProgressBar("img", "reading") as progress:
        for done in range(5):
            progress(done, 4)
    assert "4 of 4" in repr(progress)
