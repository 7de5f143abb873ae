"""How torch computes during a run: precision, rounding, compilation, generators."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from pspc_rs.training.settings import Precision


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Within this, networks compute in the precision.

    Example:
        >>> with autocast(torch.device("cpu"), "bf16"):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.bfloat16
    """
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def compiled(network: nn.Module, option: bool | str) -> nn.Module:
    """The network through ``torch.compile`` with the backend of that name (True for torch's own), or as it is."""
    if option is False:
        return network
    wrapped: Any = torch.compile(network, backend="inductor" if option is True else option)
    module: nn.Module = wrapped
    return module


def generators_kept(device: torch.device) -> AbstractContextManager[None]:
    """After this, torch's generators are as before."""
    kept: AbstractContextManager[None] = torch.random.fork_rng([device] if device.type == "cuda" else [])
    return kept


@contextlib.contextmanager
def rounding(tf32: bool) -> Iterator[None]:
    """Within this, whether CUDA may round factors to 10 bits; for convolutions, torch would allow it."""
    earlier = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = earlier
