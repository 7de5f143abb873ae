"""One process or several: what ``torchrun`` sets up, and the few things processes say to each other."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pspc_rs.errors import InvalidValueError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: its number.
        count: how many there are.
        device: what it computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """The images of a batch that are this process's.

        Raises:
            InvalidValueError: there are fewer images than processes.

        Example:
            >>> Processes(1, 2, torch.device("cpu")).share(5)
            range(2, 5)
        """
        if batch < self.count:
            raise InvalidValueError(f"batch is {batch}; allowed are at least as many images as processes, {self.count}")
        return range(batch * self.rank // self.count, batch * (self.rank + 1) // self.count)

    def joined(self, network: nn.Module) -> nn.Module:
        """The network, with gradients that are averaged over the processes in ``backward``."""
        if self.count == 1:
            return network
        ids = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)

    def add_up(self, numbers: Tensor) -> Tensor:
        """The sum of all processes' tensors, in place."""
        if self.count > 1:
            dist.all_reduce(numbers)
        return numbers


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a name; "auto" is CUDA if there is any, and a bare "cuda" the one of this process's number.

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


def is_first_process() -> bool:
    """Whether this process is the one that writes files and shows progress.

    Example:
        >>> is_first_process()
        True
    """
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """This process among those that ``torchrun`` started, connected for as long as the context lasts; else on its own.

    Args:
        device: see ``find_device``.

    Raises:
        InvalidValueError: there is no such device.

    Example:
        >>> with processes("cpu") as own:
        ...     own.count
        1
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    found = find_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if count == 1:
        yield Processes(0, 1, found)
        return
    if found.type == "cuda":
        torch.cuda.set_device(found)
    dist.init_process_group("nccl" if found.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), count, found)
    finally:
        dist.destroy_process_group()
