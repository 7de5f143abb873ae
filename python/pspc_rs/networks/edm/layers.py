"""The layers that the networks are made of. Weights are cast to the type of what they are applied to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.errors import ShapeError

MAX_CHANNELS = 1 << 14
"""No tensor inside a network has more channels: far more than anyone trains, but a file cannot ask for all memory."""

Law: TypeAlias = Literal["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"]
"""How the spread of initial values follows from the number of inputs and outputs; see ``initial_values``."""


@dataclass(frozen=True)
class Initial:
    """Initial values of a layer: a law, and factors of the weights and the biases.

    Attributes:
        law: name of the law.
        weight: factor of the weights; with 0 they are zeros.
        bias: factor of the biases, which follow the weights' law; with 0 they are zeros.
    """

    law: Law
    weight: float = 1.0
    bias: float = 0.0

    def parameters(
        self, shape: Sequence[int], fan_in: int, fan_out: int, bias: bool
    ) -> tuple[nn.Parameter, nn.Parameter | None]:
        """Weights of a shape, and biases [shape[0]] or None."""
        weight = initial_values(self.law, shape, fan_in, fan_out, self.weight)
        offset = initial_values(self.law, shape[:1], fan_in, fan_out, self.bias) if bias else None
        return nn.Parameter(weight), None if offset is None else nn.Parameter(offset)


KAIMING_NORMAL = Initial("kaiming_normal")
"""The default of all layers."""


def initial_values(law: Law, shape: Sequence[int], fan_in: int, fan_out: int, factor: float) -> Tensor:
    """Random values from torch's default generator.

    xavier_uniform: sqrt(6 / (fan_in + fan_out)) U, kaiming_uniform: sqrt(3 / fan_in) U with U uniform on [-1, 1];
    xavier_normal: sqrt(2 / (fan_in + fan_out)) N, kaiming_normal: sqrt(1 / fan_in) N with N standard normal.

    Example:
        >>> bool(initial_values("kaiming_uniform", (2, 3), 3, 2, 1.0).abs().max() <= 1)
        True
    """
    if factor == 0:
        return torch.zeros(*shape)
    family, _, kind = law.partition("_")
    spread = 2 / (fan_in + fan_out) if family == "xavier" else 1 / fan_in
    if kind == "normal":
        return torch.randn(*shape) * (math.sqrt(spread) * factor)
    return (torch.rand(*shape) * 2 - 1) * (math.sqrt(3 * spread) * factor)


class Linear(nn.Module):
    """y = x W^T + b for x [..., in_features].

    Args:
        in_features: length of the input's last axis.
        out_features: length of the output's last axis.
        bias: whether there is a b.
        initial: law of initial values.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, initial: Initial = KAIMING_NORMAL
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight, self.bias = initial.parameters((out_features, in_features), in_features, out_features, bias)

    def extra_repr(self) -> str:
        """What `repr` shows in brackets."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output [..., out_features]."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.linear(x, self.weight.to(x.dtype), bias)


class GroupNorm(nn.Module):
    """Normalisation over groups of channels of x [N, C, H, W]: min(32, floor(C / 4)) groups.

    Args:
        num_channels: C, at least 4.
        eps: what is added to the variance.
    """

    def __init__(self, num_channels: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.num_groups = min(32, num_channels // 4)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def extra_repr(self) -> str:
        """What `repr` shows in brackets."""
        return f"{self.num_groups} groups of {len(self.weight)} channels, eps={self.eps:g}"

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x."""
        return functional.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


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

    def extra_repr(self) -> str:
        """What `repr` shows in brackets."""
        resampling = ", up" if self.up else ", down" if self.down else ""
        return f"{self.in_channels}, {self.out_channels}, kernel={self.kernel}{resampling}"

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

    def wrong_constant(self) -> str | None:
        """What is wrong with the filter, None if it is that of the taps."""
        if self.resample_filter is None:
            return None
        right = torch.allclose(self.resample_filter, resample_kernel(self.taps), rtol=0, atol=1e-6)
        return None if right else f"resample_filter is not the filter of {list(self.taps)}"

    def _resampled(self, x: Tensor, padding: int) -> Tensor:
        if self.resample_filter is None:
            return x
        channels = x.shape[1]
        kernel = self.resample_filter.to(x.dtype).expand(channels, 1, -1, -1)
        if self.up:
            return functional.conv_transpose2d(x, kernel * 4, stride=2, padding=padding, groups=channels)
        return functional.conv2d(x, kernel, stride=2, padding=padding, groups=channels)


