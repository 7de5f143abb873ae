"""What both U-Nets share: their arguments, the residual block, and the order and connections of the blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.checks import integer, integers, real_number
from pspc_rs.errors import InvalidValueError
from pspc_rs.networks.edm.layers import MAX_CHANNELS, Conv2d, GroupNorm, Initial, Linear, attend


def check_even(name: str, number: int) -> None:
    """Refuses an odd number.

    Raises:
        InvalidValueError: it is odd.

    Example:
        >>> check_even("model_channels", 128)
    """
    if number % 2:
        raise InvalidValueError(f"{name} is {number}; it must be even")


def unet_arguments(
    *,
    augment_dim: int,
    model_channels: int,
    channel_mult: Sequence[int],
    channel_mult_emb: int,
    num_blocks: int,
    attn_resolutions: Sequence[int],
    dropout: float,
    label_dropout: float,
) -> dict[str, Any]:
    """The arguments that both U-Nets have, checked, as JSON holds them.

    Every number has an upper limit, far above what anyone trains: a description may come from a file of anybody's
    making, and must not be able to ask for more memory or time than there is.

    Raises:
        InvalidValueError: an argument is out of range.
        DTypeError: an argument has the wrong type.
    """
    return {
        "augment_dim": integer("augment_dim", augment_dim, 0, MAX_CHANNELS),
        "model_channels": integer("model_channels", model_channels, 4, MAX_CHANNELS),
        "channel_mult": integers("channel_mult", channel_mult, 1, 64, shortest=1, longest=8),
        "channel_mult_emb": integer("channel_mult_emb", channel_mult_emb, 1, 64),
        "num_blocks": integer("num_blocks", num_blocks, 1, 32),
        "attn_resolutions": integers("attn_resolutions", attn_resolutions, 1, 1 << 16, longest=16),
        "dropout": real_number("dropout", dropout, least=0, below=1),
        "label_dropout": real_number("label_dropout", label_dropout, least=0, below=1),
    }


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

    def extra_repr(self) -> str:
        """What `repr` shows besides the layers inside."""
        return f"{self.in_channels}, {self.out_channels}, num_heads={self.num_heads}"

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


class Kind(Enum):
    """The kind of a module on the main path; the value is the word in its name."""

    CONV = "conv"
    DOWN = "down"
    BLOCK = "block"
    IN = "in"
    UP = "up"
    JOIN = "join"


class Row(NamedTuple):
    """One module on the main path of a U-Net.

    Attributes:
        key: its name in the encoder or decoder, such as ``16x16_block0``.
        kind: JOIN is a block whose input is joined with an output of the encoder.
        in_channels: channels of its input, those of the encoder's output included.
        out_channels: channels of its output.
        resolution: side of its output.
        number: its number among the rows of its kind at this resolution.
        last: whether the decoder leaves this resolution after it.
    """

    key: str
    kind: Kind
    in_channels: int
    out_channels: int
    resolution: int
    number: int = 0
    last: bool = False


def level_sides(img_resolution: int | Sequence[int], levels: int) -> list[int]:
    """Sides of the images at every level, halved from one to the next.

    Raises:
        InvalidValueError: the side cannot be halved so often, or there are two.

    Example:
        >>> level_sides(32, 3)
        [32, 16, 8]
    """
    if not isinstance(img_resolution, int):
        raise InvalidValueError(f"img_resolution is {img_resolution}; U-Nets are for square images, so it must be one")
    step = 1 << (levels - 1)
    if img_resolution % step:
        raise InvalidValueError(
            f"img_resolution is {img_resolution}; {levels} levels halve it {levels - 1} times, so it must be a "
            f"multiple of {step}"
        )
    return [img_resolution >> level for level in range(levels)]


def encoder_rows(
    sides: Sequence[int], in_channels: int, first: int, widths: Sequence[int], num_blocks: int
) -> list[Row]:
    """The encoder: a convolution to ``first`` channels, and at each level blocks of its width, between halvings.

    Example:
        >>> [row.key for row in encoder_rows([8, 4], 3, 16, [16, 32], 1)]
        ['8x8_conv', '8x8_block0', '4x4_down', '4x4_block0']
    """
    rows = [Row(f"{sides[0]}x{sides[0]}_conv", Kind.CONV, in_channels, first, sides[0])]
    for side, width in zip(sides, widths, strict=True):
        channels = rows[-1].out_channels
        if side != sides[0]:
            rows.append(Row(f"{side}x{side}_down", Kind.DOWN, channels, channels, side))
        for index in range(num_blocks):
            rows.append(Row(f"{side}x{side}_block{index}", Kind.BLOCK, rows[-1].out_channels, width, side, index))
    return rows


def decoder_rows(encoder: Sequence[Row], sides: Sequence[int], widths: Sequence[int], num_blocks: int) -> list[Row]:
    """The decoder: from the lowest level up, each block joined with the latest output of the encoder not yet used.

    Example:
        >>> rows = encoder_rows([8, 4], 3, 16, [16, 32], 1)
        >>> [(row.key, row.in_channels) for row in decoder_rows(rows, [8, 4], [16, 32], 1)][-3:]
        [('8x8_up', 32), ('8x8_block0', 48), ('8x8_block1', 32)]
    """
    waiting = [row.out_channels for row in encoder]
    channels = waiting[-1]
    rows: list[Row] = []
    for side, width in zip(reversed(sides), reversed(widths), strict=True):
        entrance = ["up"] if rows else ["in0", "in1"]
        for index, name in enumerate(entrance):
            kind = Kind.UP if rows and name == "up" else Kind.IN
            rows.append(Row(f"{side}x{side}_{name}", kind, channels, channels, side, index))
        for index in range(num_blocks + 1):
            last = index == num_blocks
            key = f"{side}x{side}_block{index}"
            rows.append(Row(key, Kind.JOIN, channels + waiting.pop(), width, side, index, last))
            channels = width
    return rows
