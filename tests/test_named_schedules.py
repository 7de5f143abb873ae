"""The fitted schedules that come with the package: each is what its own curves and origin say."""

from typing import Any

import pytest

import pspc_rs as pspc
from pspc_rs.errors import ScheduleError
from pspc_rs.schedules import resolve_patch_schedule

NAMED = {"mnist-bp": 28, "mnist-yz": 28, "cifar10-bfcnn": 32, "afhq-cats-64-bfcnn": 64}


@pytest.mark.parametrize("name", NAMED)
def test_values_are_those_of_least_error_on_the_curves(name: str) -> None:
    schedule, side = pspc.patch_schedule(name), NAMED[name]
    assert (schedule.name, schedule.image_size) == (name, (side, side))
    assert len(schedule.sigmas) == 18
    origin: Any = schedule.provenance
    fitted, curves = origin["fitted"], origin["curves"]
    assert fitted["noisy"]["n"] >= 16
    assert {"process", "seed", "network"} <= fitted["noisy"].keys()
    for sigma, errors in zip(curves["sigma"], curves["mse"], strict=True):
        assert 0.05 <= sigma <= 2
        chosen = schedule.at(sigma)
        index = fitted["candidates"].index(side if chosen == "full" else chosen)
        assert errors[index] <= min(errors) * 1.0001
    inside = {*curves["sigma"], *origin["outside"]["sigmas"]}
    assert inside == set(schedule.sigmas)


@pytest.mark.parametrize("name", NAMED)
def test_windows_shrink_with_the_noise(name: str) -> None:
    schedule = pspc.patch_schedule(name)
    sides = [NAMED[name] if side == "full" else side for side in schedule.patch_sizes]
    assert sides == sorted(sides, reverse=True)
    assert schedule.patch_sizes[0] == "full"
    assert sides[-1] == 3


def test_names_stand_for_schedules_wherever_one_is_asked_for() -> None:
    assert resolve_patch_schedule("mnist-bp", 28) == pspc.patch_schedule("mnist-bp")
    with pytest.raises(ScheduleError, match="is for 28 x 28 images"):
        resolve_patch_schedule("mnist-bp", 32)
    with pytest.raises(ScheduleError, match="'cifar10', 'afhq-cats-64-bfcnn', 'cifar10-bfcnn', 'mnist-bp', 'mnist-yz'"):
        pspc.patch_schedule("celeba")
