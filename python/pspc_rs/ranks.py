"""Ranks: processes that each hold a part of the work, and what they tell each other through ``torch.distributed``."""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import import_torch
from pspc_rs.errors import DTypeError, InvalidValueError, PspcError

Float64 = npt.NDArray[np.float64]

_POLL = (1e-5, 1e-2)
"""Seconds between looks at whether the others have answered: at first, and at last."""

_MOST_WAIT = 30 * 60
"""Seconds after which ranks that do not answer are given up."""


def num_ranks() -> int:
    """How many ranks ``torchrun`` started, this process among them; 1 without it.

    Example:
        >>> num_ranks()
        1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


class Ranks:
    """The ranks of a process group, each of which makes the same calls in the same order.

    Arrays go through the CPU or, with NCCL, through each rank's current GPU. While a rank waits it hears Ctrl-C, and a
    rank that has ended or failed ends the wait of the others with an error.

    Args:
        group: a group of ``torch.distributed``; None for all processes.

    Attributes:
        group: the group.
        number: which rank this process is, from 0.
        count: how many there are.

    Raises:
        MissingDependencyError: torch is missing.
        InvalidValueError: no process group has been started, or this process is not in the group.
        DTypeError: the group is something else.
    """

    def __init__(self, group: Any = None) -> None:
        import_torch("a group of processes")
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            raise InvalidValueError(
                "no group of processes has been started; torchrun and torch.distributed.init_process_group start one"
            )
        self.group: Any = dist.group.WORLD if group is None else group
        if not isinstance(self.group, dist.ProcessGroup):
            if self.group == dist.GroupMember.NON_GROUP_MEMBER:
                raise InvalidValueError("this process is not in the group; allowed are groups that it is in")
            raise DTypeError(f"group is {group!r:.80}; allowed are a group of torch.distributed, and None for all")
        self.number, self.count = dist.get_rank(self.group), dist.get_world_size(self.group)
        self._device = "cuda" if dist.get_backend(self.group) == "nccl" else "cpu"

    def __repr__(self) -> str:
        return f"Ranks({self.number} of {self.count})"

    def share(self, count: int) -> range:
        """The part of some things that is this rank's; parts follow each other and differ by one at most."""
        return range(count * self.number // self.count, count * (self.number + 1) // self.count)

    def gather(self, numbers: Float64) -> Float64:
        """The arrays of all ranks, which have the same shape [...], as [ranks, ...]."""
        import torch
        import torch.distributed as dist

        own = torch.from_numpy(np.ascontiguousarray(numbers, np.float64)).to(self._device)
        parts = [torch.empty_like(own) for _ in range(self.count)]
        self._wait(lambda: dist.all_gather(parts, own, group=self.group, async_op=True))
        return np.stack([part.cpu().numpy() for part in parts])

    def sum(self, numbers: Float64) -> Float64:
        """The sum of the arrays of all ranks, the same bits on each."""
        import torch
        import torch.distributed as dist

        total = torch.from_numpy(np.array(numbers, np.float64, order="C")).to(self._device)
        self._wait(lambda: dist.all_reduce(total, group=self.group, async_op=True))
        summed: Float64 = total.cpu().numpy()
        return summed

    def tell(self, message: bytes) -> None:
        """Tells all ranks a message, which the others hear; on the first rank."""
        self._broadcast(np.array([len(message)], np.int64))
        self._broadcast(np.frombuffer(message, np.uint8).copy())

    def hear(self) -> bytes:
        """The next message of the first rank, however long it takes."""
        length = int(self._broadcast(np.zeros(1, np.int64))[0])
        return self._broadcast(np.zeros(length, np.uint8)).tobytes()

    def _broadcast(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        import torch
        import torch.distributed as dist

        told = torch.from_numpy(values).to(self._device)
        first = dist.get_global_rank(self.group, 0)
        self._wait(lambda: dist.broadcast(told, first, group=self.group, async_op=True), most=None)
        heard: npt.NDArray[Any] = told.cpu().numpy()
        return heard

    def _wait(self, start: Callable[[], Any], most: float | None = _MOST_WAIT) -> None:
        """Waits for the others; sleeps between looks, as waiting inside torch would be deaf to Ctrl-C."""
        begun, pause = time.monotonic(), _POLL[0]
        try:
            work = start()
            while not work.is_completed():
                if most is not None and time.monotonic() - begun > most:
                    raise PspcError(f"another rank has not answered for {most / 60:g} minutes")
                time.sleep(pause)
                pause = min(2 * pause, _POLL[1])
            work.wait()
        except (RuntimeError, ValueError) as error:
            if isinstance(error, PspcError):
                raise
            raise PspcError(f"another rank of {self.count} has ended or cannot be reached: {error}") from error
