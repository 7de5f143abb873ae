"""Numbers as vectors of sines and cosines."""

import math

import torch
from torch import Tensor, nn


class PositionalEmbedding(nn.Module):
    """t [N] -> [cos(t f_0), ..., sin(t f_0), ...] [N, n] with f_i = max_positions^(-i / (n/2 - e)).

    Args:
        num_channels: n, even.
        max_positions: ratio of the highest to the lowest frequency, about.
        endpoint: e = 1, so that the ratio is exactly ``max_positions``; otherwise e = 0.
    """

    def __init__(self, num_channels: int, *, max_positions: int = 10000, endpoint: bool = False) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.max_positions = max_positions
        self.endpoint = endpoint

    def forward(self, t: Tensor) -> Tensor:
        """The embedding, in the type of t."""
        half = self.num_channels // 2
        powers = torch.arange(half, dtype=t.dtype, device=t.device) / (half - int(self.endpoint))
        angles = torch.outer(t, (1 / self.max_positions) ** powers)
        return torch.cat([angles.cos(), angles.sin()], 1)


class FourierEmbedding(nn.Module):
    """t [N] -> [cos(2 pi f t), sin(2 pi f t)] [N, n] with n/2 frequencies f, drawn once.

    Args:
        num_channels: n, even.
        scale: standard deviation of the frequencies.
    """

    freqs: Tensor

    def __init__(self, num_channels: int, *, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(num_channels // 2) * scale)

    def forward(self, t: Tensor) -> Tensor:
        """The embedding, in the type of t."""
        angles = torch.outer(t, 2 * math.pi * self.freqs.to(t.dtype))
        return torch.cat([angles.cos(), angles.sin()], 1)
