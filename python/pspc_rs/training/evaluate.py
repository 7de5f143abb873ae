"""What a network in training can do: its loss at given noise levels, and samples of it."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pspc_rs.checks import integer
from pspc_rs.data import ImageSet
from pspc_rs.networks.edm.preconditioner import Preconditioner
from pspc_rs.samplers import initial_noise, sample_heun
from pspc_rs.sigmas import edm_sigmas

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Noise levels that evaluations are made at."""


@torch.no_grad()
def loss_per_sigma(
    network: nn.Module,
    data: ImageSet,
    sigmas: Sequence[float] = SIGMAS,
    *,
    num: int = 256,
    seed: int = 0,
    batch: int = 64,
    label_dim: int = 0,
) -> NDArray[np.float64]:
    """The mean squared error of D(x + sigma n; sigma) a pixel, at every noise level, float64 [len(sigmas)].

    The same images with the same noise n at every level, drawn by numpy's ``default_rng(seed)``.

    Args:
        network: D, on any device.
        data: the images.
        sigmas: noise levels.
        num: how many images, drawn with repetition.
        seed: of images and noise.
        batch: images at once.
        label_dim: number of classes of a conditional network, which is told those of the images.

    Raises:
        InvalidValueError: there is nothing to evaluate.
    """
    device = next(network.parameters()).device
    random = np.random.default_rng(seed)
    indices = random.integers(len(data), size=integer("num", num))
    totals = np.zeros(len(sigmas))
    for start in range(0, num, batch):
        chosen = indices[start : start + batch]
        images = torch.from_numpy(data.batch(chosen)).to(device)
        noise = torch.from_numpy(random.standard_normal(images.shape, dtype=np.float32)).to(device)
        labels = one_hot(data, chosen, label_dim)
        for level, sigma in enumerate(sigmas):
            denoised = network(
                images + sigma * noise,
                images.new_full((len(images),), sigma),
                None if labels is None else labels.to(device),
            )
            totals[level] += float(((denoised - images) ** 2).mean((1, 2, 3)).double().sum())
    return totals / num


def draw_samples(
    network: Preconditioner, num: int, *, seed: int = 0, num_steps: int = 18, batch: int = 64
) -> NDArray[np.float32]:
    """Samples by Heun's method from the noise of ``initial_noise``, float32 [num, C, H, W].

    A conditional network draws its classes in turn.

    Args:
        network: a network of ``pspc_rs.networks``, on any device.
        num: how many.
        seed: of the noise.
        num_steps: steps of the sampler.
        batch: samples at once.
    """
    device = next(network.parameters()).device
    low, high, classes = max(0.002, network.sigma_min), min(80.0, network.sigma_max), network.label_dim
    sigmas = edm_sigmas(num_steps, low, high, include_zero=True)
    noise = torch.from_numpy(initial_noise(num, network.shape, high, seed, generator="torch"))
    parts = []
    for start in range(0, num, batch):
        x = noise[start : start + batch].to(device)
        told = {}
        if classes:
            turns = torch.arange(start, start + len(x), device=device) % classes
            told["class_labels"] = nn.functional.one_hot(turns, classes).float()
        parts.append(sample_heun(network, x, sigmas, extra_args=told).cpu())
    samples: NDArray[np.float32] = torch.cat(parts).numpy()
    return samples


def one_hot(data: ImageSet, indices: NDArray[np.int64], label_dim: int) -> Tensor | None:
    """The labels of images as float32 [N, label_dim], None for a network without classes."""
    if not label_dim or data.labels is None:
        return None
    labels = torch.from_numpy(data.labels[indices % data.num_stored])
    return nn.functional.one_hot(labels, label_dim).float()
