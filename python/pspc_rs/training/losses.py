"""Denoising losses: which noise levels are drawn, and how the squared error at each of them is weighted."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeAlias

from torch import Tensor, nn

Draw: TypeAlias = Literal["normal", "uniform"]
"""The law of the random numbers that noise levels are functions of."""


class DenoisingLoss(Protocol):
    """The loss weight(sigma) |D(y + sigma n; sigma) - y|^2, and the law of sigma.

    Attributes:
        draw: the law of the number that ``sigma`` is a function of.
    """

    draw: ClassVar[Draw]

    def sigma(self, number: Tensor) -> Tensor:
        """The noise level of a random number."""

    def weight(self, sigma: Tensor) -> Tensor:
        """The weight of the squared error."""


@dataclass(frozen=True)
class EDMLoss:
    """ln sigma normal; weight (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022, table 1).

    Attributes:
        P_mean: mean of ln sigma.
        P_std: standard deviation of ln sigma.
        sigma_data: standard deviation of the data.

    Example:
        >>> import torch
        >>> EDMLoss().sigma(torch.tensor([0.0]))
        tensor([0.3012])
    """

    P_mean: float = -1.2
    P_std: float = 1.2
    sigma_data: float = 0.5
    draw: ClassVar[Draw] = "normal"

    def sigma(self, number: Tensor) -> Tensor:
        """exp(P_mean + P_std number) for a normal number."""
        return (self.P_mean + self.P_std * number).exp()

    def weight(self, sigma: Tensor) -> Tensor:
        """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2


@dataclass(frozen=True)
class VPLoss:
    """Times uniform in the variance-preserving process; weight 1 / sigma^2 (Song et al. 2021, in EDM's terms).

    Attributes:
        beta_d: by how much beta grows.
        beta_min: beta at time 0.
        epsilon_t: smallest time.

    Example:
        >>> import torch
        >>> VPLoss().sigma(torch.tensor([0.0])).round()
        tensor([152.])
    """

    beta_d: float = 19.9
    beta_min: float = 0.1
    epsilon_t: float = 1e-5
    draw: ClassVar[Draw] = "uniform"

    def sigma(self, number: Tensor) -> Tensor:
        """sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1) at t = 1 + number (epsilon_t - 1)."""
        t = 1 + number * (self.epsilon_t - 1)
        return ((self.beta_d * t**2 / 2 + self.beta_min * t).exp() - 1).sqrt()

    def weight(self, sigma: Tensor) -> Tensor:
        """1 / sigma^2."""
        return sigma**-2


@dataclass(frozen=True)
class VELoss:
    """ln sigma uniform from ln sigma_min to ln sigma_max; weight 1 / sigma^2 (Song et al. 2021, in EDM's terms).

    Attributes:
        sigma_min: smallest noise level.
        sigma_max: largest noise level.

    Example:
        >>> import torch
        >>> VELoss().sigma(torch.tensor([0.0, 1.0]))
        tensor([2.0000e-02, 1.0000e+02])
    """

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    draw: ClassVar[Draw] = "uniform"

    def sigma(self, number: Tensor) -> Tensor:
        """sigma_min (sigma_max / sigma_min)^number."""
        return self.sigma_min * (math.log(self.sigma_max / self.sigma_min) * number).exp()

    def weight(self, sigma: Tensor) -> Tensor:
        """1 / sigma^2."""
        return sigma**-2


LOSSES: dict[str, DenoisingLoss] = {"edm": EDMLoss(), "vp": VPLoss(), "ve": VELoss()}
"""The losses by the name of the preconditioner that they go with."""


def squared_error(
    network: nn.Module,
    images: Tensor,
    noise: Tensor,
    sigma: Tensor,
    *,
    class_labels: Tensor | None = None,
    augment_labels: Tensor | None = None,
) -> Tensor:
    """(D(y + sigma n; sigma) - y)^2 for every pixel, without the loss's weight, [N, C, H, W].

    Args:
        network: D, called with images, noise levels and the labels that are given.
        images: y, clean, and augmented already; [N, C, H, W].
        noise: n, standard normal, [N, C, H, W].
        sigma: noise levels [N].
        class_labels: [N, classes] or None.
        augment_labels: [N, augment_dim] or None.
    """
    noisy = images + noise * sigma.view(-1, 1, 1, 1)
    denoised: Tensor = network(noisy, sigma, class_labels, augment_labels=augment_labels)
    return (denoised - images) ** 2
