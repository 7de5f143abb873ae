"""Arrays that are computed batch by batch and resumed: parts, settings, completeness."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pspc_rs.errors import OutputError
from pspc_rs.outputs import ResumableArray

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
    run = ResumableArray(tmp_path / "out.npy", SETTINGS, resume=True)
    assert compute(run, 4) == [2, 3]
    run.finish(4, {})
    assert np.load(run.output)[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_batch_that_cannot_be_read_is_computed_again(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 2)
    (run.parts / "batch_0001.npy").write_bytes(b"")
    assert run.pending(2) == [1]


def test_without_resume_earlier_batches_are_removed(tmp_path: Path) -> None:
    compute(ResumableArray(tmp_path / "out.npy", SETTINGS), 2)
    assert ResumableArray(tmp_path / "out.npy", SETTINGS).pending(2) == [0, 1]


def test_batches_without_settings_are_not_trusted(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 2)
    (run.parts / "settings.json").unlink()
    assert ResumableArray(tmp_path / "out.npy", SETTINGS, resume=True).pending(2) == [0, 1]


def test_resuming_with_other_settings_names_them(tmp_path: Path) -> None:
    compute(ResumableArray(tmp_path / "out.npy", SETTINGS), 1)
    with pytest.raises(OutputError, match=r"seed was 0, is 5; rank was null, is 3") as caught:
        ResumableArray(tmp_path / "out.npy", {**SETTINGS, "seed": 5, "rank": 3}, resume=True)
    assert "denoiser" not in str(caught.value)


def test_a_finished_output_with_other_settings_is_not_resumed_but_replaced(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 1)
    run.finish(1, {})
    with pytest.raises(OutputError, match="seed was 0, is 5"):
        ResumableArray(tmp_path / "out.npy", {**SETTINGS, "seed": 5}, resume=True)
    again = ResumableArray(tmp_path / "out.npy", {**SETTINGS, "seed": 5})
    assert not again.complete
    assert again.pending(1) == [0]


def test_a_finished_output_is_complete_only_with_resume_and_intact(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 1)
    run.finish(1, {})
    assert ResumableArray(run.output, SETTINGS, resume=True).complete
    assert not run.parts.exists()
    run.output.write_bytes(b"damaged")
    assert not ResumableArray(run.output, SETTINGS, resume=True).complete


def test_killed_while_removing_parts_counts_as_complete(tmp_path: Path) -> None:
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 1)
    run.finish(1, {})
    run.parts.mkdir()
    (run.parts / "batch_0000.npy").write_bytes(b"rest")
    assert ResumableArray(run.output, SETTINGS, resume=True).complete
    assert not run.parts.exists()


def test_an_output_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "out.npy").mkdir()
    run = ResumableArray(tmp_path / "out.npy", SETTINGS)
    compute(run, 1)
    with pytest.raises(OutputError, match="cannot be written"):
        run.finish(1, {})
    assert run.pending(1) == []
