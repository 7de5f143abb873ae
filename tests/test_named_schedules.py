"""The schedules that come with the package: fitted ones are what their curves say, published ones what papers say."""

import math
from typing import Any

import numpy as np
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
        assert 0.05 <= sigma <= (0.78 if "bfcnn" in name else 2)  # within what the network was trained for
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
    assert sides[-1] == (1 if "bfcnn" in name else 3)  # 3 was the smallest candidate of the others


def test_names_stand_for_schedules_wherever_one_is_asked_for() -> None:
    assert resolve_patch_schedule("mnist-bp", 28) == pspc.patch_schedule("mnist-bp")
    with pytest.raises(ScheduleError, match="is for 28 x 28 images"):
        resolve_patch_schedule("mnist-bp", 32)
    with pytest.raises(
        ScheduleError, match=r"'cifar10', 'kamb-cifar10-resnet', .*'kamb-mnist-unet', 'afhq-cats-64-bfcnn'"
    ):
        pspc.patch_schedule("celeba")


KAMB = {
    "kamb-cifar10-resnet": "3 3 3 5 5 5 7 7 7 7 9 9 11 11 13 15 17 17 17",
    "kamb-cifar10-resnet-circular": "3 3 3 5 5 5 5 7 7 7 9 9 11 11 13 13 15 15 15",
    "kamb-cifar10-unet": "3 3 3 5 5 5 5 7 7 7 7 9 9 11 13 13 15 17 25",
    "kamb-fashion-resnet": "3 5 5 7 7 9 9 9 11 11 11 13 13 13 15 15 15 17 17",
    "kamb-fashion-unet": "3 5 5 7 7 7 9 11 11 11 13 15 15 21 23 25 25 25 25",
    "kamb-mnist-resnet": "3 5 5 5 7 7 7 9 9 11 11 11 11 13 15 15 15 15 15",
    "kamb-mnist-unet": "3 3 5 5 7 7 7 9 9 9 11 13 15 17 21 23 23 25 27",
}


@pytest.mark.parametrize("name", KAMB)
def test_kamb_and_gangulis_sides_are_those_of_their_times(name: str) -> None:
    schedule = pspc.patch_schedule(name)
    upward = [int(side) for side in KAMB[name].split()]
    assert [schedule.at(math.tan(math.pi * i / 40.32)) for i in range(1, 20)] == upward
    np.testing.assert_allclose(schedule.sigmas[:3] + schedule.sigmas[-1:], (11.034, 5.8856, 3.9791, 0.07807), rtol=1e-4)
    assert (len(schedule.sigmas), schedule.image_size, schedule.name) == (19, (32, 32), name)
    assert "2412.20292" in schedule.provenance["source"]


def test_kamb_and_gangulis_sides_suit_every_windowed_denoiser() -> None:
    data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (5, 1, 32, 32), dtype=np.uint8))
    z = np.zeros((1, 1, 32, 32))
    for name in KAMB:
        pspc.PSPCSquare(data, name)
        denoisers: list[Any] = [kind(data, name) for kind in (pspc.LS, pspc.ELS, pspc.BBELS)]
        assert {D.schedule.patch_sizes for D in denoisers} == {pspc.patch_schedule(name).patch_sizes}
    same = pspc.LS(data, window_sizes=25)(z, 11.0)
    np.testing.assert_array_equal(pspc.LS(data, "kamb-cifar10-unet")(z, 11.0), same)
