"""The number of threads of the engine."""

from pspc_rs import _core
from pspc_rs.checks import integer

MAX_THREADS = 1024
"""Largest number of threads that the engine takes, from here or from PSPC_NUM_THREADS."""


def set_num_threads(threads: int) -> None:
    """Sets the number of threads of later calls; running calls keep theirs. Results do not depend on it.

    Args:
        threads: 1 up to `MAX_THREADS`.

    Raises:
        DTypeError: threads is not an integer.
        InvalidValueError: it is out of range.

    Example:
        >>> before = num_threads()
        >>> set_num_threads(2)
        >>> num_threads()
        2
        >>> set_num_threads(before)
    """
    _core.set_num_threads(integer("the number of threads", threads, 1, MAX_THREADS))


def num_threads() -> int:
    """The number of threads a call uses: PSPC_NUM_THREADS, or one per core, until `set_num_threads` changes it.

    Raises:
        InvalidValueError: the variable is not an integer from 1 to `MAX_THREADS`.

    Example:
        >>> num_threads() >= 1
        True
    """
    return _core.num_threads()
