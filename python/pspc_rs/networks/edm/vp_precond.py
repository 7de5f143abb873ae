"""The preconditioner of the variance preserving process."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pspc_rs.networks.arguments import bounded, within
from pspc_rs.networks.edm.preconditioner import Coefficients, Preconditioner


class VPPrecond(Preconditioner):
    """Preconditioning of Song et al.'s VP networks, Karras et al. 2022, table 1.

    c_skip = 1, c_out = -s, c_in = 1 / sqrt(s^2 + 1), c_noise = (M - 1) t(s) with
    s(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1). The formulas are evaluated as they stand, in float32 for a
    network in float32, as the published networks were trained: at the smallest levels that is off by a few per cent.

    Args:
        model: see ``Preconditioner``.
        img_resolution: see ``Preconditioner``.
        img_channels: see ``Preconditioner``.
        label_dim: see ``Preconditioner``.
        use_fp16: see ``Preconditioner``.
        beta_d: growth of the process's beta.
        beta_min: its beginning.
        M: number of time steps that c_noise counts.
        epsilon_t: time of the smallest noise level.
    """

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
    ) -> None:
        super().__init__(model, img_resolution, img_channels, label_dim, use_fp16=use_fp16)
        self.beta_d = within("beta_d", beta_d, 0.0, 100.0, excluded=0.0)
        self.beta_min = within("beta_min", beta_min, 0.0, 80.0, excluded=0.0)
        self.M = bounded("M", M, 2, 1 << 20)
        self.epsilon_t = within("epsilon_t", epsilon_t, 0.0, 1.0, excluded=1.0)
        self.arguments |= {
            "beta_d": self.beta_d,
            "beta_min": self.beta_min,
            "M": self.M,
            "epsilon_t": self.epsilon_t,
        }
        ends = self.sigma(torch.tensor([self.epsilon_t, 1.0], device="cpu"))
        self._limits = float(ends[0]), float(ends[1])

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""
        return self._limits

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at the time t, 0 .. 1, in the type of t."""
        return (torch.exp(0.5 * self.beta_d * t**2 + self.beta_min * t) - 1).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Time at which the noise level is sigma, in the type of sigma."""
        return ((self.beta_min**2 + 2 * self.beta_d * (1 + sigma**2).log()).sqrt() - self.beta_min) / self.beta_d

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""
        return Coefficients(
            c_skip=sigma.new_ones(sigma.shape),
            c_out=-sigma,
            c_in=1 / (sigma**2 + 1).sqrt(),
            c_noise=(self.M - 1) * self.time(sigma),
        )
