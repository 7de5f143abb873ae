"""The U-shaped vision transformer of Bao et al., "All are Worth Words: A ViT Backbone for Diffusion Models", 2023.

Tensor names are those of the published checkpoints, so that `read_weights` takes them as they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.checks import flag, integer, real_number
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.networks.edm.layers import MAX_CHANNELS, Conv2d, Linear, PositionalEmbedding, class_embedding_input
from pspc_rs.networks.tokens import attend_tokens, check_divisible, small_initial

_EPS = 1e-5


class UViT(nn.Module):
    """F(x, t): time, class and patches as tokens; blocks in the second half also take the output of their twin.

    The tokens are [class,] time, then the patches row by row, each with a learned position. ``depth / 2`` blocks, one
    in the middle, then ``depth / 2`` blocks that first mix in, through a linear layer, what the blocks of the first
    half returned, in reverse order. The defaults are those of the CIFAR-10 network.

    Args:
        img_resolution: side of the images, or height and width.
        in_channels: channels of x.
        out_channels: channels of the output.
        label_dim: number of classes, 0 for none.
        augment_dim: length of the augmentation labels, which are embedded into the time token; 0 for none.
        patch_size: side of a patch.
        hidden_size: width of a token, a multiple of ``num_heads``.
        depth: number of blocks besides the middle one, even.
        num_heads: attention heads of a block.
        mlp_ratio: width of a block's hidden layer, in units of ``hidden_size``.
        qkv_bias: whether queries, keys and values have biases.
        mlp_time_embed: pass the embedding of t through two linear layers.
        conv: end with a 3 x 3 convolution.
        dropout: share of values that are dropped in training, after the output layer of the attention and after both
            layers of the block's MLP; the published networks have none.
        label_dropout: share of class labels that are dropped in training.

    Attributes:
        arguments: all but the first four arguments, as JSON holds them.
        shape: (channels, height, width) of x: the learned positions fix the size of the images.

    Raises:
        InvalidValueError: an argument is out of range, or the patches do not tile the images.
        DTypeError: an argument has the wrong type.

    Example:
        >>> net = UViT(8, 3, 3, patch_size=2, hidden_size=16, depth=2, num_heads=2)
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
        patch_size: int = 2,
        hidden_size: int = 512,
        depth: int = 12,
        num_heads: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        mlp_time_embed: bool = False,
        conv: bool = True,
        dropout: float = 0.0,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "augment_dim": integer("augment_dim", augment_dim, 0, MAX_CHANNELS),
            "patch_size": integer("patch_size", patch_size, 1, 1 << 10),
            "hidden_size": integer("hidden_size", hidden_size, 2, MAX_CHANNELS),
            "depth": integer("depth", depth, 2, 1 << 10),
            "num_heads": integer("num_heads", num_heads, 1, MAX_CHANNELS),
            "mlp_ratio": real_number("mlp_ratio", mlp_ratio, least=0.25, most=64),
            "qkv_bias": flag("qkv_bias", qkv_bias),
            "mlp_time_embed": flag("mlp_time_embed", mlp_time_embed),
            "conv": flag("conv", conv),
            "dropout": real_number("dropout", dropout, least=0, below=1),
            "label_dropout": real_number("label_dropout", label_dropout, least=0, below=1),
        }
        check_divisible("hidden_size", hidden_size, num_heads)
        check_divisible("depth", depth, 2)
        self.shape = _image_shape(img_resolution, in_channels)
        for side in self.shape[1:]:
            check_divisible("img_resolution", side, patch_size)
        self.label_dim, self.label_dropout = label_dim, label_dropout
        self.augment_dim = augment_dim
        self.patch_size = patch_size
        self.rows, self.columns = (side // patch_size for side in self.shape[1:])
        self.num_extras = 1 + bool(label_dim)
        tokens = self.num_extras + self.rows * self.columns
        self.patch_embed = _PatchEmbedding(in_channels, hidden_size, patch_size)
        self.pos_embed = nn.Parameter(small_initial(1).parameters((1, tokens, hidden_size), 1, 1, False)[0])
        self.embed_time = PositionalEmbedding(hidden_size // 2 * 2)
        self.time_embed = _time_layers(hidden_size) if mlp_time_embed else nn.Identity()
        self.label_emb = _Embedding(label_dim, hidden_size) if label_dim else None
        self.augment_emb = _Embedding(augment_dim, hidden_size) if augment_dim else None

        def block(skip: bool) -> UViTBlock:
            return UViTBlock(hidden_size, num_heads, round(mlp_ratio * hidden_size), qkv_bias, dropout, skip=skip)

        self.in_blocks = nn.ModuleList(block(False) for _ in range(depth // 2))
        self.mid_block = block(False)
        self.out_blocks = nn.ModuleList(block(True) for _ in range(depth // 2))
        self.norm = LayerNorm(hidden_size)
        self.decoder_pred = _small_linear(hidden_size, patch_size**2 * out_channels)
        self.final_layer = Conv2d(out_channels, out_channels, 3) if conv else None

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """F(x, t).

        Args:
            x: images [N, channels, height, width] of the network's ``shape``.
            noise_labels: t [N] or [1]; 999 t of the VP process for the published networks.
            class_labels: one row of weights per sample [N, label_dim]; ignored by a network without classes.
            augment_labels: [N, augment_dim], None for images that are not augmented.

        Raises:
            ShapeError: x or the labels have another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ShapeError(f"x has shape {list(x.shape)}; allowed is [batch, {', '.join(map(str, self.shape))}]")
        patches = self.patch_embed(x)
        extras = self._extras(noise_labels, class_labels, augment_labels)
        tokens: Tensor = torch.cat([*(one.to(x.dtype).expand(len(x), -1, -1) for one in extras), patches], 1)
        tokens = tokens + self.pos_embed.to(tokens.dtype)
        skips = []
        for block in self.in_blocks:
            tokens = block(tokens)
            skips.append(tokens)
        tokens = self.mid_block(tokens)
        for block in self.out_blocks:
            tokens = block(tokens, skips.pop())
        decoded = self.decoder_pred(self.norm(tokens))[:, self.num_extras :]
        image = _joined(decoded, self.rows, self.columns, self.patch_size)
        return image if self.final_layer is None else self.final_layer(image)

    def _extras(self, t: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> list[Tensor]:
        """The tokens before the patches, each [N or 1, 1, hidden_size]."""
        embedded = self.embed_time(t if t.is_floating_point() else t.to(self.pos_embed.dtype))
        width = self.pos_embed.shape[2]
        time: Tensor = self.time_embed(functional.pad(embedded, (0, width - embedded.shape[1])))
        if self.augment_emb is not None and augment_labels is not None:
            time = time + self.augment_emb(augment_labels.to(time.dtype))
        if self.label_emb is None:
            return [time[:, None]]
        labels = class_embedding_input(class_labels, self.label_dim, time, self.label_dropout * self.training)
        return [self.label_emb(labels)[:, None], time[:, None]]


class UViTBlock(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)); with ``skip``, after x = W [x, skip] + b.

    Args:
        hidden_size: width of a token.
        num_heads: attention heads.
        mlp_size: width of the MLP's hidden layer.
        qkv_bias: whether queries, keys and values have biases.
        dropout: share of values that are dropped in training.
        skip: whether the block takes the output of an earlier one.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, mlp_size: int, qkv_bias: bool, dropout: float, *, skip: bool
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.skip_linear = _small_linear(2 * hidden_size, hidden_size) if skip else None
        self.norm1, self.norm2 = LayerNorm(hidden_size), LayerNorm(hidden_size)
        self.attn = _Attention(hidden_size, num_heads, qkv_bias)
        self.mlp = _Mlp(hidden_size, mlp_size, dropout)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """The block's output.

        Args:
            x: tokens [N, tokens, hidden_size].
            skip: the output of the earlier block, in the same shape, for a block that takes one.
        """
        if self.skip_linear is not None and skip is not None:
            x = self.skip_linear(torch.cat([x, skip], 2))
        x = x + functional.dropout(self.attn(self.norm1(x)), self.dropout, self.training)
        hidden: Tensor = x + self.mlp(self.norm2(x))
        return hidden


class LayerNorm(nn.Module):
    """Normalisation over the last axis, with weights and biases.

    Args:
        hidden_size: length of that axis.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x."""
        return functional.layer_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.bias.to(x.dtype), _EPS)


class _Attention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = _small_linear(hidden_size, 3 * hidden_size, bias=qkv_bias)
        self.proj = _small_linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.proj(attend_tokens(self.qkv(x), self.num_heads))
        return attended


class _Mlp(nn.Module):
    def __init__(self, hidden_size: int, mlp_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc1 = _small_linear(hidden_size, mlp_size)
        self.fc2 = _small_linear(mlp_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.dropout(functional.gelu(self.fc1(x)), self.dropout, self.training)
        return functional.dropout(self.fc2(hidden), self.dropout, self.training)


class _PatchEmbedding(nn.Module):
    """Images [N, C, H, W] as tokens [N, patches, hidden_size], by a convolution whose stride is its side."""

    def __init__(self, in_channels: int, hidden_size: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.proj.bias is None else self.proj.bias.to(x.dtype)
        grid = functional.conv2d(x, self.proj.weight.to(x.dtype), bias, stride=self.proj.stride)
        return grid.flatten(2).transpose(1, 2)


class _Embedding(nn.Module):
    """Sums of rows of a table, weighted by labels [N, rows]."""

    def __init__(self, rows: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(small_initial(1).parameters((rows, hidden_size), 1, 1, False)[0])

    def forward(self, labels: Tensor) -> Tensor:
        return labels @ self.weight.to(labels.dtype)


def _time_layers(hidden_size: int) -> nn.Sequential:
    wide = 4 * hidden_size
    return nn.Sequential(_small_linear(hidden_size, wide), nn.SiLU(), _small_linear(wide, hidden_size))


def _small_linear(in_features: int, out_features: int, *, bias: bool = True) -> Linear:
    return Linear(in_features, out_features, bias=bias, initial=small_initial(in_features))


def _joined(patches: Tensor, rows: int, columns: int, patch_size: int) -> Tensor:
    """Patches [N, rows columns, p p C], channels last within a patch, as images [N, C, H, W]."""
    grid = patches.reshape(len(patches), rows, columns, patch_size, patch_size, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _image_shape(img_resolution: int | Sequence[int], channels: int) -> tuple[int, int, int]:
    sides = [img_resolution] * 2 if isinstance(img_resolution, int) else list(img_resolution)
    if len(sides) != 2:
        raise InvalidValueError(f"img_resolution is {img_resolution!r:.80}; allowed are a side, or height and width")
    height, width = (integer("img_resolution", side) for side in sides)
    return integer("in_channels", channels, 1, MAX_CHANNELS), height, width
