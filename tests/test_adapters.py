"""Adapters: exact networks of every kind, made of the optimal denoiser of normal data, must give that denoiser back."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import trained_networks
from pspc_rs import errors
from pspc_rs.networks import (
    Adapter,
    ContinuousVP,
    CosineVP,
    DiscreteVP,
    Edm,
    FlowMatching,
    NoiseProcess,
    VarianceExploding,
    with_adapter,
)

MEAN, SPREAD = 0.3, 0.6


def optimal(z: Tensor, sigma: Tensor) -> Tensor:
    """The posterior mean of N(MEAN, SPREAD^2) pixels."""
    return MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) * (z - MEAN)


def column(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


class Kind:
    """A process of its own making: times to (alpha, s), and noise levels it can be asked for."""

    def __init__(
        self, process: NoiseProcess, path: Callable[[Tensor], tuple[Tensor, Tensor]], sigmas: list[float]
    ) -> None:
        self.process, self.path, self.sigmas = process, path, sigmas


BETAS = np.linspace(1e-4, 0.02, 1000)
ABAR = np.cumprod(1 - BETAS)
SCALED = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
_F = np.cos((np.arange(51) / 50 + 0.008) / 1.008 * np.pi / 2) ** 2
COSINE = np.cumprod(1 - np.minimum(1 - _F[1:] / _F[:-1], 0.999))
FREE = [0.05, 0.4, 1.0, 7.0]


def table(abar: np.ndarray[Any, Any]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def path(t: Tensor) -> tuple[Tensor, Tensor]:
        assert t.dtype == torch.int64
        chosen = torch.from_numpy(abar)[t]
        return chosen.sqrt(), (1 - chosen).sqrt()

    return path


def interpolated(t: Tensor) -> tuple[Tensor, Tensor]:
    logs = np.log(np.sqrt((1 - ABAR) / ABAR))
    sigma = torch.from_numpy(np.exp(np.interp(t.numpy(), np.arange(1000), logs)))
    return (1 + sigma**2).rsqrt(), sigma * (1 + sigma**2).rsqrt()


def vp_sde(t: Tensor) -> tuple[Tensor, Tensor]:
    integral = 0.1 * t + 19.9 * t**2 / 2
    return (-integral / 2).exp(), (1 - (-integral).exp()).sqrt()


def levels(abar: np.ndarray[Any, Any], steps: list[int]) -> list[float]:
    return [float(math.sqrt((1 - abar[t]) / abar[t])) for t in steps]


def edm_path(t: Tensor) -> tuple[Tensor, Tensor]:
    sigma = (4 * t).exp()
    alpha = (sigma**2 + 0.25).rsqrt()
    return alpha, alpha * sigma


KINDS = {
    "ve": Kind(VarianceExploding(), lambda t: (torch.ones_like(t), t), FREE),
    "ve log": Kind(VarianceExploding("log_sigma"), lambda t: (torch.ones_like(t), t.exp()), FREE),
    "edm": Kind(Edm(), edm_path, FREE),
    "vp linear": Kind(DiscreteVP.linear(), table(ABAR), levels(ABAR, [0, 3, 500, 999])),
    "vp scaled": Kind(DiscreteVP.scaled_linear(), table(SCALED), levels(SCALED, [0, 200, 999])),
    "vp cosine": Kind(DiscreteVP.cosine(50), table(COSINE), levels(COSINE, [0, 25, 49])),
    "vp interpolated": Kind(DiscreteVP.linear(rounding="interpolate"), interpolated, FREE),
    "vp sde": Kind(ContinuousVP(), vp_sde, FREE),
    "vp angle": Kind(CosineVP(), lambda t: ((math.pi / 2 * t).cos(), (math.pi / 2 * t).sin()), FREE),
    "flow": Kind(FlowMatching(), lambda t: (1 - t, t), FREE),
}

# What a network trained to perfection predicts, given alpha, s, and the posterior means of x and n.
TARGETS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "x0": lambda alpha, s, x, n: x,
    "eps": lambda alpha, s, x, n: n,
    "score": lambda alpha, s, x, n: -n / s,
    "residual": lambda alpha, s, x, n: s / alpha * n,
    "v": lambda alpha, s, x, n: alpha * n - s * x,
    "flow": lambda alpha, s, x, n: n - x,
    "velocity": lambda alpha, s, x, n: x - n,
    # Karras et al. 2022, eq. 8: the effective target, (x - c_skip z) / c_out.
    "edm": lambda alpha, s, x, n: (
        (x - 0.25 / (0.25 + (s / alpha) ** 2) * (x + s / alpha * n))
        / (s / alpha * 0.5 * ((s / alpha) ** 2 + 0.25).rsqrt())
    ),
}


def perfect_network(
    kind: Kind, prediction: str, pixels: tuple[float, float], time: tuple[float, float]
) -> Callable[..., Tensor]:
    """A network that knows the data, seen through its own pixels and times, and its own process."""
    gain, offset = (pixels[1] - pixels[0]) / 2, (pixels[1] + pixels[0]) / 2

    def net(x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        assert t.shape == (len(x_t),)
        alpha, s = (column(one) for one in kind.path(t if time == (1, 0) else (t - time[1]) / time[0]))
        z = x_t / alpha
        sigma = s / alpha
        x = gain * optimal((z - offset) / gain, sigma / gain) + offset
        if labels is not None:
            x = x + column(labels)
        return TARGETS[prediction](alpha, s, x, (z - x) / sigma)

    return net


@given(
    st.sampled_from(list(KINDS)),
    st.sampled_from(list(TARGETS)),
    st.sampled_from([(-1.0, 1.0), (0.0, 1.0), (-0.5, 0.5), (0.0, 255.0)]),
    st.sampled_from([(1.0, 0.0), (0.001, 0.0), (-1.0, 1.0), (0.25, -0.5)]),
    st.integers(0, 10**6),
)
def test_perfect_networks_are_the_optimal_denoiser(
    name: str, prediction: str, pixels: tuple[float, float], time: tuple[float, float], seed: int
) -> None:
    kind = KINDS[name]
    if prediction == "edm":
        kind = KINDS["edm"]
    if isinstance(kind.process, DiscreteVP) and kind.process.rounding == "nearest":
        time = (1.0, 0.0)
    gain = (pixels[1] - pixels[0]) / 2
    net = perfect_network(kind, prediction, pixels, time)
    D = Adapter(net, prediction, kind.process, pixels=pixels, time_scale=time[0], time_offset=time[1])
    sigma = torch.tensor(kind.sigmas, dtype=torch.float64) / gain
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((len(sigma), 2, 3, 4)))
    expected = optimal(x, column(sigma))
    torch.testing.assert_close(D(x, sigma), expected, rtol=1e-7, atol=1e-7)
    labels = torch.arange(len(sigma)) * gain
    torch.testing.assert_close(D(x, sigma, labels), expected + column(labels / gain), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_single_precision_is_enough(name: str) -> None:
    kind = KINDS[name]
    sigma = torch.tensor(kind.sigmas)
    D = Adapter(perfect_network(kind, "x0", (-1, 1), (1, 0)), "x0", kind.process)
    x = torch.randn(len(sigma), 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = D(x, sigma.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, optimal(x, column(sigma)).float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("sigma", [0.5, np.float64(0.5), torch.tensor(0.5), torch.full((3, 1, 1, 1), 0.5)])
def test_one_noise_level_counts_for_all(sigma: Any) -> None:
    D = Adapter(perfect_network(KINDS["flow"], "flow", (0, 1), (1, 0)), "flow", FlowMatching(), pixels=(0, 1))
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(D(x, sigma), optimal(x, torch.tensor(0.5)))


def test_between_two_steps_the_nearer_one_in_log_sigma_is_taken() -> None:
    seen: list[int] = []

    def net(x_t: Tensor, t: Tensor) -> Tensor:
        seen.extend(t.tolist())
        return torch.ones_like(x_t)

    process = DiscreteVP([0.9, 0.5, 0.1])
    low, middle, high = levels(np.array([0.9, 0.5, 0.1]), [0, 1, 2])
    D = Adapter(net, "eps", process)
    wanted = torch.tensor([1e-5, low, (low * middle) ** 0.5 * 1.001, (low * middle) ** 0.5 * 0.999, 99.0])
    x = torch.zeros(5, 1, 1, 1)
    # Noise is subtracted by as much as there is, not by as much as the step stands for.
    torch.testing.assert_close(D(x, wanted).flatten(), -wanted)
    assert seen == [0, 0, 1, 0, 2]
    np.testing.assert_allclose(D.round_sigma(np.array([0.5, 2.9])), [low if (low * middle) ** 0.5 > 0.5 else 1, high])
    assert D.round_sigma(torch.tensor([50.0])).item() == pytest.approx(high)
    assert D.round_sigma(0.01) == pytest.approx(low)


def test_steps_without_noise_or_without_image_are_never_chosen() -> None:
    process = DiscreteVP([1.0, 0.9, 0.1, 0.0])
    assert process.limits() == pytest.approx((1 / 3, 3.0))
    assert process.time(torch.tensor([1e-6, 1e6], dtype=torch.float64)).tolist() == [1, 2]
    between = DiscreteVP([1.0, 0.9, 0.1, 0.0], "interpolate")
    assert between.time(torch.tensor([1 / 3, 1.0, 3.0], dtype=torch.float64)).tolist() == pytest.approx([1, 1.5, 2])


def test_blind_networks_and_further_channels_and_named_labels() -> None:
    blind = Adapter(lambda y: y / 2, "residual", VarianceExploding(), pixels=(0, 1), blind=True, sigma_max=0.8)
    x = torch.randn(2, 1, 2, 2)
    torch.testing.assert_close(blind(x, 0.1), 2 * ((x + 1) / 2 / 2) - 1)
    learned = Adapter(lambda x_t, t: torch.cat((x_t, x_t + 1), 1), "x0", VarianceExploding())
    torch.testing.assert_close(learned(x, 0.1), x)
    named = Adapter(lambda x_t, t, y: x_t + y, "x0", VarianceExploding(), class_argument="y")
    torch.testing.assert_close(named(x, 0.1, torch.ones(2, 1, 1, 1)), x + 1)


def test_ranges_are_in_the_units_of_the_images() -> None:
    D = Adapter(lambda x_t, t: x_t, "eps", DiscreteVP.linear(), pixels=(-0.5, 0.5))
    assert (D.sigma_min, D.sigma_max) == pytest.approx((0.02, 314.8), rel=1e-3)
    D = Adapter(lambda x_t, t: x_t, "eps", ContinuousVP(), sigma_max=3)
    assert (D.sigma_min, D.sigma_max) == pytest.approx((0.001, 3.0), rel=1e-2)


def anything(x_t: Tensor, t: Tensor) -> Tensor:
    return x_t


BAD: dict[str, tuple[type[Exception], str, Callable[[], object]]] = {
    "prediction": (errors.InvalidValueError, "allowed are x0, eps", lambda: Adapter(anything, "noise", Edm())),
    "edm without its process": (
        errors.InvalidValueError,
        "process Edm",
        lambda: Adapter(anything, "edm", FlowMatching()),
    ),
    "process": (errors.DTypeError, "NoiseProcess", lambda: Adapter(anything, "eps", "vp")),  # type: ignore[arg-type]
    "pixels": (errors.InvalidValueError, "growing", lambda: Adapter(anything, "eps", Edm(), pixels=(1, 0))),
    "range": (
        errors.InvalidValueError,
        "below sigma_min",
        lambda: Adapter(anything, "eps", DiscreteVP.linear(), sigma_min=200),
    ),
    "rising table": (errors.InvalidValueError, "falling", lambda: DiscreteVP([0.1, 0.9])),
    "table of nothing": (errors.InvalidValueError, "falling", lambda: DiscreteVP([1.0, 0.0])),
    "betas": (errors.InvalidValueError, "above 0", lambda: DiscreteVP.of_betas([0.1, 1.5])),
    "linear": (errors.InvalidValueError, "grow", lambda: DiscreteVP.linear(beta_start=0.5, beta_end=0.1)),
    "rounding": (errors.InvalidValueError, "interpolate", lambda: DiscreteVP([0.9], "floor")),
    "beta_max": (errors.InvalidValueError, "beta_min", lambda: ContinuousVP(1.0, 0.5)),
    "time_of": (errors.InvalidValueError, "log_sigma", lambda: VarianceExploding("log")),
    "output": (
        errors.ShapeError,
        r"\[1, 2, 3, 2\]",
        lambda: Adapter(lambda x, t: torch.zeros(1, 2, 3, 2), "eps", Edm())(torch.zeros(1, 2, 3, 3), 1.0),
    ),
    "sigma": (
        errors.ShapeError,
        "2 entries",
        lambda: Adapter(anything, "eps", Edm())(torch.zeros(3, 1, 1, 1), torch.ones(2)),
    ),
    "entry": (errors.InvalidValueError, "allowed are prediction", lambda: with_adapter(anything, {"predicts": "eps"})),
    "process name": (errors.InvalidValueError, "vp-linear", lambda: with_adapter(anything, {"process": "vp"})),
    "process argument": (
        errors.InvalidValueError,
        "num_steps",
        lambda: with_adapter(anything, {"process": {"name": "vp-linear", "steps": 3}}),
    ),
    "table missing": (
        errors.InvalidValueError,
        "needs alphas_cumprod",
        lambda: with_adapter(anything, {"process": {"name": "vp-table"}}),
    ),
    "buffer": (
        errors.InvalidValueError,
        "no table 'abar'",
        lambda: with_adapter(anything, {"process": {"name": "vp-table", "alphas_cumprod": "abar"}}),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused_by_name(case: str) -> None:
    kind, message, make = BAD[case]
    with pytest.raises(kind, match=message):
        make()


DESCRIPTIONS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "bp_ddpm_mnist": (trained_networks.BpUNet, {"prediction": "eps", "process": "vp-linear"}),
    "yz_ddpm_mnist_starter": (
        trained_networks.YzNet,
        {
            "prediction": "eps",
            "process": {"name": "vp-table", "alphas_cumprod": "alpha_t"},
            "pixels": [-0.5, 0.5],
            "time_scale": 0.001,
        },
    ),
    "bfcnn_bsd300_color": (trained_networks.BfCnn, {"prediction": "residual", "pixels": [0, 1], "blind": True}),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_trained_networks_give_their_authors_outputs(name: str, test_data: Path) -> None:
    make, description = DESCRIPTIONS[name]
    D = with_adapter(trained_networks.loaded(make, name), description)
    with np.load(test_data / "networks" / "reference_outputs.npz") as reference:
        keys = [key.split("|") for key in reference.files if key.startswith(name)]
        inputs = [(key, level) for key, what, level in keys if what == "z"]
        assert inputs
        for key, sigma in inputs:
            found = D(torch.from_numpy(reference[f"{key}|z|{sigma}"]), float(sigma))
            np.testing.assert_allclose(found, reference[f"{key}|D|{sigma}"], rtol=0, atol=1e-4)
