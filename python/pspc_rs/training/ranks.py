"""Training in several operating-system processes, called ranks, as ``torchrun`` starts them; or in one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pspc_rs.errors import InvalidValueError


@dataclass(frozen=True)
class Rank:
    """One of the operating-system processes that train a network together.

    Attributes:
        number: from 0.
        count: how many ranks there are.
        device: what this one computes on.
    """

    number: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and shows progress."""
        return self.number == 0

    def share(self, batch: int) -> range:
        """The images of a batch that this rank computes.

        Raises:
            InvalidValueError: there are fewer images than ranks.

        Example:
            >>> Rank(1, 2, torch.device("cpu")).share(5)
            range(2, 5)
        """
        if batch < self.count:
            raise InvalidValueError(f"batch is {batch}; allowed are at least as many images as ranks, {self.count}")
        return range(batch * self.number // self.count, batch * (self.number + 1) // self.count)

    def distribute(self, network: nn.Module) -> nn.Module:
        """The network, with gradients that ``backward`` averages over the ranks."""
        if self.count == 1:
            return network
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum of the tensors of all ranks, in place."""
        if self.count > 1:
            dist.all_reduce(numbers)
        return numbers


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a name: "auto" is CUDA where there is one, and "cuda" the GPU with the number of the rank.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:0".
        local_rank: number of the rank on this machine.

    Raises:
        InvalidValueError: there is no such device.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name == "cuda" and available:
        name = f"cuda:{local_rank % available}"
    allowed = ["auto", "cpu", *(["cuda"] if available else []), *(f"cuda:{index}" for index in range(available))]
    if name not in allowed:
        raise InvalidValueError(f"device is {name!r:.80}; allowed are {', '.join(allowed)}")
    return torch.device(name)


def is_first_rank() -> bool:
    """Whether this is the rank that writes files and shows progress.

    Example:
        >>> is_first_rank()
        True
    """
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def connect_rank(device: str) -> Iterator[Rank]:
    """This rank, connected to the others that ``torchrun`` started; without ``torchrun``, the only one.

    The connection ends with the context.

    Args:
        device: see ``find_device``.

    Raises:
        InvalidValueError: there is no such device.

    Example:
        >>> with connect_rank("cpu") as rank:
        ...     rank.count
        1
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    torch_device = find_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if count == 1:
        yield Rank(0, 1, torch_device)
        return
    if torch_device.type == "cuda":
        torch.cuda.set_device(torch_device)
    dist.init_process_group("nccl" if torch_device.type == "cuda" else "gloo")
    try:
        yield Rank(dist.get_rank(), count, torch_device)
    finally:
        dist.destroy_process_group()
