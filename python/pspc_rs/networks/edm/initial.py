"""Laws of initial values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Law: TypeAlias = Literal["xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"]
"""How the spread follows from the number of inputs and outputs; see ``drawn``."""


@dataclass(frozen=True)
class Initial:
    """How a layer begins: a law, and the factors that weights and biases are multiplied by.

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
        weight = drawn(self.law, shape, fan_in, fan_out, self.weight)
        offset = drawn(self.law, shape[:1], fan_in, fan_out, self.bias) if bias else None
        return nn.Parameter(weight), None if offset is None else nn.Parameter(offset)


KAIMING_NORMAL = Initial("kaiming_normal")
"""What layers begin with, if nothing else is said."""


def drawn(law: Law, shape: Sequence[int], fan_in: int, fan_out: int, factor: float) -> Tensor:
    """Random values from torch's default generator.

    xavier_uniform: sqrt(6 / (fan_in + fan_out)) U, kaiming_uniform: sqrt(3 / fan_in) U with U uniform on [-1, 1];
    xavier_normal: sqrt(2 / (fan_in + fan_out)) N, kaiming_normal: sqrt(1 / fan_in) N with N standard normal.

    Example:
        >>> bool(drawn("kaiming_uniform", (2, 3), 3, 2, 1.0).abs().max() <= 1)
        True
    """
    if factor == 0:
        return torch.zeros(*shape)
    family, _, kind = law.partition("_")
    spread = 2 / (fan_in + fan_out) if family == "xavier" else 1 / fan_in
    if kind == "normal":
        return torch.randn(*shape) * (math.sqrt(spread) * factor)
    return (torch.rand(*shape) * 2 - 1) * (math.sqrt(3 * spread) * factor)
