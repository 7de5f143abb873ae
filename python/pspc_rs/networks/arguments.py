"""Checks of what networks are built from: a description may come from a file of anybody's making.

Every number has an upper limit, far above what anyone trains, so that a hostile description cannot ask for more memory
or time than there is.
"""

from collections.abc import Sequence

from pspc_rs.checks import integer, real_number
from pspc_rs.errors import DTypeError, InvalidValueError

MAX_CHANNELS = 1 << 14
"""No tensor inside a network has more channels."""


def bounded(name: str, value: object, least: int, most: int) -> int:
    """A whole number from ``least`` to ``most``.

    Example:
        >>> bounded("num_blocks", 4, 1, 64)
        4
    """
    number = integer(name, value, least)
    if number > most:
        raise InvalidValueError(f"{name} is {number}; allowed are integers from {least} to {most}")
    return number


def image_sides(name: str, value: object, most: int) -> int | list[int]:
    """The side of square images, or height and width of others.

    Example:
        >>> image_sides("img_resolution", (32, 32), 8192), image_sides("img_resolution", [28, 24], 8192)
        (32, [28, 24])
    """
    if not isinstance(value, Sequence):
        return bounded(name, value, 1, most)
    height, width = whole_numbers(name, value, 1, most, (2, 2))
    return height if height == width else [height, width]


def flag(name: str, value: object) -> bool:
    """True or False.

    Example:
        >>> flag("use_fp16", False)
        False
    """
    if not isinstance(value, bool):
        raise DTypeError(f"{name} is {value!r:.80}; allowed are True and False")
    return value


def choice(name: str, value: object, allowed: Sequence[str]) -> str:
    """One of some words.

    Example:
        >>> choice("encoder_type", "residual", ["standard", "residual"])
        'residual'
    """
    if not isinstance(value, str) or value not in allowed:
        raise InvalidValueError(f"{name} is {value!r:.80}; allowed are {', '.join(allowed)}")
    return value


def probability(name: str, value: object) -> float:
    """A number from 0 up to, but not including, 1.

    Example:
        >>> probability("dropout", 0.13)
        0.13
    """
    return within(name, value, 0.0, 1.0, excluded=1.0)


def within(name: str, value: object, low: float, high: float, excluded: float | None = None) -> float:
    """A number from ``low`` to ``high``, of which one may be excluded.

    Example:
        >>> within("sigma_data", 0.5, 0.0, 1e9, excluded=0.0)
        0.5
    """
    number = real_number(name, value)
    if not low <= number <= high or number == excluded:
        but = "" if excluded is None else f" but {excluded:g}"
        raise InvalidValueError(f"{name} is {number:g}; allowed are numbers from {low:g} to {high:g}{but}")
    return number


def whole_numbers(name: str, values: object, least: int, most: int, lengths: tuple[int, int]) -> list[int]:
    """A list of whole numbers from ``least`` to ``most``, with ``lengths`` the shortest and the longest it may be.

    Example:
        >>> whole_numbers("channel_mult", (1, 2, 2), 1, 64, (1, 8))
        [1, 2, 2]
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise DTypeError(f"{name} is {values!r:.80}; allowed are lists of whole numbers")
    shortest, longest = lengths
    if not shortest <= len(values) <= longest:
        raise InvalidValueError(f"{name} has {len(values)} entries; allowed are {shortest} to {longest}")
    return [bounded(f"an entry of {name}", value, least, most) for value in values]
