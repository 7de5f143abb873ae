"""The residual block that both U-Nets are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.networks.edm.convolution import Conv2d
from pspc_rs.networks.edm.initial import Initial
from pspc_rs.networks.edm.layers import GroupNorm, Linear, attend


@dataclass(frozen=True)
class BlockStyle:
    """What all blocks of a network have in common.

    Attributes:
        emb_channels: length of the conditioning vector.
        initial: law of the weights.
        initial_zero: law of the layers that begin (nearly) at zero: the last convolution and the attention's output.
        initial_qkv: law of the attention's input.
        dropout: share of values that are dropped in training.
        skip_scale: factor after each addition.
        eps: that of the group norms.
        taps: resampling filter.
        resample_skip: whether a resampled shortcut has weights where the number of channels stays the same.
        adaptive_scale: whether the conditioning scales and shifts, or shifts alone.
        channels_per_head: size of an attention head; None for a single head.
    """

    emb_channels: int
    initial: Initial
    initial_zero: Initial
    initial_qkv: Initial
    dropout: float
    skip_scale: float
    eps: float
    taps: Sequence[int] = (1, 1)
    resample_skip: bool = True
    adaptive_scale: bool = False
    channels_per_head: int | None = None

    def heads(self, channels: int) -> int:
        """Number of attention heads: none in blocks that are narrower than a head."""
        return 1 if self.channels_per_head is None else channels // self.channels_per_head


class UNetBlock(nn.Module):
    """Two convolutions with conditioning and a shortcut, and perhaps attention.

    h = conv1(dropout(silu(modulated(conv0(silu(norm0(x))))))), x <- (h + shortcut(x)) s; with attention
    x <- (x + proj(attend(qkv(norm2(x))))) s.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        style: what the blocks of the network have in common.
        up: double the size in ``conv0`` and in the shortcut.
        down: halve the size there.
        attention: whether there is attention; a block narrower than a head has none all the same.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        style: BlockStyle,
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.emb_channels = style.emb_channels
        self.num_heads = style.heads(out_channels) if attention else 0
        self.dropout = style.dropout
        self.skip_scale = style.skip_scale
        self.adaptive_scale = style.adaptive_scale
        initial, eps, taps = style.initial, style.eps, style.taps

        self.norm0 = GroupNorm(in_channels, eps=eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, up=up, down=down, taps=taps, initial=initial)
        self.affine = Linear(style.emb_channels, out_channels * (1 + style.adaptive_scale), initial=initial)
        self.norm1 = GroupNorm(out_channels, eps=eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, initial=style.initial_zero)
        self.skip: Conv2d | None = None
        if up or down or in_channels != out_channels:
            kernel = 1 if style.resample_skip or in_channels != out_channels else 0
            self.skip = Conv2d(in_channels, out_channels, kernel, up=up, down=down, taps=taps, initial=initial)
        if self.num_heads:
            self.norm2 = GroupNorm(out_channels, eps=eps)
            self.qkv = Conv2d(out_channels, out_channels * 3, 1, initial=style.initial_qkv)
            self.proj = Conv2d(out_channels, out_channels, 1, initial=style.initial_zero)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Images [N, in_channels, H, W], conditioning [N, emb_channels] -> [N, out_channels, H, W] or resampled."""
        h = self.conv0(functional.silu(self.norm0(x)))
        h = functional.silu(self._modulated(h, self.affine(emb).to(x.dtype)[:, :, None, None]))
        h = self.conv1(functional.dropout(h, self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * self.skip_scale
        if self.num_heads:
            x = (x + self.proj(attend(self.qkv(self.norm2(x)), self.num_heads))) * self.skip_scale
        return x

    def _modulated(self, h: Tensor, condition: Tensor) -> Tensor:
        if not self.adaptive_scale:
            normed: Tensor = self.norm1(h + condition)
            return normed
        scale, shift = condition.chunk(2, 1)
        scaled: Tensor = self.norm1(h) * (1 + scale) + shift
        return scaled
