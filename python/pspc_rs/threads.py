"""The number of threads of the engine, within a limit: one that is far too large takes the whole machine."""

import os

from pspc_rs import _core
from pspc_rs.checks import integer, shown
from pspc_rs.errors import InvalidValueError

MAX_THREADS = max(1024, os.cpu_count() or 1)
"""Largest number of threads: 1024, or that of the CPUs where there are more."""

_VARIABLE = "PSPC_NUM_THREADS"


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
    number = integer("the number of threads", threads, None)
    if not 1 <= number <= MAX_THREADS:
        raise InvalidValueError(f"{shown(number)} threads are asked for; allowed are integers from 1 to {MAX_THREADS}")
    _core.set_num_threads(number)


def num_threads() -> int:
    """The number of threads a call uses: PSPC_NUM_THREADS, or one per core, until `set_num_threads` changes it.

    Raises:
        InvalidValueError: the variable is not an integer from 1 to `MAX_THREADS`.

    Example:
        >>> num_threads() >= 1
        True
    """
    check_variable()
    return _core.num_threads()


def check_variable() -> None:
    """Refuses a number in PSPC_NUM_THREADS that is too large, before the engine starts so many threads.

    What is no number at all is refused by the engine.

    Raises:
        InvalidValueError: the number is too large.
    """
    wanted = os.environ.get(_VARIABLE, "")
    # Python turns no more than some thousand digits into a number; the engine reads "+7" as 7.
    digits = wanted.removeprefix("+").lstrip("0")
    if digits.isdecimal() and (len(digits) > len(str(MAX_THREADS)) or int(digits) > MAX_THREADS):
        raise InvalidValueError(f'{_VARIABLE} is "{wanted:.40}"; allowed are integers from 1 to {MAX_THREADS}')
