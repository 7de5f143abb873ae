"""Convolutions that may resample by two."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.networks.edm.initial import KAIMING_NORMAL, Initial


def resample_kernel(taps: Sequence[float]) -> Tensor:
    """The 2-D filter float32 [1, 1, n, n] of n taps along each axis; it sums to 1.

    Example:
        >>> resample_kernel([1, 1])
        tensor([[[[0.2500, 0.2500],
                  [0.2500, 0.2500]]]])
    """
    line = torch.tensor([float(tap) for tap in taps])
    return (torch.outer(line, line) / line.sum() ** 2)[None, None]


class Conv2d(nn.Module):
    """A k x k convolution with zero padding, before which (when fused: during which) x is resampled by two.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: 3, 1, or 0 for resampling alone, without weights.
        bias: whether there is one; never for kernel 0.
        up: double the size: insert zeros and filter with four times the kernel of the taps.
        down: halve the size: filter with the kernel of the taps, keep every other pixel.
        taps: the resampling filter along one axis, symmetric.
        fused: filter and convolve without cutting the borders in between: for down, the convolution comes first.
        initial: law of initial values.
    """

    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        bias: bool = True,
        up: bool = False,
        down: bool = False,
        taps: Sequence[int] = (1, 1),
        fused: bool = False,
        initial: Initial = KAIMING_NORMAL,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel = kernel
        self.up = up
        self.down = down
        self.taps = tuple(taps)
        self.fused_resample = fused
        self.weight: nn.Parameter | None = None
        self.bias: nn.Parameter | None = None
        if kernel:
            area = kernel * kernel
            self.weight, self.bias = initial.parameters(
                (out_channels, in_channels, kernel, kernel), in_channels * area, out_channels * area, bias
            )
        self.register_buffer("resample_filter", resample_kernel(taps) if up or down else None)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, in_channels, H, W] -> [N, out_channels, H, W], or twice or half that size."""
        margin = self.kernel // 2
        inset = 0 if self.resample_filter is None else (self.resample_filter.shape[-1] - 1) // 2
        if self.weight is None or not self.fused_resample:
            x = self._resampled(x, inset)
            x = x if self.weight is None else functional.conv2d(x, self.weight.to(x.dtype), padding=margin)
        elif self.down:
            x = self._resampled(functional.conv2d(x, self.weight.to(x.dtype), padding=margin + inset), 0)
        else:
            x = self._resampled(x, max(inset - margin, 0))
            x = functional.conv2d(x, self.weight.to(x.dtype), padding=max(margin - inset, 0) if self.up else margin)
        return x if self.bias is None else x + self.bias.to(x.dtype)[:, None, None]

    def _resampled(self, x: Tensor, padding: int) -> Tensor:
        if self.resample_filter is None:
            return x
        channels = x.shape[1]
        kernel = self.resample_filter.to(x.dtype).expand(channels, 1, -1, -1)
        if self.up:
            return functional.conv_transpose2d(x, kernel * 4, stride=2, padding=padding, groups=channels)
        return functional.conv2d(x, kernel, stride=2, padding=padding, groups=channels)
