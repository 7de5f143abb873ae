"""Splitting work so that it fits memory."""

import sys
from collections.abc import Callable
from typing import TypeVar

Part = TypeVar("Part")


def in_parts(work: Callable[[slice], Part], total: int, largest: int) -> tuple[list[Part], int]:
    """The results of work on 0 .. total in parts, smaller ones where memory runs out.

    A part that does not fit into memory, on a GPU or elsewhere, is tried again in halves.

    Args:
        work: called with the parts in order.
        total: end of the last part.
        largest: size of the largest part, at least 1.

    Returns:
        The results in order, and the size of parts that fitted.

    Raises:
        MemoryError: a part of 1 does not fit; on a GPU, torch's error.

    Example:
        >>> in_parts(lambda part: part.stop - part.start, 5, 2)
        ([2, 2, 1], 2)
    """
    results: list[Part] = []
    start, size = 0, largest
    while start < total:
        stop = min(start + size, total)
        try:
            results.append(work(slice(start, stop)))
        except out_of_memory_errors():
            if stop - start == 1:
                raise
            size = (stop - start) // 2
        else:
            start = stop
            continue
        _release()
    return results, size


def out_of_memory_errors() -> tuple[type[BaseException], ...]:
    """What is raised where memory runs out, on the CPU or a GPU."""
    torch = sys.modules.get("torch")
    return (MemoryError,) if torch is None else (MemoryError, torch.cuda.OutOfMemoryError)


def _release() -> None:
    """Frees the GPU memory that a failed attempt left in torch's cache, once its frames are gone."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
