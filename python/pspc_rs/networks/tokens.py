"""What both transformers are made of: attention between tokens, small initial weights, and a check of their sizes."""

from torch import Tensor
from torch.nn import functional

from pspc_rs.errors import InvalidValueError
from pspc_rs.networks.edm.layers import Initial

_EMBEDDING_STD = 0.02


def attend_tokens(qkv: Tensor, num_heads: int) -> Tensor:
    """Attention of every token to all tokens, [N, tokens, 3 C] -> [N, tokens, C].

    The input holds all queries, then all keys, then all values; the channels of a head lie side by side in each.

    Example:
        >>> import torch
        >>> attend_tokens(torch.zeros(2, 5, 12), num_heads=2).shape
        torch.Size([2, 5, 4])
    """
    batch, tokens, channels = qkv.shape
    shape = batch, tokens, 3, num_heads, channels // (3 * num_heads)
    q, k, v = qkv.reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def small_initial(fan_in: int) -> Initial:
    """Normal values of standard deviation .02; the factor undoes the law's division by the number of inputs.

    Example:
        >>> small_initial(4).weight
        0.04
    """
    return Initial("kaiming_normal", weight=_EMBEDDING_STD * fan_in**0.5)


def check_divisible(name: str, number: int, divisor: int) -> None:
    """Refuses a number that is no multiple of the divisor.

    Raises:
        InvalidValueError: it is none.
    """
    if number % divisor:
        raise InvalidValueError(f"{name} is {number}; it must be a multiple of {divisor}")
