"""The DDPM++ and NCSN++ U-Nets of Song et al., "Score-Based Generative Modeling through SDEs", 2021, as in EDM."""

import math
from collections.abc import Sequence
from enum import Enum, auto
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.checks import integer, integers, one_of
from pspc_rs.networks.edm.layers import (
    Conv2d,
    FourierEmbedding,
    GroupNorm,
    Initial,
    Linear,
    PositionalEmbedding,
    class_embedding_input,
)
from pspc_rs.networks.edm.unet import (
    BlockStyle,
    Kind,
    Row,
    UNetBlock,
    check_even,
    decoder_rows,
    encoder_rows,
    level_sides,
    unet_arguments,
)

_EPS = 1e-6
_INITIAL = Initial("xavier_uniform")
_INITIAL_ZERO = Initial("xavier_uniform", weight=1e-5)
_INITIAL_QKV = Initial("xavier_uniform", weight=math.sqrt(0.2))


class _Role(Enum):
    """How ``forward`` uses a module."""

    CONV = auto()
    BLOCK = auto()
    JOINED_BLOCK = auto()
    SIDE_DOWN = auto()
    SIDE_ADDED = auto()
    SIDE_RESIDUAL = auto()
    OUTPUT_UP = auto()
    OUTPUT_NORM = auto()
    OUTPUT_CONV = auto()


