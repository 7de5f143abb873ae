"""How much noise a stochastic sampler adds at which level."""

import math
from dataclasses import dataclass

from pspc_rs.checks import real_number
from pspc_rs.errors import InvalidValueError


@dataclass(frozen=True)
class Churn:
    """Noise that is added before a step, Karras et al. 2022, algorithm 2.

    Attributes:
        growth: factor by which the noise level grows, minus 1.
        lowest: lowest noise level at which noise is added.
        highest: highest one.
        strength: standard deviation of what is added, relative to the growth.
    """

    growth: float
    lowest: float
    highest: float
    strength: float

    def at(self, sigma: float) -> float:
        """The growth at a noise level, 0 outside the range."""
        return self.growth if self.lowest <= sigma <= self.highest else 0.0


def checked_churn(steps: int, S_churn: object, S_min: object, S_max: object, S_noise: object) -> Churn:
    """The churn of a run of so many steps: min(S_churn / steps, sqrt(2) - 1) where S_min <= sigma <= S_max.

    Raises:
        DTypeError: an argument is not a number.
        InvalidValueError: an argument is negative, or S_max below S_min.

    Example:
        >>> checked_churn(10, 1.0, 0.0, float("inf"), 1.003).at(5.0)
        0.1
    """
    churn, strength = _not_negative("S_churn", S_churn), _not_negative("S_noise", S_noise)
    lowest = _not_negative("S_min", S_min)
    highest = math.inf if S_max == math.inf else _not_negative("S_max", S_max)
    if highest < lowest:
        raise InvalidValueError(f"S_max is {highest:g}, below S_min, which is {lowest:g}; it must not be")
    return Churn(min(churn / steps, math.sqrt(2) - 1), lowest, highest, strength)


def _not_negative(name: str, value: object) -> float:
    number = real_number(name, value)
    if number < 0:
        raise InvalidValueError(f"{name} is {number:g}; allowed are numbers from 0 up")
    return number
