"""Log likelihoods by the probability flow ODE: closed forms, densities that are known, estimates, kinds, bad input."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.samplers import LogLikelihood, log_likelihood
from pspc_rs.sigmas import edm_sigmas

Float64 = NDArray[np.float64]

LOW, HIGH = 0.002, 80.0


def normal_data() -> pspc.ImageSet:
    scales = np.linspace(0.02, 0.8, 12).reshape(1, 3, 4)
    return pspc.ImageSet((np.random.default_rng(0).normal(size=(300, 1, 3, 4)) * scales + 0.3).astype(np.float32))


G = pspc.Gaussian(normal_data(), cache=False)
X = normal_data().batch([0, 1, 2]).astype(np.float64)


def along_the_flow(x: Float64, low: float, high: float) -> Float64:
    """The likelihood of the linear flow of G: distances along its axes grow with the standard deviations."""
    size = len(G.mean)
    growth = (G.variances + high**2) / (G.variances + low**2)
    z = G.mean + ((x.reshape(len(x), -1) - G.mean) @ G.axes * np.sqrt(growth)) @ G.axes.T
    log_prob: Float64 = (
        -(z**2).sum(1) / (2 * high**2) - size / 2 * np.log(2 * np.pi * high**2) + np.log(growth).sum() / 2
    )
    return log_prob


def test_the_gaussian_denoiser_is_met_to_second_order() -> None:
    exact = along_the_flow(X, LOW, HIGH)
    errors_of = []
    for num in (64, 128, 256):
        found = log_likelihood(G, X, edm_sigmas(num, LOW, HIGH))
        assert np.all(found.standard_error == 0)
        errors_of.append(float(np.abs(found.value - exact).max()))
    assert errors_of[2] < 0.01
    assert all(3.5 < coarse / fine < 4.5 for coarse, fine in pairwise(errors_of))
    np.testing.assert_array_equal(log_likelihood(G, X).value, log_likelihood(G, X, edm_sigmas(128, LOW, HIGH)).value)


def test_it_is_nearly_the_density_of_the_data_with_noise() -> None:
    offsets = (X.reshape(3, -1) - G.mean) @ G.axes
    total = G.variances + LOW**2
    density = -((offsets**2 / total).sum(1) + np.log(2 * np.pi * total).sum()) / 2
    np.testing.assert_allclose(log_likelihood(G, X, edm_sigmas(512)).value, density, rtol=0, atol=0.05)


def test_the_path_from_two_pixels_has_the_density_of_the_data() -> None:
    images = np.array([[0.5, -0.5], [-0.2, 0.1], [0.9, 0.8]], np.float32).reshape(3, 1, 1, 2)
    D, at = pspc.Empirical(pspc.ImageSet(images)), np.linspace(-2.5, 3, 56)
    grid = np.stack(np.meshgrid(at, at), -1).reshape(-1, 1, 1, 2)
    found = log_likelihood(D, grid, edm_sigmas(96, 0.3, HIGH)).value
    exact = D.log_prob(grid, 0.3)
    # The path ends in a normal distribution around 0, not around the mean of the data, which tells far from both.
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=0.02)
    assert abs(np.exp(found).sum() * (at[1] - at[0]) ** 2 - 1) < 5e-3


def test_labels_reach_the_denoiser_and_its_divergence() -> None:
    images = np.array([[0.5, -0.5], [-0.2, 0.1], [0.9, 0.8]], np.float32).reshape(3, 1, 1, 2)
    data, x = pspc.ImageSet(images, [0, 1, 1]), np.zeros((2, 1, 1, 2))
    levels = edm_sigmas(48, 0.3, HIGH)
    for divergence in ("exact", "hutchinson"):
        options: dict[str, Any] = {"divergence": divergence, "num_probes": 4}
        found = log_likelihood(pspc.Empirical(data), x, levels, extra_args={"class_labels": [1, 0]}, **options)
        for query, label in enumerate((1, 0)):
            own = log_likelihood(pspc.Empirical(data.select(classes={label})), x, levels, **options)
            np.testing.assert_allclose(found.value[query], own.value[query], rtol=0, atol=1e-4)


def test_hutchinson_is_within_its_standard_error() -> None:
    x = np.repeat(X, 20, axis=0)
    exact = log_likelihood(G, X).value.repeat(20)
    found = log_likelihood(G, x, divergence="hutchinson", num_probes=8, seed=1)
    deviations = (found.value - exact) / found.standard_error
    assert 0.7 < np.sqrt((deviations**2).mean()) < 1.8
    assert abs(deviations.mean()) < 4 / math.sqrt(60)
    again = log_likelihood(G, x, divergence="hutchinson", num_probes=8, seed=1)
    np.testing.assert_array_equal(again.value, found.value)
    other = log_likelihood(G, x, divergence="hutchinson", num_probes=8, seed=2)
    assert np.any(other.value != found.value)
    wider = log_likelihood(G, x, divergence="hutchinson", num_probes=128)
    assert 2.5 < found.standard_error.mean() / wider.standard_error.mean() < 6


class Linear(torch.nn.Module):
    """The denoiser of normal data of variance 1, with a parameter, as a network has."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.gain * x / (1 + sigma.reshape(-1, 1, 1, 1).to(x.dtype) ** 2)


