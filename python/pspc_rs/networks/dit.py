"""The diffusion transformer of Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.checks import integer, real_number
from pspc_rs.errors import ShapeError
from pspc_rs.networks.edm.layers import (
    MAX_CHANNELS,
    Initial,
    Linear,
    PositionalEmbedding,
    class_embedding_input,
)
from pspc_rs.networks.tokens import attend_tokens, check_divisible, small_initial

_EPS = 1e-6
_FREQUENCIES = 256
_INITIAL = Initial("xavier_uniform")
_ZERO = Initial("xavier_uniform", weight=0.0)


class DiT(nn.Module):
    """F(x, t): patches as tokens, transformer blocks whose norms are modulated by the conditioning (adaLN-Zero).

    The conditioning is the sum of the embeddings of t, of the class and of the augmentation. As every block and the
    output begin as zero, F is 0 before training. Positions are fixed sines and cosines of row and column, made for the
    images of each call: their sides may be any multiples of the patch size.

    Args:
        img_resolution: side of the images, or height and width.
        in_channels: channels of x.
        out_channels: channels of the output.
        label_dim: number of classes, 0 for none.
        augment_dim: length of the augmentation labels, 0 for none.
        patch_size: side of a patch.
        hidden_size: width of a token, a multiple of 4 and of ``num_heads``.
        depth: number of blocks.
        num_heads: attention heads of a block.
        mlp_ratio: width of a block's hidden layer, in units of ``hidden_size``.
        dropout: share of values that are dropped in training, after the output layer of the attention and after both
            layers of the block's MLP.
        label_dropout: share of class labels that are dropped in training.

    Attributes:
        arguments: all but the first four arguments, as JSON holds them.

    Raises:
        InvalidValueError: an argument is out of range, or the patches do not tile the images.
        DTypeError: an argument has the wrong type.

    Example:
        >>> net = DiT(8, 3, 3, patch_size=2, hidden_size=16, depth=2, num_heads=2)
        >>> net(torch.zeros(2, 3, 8, 8), torch.zeros(2)).shape
        torch.Size([2, 3, 8, 8])
        >>> net(torch.zeros(2, 3, 4, 10), torch.zeros(2)).shape
        torch.Size([2, 3, 4, 10])
    """

    def __init__(
        self,
        img_resolution: int | Sequence[int],
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        *,
        augment_dim: int = 0,
        patch_size: int = 4,
        hidden_size: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        label_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "augment_dim": integer("augment_dim", augment_dim, 0, MAX_CHANNELS),
            "patch_size": integer("patch_size", patch_size, 1, 1 << 10),
            "hidden_size": integer("hidden_size", hidden_size, 4, MAX_CHANNELS),
            "depth": integer("depth", depth, 1, 1 << 10),
            "num_heads": integer("num_heads", num_heads, 1, MAX_CHANNELS),
            "mlp_ratio": real_number("mlp_ratio", mlp_ratio, least=0.25, most=64),
            "dropout": real_number("dropout", dropout, least=0, below=1),
            "label_dropout": real_number("label_dropout", label_dropout, least=0, below=1),
        }
        check_divisible("hidden_size", hidden_size, 4)
        check_divisible("hidden_size", hidden_size, num_heads)
        for side in [img_resolution] if isinstance(img_resolution, int) else img_resolution:
            check_divisible("img_resolution", side, patch_size)
        self.label_dim = label_dim
        self.augment_dim = augment_dim
        self.label_dropout = label_dropout
        self.patch_size = patch_size
        self.out_channels = out_channels
        self.map_noise = PositionalEmbedding(_FREQUENCIES)
        self.map_layer0 = Linear(_FREQUENCIES, hidden_size, initial=small_initial(_FREQUENCIES))
        self.map_layer1 = Linear(hidden_size, hidden_size, initial=small_initial(hidden_size))
        self.map_label = (
            Linear(label_dim, hidden_size, bias=False, initial=small_initial(label_dim)) if label_dim else None
        )
        self.map_augment = (
            Linear(augment_dim, hidden_size, bias=False, initial=small_initial(augment_dim)) if augment_dim else None
        )
        self.patch_in = Linear(in_channels * patch_size**2, hidden_size, initial=_INITIAL)
        self.blocks = nn.ModuleList(
            DiTBlock(hidden_size, num_heads, round(mlp_ratio * hidden_size), dropout) for _ in range(depth)
        )
        self.modulation = Linear(hidden_size, 2 * hidden_size, initial=_ZERO)
        self.patch_out = Linear(hidden_size, out_channels * patch_size**2, initial=_ZERO)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """F(x, t).

        Args:
            x: images [N, in_channels, H, W], H and W multiples of the patch size.
            noise_labels: t [N] or [1]; its type is that of the conditioning path.
            class_labels: one row of weights per sample [N, label_dim]; ignored by a network without classes.
            augment_labels: [N, augment_dim], None for images that are not augmented.

        Raises:
            ShapeError: the patches do not tile the images.
        """
        height, width = x.shape[2:]
        if height % self.patch_size or width % self.patch_size:
            raise ShapeError(f"x has shape {list(x.shape)}; height and width must be multiples of {self.patch_size}")
        rows, columns = height // self.patch_size, width // self.patch_size
        conditioning = functional.silu(self._embedded(noise_labels, class_labels, augment_labels))
        tokens = self.patch_in(to_patches(x, self.patch_size))
        positions = grid_positions(rows, columns, tokens.shape[2], noise_labels)
        tokens = tokens + positions.to(tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, conditioning)
        shift, scale = _modulation(self.modulation, conditioning, tokens, 2)
        tokens = self.patch_out(_modulated(tokens, shift, scale))
        return from_patches(tokens, rows, columns, self.patch_size)

    def _embedded(self, t: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        emb: Tensor = self.map_layer1(functional.silu(self.map_layer0(self.map_noise(t))))
        if self.map_label is not None:
            labels = class_embedding_input(class_labels, self.label_dim, emb, self.label_dropout * self.training)
            emb = emb + self.map_label(labels)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        return emb


class DiTBlock(nn.Module):
    """x + g1 attention(norm(x) (1 + s1) + b1), then the same with an MLP and g2, s2, b2 of the conditioning.

    Args:
        hidden_size: width of a token.
        num_heads: attention heads.
        mlp_size: width of the MLP's hidden layer.
        dropout: share of values that are dropped in training.
    """

    def __init__(self, hidden_size: int, num_heads: int, mlp_size: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.modulation = Linear(hidden_size, 6 * hidden_size, initial=_ZERO)
        self.qkv = Linear(hidden_size, 3 * hidden_size, initial=_INITIAL)
        self.proj = Linear(hidden_size, hidden_size, initial=_INITIAL)
        self.mlp_in = Linear(hidden_size, mlp_size, initial=_INITIAL)
        self.mlp_out = Linear(mlp_size, hidden_size, initial=_INITIAL)

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """The block's output.

        Args:
            x: tokens [N, tokens, hidden_size].
            conditioning: [N or 1, hidden_size].
        """
        shift1, scale1, gate1, shift2, scale2, gate2 = _modulation(self.modulation, conditioning, x, 6)
        x = x + gate1 * self._attention(_modulated(x, shift1, scale1))
        return x + gate2 * self._mlp(_modulated(x, shift2, scale2))

    def _attention(self, x: Tensor) -> Tensor:
        return self._dropped(self.proj(attend_tokens(self.qkv(x), self.num_heads)))

    def _mlp(self, x: Tensor) -> Tensor:
        hidden = self._dropped(functional.gelu(self.mlp_in(x), approximate="tanh"))
        return self._dropped(self.mlp_out(hidden))

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)


def to_patches(x: Tensor, patch_size: int) -> Tensor:
    """Images [N, C, H, W] as rows of patches [N, H W / p^2, C p^2], channels first within a patch.

    Example:
        >>> to_patches(torch.arange(16.0).view(1, 1, 4, 4), 2)[0, 1]
        tensor([2., 3., 6., 7.])
    """
    return functional.unfold(x, patch_size, stride=patch_size).transpose(1, 2)


def from_patches(tokens: Tensor, rows: int, columns: int, patch_size: int) -> Tensor:
    """The images [N, C, H, W] whose patches these are; undoes ``to_patches``.

    Example:
        >>> x = torch.arange(48.0).view(1, 2, 4, 6)
        >>> bool((from_patches(to_patches(x, 2), 2, 3, 2) == x).all())
        True
    """
    tokens = tokens.reshape(len(tokens), rows, columns, -1, patch_size, patch_size)
    return tokens.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def grid_positions(rows: int, columns: int, channels: int, like: Tensor) -> Tensor:
    """Embeddings of the places in a grid, [rows columns, channels]: half of the channels tell the row, half the column.

    Either half is ``PositionalEmbedding`` of the place's number.

    Args:
        rows: height of the grid.
        columns: width of the grid.
        channels: a multiple of 4.
        like: whose type and device the result has.

    Example:
        >>> grid_positions(2, 3, 8, torch.zeros(1)).shape
        torch.Size([6, 8])
    """
    embedding = PositionalEmbedding(channels // 2)
    down = embedding(torch.arange(rows, dtype=like.dtype, device=like.device))
    across = embedding(torch.arange(columns, dtype=like.dtype, device=like.device))
    places = [down[:, None].expand(-1, columns, -1), across[None].expand(rows, -1, -1)]
    return torch.cat(places, 2).flatten(0, 1)


def _modulation(layer: nn.Module, conditioning: Tensor, like: Tensor, parts: int) -> tuple[Tensor, ...]:
    """Shifts, scales and gates [N or 1, 1, hidden_size] in the type of the tokens."""
    modulation: Tensor = layer(conditioning)
    return modulation.to(like.dtype)[:, None].chunk(parts, 2)


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift
