"""How a training step computes: learning rate, averaged weights, gradients, precision and random generators."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

_LARGEST_GRADIENT = 1e5


def learning_rate(peak: float, images: int, ramp: int) -> float:
    """The learning rate of a step: peak min(images / ramp, 1), so 0 at the first one.

    Args:
        peak: the learning rate after the ramp.
        images: images seen before the step.
        ramp: images over which it grows.

    Example:
        >>> learning_rate(1e-3, 512, 10_000_000)
        5.12e-08
    """
    return peak * min(images / ramp, 1.0) if ramp > 0 else peak


def ema_beta(images: int, batch: int, half_life: float, ramp: float | None) -> float:
    """The share of the old average that is kept after a step, 0.5^(batch / half-life).

    Args:
        images: images seen before the step.
        batch: images of the step.
        half_life: in images.
        ramp: the half-life is at most ``ramp`` times the images seen; None for no such limit.

    Example:
        >>> round(ema_beta(5_120_000, 512, 500_000, 0.05), 9)
        0.998614666
        >>> ema_beta(0, 512, 500_000, 0.05)
        0.0
    """
    if ramp is not None:
        half_life = min(half_life, images * ramp)
    return float(0.5 ** (batch / max(half_life, 1e-8)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, beta: float) -> None:
    """Average <- beta average + (1 - beta) network for every parameter; buffers do not change in training.

    Example:
        >>> a, b = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> update_average(a, b, 0.0)
        >>> bool(a.weight == b.weight)
        True
    """
    old: list[Tensor] = list(average.parameters())
    new: list[Tensor] = list(network.parameters())
    if beta == 0:
        for average_parameter, parameter in zip(old, new, strict=True):
            average_parameter.copy_(parameter)
    else:
        get_ema_multi_avg_fn(beta)(old, new, 1)  # type: ignore[no-untyped-call]


@torch.no_grad()
def clean_gradients(parameters: Iterable[Tensor]) -> Tensor:
    """Replaces NaN in gradients by 0 and infinities by +-1e5.

    Returns:
        How many there were, a scalar on the device of the gradients; the CPU does not wait for it.

    Example:
        >>> w = torch.zeros(3, requires_grad=True)
        >>> w.grad = torch.tensor([1.0, float("nan"), -float("inf")])
        >>> clean_gradients([w]), w.grad
        (tensor(2), tensor([ 1.0000e+00,  0.0000e+00, -1.0000e+05]))
    """
    replaced = torch.zeros((), dtype=torch.int64)
    for parameter in parameters:
        if parameter.grad is not None:
            replaced = replaced.to(parameter.grad.device) + (~parameter.grad.isfinite()).sum()
            parameter.grad.nan_to_num_(nan=0.0, posinf=_LARGEST_GRADIENT, neginf=-_LARGEST_GRADIENT)
    return replaced


def compile_network(network: nn.Module, option: bool | str) -> nn.Module:
    """The network through ``torch.compile``: with torch's own backend (True) or a named one, or as it is (False)."""
    if option is False:
        return network
    wrapped: Any = torch.compile(network, backend="inductor" if option is True else option)
    module: nn.Module = wrapped
    return module


def keep_generators(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """A context at whose end torch's generators are as they were at its start."""
    context: contextlib.AbstractContextManager[None] = torch.random.fork_rng([device] if device.type == "cuda" else [])
    return context


@contextlib.contextmanager
def allow_tf32(tf32: bool) -> Iterator[None]:
    """In this context, CUDA may round factors to 10 bits or not; torch's default allows it for convolutions alone."""
    earlier = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = earlier
