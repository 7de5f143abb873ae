"""azula's own samplers with the denoisers here; skipped where it is not installed (extra `clients`)."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pspc_rs as pspc
from pspc_rs.networks import azula_denoiser

pytest.importorskip("azula", reason="azula is not installed")
noise: Any = pytest.importorskip("azula.noise", reason="azula cannot be imported")
sampling: Any = pytest.importorskip("azula.sample", reason="azula cannot be imported")

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8))
DENOISER = pspc.PSPCSquare(DATA, patch_sizes=5)
SCHEDULES = ["VESchedule", "VPSchedule", "CosineSchedule", "RectifiedSchedule"]


def images() -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_posterior_mean_is_the_denoised_image(name: str) -> None:
    schedule = getattr(noise, name)()
    denoiser = azula_denoiser(DENOISER, schedule)
    for t in (torch.tensor(0.6, dtype=torch.float64), torch.tensor([0.2, 0.9], dtype=torch.float64)):
        alpha, sigma = schedule(t)
        z = images() / alpha.reshape(-1, 1, 1, 1)
        expected = DENOISER(z, (sigma / alpha).expand(2))
        torch.testing.assert_close(denoiser(images(), t).mean, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_its_ddim_sampler_is_eulers_method(name: str) -> None:
    schedule = getattr(noise, name)()
    sampler = sampling.DDIMSampler(azula_denoiser(DENOISER, schedule), steps=12, silent=True, dtype=torch.float64)
    alphas, sigmas = schedule(sampler.timesteps)
    start = images() * sigmas[0]
    levels = sigmas / alphas
    ours = pspc.samplers.sample_euler(DENOISER, start / alphas[0], levels)
    torch.testing.assert_close(sampler(start) / alphas[-1], ours, rtol=0, atol=1e-3)


def test_labels_go_to_the_denoiser() -> None:
    D = pspc.Empirical(pspc.ImageSet(DATA.images, labels=np.arange(30) % 3))
    denoiser = azula_denoiser(D, noise.VPSchedule())
    t = torch.tensor(0.5, dtype=torch.float64)
    alpha, sigma = noise.VPSchedule()(t)
    found = denoiser(images(), t, class_labels=np.array([0, 2])).mean
    expected = D(images() / alpha, sigma / alpha, np.array([0, 2]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
