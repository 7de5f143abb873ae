"""Which blocks a U-Net consists of, in what order, and what is joined to what; the part that both U-Nets share."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from pspc_rs.errors import InvalidValueError


class Kind(Enum):
    """What a row of the wiring is, and the word in its name."""

    CONV = "conv"
    DOWN = "down"
    BLOCK = "block"
    IN = "in"
    UP = "up"
    JOIN = "join"


class Row(NamedTuple):
    """One module on the main path.

    Attributes:
        key: its name in the encoder or decoder, such as ``16x16_block0``.
        kind: what it is; JOIN is a block whose input is joined with an output of the encoder.
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
