"""Schedules of window sides and thresholds: published ones, files, scaling, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pspc_rs.errors import DTypeError, InvalidValueError, MissingFileError, PspcError, ScheduleError, ShapeError
from pspc_rs.schedules import (
    FULL,
    PatchSchedule,
    ThresholdSchedule,
    patch_schedule,
    resolve_patch_schedule,
    resolve_threshold_schedule,
    threshold_schedule,
)
from pspc_rs.sigmas import edm_sigmas

SIDES = [32, 32, 32, 32, 32, 32, 32, 23, 15, 11, 7, 5, 3, 3, 3, 3, 3, 3]
THRESHOLDS = [1, 1, 1, 1, 1, 1, 1, 0.7, 0.7, 0.5, 0.4, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3, 0.3]


def custom(sides: Any, size: int | tuple[int, int] = 8, **options: Any) -> PatchSchedule:
    return resolve_patch_schedule(sides, size, **options)


def test_published_schedules() -> None:
    grid = edm_sigmas(18, include_zero=False)
    patches, thresholds = patch_schedule("cifar10"), threshold_schedule("cifar10")
    assert [32 if side == FULL else side for side in patches.at(grid)] == SIDES
    assert thresholds.at(grid) == THRESHOLDS
    assert patches.image_size == thresholds.image_size == (32, 32)
    assert patches.sigmas == thresholds.sigmas == tuple(grid.tolist())
    assert "2411.19339" in patches.provenance["source"]


def test_schedules_are_golden(test_data: Path) -> None:
    with np.load(test_data / "golden" / "pspc-golden-cifar.npz") as golden:
        sides = [32 if side == FULL else side for side in patch_schedule("cifar10").at(golden["t"])]
        assert sides == golden["patch_sizes"].tolist()
        np.testing.assert_array_equal(np.float32(threshold_schedule("cifar10").at(golden["t"])), golden["thresholds"])


@pytest.mark.parametrize("make", [patch_schedule, threshold_schedule])
def test_unknown_names_are_refused_with_the_known_ones(make: Any) -> None:
    with pytest.raises(ScheduleError, match="'ffhq'; allowed are 'cifar10'"):
        make("ffhq")


def test_sigma_between_levels_takes_the_nearest() -> None:
    sides = custom([5, 3], sigmas=[10.0, 1.0])
    assert [sides.at(s) for s in (100.0, 5.6, 5.4, 0.1)] == [5, 5, 3, 3]
    assert custom([5, 3], sigmas=[10.0, 1.0], nearest="log").at(4.0) == 5
    assert sides.at(np.array(10.0)) == 5
    assert sides.at(torch.full((2, 1, 1, 1), 10.0)) == [5, 5]
    with pytest.raises(InvalidValueError, match="sigma is"):
        sides.at(0.0)


def test_full_is_one_thing() -> None:
    assert custom([8, "full", 7]).patch_sizes == (FULL, FULL, 7)
    assert custom([5, "full"], (5, 6)).patch_sizes == (5, FULL)
    assert custom(1, 1).at(1.0) == FULL


@pytest.mark.parametrize("given_as", [list, tuple, np.array, torch.tensor])
def test_lists_and_arrays(given_as: Any) -> None:
    sides = custom(given_as([7, 5, 3]))
    assert sides.patch_sizes == (7, 5, 3) and all(type(side) is int for side in sides.patch_sizes)
    assert sides.sigmas == tuple(edm_sigmas(3, include_zero=False).tolist())
    thresholds = resolve_threshold_schedule(given_as([1.0, 0.5, 0.25]), 8)
    assert thresholds.thresholds == (1.0, 0.5, 0.25)


def test_the_zero_of_a_sampling_grid_is_dropped() -> None:
    assert custom([7, 5, 3], sigmas=edm_sigmas(3)).sigmas == custom([7, 5, 3]).sigmas
    assert custom(3, sigmas=edm_sigmas(4)).patch_sizes == (3,) * 4


@given(st.floats(1e-6, 1e9))
def test_one_value_holds_everywhere(sigma: float) -> None:
    assert custom(3).at(sigma) == 3
    assert custom("full", (4, 9)).at(sigma) == FULL
    assert resolve_threshold_schedule(1, (4, 9)).at(sigma) == 1.0


@pytest.mark.parametrize("side", [9, 100])
def test_oversized_windows_are_refused(side: int) -> None:
    with pytest.raises(
        InvalidValueError, match=rf"window side is {side}, but the images are 8 x 12; allowed are 1 to 8"
    ):
        custom(side, (8, 12))


@pytest.mark.parametrize(
    ("sides", "error", "message"),
    [
        (0, InvalidValueError, "window side is 0"),
        ([3, -1], InvalidValueError, "window side is -1"),
        (3.0, DTypeError, "window side is 3.0"),
        (np.array([3.0]), DTypeError, "window side is 3.0"),
        (True, DTypeError, "window side is True"),
        (None, DTypeError, "window side is None"),
        ({"a": 1}, DTypeError, "window side"),
        (["3"], DTypeError, "window side is '3'"),
        ([[3, 5]], DTypeError, "window side"),
        ([], ScheduleError, "patch_sizes is empty"),
        ("nine", ScheduleError, "no patch schedule 'nine'"),
    ],
)
def test_bad_sides(sides: object, error: type[PspcError], message: str) -> None:
    with pytest.raises(error, match=message):
        custom(sides)


@pytest.mark.parametrize(
    ("thresholds", "error"),
    [(0.0, InvalidValueError), (1.01, InvalidValueError), (np.nan, InvalidValueError), ("a", ScheduleError)],
)
def test_bad_thresholds(thresholds: object, error: type[PspcError]) -> None:
    with pytest.raises(error, match="threshold"):
        resolve_threshold_schedule(thresholds, 8)


def test_as_many_values_as_levels() -> None:
    with pytest.raises(ScheduleError, match="patch_sizes has 3 entries for 2 noise levels"):
        custom([7, 5, 3], sigmas=[10.0, 1.0, 0.0])


def test_sigmas_belong_to_lists() -> None:
    with pytest.raises(ScheduleError, match="'cifar10' has its own"):
        custom("cifar10", 32, sigmas=edm_sigmas(18))
    with pytest.raises(ScheduleError, match="'custom' has its own"):
        custom(custom([3, 3]), sigmas=edm_sigmas(2))


def test_other_fields_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="nearest is 'cubic'"):
        custom(3, nearest="cubic")
    for size, error in (((8, 8, 8), ShapeError), (8.0, DTypeError), (0, InvalidValueError)):
        with pytest.raises(error, match="image"):
            custom(3, size)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="name is 3"):
        PatchSchedule((3,), (1.0,), (8, 8), name=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="descending"):
        custom([3, 5], sigmas=[1.0, 10.0])


def test_a_schedule_for_other_images_is_refused_with_the_way_out() -> None:
    with pytest.raises(ScheduleError) as caught:
        custom("cifar10", 64)
    for words in ("'cifar10'", "32 x 32", "64 x 64", "list of values", "scale_to=64"):
        assert words in str(caught.value)
    with pytest.raises(ScheduleError, match="scale_to=48"):
        resolve_threshold_schedule(threshold_schedule("cifar10"), (48, 64))


def test_scaling_is_by_the_rule() -> None:
    scaled = custom("cifar10", 64, scale_to=64)
    # 23 -> 46 -> 47, 15 -> 30 -> 31 and so on: odd sides stay odd, halves go up.
    assert scaled.patch_sizes == (FULL,) * 7 + (47, 31, 23, 15, 11) + (7,) * 6
    assert scaled.image_size == (64, 64) and scaled.name == "cifar10, scaled to 64"
    assert scaled.provenance["scaled_from"] == {"name": "cifar10", "image_size": [32, 32]}
    assert custom(custom([6, 4, 3], 8), 12, scale_to=12).patch_sizes == (9, 6, 5)
    assert custom(custom([6, 4, 3], 8), 4, scale_to=4).patch_sizes == (3, 2, 1)
    assert custom("cifar10", 32, scale_to=32) == patch_schedule("cifar10")
    assert resolve_threshold_schedule("cifar10", 64, scale_to=64).thresholds == threshold_schedule("cifar10").thresholds


@given(st.integers(2, 40), st.integers(1, 80), st.integers(1, 80), st.booleans(), st.data())
def test_scaled_sides_fit(old: int, height: int, width: int, long: bool, data: st.DataObject) -> None:
    sides = data.draw(st.lists(st.integers(1, old), min_size=1, max_size=5))
    target = max(height, width) if long else min(height, width)
    scaled = custom(custom(sides, old), (height, width), scale_to=target)
    for side, new in zip(custom(sides, old).patch_sizes, scaled.patch_sizes, strict=True):
        exact = old if side == FULL else side * target / old
        if side == FULL:
            assert new == FULL
        elif new != FULL:
            assert 1 <= new <= min(height, width)
            assert abs(new - min(exact, height, width)) <= 1
            assert new % 2 == 1 or side % 2 == 0 or new == min(height, width)
        else:
            assert height == width and abs(exact - height) <= 1


@pytest.mark.parametrize("bad", [48, 0, 65])
def test_scale_must_be_a_side_of_the_images(bad: int) -> None:
    with pytest.raises(PspcError, match=f"scale_to is {bad}"):
        custom("cifar10", 64, scale_to=bad)


@pytest.mark.parametrize(
    "schedule",
    [
        patch_schedule("cifar10"),
        threshold_schedule("cifar10"),
        PatchSchedule((FULL, 3), (0.1 + 0.2, 1e-5), (4, 9), "mine ü", "log", {"n": 10_000, "target": {"seed": 1}}),
    ],
)
def test_files_lose_nothing(schedule: PatchSchedule | ThresholdSchedule, tmp_path: Path) -> None:
    path = tmp_path / "new" / "schedule.json"
    schedule.save(path)
    loaded = type(schedule).load(str(path))
    assert loaded == schedule and loaded.provenance == schedule.provenance and hash(loaded) == hash(schedule)
    assert [file.name for file in path.parent.iterdir()] == ["schedule.json"]
    keys = {"kind", schedule.kind.replace("patch", "patch_sizes").replace("threshold", "thresholds"), "sigmas"}
    assert keys | {"image_size", "name", "nearest", "provenance"} == set(json.loads(path.read_text("utf-8")))


def test_paths_are_resolved(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    patch_schedule("cifar10").save(path)
    assert custom(path, 32) == custom(str(path), 32) == patch_schedule("cifar10")
    assert custom(path, 32, nearest="log").nearest == "log"
    bare = path.rename(tmp_path / "no-suffix")
    assert custom(str(bare), 32) == patch_schedule("cifar10")
    with pytest.raises(MissingFileError, match=r"missing\.json"):
        custom(tmp_path / "missing.json")
    with pytest.raises(MissingFileError, match=r"missing\.json"):
        custom("missing.json")


def test_the_other_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    threshold_schedule("cifar10").save(path)
    with pytest.raises(ScheduleError, match="kind 'threshold'; needed is 'patch'"):
        custom(path, 32)
    with pytest.raises(ScheduleError, match="kind 'patch'; needed is 'threshold'"):
        resolve_threshold_schedule(patch_schedule("cifar10"), 32)


@pytest.mark.parametrize(
    "change",
    [
        {"patch_sizes": [40, 3]},
        {"patch_sizes": [3]},
        {"patch_sizes": 3},
        {"patch_sizes": None},
        {"sigmas": [1.0, 2.0]},
        {"sigmas": "1, 2"},
        {"sigmas": [[1.0], [2.0, 3.0]]},
        {"image_size": [8]},
        {"image_size": None},
        {"nearest": ["log"]},
        {"name": 3},
        {"provenance": 3},
        {"kind": None},
        {"extra": 1},
    ],
)
def test_damaged_files(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    custom([5, 3]).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ScheduleError, match=r"schedule\.json"):
        PatchSchedule.load(path)


@given(st.binary(max_size=40) | st.sampled_from([b"[" * 100_000, b"null", b"{}", b'{"kind": "patch"}', b"[1]"]))
def test_files_that_are_no_schedules(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bad") / "schedule.json"
    path.write_bytes(content)
    with pytest.raises(ScheduleError, match=r"schedule\.json"):
        PatchSchedule.load(path)


def test_provenance_must_be_json(tmp_path: Path) -> None:
    for what in (object(), float("nan")):
        with pytest.raises(DTypeError, match="provenance"):
            PatchSchedule((3,), (1.0,), (8, 8), provenance={"a": what}).save(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_with_a_byte_order_mark_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.json"
    patch_schedule("cifar10").save(path)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert PatchSchedule.load(path) == patch_schedule("cifar10")


def test_a_folder_is_no_schedule(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match="no JSON file"):
        PatchSchedule.load(tmp_path)
