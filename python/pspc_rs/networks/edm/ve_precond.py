"""The preconditioner of the variance exploding process."""

from collections.abc import Sequence

from torch import Tensor, nn

from pspc_rs.networks.edm.preconditioner import Coefficients, Preconditioner, checked_limits


class VEPrecond(Preconditioner):
    """Preconditioning of Song et al.'s VE networks, Karras et al. 2022, table 1.

    c_skip = 1, c_out = s, c_in = 1, c_noise = ln(s / 2).

    Args:
        model: see ``Preconditioner``.
        img_resolution: see ``Preconditioner``.
        img_channels: see ``Preconditioner``.
        label_dim: see ``Preconditioner``.
        use_fp16: see ``Preconditioner``.
        sigma_min: smallest noise level that the network is for.
        sigma_max: largest one, None for no limit.
    """

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
        sigma_min: float = 0.02,
        sigma_max: float | None = 100.0,
    ) -> None:
        super().__init__(model, img_resolution, img_channels, label_dim, use_fp16=use_fp16)
        self._limits = checked_limits(sigma_min, sigma_max)
        self.arguments |= {"sigma_min": self._limits[0], "sigma_max": sigma_max}

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""
        return self._limits

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""
        one = sigma.new_ones(sigma.shape)
        return Coefficients(c_skip=one, c_out=sigma, c_in=one, c_noise=(sigma / 2).log())
