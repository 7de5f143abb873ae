"""Linear layers, group norms and attention. Weights are cast to the type of what they are applied to."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pspc_rs.networks.edm.initial import KAIMING_NORMAL, Initial


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

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x."""
        return functional.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


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
