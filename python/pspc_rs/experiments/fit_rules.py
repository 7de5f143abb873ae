"""Rules of fits: which candidate is taken at a noise level, and which ones must be measured to know it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from pspc_rs.checks import one_of, real_number
from pspc_rs.errors import InvalidValueError

Measure: TypeAlias = Literal["mse", "entropy"]
"""What is measured of a candidate: its mean squared error against a target, or its posteriors' mean entropy in nats."""

Curve: TypeAlias = Callable[[int], float]
"""The measure of the candidate of an index, measured when it is asked for."""

RULES = ("error", "entropy", "greedy")
"""The rules by name."""

FRACTION = 0.8
"""The share of ln N that the rule "entropy" waits for."""

# Composites that agree to float32 rounding differ by less than this share of their error.
_TIE = 1e-5


@dataclass(frozen=True)
class Rule(ABC):
    """How the candidate of a noise level is found.

    Attributes:
        name: one of `RULES`.
        measure: what it looks at.
        ascending: whether levels are fitted from the lowest noise up, each from the candidate of the one below.
    """

    name: ClassVar[str]
    measure: ClassVar[Measure]
    ascending: ClassVar[bool] = False

    @property
    def settings(self) -> dict[str, Any]:
        """The rule and its numbers, for records."""
        return {"rule": self.name}

    @abstractmethod
    def choose(self, curve: Curve, number: int, last: int) -> int:
        """The index of the candidate to take.

        Args:
            curve: the measures of the candidates, in ascending order of their values.
            number: of candidates.
            last: the index taken at the level before; 0 at the first.
        """


@dataclass(frozen=True)
class LeastError(Rule):
    """The candidate of least error; the smallest of those whose errors agree to 1 part in 10^5."""

    name = "error"
    measure = "mse"

    def choose(self, curve: Curve, number: int, last: int) -> int:
        """See `Rule.choose`.

        Example:
            >>> LeastError().choose([3.0, 1.0, 1.000001, 2.0].__getitem__, 4, 0)
            1
        """
        del last
        errors = [curve(index) for index in range(number)]
        return next(index for index, error in enumerate(errors) if error <= min(errors) * (1 + _TIE))


@dataclass(frozen=True)
class Greedy(Rule):
    """From the candidate of the next lower level up, until the error rises.

    Errors that agree to 1 part in 10^5 are no rise, as neighbouring thresholds may cut the same masks, and no fall, so
    that the smallest of equal candidates is kept.
    """

    name = "greedy"
    measure = "mse"
    ascending = True

    def choose(self, curve: Curve, number: int, last: int) -> int:
        """See `Rule.choose`.

        Example:
            >>> Greedy().choose([1.0, 3.0, 3.0, 2.0, 2.5, 0.0].__getitem__, 6, 1)
            3
        """
        best, error = last, curve(last)
        while last + 1 < number:
            last, following = last + 1, curve(last + 1)
            if following > error * (1 + _TIE):
                break
            if following * (1 + _TIE) < error:
                best, error = last, following
        return best


@dataclass(frozen=True)
class FallenEntropy(Rule):
    """The smallest candidate whose mean entropy is no more than a share of ln N; the largest if there is none.

    Attributes:
        fraction: the share.
        atoms: N, the number of images that may count, flips among them; ln N is the entropy of equal weights.
    """

    name = "entropy"
    measure = "entropy"

    fraction: float
    atoms: int

    @property
    def limit(self) -> float:
        """The entropy to fall to, in nats."""
        return self.fraction * math.log(self.atoms)

    @property
    def settings(self) -> dict[str, Any]:
        """See `Rule.settings`."""
        return {**super().settings, "fraction": self.fraction, "atoms": self.atoms}

    def choose(self, curve: Curve, number: int, last: int) -> int:
        """See `Rule.choose`.

        Example:
            >>> FallenEntropy(0.5, 100).choose([4.0, 2.4, 2.3, 1.0].__getitem__, 4, 0)  # to 2.303
            2
        """
        del last
        return next((index for index in range(number) if curve(index) <= self.limit), number - 1)


def find_rule(name: object, fraction: object, atoms: int) -> Rule:
    """The rule of a name.

    Args:
        name: one of `RULES`.
        fraction: of the rule "entropy", above 0 and below 1; None for `FRACTION`, and for the other rules.
        atoms: number of images that may count.

    Raises:
        DTypeError: the name is no string, or the fraction no number.
        InvalidValueError: another name, a fraction that is out of range, or one for another rule.

    Example:
        >>> find_rule("entropy", None, 100)
        FallenEntropy(fraction=0.8, atoms=100)
    """
    rule = one_of("rule", name, RULES)
    if rule == "entropy":
        share = FRACTION if fraction is None else real_number("fraction", fraction, above=0, below=1)
        return FallenEntropy(share, atoms)
    if fraction is not None:
        raise InvalidValueError(f"fraction is {fraction!r}, but the rule is {rule!r}; it is for the rule 'entropy'")
    return LeastError() if rule == "error" else Greedy()