class SongUNet(nn.Module):
    """F(x, t): the U-Net of DDPM++ (the defaults) and NCSN++.

    NCSN++ is ``embedding_type="fourier"``, ``encoder_type="residual"``, ``channel_mult_noise=2`` and
    ``resample_filter=[1, 3, 3, 1]``.

    Args:
        img_resolution: side of the images.
        in_channels: channels of x.
        out_channels: channels of the output.
        label_dim: number of classes, 0 for none.
        augment_dim: length of the augmentation labels, 0 for none.
        model_channels: width that the others are multiples of; at least 4.
        channel_mult: width of each level; the images are halved from one to the next.
        channel_mult_emb: width of the conditioning vector.
        num_blocks: blocks at each level.
        attn_resolutions: sides of images at which there is attention.
        dropout: share of values that are dropped in training.
        label_dropout: share of class labels that are dropped in training.
        embedding_type: "positional" or "fourier": how t is made a vector.
        channel_mult_noise: width of that vector.
        encoder_type: "standard", "skip" or "residual": how the shrunken input comes in at lower levels.
        decoder_type: "standard", or "skip" for an output at every level.
        resample_filter: taps of the filter for halving and doubling.

    Attributes:
        arguments: all but the first four arguments, as JSON holds them.

    Raises:
        InvalidValueError: an argument is out of range.
        DTypeError: an argument has the wrong type.

    Example:
        >>> net = SongUNet(8, 3, 3, model_channels=8, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4])
        >>> net(torch.zeros(2, 3, 8, 8), torch.zeros(2)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self,
        img_resolution: int | Sequence[int],
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        *,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = unet_arguments(
            augment_dim=augment_dim,
            model_channels=model_channels,
            channel_mult=channel_mult,
            channel_mult_emb=channel_mult_emb,
            num_blocks=num_blocks,
            attn_resolutions=attn_resolutions,
            dropout=dropout,
            label_dropout=label_dropout,
        )
        self.arguments |= {
            "embedding_type": one_of("embedding_type", embedding_type, ["positional", "fourier"]),
            "channel_mult_noise": integer("channel_mult_noise", channel_mult_noise, 1, 64),
            "encoder_type": one_of("encoder_type", encoder_type, ["standard", "skip", "residual"]),
            "decoder_type": one_of("decoder_type", decoder_type, ["standard", "skip"]),
            "resample_filter": integers("resample_filter", resample_filter, 1, 1 << 16, shortest=2, longest=16),
        }
        check_even("resample_filter", len(resample_filter))
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        self.label_dropout = label_dropout
        self._encoder_type, self._decoder_type = encoder_type, decoder_type
        self._taps = tuple(resample_filter)
        emb_channels = model_channels * channel_mult_emb
        self._build_mapping(embedding_type, model_channels * channel_mult_noise, emb_channels)
        self._style = BlockStyle(
            emb_channels, _INITIAL, _INITIAL_ZERO, _INITIAL_QKV, dropout, math.sqrt(0.5), _EPS, self._taps
        )
        sides = level_sides(img_resolution, len(channel_mult))
        widths = [model_channels * factor for factor in channel_mult]
        rows = encoder_rows(sides, in_channels, model_channels, widths, num_blocks)
        self.enc = nn.ModuleDict()
        self._encoder_roles = self._build_encoder(rows, set(attn_resolutions))
        self.dec = nn.ModuleDict()
        self._decoder_roles = self._build_decoder(
            decoder_rows(rows, sides, widths, num_blocks), out_channels, set(attn_resolutions)
        )

    def _build_mapping(self, embedding_type: str, noise_channels: int, emb_channels: int) -> None:
        check_even("model_channels * channel_mult_noise", noise_channels)
        self.map_noise = (
            FourierEmbedding(noise_channels)
            if embedding_type == "fourier"
            else PositionalEmbedding(noise_channels, endpoint=True)
        )
        self.map_label = Linear(self.label_dim, noise_channels, initial=_INITIAL) if self.label_dim else None
        self.map_augment = (
            Linear(self.augment_dim, noise_channels, bias=False, initial=_INITIAL) if self.augment_dim else None
        )
        self.map_layer0 = Linear(noise_channels, emb_channels, initial=_INITIAL)
        self.map_layer1 = Linear(emb_channels, emb_channels, initial=_INITIAL)

    def _build_encoder(self, rows: Sequence[Row], attended: set[int]) -> list[tuple[str, _Role]]:
        roles = []
        side_channels = rows[0].in_channels
        for row in rows:
            if row.kind is Kind.CONV:
                self.enc[row.key] = Conv2d(row.in_channels, row.out_channels, 3, initial=_INITIAL)
                roles.append((row.key, _Role.CONV))
                continue
            attention = row.kind is Kind.BLOCK and row.resolution in attended
            self.enc[row.key] = UNetBlock(
                row.in_channels, row.out_channels, self._style, down=row.kind is Kind.DOWN, attention=attention
            )
            roles.append((row.key, _Role.BLOCK))
            if row.kind is Kind.DOWN:
                roles += self._build_side_path(f"{row.resolution}x{row.resolution}_aux", side_channels, row)
                side_channels = row.out_channels if self._encoder_type == "residual" else side_channels
        return roles

    def _build_side_path(self, prefix: str, channels: int, row: Row) -> list[tuple[str, _Role]]:
        """Modules that bring the shrunken input, or what became of it, to a lower level."""
        if self._encoder_type == "skip":
            self.enc[f"{prefix}_down"] = Conv2d(channels, channels, 0, down=True, taps=self._taps)
            self.enc[f"{prefix}_skip"] = Conv2d(channels, row.out_channels, 1, initial=_INITIAL)
            return [(f"{prefix}_down", _Role.SIDE_DOWN), (f"{prefix}_skip", _Role.SIDE_ADDED)]
        if self._encoder_type == "residual":
            self.enc[f"{prefix}_residual"] = Conv2d(
                channels, row.out_channels, 3, down=True, taps=self._taps, fused=True, initial=_INITIAL
            )
            return [(f"{prefix}_residual", _Role.SIDE_RESIDUAL)]
        return []

    def _build_decoder(self, rows: Sequence[Row], out_channels: int, attended: set[int]) -> list[tuple[str, _Role]]:
        roles = []
        for row in rows:
            # The decoder attends where it begins, and in the last block of a level.
            attention = (row.kind is Kind.IN and row.number == 0) or (row.last and row.resolution in attended)
            self.dec[row.key] = UNetBlock(
                row.in_channels, row.out_channels, self._style, up=row.kind is Kind.UP, attention=attention
            )
            roles.append((row.key, _Role.JOINED_BLOCK if row.kind is Kind.JOIN else _Role.BLOCK))
            if row.last and (self._decoder_type == "skip" or row is rows[-1]):
                has_output = any(role is _Role.OUTPUT_CONV for _, role in roles)
                roles += self._build_output(row, out_channels, has_output)
        return roles

    def _build_output(self, row: Row, out_channels: int, has_output: bool) -> list[tuple[str, _Role]]:
        prefix = f"{row.resolution}x{row.resolution}_aux"
        roles = []
        if has_output:
            self.dec[f"{prefix}_up"] = Conv2d(out_channels, out_channels, 0, up=True, taps=self._taps)
            roles.append((f"{prefix}_up", _Role.OUTPUT_UP))
        self.dec[f"{prefix}_norm"] = GroupNorm(row.out_channels, eps=_EPS)
        self.dec[f"{prefix}_conv"] = Conv2d(row.out_channels, out_channels, 3, initial=_INITIAL_ZERO)
        return [*roles, (f"{prefix}_norm", _Role.OUTPUT_NORM), (f"{prefix}_conv", _Role.OUTPUT_CONV)]

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """F(x, t).

        Args:
            x: images [N, in_channels, H, W].
            noise_labels: t [N] or [1]; its type is that of the conditioning path.
            class_labels: one row of weights per sample [N, label_dim]; ignored by a network without classes.
            augment_labels: [N, augment_dim], None for images that are not augmented.
        """
        emb = self._embedded(noise_labels, class_labels, augment_labels)
        skips = self._encoded(x, emb)
        return self._decoded(skips[-1], emb, skips)

    def _embedded(self, t: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        emb: Tensor = self.map_noise(t)
        cosines, sines = emb.chunk(2, 1)
        emb = torch.cat([sines, cosines], 1)
        if self.map_label is not None:
            labels = class_embedding_input(class_labels, self.label_dim, emb, self.label_dropout * self.training)
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        return functional.silu(self.map_layer1(functional.silu(self.map_layer0(emb))))

    def _encoded(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """What the decoder joins, the latest last."""
        outputs: list[Tensor] = []
        side = x
        for key, role in self._encoder_roles:
            module = self.enc[key]
            if role is _Role.SIDE_DOWN:
                side = module(side)
            elif role is _Role.SIDE_ADDED:
                x = outputs[-1] = x + module(side)
            elif role is _Role.SIDE_RESIDUAL:
                x = outputs[-1] = side = (x + module(side)) * math.sqrt(0.5)
            else:
                x = module(x) if role is _Role.CONV else module(x, emb)
                outputs.append(x)
        return outputs

    def _decoded(self, x: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        output: Tensor | None = None
        normed = x
        for key, role in self._decoder_roles:
            module = self.dec[key]
            if role is _Role.OUTPUT_UP:
                output = module(output)
            elif role is _Role.OUTPUT_NORM:
                normed = functional.silu(module(x))
            elif role is _Role.OUTPUT_CONV:
                output = module(normed) if output is None else output + module(normed)
            elif role is _Role.JOINED_BLOCK:
                x = module(torch.cat([x, skips.pop()], 1), emb)
            else:
                x = module(x, emb)
        assert output is not None
        return output
