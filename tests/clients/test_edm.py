"""A program with the calling conventions of EDM's, written from the paper and from notes on what it calls."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.networks import build_network

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8))


def edm_network(label_dim: int = 0) -> nn.Module:
    torch.manual_seed(0)
    net = build_network(
        {
            "preconditioner": "EDMPrecond",
            "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 3, "label_dim": label_dim},
            "architecture": "SongUNet",
            "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []},
        }
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    return net.eval()


def denoisers() -> list[Any]:
    return [
        pspc.Empirical(DATA),
        pspc.PSPCSquare(DATA, patch_sizes=3),
        pspc.Gaussian(DATA, cache=False),
        pspc.CFDM(DATA, num_noises=2),
        pspc.SNIS(DATA),
        pspc.Network(edm_network()),
    ]


def program(
    net: Any,
    n: int,
    randn: Callable[[list[int]], Tensor],
    *,
    num_steps: int = 18,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
) -> Tensor:
    """Samples as the program does: states in float64, a noise level without axes, noise drawn at every step."""
    net = net.to(torch.device("cpu")).eval()
    latents = randn([n, net.img_channels, net.img_resolution, net.img_resolution])
    labels = torch.eye(net.label_dim)[torch.zeros(n, dtype=torch.int64)] if net.label_dim else None
    low, high = max(0.002, net.sigma_min), min(80.0, net.sigma_max)
    ramp = torch.arange(num_steps, dtype=torch.float64) / (num_steps - 1)
    levels = net.round_sigma((high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7)
    levels = torch.cat([torch.as_tensor(levels), levels.new_zeros(1)])
    x = latents.to(torch.float64) * levels[0]
    for i in range(num_steps):
        sigma, sigma_next = levels[i], levels[i + 1]
        gamma = min(S_churn / num_steps, math.sqrt(2) - 1) if S_min <= sigma <= S_max else 0.0
        raised = torch.as_tensor(net.round_sigma(sigma * (1 + gamma)))
        x = x + (raised**2 - sigma**2).sqrt() * S_noise * randn(list(x.shape))
        slope = (x - net(x, raised, labels).to(torch.float64)) / raised
        x_next = x + (sigma_next - raised) * slope
        if i < num_steps - 1:
            slope_next = (x_next - net(x_next, sigma_next, labels).to(torch.float64)) / sigma_next
            x_next = x + (sigma_next - raised) * (slope + slope_next) / 2
        x = x_next
    return x


def per_image(seeds: list[int]) -> Callable[[list[int]], Tensor]:
    """Noise as the program draws it: a generator per image."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return lambda size: torch.stack([torch.randn(size[1:], generator=one) for one in generators])


@pytest.mark.parametrize("index", range(6))
def test_the_program_samples_with_every_denoiser(index: int) -> None:
    D = denoisers()[index]
    x = program(D, 2, per_image([0, 1]), num_steps=5)
    assert x.shape == (2, 3, 8, 8) and x.dtype == torch.float64 and bool(x.isfinite().all())


@pytest.mark.parametrize("S_max", [math.inf, 10.0])
def test_sample_edm_with_the_programs_generators_gives_its_images(S_max: float) -> None:
    D = pspc.Network(edm_network())
    churn: dict[str, Any] = {"S_churn": 20.0, "S_min": 0.05, "S_max": S_max, "S_noise": 1.003}
    theirs = program(D, 2, per_image([3, 4]), **churn)
    randn = per_image([3, 4])
    x = randn([2, 3, 8, 8]).double() * 80
    ours = pspc.samplers.sample_edm(D, x, pspc.edm_sigmas(18), noise=lambda x: randn(list(x.shape)).double(), **churn)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_conditional_network_gets_the_programs_labels() -> None:
    net = edm_network(label_dim=4)
    D = pspc.Network(net)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.eye(4)[torch.tensor([1, 3])]
    torch.testing.assert_close(D(x, 1.0, labels), net(x, torch.ones(2), labels), rtol=0, atol=0)
    assert not torch.equal(D(x, 1.0, labels), D(x, 1.0))
    assert bool(program(D, 2, per_image([0, 1]), num_steps=3).isfinite().all())
    with pytest.raises(errors.ShapeError, match=r"class_labels have shape \[1, 4\]; allowed is one entry per image"):
        D(x, 1.0, labels[:1])


@pytest.mark.parametrize("index", range(6))
def test_arguments_of_the_program(index: int) -> None:
    D = denoisers()[index]
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = D(x, 0.7)
    for sigma in (torch.tensor(0.7), torch.tensor([0.7]), torch.full([2], 0.7), torch.full([2, 1, 1, 1], 0.7)):
        torch.testing.assert_close(D(x, sigma.double(), None, force_fp32=True), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(D(x, 0.7, torch.zeros(2, 0)), expected, rtol=0, atol=0)
    with pytest.raises(errors.InvalidValueError, match=r"class_labels were given, but .* has no classes"):
        D(x, 0.7, torch.eye(2))


def test_force_fp32_turns_half_precision_off() -> None:
    net, x = edm_network(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    half, full = pspc.Network(net, dtype="bfloat16"), pspc.Network(net)
    assert not torch.equal(half(x, 1.0), full(x, 1.0))
    torch.testing.assert_close(half(x, 1.0, force_fp32=True), full(x, 1.0), rtol=0, atol=0)


def test_force_fp32_is_passed_on_to_a_network_that_takes_it() -> None:
    given = []

    def net(x: Any, sigma: Any, class_labels: Any = None, force_fp32: bool = False) -> Any:
        given.append(force_fp32)
        return x

    D = pspc.Network(net)
    D(np.zeros((1, 1, 2, 2)), 1.0, force_fp32=True)
    D(np.zeros((1, 1, 2, 2)), 1.0)
    assert given == [True, False]