def attend(qkv: Tensor, num_heads: int) -> Tensor:
    """Attention of every pixel to all pixels, [N, 3 C, H, W] -> [N, C, H, W].

    Channel (head c + channel) 3 + j of the input is query (j = 0), key (1) or value (2).

    Example:
        >>> attend(torch.zeros(2, 12, 4, 4), num_heads=2).shape
        torch.Size([2, 4, 4, 4])
    """
    batch, channels, height, width = qkv.shape
    q, k, v = qkv.reshape(batch * num_heads, channels // (3 * num_heads), 3, height * width).unbind(2)
    weights = attention_weights(q, k)
    return torch.einsum("nqk,nck->ncq", weights, v).reshape(batch, channels // 3, height, width)


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Softmax over keys of q . k / sqrt(c), [N, c, queries] and [N, c, keys] -> [N, queries, keys].

    Half precision is computed in float32 and rounded at the end.

    Example:
        >>> attention_weights(torch.zeros(1, 4, 1), torch.zeros(1, 4, 2))
        tensor([[[0.5000, 0.5000]]])
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = torch.einsum("ncq,nck->nqk", q.to(wide), k.to(wide) / math.sqrt(k.shape[1]))
    return scores.softmax(2, dtype=wide).to(q.dtype)


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
        """The embedding [N, num_channels], in the type of t."""
        half = self.num_channels // 2
        powers = torch.arange(half, dtype=t.dtype, device=t.device) / (half - int(self.endpoint))
        angles = torch.outer(t, (1 / self.max_positions) ** powers)
        return torch.cat([angles.cos(), angles.sin()], 1)


class FourierEmbedding(nn.Module):
    """t [N] -> [cos(2 pi f t), sin(2 pi f t)] [N, n] with n/2 frequencies f, initial_values once.

    Args:
        num_channels: n, even.
        scale: standard deviation of the frequencies.
    """

    freqs: Tensor

    def __init__(self, num_channels: int, *, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(num_channels // 2) * scale)

    def forward(self, t: Tensor) -> Tensor:
        """The embedding [N, num_channels], in the type of t."""
        angles = torch.outer(t, 2 * math.pi * self.freqs.to(t.dtype))
        return torch.cat([angles.cos(), angles.sin()], 1)


def class_embedding_input(class_labels: Tensor | None, label_dim: int, emb: Tensor, dropout: float) -> Tensor:
    """Class labels in the type of ``emb`` [N, ...]: zeros where none are given or where they are dropped.

    Args:
        class_labels: [N, label_dim], [1, label_dim] or None.
        label_dim: number of classes.
        emb: what the labels are added to.
        dropout: share of the samples whose labels are set to zero.

    Raises:
        ShapeError: the labels have another shape.

    Example:
        >>> class_embedding_input(None, 3, torch.zeros(2, 8), 0.0)
        tensor([[0., 0., 0.]])
    """
    if class_labels is None:
        return emb.new_zeros(1, label_dim)
    if class_labels.ndim != 2 or class_labels.shape[1] != label_dim:
        raise ShapeError(
            f"class_labels have shape {list(class_labels.shape)}; allowed is [batch, {label_dim}], one weight per class"
        )
    labels = class_labels.to(emb.dtype)
    if dropout:
        kept = torch.rand(len(labels), 1, device=labels.device) >= dropout
        labels = labels * kept.to(labels.dtype)
    return labels
