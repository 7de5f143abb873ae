"""The preconditioner of networks with a table of noise levels."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pspc_rs.networks.arguments import bounded, within
from pspc_rs.networks.edm.preconditioner import Coefficients, Level, Preconditioner, as_levels
from pspc_rs.samplers.design_space import noise_table


class IDDPMPrecond(Preconditioner):
    """Preconditioning of Nichol and Dhariwal's networks, which know M noise levels; Karras et al. 2022, table 1.

    c_skip = 1, c_out = -s, c_in = 1 / sqrt(s^2 + 1), c_noise = M - 1 - (index of the level nearest to s). F returns
    twice the channels; the second half, a variance, is not used.

    Args:
        model: see ``Preconditioner``.
        img_resolution: see ``Preconditioner``.
        img_channels: see ``Preconditioner``.
        label_dim: see ``Preconditioner``.
        use_fp16: see ``Preconditioner``.
        C_1: smallest share of the signal that a step of the table keeps.
        C_2: how far from zero noise the table begins.
        M: number of noise levels.

    Attributes:
        u: the table, float32 [M + 1], from the largest level to 0; kept with the network.
    """

    outputs_per_channel: ClassVar[int] = 2
    u: Tensor

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
    ) -> None:
        super().__init__(model, img_resolution, img_channels, label_dim, use_fp16=use_fp16)
        self.C_1 = within("C_1", C_1, 1e-6, 1.0, excluded=1.0)
        self.C_2 = within("C_2", C_2, 1e-6, 1.0)
        self.M = bounded("M", M, 2, 1 << 16)
        self.arguments |= {"C_1": self.C_1, "C_2": self.C_2, "M": self.M}
        self.register_buffer("u", torch.tensor(noise_table(self.M, self.C_1, self.C_2), dtype=torch.float32))

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""
        return float(self.u[-2]), float(self.u[0])

    def nearest(self, sigma: Tensor) -> Tensor:
        """Index of the level of the table nearest to sigma, in the shape of sigma."""
        distances = (sigma.reshape(-1, 1).double() - self.u.to(sigma.device).double()).abs()
        return distances.argmin(1).reshape(sigma.shape)

    def round_sigma(self, sigma: Level) -> Level:
        """The levels of the table nearest to sigma, in the type of sigma."""
        levels = as_levels(sigma)
        rounded: Any = self.u.to(levels.device).double()[self.nearest(levels)]
        if isinstance(sigma, Tensor):
            result: Level = rounded.to(sigma.dtype)
            return result
        array = rounded.numpy()
        plain: Any = array.astype(getattr(sigma, "dtype", array.dtype)) if array.ndim else float(array)
        return plain  # type: ignore[no-any-return]

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""
        return Coefficients(
            c_skip=sigma.new_ones(sigma.shape),
            c_out=-sigma,
            c_in=1 / (sigma**2 + 1).sqrt(),
            c_noise=(self.M - 1 - self.nearest(sigma)).to(sigma.dtype),
        )
