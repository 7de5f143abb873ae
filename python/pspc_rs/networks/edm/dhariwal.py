"""The ADM U-Net of Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021, as EDM has it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.networks.edm.layers import (
    Conv2d,
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

_EPS = 1e-5
# Weights and biases uniform within 1 / sqrt(fan_in).
_INITIAL = Initial("kaiming_uniform", weight=3**-0.5, bias=3**-0.5)
_ZERO = Initial("kaiming_uniform", weight=0.0)
_CHANNELS_PER_HEAD = 64


class DhariwalUNet(nn.Module):
    """F(x, t): the ADM U-Net.

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
        attn_resolutions: sides of images at which there is attention, with a head for every 64 channels; narrower
            blocks have none.
        dropout: share of values that are dropped in training.
        label_dropout: share of class labels that are dropped in training.

    Attributes:
        arguments: all but the first four arguments, as JSON holds them.

    Raises:
        InvalidValueError: an argument is out of range.
        DTypeError: an argument has the wrong type.

    Example:
        >>> net = DhariwalUNet(8, 3, 3, model_channels=8, channel_mult=[1, 2], num_blocks=1)
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
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0.0,
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
        check_even("model_channels", model_channels)
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        self.label_dropout = label_dropout
        emb_channels = model_channels * channel_mult_emb
        self._build_mapping(model_channels, emb_channels)
        style = BlockStyle(
            emb_channels,
            initial=_INITIAL,
            initial_zero=_ZERO,
            initial_qkv=_INITIAL,
            dropout=dropout,
            skip_scale=1.0,
            eps=_EPS,
            resample_skip=False,
            adaptive_scale=True,
            channels_per_head=_CHANNELS_PER_HEAD,
        )
        sides = level_sides(img_resolution, len(channel_mult))
        widths = [model_channels * factor for factor in channel_mult]
        encoder = encoder_rows(sides, in_channels, widths[0], widths, num_blocks)
        decoder = decoder_rows(encoder, sides, widths, num_blocks)
        attended = set(attn_resolutions)
        self.enc = nn.ModuleDict({row.key: _module(row, style, attended) for row in encoder})
        self.dec = nn.ModuleDict({row.key: _module(row, style, attended) for row in decoder})
        self._joined = {row.key for row in decoder if row.kind is Kind.JOIN}
        self.out_norm = GroupNorm(widths[0], eps=_EPS)
        self.out_conv = Conv2d(widths[0], out_channels, 3, initial=_ZERO)

    def _build_mapping(self, noise_channels: int, emb_channels: int) -> None:
        self.map_noise = PositionalEmbedding(noise_channels)
        self.map_augment = (
            Linear(self.augment_dim, noise_channels, bias=False, initial=_ZERO) if self.augment_dim else None
        )
        self.map_layer0 = Linear(noise_channels, emb_channels, initial=_INITIAL)
        self.map_layer1 = Linear(emb_channels, emb_channels, initial=_INITIAL)
        # The factor undoes the law's division by the number of inputs.
        standard_normal = Initial("kaiming_normal", weight=self.label_dim**0.5)
        self.map_label = (
            Linear(self.label_dim, emb_channels, bias=False, initial=standard_normal) if self.label_dim else None
        )

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
        skips: list[Tensor] = []
        for module in self.enc.values():
            x = module(x, emb) if isinstance(module, UNetBlock) else module(x)
            skips.append(x)
        for key, block in self.dec.items():
            x = block(torch.cat([x, skips.pop()], 1) if key in self._joined else x, emb)
        output: Tensor = self.out_conv(functional.silu(self.out_norm(x)))
        return output

    def _embedded(self, t: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        emb: Tensor = self.map_noise(t)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        emb = self.map_layer1(functional.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            labels = class_embedding_input(class_labels, self.label_dim, emb, self.label_dropout * self.training)
            emb = emb + self.map_label(labels)
        return functional.silu(emb)


def _module(row: Row, style: BlockStyle, attended: set[int]) -> nn.Module:
    if row.kind is Kind.CONV:
        return Conv2d(row.in_channels, row.out_channels, 3, initial=style.initial)
    # At the lowest level the decoder begins with attention, whatever the resolution.
    attention = row.resolution in attended and row.kind in (Kind.BLOCK, Kind.JOIN)
    attention = attention or (row.kind is Kind.IN and row.number == 0)
    return UNetBlock(
        row.in_channels,
        row.out_channels,
        style,
        up=row.kind is Kind.UP,
        down=row.kind is Kind.DOWN,
        attention=attention,
    )
