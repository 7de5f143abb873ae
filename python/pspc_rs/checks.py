"""Checks of single arguments: numbers, ranges, choices and flags, each with one sentence for every caller.

A check returns the argument in plain Python types, or raises an error that gives its name, its value and what is
allowed. Arrays and tensors are checked in `arrays`, files in `files`.
"""

import math
import numbers
import operator
from collections.abc import Collection, Sequence
from typing import Any, cast

import numpy as np

from pspc_rs.arrays import MAX_SIGMA, is_torch, real_array
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError


def real_number(
    name: str,
    value: object,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """One finite real number as a float.

    Args:
        name: what the message calls it.
        value: a number, or an array or tensor of one number; booleans are refused.
        least: the smallest number allowed.
        most: the largest number allowed.
        above: a bound below all numbers allowed.
        below: a bound above all numbers allowed.

    Raises:
        DTypeError: value is not a real number.
        ShapeError: value holds several numbers.
        InvalidValueError: value is NaN, infinite or out of range.

    Example:
        >>> real_number("rho", np.float32(7))
        7.0
        >>> real_number("dropout", 1, least=0, below=1)
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: dropout is 1; allowed are numbers from 0 and below 1
    """
    if isinstance(value, bool) or not (isinstance(value, numbers.Real | np.ndarray) or is_torch(value)):
        raise DTypeError(f"{name} is {value!r:.80}; allowed are real numbers")
    array = real_array(name, value)
    if array.size != 1:
        raise ShapeError(f"{name} has shape {list(array.shape)}; allowed is one number")
    number = float(array.reshape(()))
    if not math.isfinite(number):
        raise InvalidValueError(f"{name} is {number}; allowed are finite numbers")
    if (
        (least is not None and number < least)
        or (most is not None and number > most)
        or (above is not None and number <= above)
        or (below is not None and number >= below)
    ):
        bounds = {"from": least, "above": above, "up to": most, "below": below}
        allowed = " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)
        raise InvalidValueError(f"{name} is {number:g}; allowed are numbers {allowed}")
    return number


def in_order(low_name: str, low: float, high_name: str, high: float) -> None:
    """Refuses two bounds of a range of which the upper one is below the lower one.

    Raises:
        InvalidValueError: it is.

    Example:
        >>> in_order("S_min", 2.0, "S_max", 1.0)
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: S_max is 1, below S_min, which is 2; it must not be
    """
    if high < low:
        raise InvalidValueError(f"{high_name} is {high:g}, below {low_name}, which is {low:g}; it must not be")


def integer(name: str, value: object, least: int | None = 1, most: int | None = None) -> int:
    """One integer from ``least`` to ``most``; None is no bound.

    Raises:
        DTypeError: value is not an integer; booleans are refused.
        InvalidValueError: value is out of range.

    Example:
        >>> integer("num_steps", np.int64(18))
        18
        >>> integer("num_blocks", 65, 1, 64)
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: num_blocks is 65; allowed are integers from 1 to 64
    """
    if least is None:
        allowed = "integers" if most is None else f"integers of at most {most}"
    else:
        allowed = f"integers of at least {least}" if most is None else f"integers from {least} to {most}"
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise DTypeError(f"{name} is {value!r:.80}; allowed are {allowed}")
    try:
        number = operator.index(cast(Any, value))
    except TypeError as error:
        raise DTypeError(f"{name} is {value!r:.80}; allowed are {allowed}") from error
    if (least is not None and number < least) or (most is not None and number > most):
        raise InvalidValueError(f"{name} is {shown(number)}; allowed are {allowed}")
    return number


def shown(number: int) -> str:
    """An integer as messages show it: Python refuses to write out thousands of digits.

    Example:
        >>> shown(-5), shown(10**5000)
        ('-5', 'an integer of 16610 bits')
    """
    return str(number) if number.bit_length() <= 256 else f"an integer of {number.bit_length()} bits"


def one_of(name: str, value: object, allowed: Collection[str]) -> str:
    """One of some words.

    Raises:
        DTypeError: value is not a string.
        InvalidValueError: value is another string.

    Example:
        >>> one_of("split", "train", ["train", "test"])
        'train'
        >>> one_of("split", "valid", ["train", "test"])
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: split is 'valid'; allowed are train, test
    """
    if not isinstance(value, str):
        raise DTypeError(f"{name} is {value!r:.80}; allowed are {', '.join(allowed)}")
    if value not in allowed:
        raise InvalidValueError(f"{name} is {value!r:.80}; allowed are {', '.join(allowed)}")
    return value


def flag(name: str, value: object) -> bool:
    """True or False. Numbers and strings are refused, because "no" would count as true.

    Raises:
        DTypeError: value is neither.

    Example:
        >>> flag("xflip", np.bool_(True))
        True
    """
    if not isinstance(value, bool | np.bool_):
        raise DTypeError(f"{name} is {value!r:.80}; allowed are True and False")
    return bool(value)


def integers(
    name: str, values: object, least: int = 1, most: int | None = None, *, shortest: int = 0, longest: int | None = None
) -> list[int]:
    """A list of integers from ``least`` to ``most``.

    Args:
        name: what the message calls it.
        values: a list or tuple.
        least: the smallest integer allowed.
        most: the largest integer allowed.
        shortest: the smallest length allowed.
        longest: the largest length allowed.

    Raises:
        DTypeError: values are not a list, or an entry is not an integer.
        InvalidValueError: an entry or the length is out of range.

    Example:
        >>> integers("channel_mult", (1, 2, 2), 1, 64)
        [1, 2, 2]
        >>> integers("channel_mult", [1] * 9, longest=8)
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: channel_mult has 9 entries; allowed are 0 to 8
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise DTypeError(f"{name} is {values!r:.80}; allowed are lists of integers")
    if len(values) < shortest or (longest is not None and len(values) > longest):
        allowed = f"at least {shortest}" if longest is None else f"{shortest} to {longest}"
        raise InvalidValueError(f"{name} has {len(values)} entries; allowed are {allowed}")
    return [integer(f"an entry of {name}", value, least, most) for value in values]


def sigma_range(sigma_min: object, sigma_max: object) -> tuple[float, float]:
    """A smallest and a largest noise level, infinity for None.

    Raises:
        DTypeError: one is not a number.
        InvalidValueError: one is out of range, or the largest is below the smallest.

    Example:
        >>> sigma_range(0, None)
        (0.0, inf)
    """
    low = real_number("sigma_min", sigma_min, least=0, most=MAX_SIGMA)
    high = math.inf if sigma_max is None else real_number("sigma_max", sigma_max, above=0, most=MAX_SIGMA)
    if high < low:
        raise InvalidValueError(f"sigma_max is {high:g}, below sigma_min, which is {low:g}; it must not be")
    return low, high


def image_shape(shape: object) -> tuple[int, int, int]:
    """The three lengths (channels, height, width) of an image.

    Raises:
        ShapeError: there are not three of them.
        DTypeError: one is not an integer.
        InvalidValueError: one is below 1.

    Example:
        >>> image_shape([3, 32, 32])
        (3, 32, 32)
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str) or len(shape) != 3:
        raise ShapeError(f"shape is {shape!r}; allowed is (channels, height, width)")
    channels, height, width = (integer("each length of shape", length) for length in shape)
    return channels, height, width
