"""k-diffusion's own sampling functions with the denoisers here; skipped where it is not installed (extra `clients`)."""

import importlib
import importlib.util
import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pspc_rs as pspc
from pspc_rs import errors

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8))
VARIANCE = 0.25

DETERMINISTIC = ["euler", "heun", "dpm_2", "lms", "dpmpp_2m"]
STOCHASTIC = ["euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def sampling() -> Any:
    """The module ``k_diffusion.sampling`` alone: the package around it imports CLIP, kornia and wandb."""
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k-diffusion is not installed")
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules.setdefault("k_diffusion", package)
    try:
        return importlib.import_module("k_diffusion.sampling")
    except ImportError as error:
        pytest.skip(f"k-diffusion cannot be imported: {error}")


class Normal(nn.Module):
    """The denoiser of data that are normal with VARIANCE in every pixel, as a network."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x * (VARIANCE / (VARIANCE + sigma.reshape(-1, 1, 1, 1) ** 2))


def start(sigma: float = 20.0) -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * sigma


@pytest.mark.parametrize("D", [pspc.Empirical(DATA), pspc.PSPCSquare(DATA, patch_sizes=5), pspc.Network(Normal())])
@pytest.mark.parametrize("name", DETERMINISTIC + STOCHASTIC)
def test_every_sampler_runs(sampling: Any, name: str, D: Any) -> None:
    torch.manual_seed(0)
    x, sigmas = start(), sampling.get_sigmas_karras(6, 0.05, 20.0)
    before = x.clone()
    samples = getattr(sampling, f"sample_{name}")(D, x, sigmas, disable=True)
    assert samples.shape == x.shape and samples.dtype == x.dtype and bool(samples.isfinite().all())
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m"])
def test_samplers_of_one_name_give_the_same_samples(sampling: Any, name: str) -> None:
    D, sigmas = pspc.PSPCSquare(DATA, patch_sizes=5), sampling.get_sigmas_karras(12, 0.05, 20.0)
    theirs = getattr(sampling, f"sample_{name}")(D, start(), sigmas, disable=True)
    torch.testing.assert_close(pspc.samplers.SAMPLERS[name](D, start(), sigmas), theirs, rtol=0, atol=2e-4)


def test_log_likelihood_of_a_network_is_that_of_its_data(sampling: Any) -> None:
    x = start(0.6)
    torch.manual_seed(0)
    found, _ = sampling.log_likelihood(pspc.Network(Normal()), x, 0.002, 80.0)
    exact = -0.5 * (x**2 / VARIANCE + math.log(2 * math.pi * VARIANCE)).flatten(1).sum(1)
    torch.testing.assert_close(found, exact, rtol=0, atol=1.0)


def test_log_likelihood_without_derivatives_is_refused(sampling: Any) -> None:
    with pytest.raises(errors.GradientError, match="SNIS has no derivatives"):
        sampling.log_likelihood(pspc.SNIS(DATA), start(0.5), 0.1, 10.0)


def test_log_likelihood_of_a_denoiser_is_ours(sampling: Any) -> None:
    D, x, sigmas = pspc.PSPCSquare(DATA, patch_sizes=5), start(0.5), pspc.edm_sigmas(60, 0.5, 80.0)
    torch.manual_seed(0)
    found, _ = sampling.log_likelihood(D, x, 0.5, 80.0)
    exact = pspc.samplers.log_likelihood(D, x, sigmas).value
    probes = pspc.samplers.log_likelihood(D, x, sigmas, divergence="hutchinson", num_probes=8).standard_error
    assert bool((abs(found - exact) < 5 * 8**0.5 * probes).all())  # theirs has a single probe
    assert bool((8**0.5 * probes < 0.25 * abs(exact)).all())


def test_gradients_through_an_ode_are_those_of_the_flow(sampling: Any) -> None:
    torchdiffeq = pytest.importorskip("torchdiffeq", reason="torchdiffeq is not installed")
    D = pspc.Network(Normal())

    class Flow(nn.Module):
        def forward(self, sigma: Tensor, z: Tensor) -> Tensor:
            slope: Tensor = (z - D(z, sigma)) / sigma
            return slope

    z = start(1.0).requires_grad_()
    # Solvers that choose their steps try some that lead below 0, backwards from the end.
    times = torch.linspace(1.0, 0.1, 40)
    end = torchdiffeq.odeint_adjoint(Flow(), z, times, adjoint_params=(), method="rk4")[-1]
    (gradient,) = torch.autograd.grad(end.sum(), z)
    factor = math.sqrt((VARIANCE + 0.01) / (VARIANCE + 1))
    torch.testing.assert_close(gradient, torch.full_like(z, factor), rtol=1e-3, atol=0)