@pytest.mark.parametrize("model", [Linear(), pspc.Network(Linear())], ids=["module", "Network"])
def test_networks_are_differentiated_by_torch(model: Any) -> None:
    small = torch.from_numpy(X)
    found = log_likelihood(model, small, edm_sigmas(256))
    squares = (small**2).sum((1, 2, 3))
    assert torch.allclose(found.value, -squares / 2 - 6 * math.log(2 * math.pi), atol=0.02)
    assert found.value.dtype == torch.float64 and not found.value.requires_grad
    assert bool((found.standard_error == 0).all())
    large = torch.zeros(1, 3, 10, 10, dtype=torch.float64)
    estimate = log_likelihood(model, large, edm_sigmas(32), num_probes=2)
    exact = log_likelihood(model, large, edm_sigmas(32), divergence="exact")
    # Of a multiple of the identity every v . J v is the trace.
    assert torch.allclose(estimate.value, exact.value, atol=1e-6)
    assert all(parameter.grad is None for parameter in getattr(model, "net", model).parameters())


def test_unit_vectors_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.from_numpy(X)
    whole = log_likelihood(Linear(), x, edm_sigmas(16))
    monkeypatch.setattr("pspc_rs.samplers.likelihood._NUMBERS_AT_ONCE", 5 * x.numel())
    parts = log_likelihood(Linear(), x, edm_sigmas(16))
    assert torch.allclose(whole.value, parts.value, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_results_are_of_the_kind_of_x(dtype: Any) -> None:
    D, x = pspc.PSPCSquare(normal_data(), patch_sizes=2), torch.from_numpy(X).to(dtype)
    found = log_likelihood(D, x, edm_sigmas(24, 0.05, 20.0))
    assert isinstance(found, LogLikelihood) and found.value.dtype == found.standard_error.dtype == torch.float64
    numbers = log_likelihood(D, x.double().numpy(), edm_sigmas(24, 0.05, 20.0))
    assert isinstance(numbers.value, np.ndarray) and numbers.value.shape == (3,)
    np.testing.assert_allclose(found.value, numbers.value, rtol=0, atol=0.5 if dtype == torch.float16 else 1e-2)


def test_every_denoiser_with_derivatives_has_a_likelihood() -> None:
    masks = np.zeros((2, 3, 4), bool)
    masks[0, :, :3] = masks[1, :, 1:] = True
    data, levels = normal_data(), edm_sigmas(24, 0.1, HIGH)
    for D in (pspc.PSPCSquare(data, patch_sizes=2), pspc.PSPCFlex(data, masks=masks), pspc.CFDM(data, 0.2, 3)):
        exact = log_likelihood(D, X, levels)
        estimate = log_likelihood(D, X, levels, divergence="hutchinson", num_probes=64)
        assert np.all(np.abs(estimate.value - exact.value) < 5 * estimate.standard_error)
    with pytest.raises(errors.GradientError, match="SNIS has no derivatives"):
        log_likelihood(pspc.SNIS(data), X)


def test_progress_counts_the_steps() -> None:
    calls: list[tuple[int, int]] = []
    log_likelihood(G, X, [2.0, 1.0, 0.5], progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]


def test_bad_arguments_are_refused() -> None:
    bad: list[tuple[dict[str, Any], type[errors.PspcError], str]] = [
        (
            {"divergence": "exactly"},
            errors.InvalidValueError,
            "divergence is 'exactly'; allowed are auto, exact, hutch",
        ),
        ({"num_probes": 1}, errors.InvalidValueError, "num_probes is 1; allowed are integers from 2"),
        ({"seed": -1}, errors.InvalidValueError, "seed is -1"),
        ({"sigmas": [1.0, 0.0]}, errors.InvalidValueError, "a step needs two noise levels"),
        ({"sigmas": [1.0, 2.0]}, errors.InvalidValueError, "sigmas are"),
    ]
    for options, error, message in bad:
        with pytest.raises(error, match=message):
            log_likelihood(G, X, **options)
    with pytest.raises(errors.ShapeError, match="x has shape"):
        log_likelihood(G, X[0])
    with pytest.raises(errors.GradientError, match="needs a method jvp, or torch's autograd and so x as a tensor"):
        log_likelihood(lambda x, sigma: x, X)
    with pytest.raises(errors.GradientError, match="the model's output has no gradient"):
        log_likelihood(lambda x, sigma: x.detach(), torch.from_numpy(X))
