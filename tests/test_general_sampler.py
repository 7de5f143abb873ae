"""The general sampler and its parts; complete runs of the published samplers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edm_vectors import meta, network, relative_error, tensor, vectors
from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.samplers import sample_edm, sample_euler, sample_general, sample_heun
from pspc_rs.samplers.design_space import (
    DISCRETIZATIONS,
    LinearSchedule,
    NoiseSchedule,
    VESchedule,
    VPSchedule,
    iddpm_sigmas,
    noise_schedule,
    noise_table,
    ve_sigmas,
    vp_sigmas,
)
from pspc_rs.sigmas import edm_sigmas

RANGES = {"vp": (None, None), "ve": (0.02, 100.0), "iddpm": (0.002, 81.0), "edm": (0.002, 80.0)}


def normal_data(x: NDArray[Any], sigma: NDArray[Any]) -> NDArray[Any]:
    """The denoiser of data that are standard normal."""
    denoised: NDArray[Any] = x / (1 + sigma[:, None, None, None] ** 2)
    return denoised


def start(sigma: float, dtype: Any = np.float64) -> NDArray[Any]:
    noise: NDArray[Any] = np.random.default_rng(0).standard_normal((2, 1, 3, 3)) * sigma
    return noise.astype(dtype)


@pytest.mark.parametrize("num_steps", [6, 18, 40, 256])
def test_steps_of_edm(test_data: Path, num_steps: int) -> None:
    wanted = vectors(test_data, "sampler")[f"t_steps_{num_steps}"]
    np.testing.assert_allclose(edm_sigmas(num_steps), wanted, rtol=1e-13)


ITEMS = (
    "edm_det_6",
    "edm_det_18",
    "edm_stoch_8",
    "edm_cond_5",
    "ve_net_edm_6",
    "iddpm_net_edm_6",
    "ablation_vp_euler_10",
    "ablation_vp_heun_edmsteps_8",
    "ablation_ve_euler_10",
    "ablation_linear_8",
)


def test_every_run_is_known(test_data: Path) -> None:
    assert [item["name"] for item in meta(test_data, "sampler")["items"]] == list(ITEMS)


@pytest.mark.parametrize("name", ITEMS)
@pytest.mark.parametrize(("wide", "general"), [(False, False), (False, True), (True, False)])
def test_published_runs(test_data: Path, name: str, wide: bool, general: bool) -> None:
    """``wide``: the network, too, computes in float64."""
    item = next(item for item in meta(test_data, "sampler")["items"] if item["name"] == name)
    own = {key.split("/", 1)[1]: value for key, value in vectors(test_data, "sampler").items() if key.startswith(name)}
    kwargs = dict(item["kwargs"])
    general = general or item["sampler"] == "ablation_sampler"
    net = network(test_data, item["network_vector_file"].removesuffix(".npz"), torch.float64 if wide else torch.float32)
    low, high = RANGES[kwargs.get("discretization", "edm")]
    low = net.sigma_min if low is None else max(low, net.sigma_min)
    high = net.sigma_max if high is None else min(high, net.sigma_max)
    if kwargs.get("discretization") == "vp":
        low = max(VPSchedule().sigma(1e-3), net.sigma_min)
    grid = DISCRETIZATIONS[kwargs.pop("discretization", "edm")](kwargs.pop("num_steps"), low, high)
    grid = np.append(net.round_sigma(grid[:-1]), 0.0)
    calls: list[float] = []

    def model(x: torch.Tensor, sigma: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        assert x.dtype == sigma.dtype == torch.float64
        calls.append(float(sigma[0]))
        denoised: torch.Tensor = net(x, sigma, class_labels)
        return denoised

    step = [0]
    drawn = own.get("noise")
    if drawn is not None:
        kwargs["noise"] = lambda x: tensor(drawn[step[0]], x.dtype)
    if general and "iddpm" in name:
        kwargs["round_sigma"] = net.round_sigma
    if "class_labels" in own:
        kwargs["extra_args"] = {"class_labels": tensor(own["class_labels"])}
    x = tensor(own["latents"], torch.float64) * grid[0]
    sampler: Any = sample_general if general else sample_edm
    found = sampler(model, x, grid, callback=lambda told: step.__setitem__(0, told["i"] + 1), **kwargs)
    assert relative_error(found, own["x_final_all_f64" if wide else "x_final"]) < (1e-6 if wide else 5e-6)
    assert len(calls) == item["network_calls"]
    # Limits of the VP network are float32 numbers.
    np.testing.assert_allclose(calls, own["call_sigma"], rtol=1e-7)
    if not wide:
        pixels = np.clip(127.5 * found.numpy() + 128, 0, 255).astype(np.uint8)
        apart = pixels.astype(int) - own["uint8_nchw"].astype(int)
        assert np.abs(apart).max() <= 1
        assert (apart == 0).mean() > 0.995


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_the_defaults_are_heun(num_steps: int) -> None:
    grid = edm_sigmas(num_steps)
    x = start(grid[0])
    np.testing.assert_allclose(
        sample_general(normal_data, x, grid), sample_heun(normal_data, x, grid), rtol=1e-9, atol=1e-12
    )
    euler = sample_general(normal_data, x, grid, solver="euler")
    np.testing.assert_allclose(euler, sample_euler(normal_data, x, grid), rtol=1e-9, atol=1e-12)
    churned = {"S_churn": 5.0, "S_min": 0.1, "S_max": 50.0, "S_noise": 1.01, "noise": 3}
    found = sample_general(normal_data, x, grid, **churned)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, sample_edm(normal_data, x, grid, **churned), rtol=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["linear", "ve", "vp", VPSchedule(5.0, 1.0)])
@pytest.mark.parametrize("scaling", ["none", "vp"])
@pytest.mark.parametrize(("solver", "alpha"), [("euler", 1.0), ("heun", 1.0), ("heun", 0.5), ("heun", 2 / 3)])
def test_every_case_converges_to_the_exact_solution(
    schedule: str | NoiseSchedule, scaling: str, solver: str, alpha: float
) -> None:
    """For standard normal data, z / sqrt(1 + sigma^2) does not change."""
    errors = []
    for steps in (20, 40):
        grid = edm_sigmas(steps, 0.01, 20.0, 3.0)[:-1]
        x = start(20.0)
        exact = x * math.sqrt((1 + 0.01**2) / (1 + 20.0**2))
        found = sample_general(normal_data, x, grid, schedule=schedule, scaling=scaling, solver=solver, alpha=alpha)
        errors.append(np.abs(found - exact).max() / np.abs(exact).max())
    assert errors[1] < (0.4 if solver == "euler" else 0.05)
    # Once halved steps, errors fall by two or four; scaled images of normal data may have none at all.
    assert errors[1] < errors[0] / (1.5 if solver == "euler" else 2.5) or errors[1] < 1e-6


@given(st.floats(1e-3, 100.0), st.sampled_from([LinearSchedule(), VESchedule(), VPSchedule(), VPSchedule(1e-9, 1.0)]))
def test_schedules(sigma: float, schedule: NoiseSchedule) -> None:
    t = schedule.time(sigma)
    assert schedule.sigma(t) == pytest.approx(sigma, rel=1e-9)
    width = 1e-6 * t
    slope = (schedule.sigma(t + width) - schedule.sigma(t - width)) / (2 * width)
    assert schedule.slope(t) == pytest.approx(slope, rel=1e-4)
    assert schedule.time(0.0) == 0 == schedule.sigma(0.0)


def test_a_vp_schedule_passes_through_two_levels() -> None:
    schedule = VPSchedule.through(0.01, 80.0)
    assert schedule.sigma(1e-3) == pytest.approx(0.01, rel=1e-9)
    assert schedule.sigma(1.0) == pytest.approx(80.0, rel=1e-9)


@pytest.mark.parametrize("name", DISCRETIZATIONS)
@given(st.integers(1, 100))
def test_discretisations_fall_from_one_end_to_the_other(name: str, num_steps: int) -> None:
    grid = DISCRETIZATIONS[name](num_steps, 0.02, 60.0)
    assert grid.shape == (num_steps + 1,)
    assert grid[-1] == 0
    assert (np.diff(grid) < 0).all()
    assert grid[0] <= 60 * (1 + 1e-9)
    assert grid[-2] >= 0.02 * (1 - 1e-9)
    if name != "iddpm" and num_steps > 1:
        np.testing.assert_allclose([grid[0], grid[-2]], [60.0, 0.02], rtol=1e-9)


def test_iddpm_levels_are_levels_of_the_table() -> None:
    table = set(noise_table(1000, 0.001, 0.008))
    assert set(iddpm_sigmas(50).tolist()) <= table


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: vp_sigmas(0), "num_steps is 0"),
        (lambda: vp_sigmas(5, epsilon_s=1.0), "epsilon_s is 1"),
        (lambda: vp_sigmas(5, sigma_min=3.0, sigma_max=2.0), "sigma_max is 2, below sigma_min, which is 3"),
        (lambda: vp_sigmas(5, sigma_min=2.0, sigma_max=2.5), "no VP schedule has sigma 2 at the time 0.001"),
        (lambda: ve_sigmas(5, sigma_min=0.0), "sigma_min is 0"),
        (lambda: ve_sigmas(5, 1.0, 1.0), "cannot be told apart"),
        (lambda: iddpm_sigmas(2000), "fewer than 2000"),
        (lambda: noise_schedule("cosine", 0.1, 1.0), "schedule is 'cosine'"),
        (lambda: sample_general(normal_data, start(1.0), [1.0, 0.0], solver="rk4"), "solver is 'rk4'; .* euler, heun"),
        (lambda: sample_general(normal_data, start(1.0), [1.0, 0.0], scaling="ve"), "scaling is 've'; .* none, vp"),
        (lambda: sample_general(normal_data, start(1.0), [1.0, 0.0], alpha=0.0), "alpha is 0"),
        (lambda: sample_general(normal_data, start(1.0), [1.0, 0.0], S_churn=-1.0), "S_churn is -1"),
    ],
)
def test_bad_arguments(call: Any, words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        call()


def test_a_schedule_has_three_functions() -> None:
    with pytest.raises(DTypeError, match="schedule is a int"):
        sample_general(normal_data, start(1.0), [1.0, 0.0], schedule=3)  # type: ignore[arg-type]


def test_trajectories_are_in_the_units_of_the_model() -> None:
    grid = vp_sigmas(6, 0.01, 80.0)
    states = sample_general(normal_data, start(80.0, np.float32), grid, schedule="vp", scaling="vp", trajectory=True)
    assert states.shape == (7, 2, 1, 3, 3)
    assert states.dtype == np.float32
    np.testing.assert_array_equal(states[0], start(80.0, np.float32))
    assert states[1].std() > 1.5 * states[-1].std()
