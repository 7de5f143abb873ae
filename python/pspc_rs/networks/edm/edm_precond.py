"""The preconditioner of EDM."""

from collections.abc import Sequence

from torch import Tensor, nn

from pspc_rs.networks.arguments import within
from pspc_rs.networks.edm.preconditioner import Coefficients, Preconditioner, checked_limits


class EDMPrecond(Preconditioner):
    """Preconditioning that keeps input and target of F at unit variance, Karras et al. 2022, table 1.

    With d = sigma_data: c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2),
    c_noise = ln(s) / 4.

    Args:
        model: see ``Preconditioner``.
        img_resolution: see ``Preconditioner``.
        img_channels: see ``Preconditioner``.
        label_dim: see ``Preconditioner``.
        use_fp16: see ``Preconditioner``.
        sigma_min: smallest noise level that the network is for.
        sigma_max: largest one, None for no limit.
        sigma_data: standard deviation of the images.

    Example:
        >>> import torch
        >>> from pspc_rs.networks.registry import build_network
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
        ...     "architecture": "SongUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> net(torch.zeros(2, 1, 8, 8), torch.tensor([1.0, 0.1])).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float | None = None,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__(model, img_resolution, img_channels, label_dim, use_fp16=use_fp16)
        self._limits = checked_limits(sigma_min, sigma_max)
        self.sigma_data = within("sigma_data", sigma_data, 0.0, 1e9, excluded=0.0)
        self.arguments |= {"sigma_min": self._limits[0], "sigma_max": sigma_max, "sigma_data": self.sigma_data}

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""
        return self._limits

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""
        total = sigma**2 + self.sigma_data**2
        return Coefficients(
            c_skip=self.sigma_data**2 / total,
            c_out=sigma * self.sigma_data / total.sqrt(),
            c_in=1 / total.sqrt(),
            c_noise=sigma.log() / 4,
        )
