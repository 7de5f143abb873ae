"""The parts that earlier samplers are made of: noise schedules and discretisations.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, table 1 and appendix C: a
noise schedule is the noise level as a function of time, sigma(t); a discretisation says which levels a sampler visits.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import one_of, real_number
from pspc_rs.errors import InvalidValueError
from pspc_rs.sigmas import check_range, edm_sigmas

EPSILON_S = 1e-3
"""Time of the smallest noise level of the VP process."""


class NoiseSchedule(Protocol):
    """The noise level as a function of time; it grows, and is 0 at time 0.

    Example:
        >>> def halfway(schedule: NoiseSchedule, sigma: float) -> float:
        ...     return schedule.sigma(schedule.time(sigma) / 2)
        >>> halfway(LinearSchedule(), 4.0), round(halfway(VESchedule(), 4.0), 3)
        (2.0, 2.828)
    """

    def sigma(self, t: float) -> float:
        """The noise level at a time."""

    def slope(self, t: float) -> float:
        """The derivative of the noise level at a time above 0."""

    def time(self, sigma: float) -> float:
        """The time of a noise level."""


@dataclass(frozen=True)
class LinearSchedule:
    """Time is the noise level.

    Example:
        >>> LinearSchedule().time(0.5)
        0.5
    """

    def sigma(self, t: float) -> float:
        """The noise level at a time."""
        return t

    def slope(self, t: float) -> float:
        """The derivative of the noise level at a time above 0."""
        return 1.0

    def time(self, sigma: float) -> float:
        """The time of a noise level."""
        return sigma


@dataclass(frozen=True)
class VESchedule:
    """sigma = sqrt(t), Song et al.'s variance exploding process.

    Example:
        >>> VESchedule().time(3.0)
        9.0
    """

    def sigma(self, t: float) -> float:
        """The noise level at a time."""
        return math.sqrt(t)

    def slope(self, t: float) -> float:
        """The derivative of the noise level at a time above 0."""
        return 0.5 / math.sqrt(t)

    def time(self, sigma: float) -> float:
        """The time of a noise level."""
        return sigma**2


@dataclass(frozen=True)
class VPSchedule:
    """sigma = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1), Song et al.'s variance preserving process.

    Attributes:
        beta_d: growth of beta.
        beta_min: beta at time 0.

    Example:
        >>> schedule = VPSchedule()
        >>> round(schedule.sigma(1.0), 3), round(schedule.time(schedule.sigma(0.25)), 12)
        (152.167, 0.25)
    """

    beta_d: float = 19.9
    beta_min: float = 0.1

    @classmethod
    def through(cls, sigma_min: float, sigma_max: float, epsilon_s: float = EPSILON_S) -> "VPSchedule":
        """The schedule that has sigma_min at the time epsilon_s and sigma_max at the time 1."""
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        beta_d = 2 * (low / epsilon_s - high) / (epsilon_s - 1)
        return cls(beta_d, high - beta_d / 2)

    def sigma(self, t: float) -> float:
        """The noise level at a time."""
        return math.sqrt(math.expm1(0.5 * self.beta_d * t**2 + self.beta_min * t))

    def slope(self, t: float) -> float:
        """The derivative of the noise level at a time above 0."""
        sigma = self.sigma(t)
        return 0.5 * (self.beta_min + self.beta_d * t) * (sigma + 1 / sigma)

    def time(self, sigma: float) -> float:
        """The time of a noise level."""
        if sigma == 0:
            return 0.0
        growth = 2 * math.log1p(sigma**2)
        root = math.sqrt(self.beta_min**2 + self.beta_d * growth)
        # Of the two ways to write the root, each cancels for the other sign of beta_min.
        return (root - self.beta_min) / self.beta_d if self.beta_min < 0 else growth / (root + self.beta_min)


def noise_schedule(name: object, sigma_min: float, sigma_max: float, epsilon_s: float = EPSILON_S) -> NoiseSchedule:
    """The noise schedule "linear", "ve" or "vp"; the last is made to pass through the two noise levels.

    Raises:
        DTypeError: name is not a string.
        InvalidValueError: there is none of that name, or none through these levels.

    Example:
        >>> noise_schedule("ve", 0.02, 100.0)
        VESchedule()
    """
    match one_of("schedule", name, ("linear", "ve", "vp")):
        case "linear":
            return LinearSchedule()
        case "ve":
            return VESchedule()
    schedule = VPSchedule.through(sigma_min, sigma_max, epsilon_s)
    # It must grow between the two times; a beta_min slightly below 0 does no harm.
    if any(schedule.beta_min + schedule.beta_d * t <= 0 for t in (epsilon_s, 1.0)):
        raise InvalidValueError(
            f"no VP schedule has sigma {sigma_min:g} at the time {epsilon_s:g} and {sigma_max:g} at the time 1"
        )
    return schedule


def vp_sigmas(
    num_steps: int = 18, sigma_min: float | None = None, sigma_max: float | None = None, epsilon_s: float = EPSILON_S
) -> NDArray[np.float64]:
    """Noise levels at equally spaced times of a VP process, float64 [num_steps + 1], and a final 0.

    t_i = 1 + i / (num_steps - 1) (epsilon_s - 1); the process is made to pass through the two levels.

    Args:
        num_steps: number of noise levels above 0.
        sigma_min: last one; None for that of ``VPSchedule()`` at the time epsilon_s.
        sigma_max: first one; None for that at the time 1.
        epsilon_s: time of the last one.

    Raises:
        DTypeError: an argument is not a number.
        InvalidValueError: an argument is out of range.

    Example:
        >>> vp_sigmas(3).round(4)
        array([1.52167e+02, 3.42220e+00, 1.05000e-02, 0.00000e+00])
    """
    early = real_number("epsilon_s", epsilon_s, above=0, below=1)
    low = VPSchedule().sigma(early) if sigma_min is None else sigma_min
    high = VPSchedule().sigma(1.0) if sigma_max is None else sigma_max
    number, low, high = check_range(num_steps, low, high)
    schedule = noise_schedule("vp", low, high, early)
    return _descending([schedule.sigma(t) for t in np.linspace(1.0, early, number).tolist()])


def ve_sigmas(num_steps: int = 18, sigma_min: float = 0.02, sigma_max: float = 100.0) -> NDArray[np.float64]:
    """Noise levels in geometric progression, float64 [num_steps + 1], and a final 0.

    Args:
        num_steps: number of noise levels above 0.
        sigma_min: last one.
        sigma_max: first one.

    Raises:
        DTypeError: an argument is not a number.
        InvalidValueError: an argument is out of range.

    Example:
        >>> ve_sigmas(3, 0.01, 100.0)
        array([1.e+02, 1.e+00, 1.e-02, 0.e+00])
    """
    number, low, high = check_range(num_steps, sigma_min, sigma_max)
    return _descending([high * (low / high) ** share for share in np.linspace(0.0, 1.0, number).tolist()])


def iddpm_sigmas(
    num_steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 81.0,
    *,
    M: int = 1000,
    C_1: float = 0.001,
    C_2: float = 0.008,
) -> NDArray[np.float64]:
    """Noise levels picked at even steps from the table of a cosine process, float64 [num_steps + 1], and a final 0.

    Args:
        num_steps: number of noise levels above 0.
        sigma_min: no smaller level is picked.
        sigma_max: no larger level is picked.
        M: see ``noise_table``.
        C_1: see ``noise_table``.
        C_2: see ``noise_table``.

    Raises:
        DTypeError: an argument is not a number.
        InvalidValueError: an argument is out of range, or the table has too few levels in that range.

    Example:
        >>> iddpm_sigmas(3).round(4)
        array([8.02037e+01, 9.99800e-01, 6.40000e-03, 0.00000e+00])
    """
    number, low, high = check_range(num_steps, sigma_min, sigma_max)
    inside = [level for level in noise_table(M, C_1, C_2) if low <= level <= high]
    if len(inside) < number:
        raise InvalidValueError(f"the table has {len(inside)} levels from {low:g} to {high:g}, fewer than {number}")
    return _descending([inside[round(place)] for place in np.linspace(0, len(inside) - 1, number).tolist()])


def noise_table(M: int, C_1: float, C_2: float) -> list[float]:
    """Noise levels u_0 > ... > u_M = 0 of the cosine process of Nichol and Dhariwal.

    u_{j-1} = sqrt((u_j^2 + 1) / max(a_{j-1} / a_j, C_1) - 1) with a_j = sin(pi j / (2 M (C_2 + 1)))^2.

    Args:
        M: number of levels above 0.
        C_1: smallest share of the signal that a step of the table keeps.
        C_2: how far from zero noise the table begins.

    Example:
        >>> [round(level, 3) for level in noise_table(4, 0.001, 0.008)]
        [83.249, 2.435, 1.012, 0.425, 0.0]
    """

    def share(j: int) -> float:
        return math.sin(0.5 * math.pi * j / (M * (C_2 + 1))) ** 2

    levels = [0.0]
    for j in range(M, 0, -1):
        kept = max(share(j - 1) / share(j), C_1)
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / kept - 1))
    return levels[::-1]


DISCRETIZATIONS: Mapping[str, Callable[..., NDArray[np.float64]]] = {
    "vp": vp_sigmas,
    "ve": ve_sigmas,
    "iddpm": iddpm_sigmas,
    "edm": edm_sigmas,
}
"""The discretisations by name, each called as ``(num_steps, sigma_min, sigma_max)``."""


def _descending(levels: list[float]) -> NDArray[np.float64]:
    """The levels and a final 0."""
    grid = np.append(np.array(levels), 0.0)
    if not (np.diff(grid) < 0).all():
        raise InvalidValueError(f"{len(levels)} levels cannot be told apart; take fewer steps or a wider range")
    return grid
