"""Arrays that are computed batch by batch and resumed: parts, settings, completeness."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from command_line import names
from pspc_rs.errors import DTypeError, OutputError
from pspc_rs.outputs import ResumableArray, save_array, settings_key

SETTINGS = {"seed": 0, "sigmas": (2.0, 1.0), "denoiser": "empirical"}


def batch(index: int) -> NDArray[np.float32]:
    return np.full((2, 3), index, np.float32)


def compute(run: ResumableArray, num: int, stop_after: int | None = None) -> list[int]:
    computed = run.pending(num)[:stop_after]
    for index in computed:
        run.keep(index, batch(index))
    return computed


def test_an_undisturbed_run_leaves_the_output_its_record_and_nothing_else(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    assert compute(run, 3) == [0, 1, 2]
    run.finish(3, {"command": "test"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.npy"]
    assert np.array_equal(np.load(run.output), np.concatenate([batch(0), batch(1), batch(2)]))
    record = json.loads(run.record_path.read_text())
    assert record["command"] == "test"
    assert record["settings"] == {**SETTINGS, "sigmas": [2.0, 1.0]}


def test_resuming_computes_only_what_is_missing(tmp_path: Path) -> None:
    compute(ResumableArray(tmp_path / "out.npy", SETTINGS), 4, stop_after=2)
    assert not (tmp_path / "out.npy").exists()
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    assert compute(run, 4) == [2, 3]
    run.finish(4, {})
    assert np.load(run.output)[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_batch_that_cannot_be_read_is_computed_again(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 2)
    (part,) = run.parts.glob("batch_0001.*.npy")
    part.write_bytes(b"")
    assert run.pending(2) == [1]


def test_batches_of_other_settings_are_kept_apart_and_named(tmp_path: Path) -> None:
    compute(ResumableArray(tmp_path / "out.npy", SETTINGS), 2)
    other = {**SETTINGS, "seed": 5, "rank": 3}
    with pytest.raises(OutputError, match=r"seed was 0, is 5; rank was null, is 3; continue that run") as caught:
        ResumableArray(tmp_path / "out.npy", other)
    assert "denoiser" not in str(caught.value)
    assert "--overwrite" in str(caught.value)
    with ResumableArray(tmp_path / "out.npy", other, overwrite=True) as run:
        assert run.pending(2) == [0, 1]
    assert ResumableArray(tmp_path / "out.npy", SETTINGS).pending(2) == []
    with ResumableArray(tmp_path / "out.npy", other, overwrite=True) as run:
        compute(run, 2)
        run.finish(2, {})
    assert names(tmp_path) == ["out.json", "out.npy"]


def test_batches_without_settings_are_not_trusted(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 2)
    (settings,) = run.parts.glob("settings.*.json")
    settings.unlink()
    run.close()
    assert ResumableArray(tmp_path / "out.npy", SETTINGS).pending(2) == [0, 1]


def test_what_killed_runs_and_earlier_versions_left_is_swept(tmp_path: Path) -> None:
    parts = tmp_path / ".out.npy.parts"
    parts.mkdir()
    for name in ("lock", "batch_0000.npy", "settings.json", ".batch_0001.0123456789ab.npy.77.tmp"):
        (parts / name).write_bytes(b"")
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    assert [path.name.split(".")[0] for path in sorted(parts.iterdir())] == ["lock", "settings"]
    compute(run, 1)
    run.finish(1, {})
    assert names(tmp_path) == ["out.json", "out.npy"]


def finished(folder: Path) -> ResumableArray:
    run = ResumableArray(folder / "out.npy", SETTINGS)
    compute(run, 1)
    run.finish(1, {})
    return run


def test_a_finished_output_with_other_settings_is_only_replaced_on_demand(tmp_path: Path) -> None:
    before = finished(tmp_path).output.read_bytes()
    with pytest.raises(OutputError, match=r"is there already, with other settings: seed was 0, is 5; replace it with"):
        ResumableArray(tmp_path / "out.npy", {**SETTINGS, "seed": 5})
    assert (tmp_path / "out.npy").read_bytes() == before
    assert names(tmp_path) == ["out.json", "out.npy"]
    again = ResumableArray(tmp_path / "out.npy", {**SETTINGS, "seed": 5}, overwrite=True)
    assert not again.complete
    assert again.pending(1) == [0]


def test_an_output_of_unknown_settings_is_only_replaced_on_demand(tmp_path: Path) -> None:
    np.save(tmp_path / "out.npy", np.zeros(3))
    with pytest.raises(OutputError, match="is there already, and no record says with which settings"):
        ResumableArray(tmp_path / "out.npy", SETTINGS)
    assert not ResumableArray(tmp_path / "out.npy", SETTINGS, overwrite=True).complete


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_finished_output_is_complete_if_it_is_intact(tmp_path: Path, overwrite: bool) -> None:
    run = finished(tmp_path)
    with ResumableArray(run.output, SETTINGS, overwrite=overwrite) as again:
        assert again.complete
    assert not run.parts.exists()
    run.output.write_bytes(b"damaged")
    assert not ResumableArray(run.output, SETTINGS, overwrite=overwrite).complete


def test_killed_while_removing_parts_counts_as_complete(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 1)
    kept = {path.name: path.read_bytes() for path in run.parts.iterdir()}
    run.finish(1, {})
    run.parts.mkdir()
    for name, content in kept.items():
        (run.parts / name).write_bytes(content)
    with ResumableArray(tmp_path / "out.npy", SETTINGS) as again:
        assert again.complete
    assert not run.parts.exists()


def test_killed_between_output_and_record_goes_on(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 1)
    run.close()
    np.save(run.output, batch(0))
    again = ResumableArray(tmp_path / "out.npy", SETTINGS)
    assert again.pending(1) == []
    again.finish(1, {})
    assert names(tmp_path) == ["out.json", "out.npy"]


def test_an_output_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 1)
    (tmp_path / "out.npy").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        run.finish(1, {})
    assert run.pending(1) == []
    run.close()
    with pytest.raises(OutputError, match="it is a folder"):
        ResumableArray(tmp_path / "out.npy", SETTINGS)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        ResumableArray(tmp_path / "file" / "out.npy", SETTINGS)


def test_a_refused_output_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(DTypeError, match="cannot be recorded"):
        ResumableArray(tmp_path / "new" / "deep" / "out.npy", {"seed": object()})
    assert names(tmp_path / "new") == []


@given(
    dtype=st.sampled_from([np.uint8, np.bool_, np.float32, np.float64, np.int64]),
    shape=st.lists(st.integers(0, 4), max_size=4).map(tuple),
    turned=st.booleans(),
)
def test_arrays_are_written_as_numpy_writes_them(
    tmp_path_factory: pytest.TempPathFactory, dtype: type, shape: tuple[int, ...], turned: bool
) -> None:
    path = tmp_path_factory.mktemp("array") / "a.npy"
    array: NDArray[np.generic] = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    array = array.T if turned else array
    save_array(path, array)
    assert np.load(path).dtype == dtype
    assert np.array_equal(np.load(path), array)
    expected = io.BytesIO()
    np.save(expected, np.ascontiguousarray(array).reshape(array.shape))
    assert path.read_bytes() == expected.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("size", [1, 100, 1_000_000])
def test_a_full_disk_is_noticed_whatever_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    @contextlib.contextmanager
    def full(path: Path) -> Iterator[Path]:
        yield Path("/dev/full")

    monkeypatch.setattr("pspc_rs.outputs.replacing", full)
    with pytest.raises(OSError, match="No space left"):
        save_array(tmp_path / "a.npy", np.zeros(size))


settings_of_runs = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2) | st.floats(0, 1), max_size=3)


@given(first=settings_of_runs, second=settings_of_runs, stop=st.integers(0, 3), overwrite=st.booleans())
def test_an_output_never_mixes_two_settings(
    tmp_path_factory: pytest.TempPathFactory,
    first: dict[str, float],
    second: dict[str, float],
    stop: int,
    overwrite: bool,
) -> None:
    folder = tmp_path_factory.mktemp("mix")
    marks = {settings_key(one): index for index, one in enumerate((first, second))}

    def run(settings: dict[str, float], until: int, replacing: bool) -> None:
        with ResumableArray(folder / "out.npy", settings, overwrite=replacing) as stored:
            if stored.complete:
                return
            for index in stored.pending(3)[:until]:
                stored.keep(index, np.full(2, marks[settings_key(settings)]))
            if not stored.pending(3):
                stored.finish(3, {})

    run(first, stop, False)
    with contextlib.suppress(OutputError):
        run(second, 3, overwrite)
    run(first, 3, True)
    run(second, 3, True)
    assert (np.load(folder / "out.npy") == marks[settings_key(second)]).all()
    assert names(folder) == ["out.json", "out.npy"]
