"""Noise processes of networks: the scale and the time that belong to a noise level.

Networks are trained on x_t = alpha_t x + s_t n, with times t of many kinds. With sigma = s_t / alpha_t that is
x_t = alpha_t (x + sigma n), so two functions of sigma define a process: alpha and t. Tensors of noise levels are
float64 here, of any shape.
"""

import hashlib
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pspc_rs.arrays import MAX_SIGMA, real_array
from pspc_rs.checks import integer, one_of, real_number
from pspc_rs.errors import DTypeError, InvalidValueError


class NoiseProcess(ABC):
    """The noise process of a network: scale alpha(sigma) and time t(sigma) of its input alpha (x + sigma n).

    Example:
        >>> process = FlowMatching()
        >>> isinstance(process, NoiseProcess), process.settings
        (True, {'name': 'FlowMatching'})
    """

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The noise levels at which the network would be called."""
        return sigma

    @abstractmethod
    def scale(self, sigma: Tensor) -> Tensor:
        """Alpha at noise levels of ``round_sigma``."""

    @abstractmethod
    def time(self, sigma: Tensor) -> Tensor:
        """The times that the network gets for noise levels of ``round_sigma``; int64 where it counts steps."""

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level of the process."""
        return 0.0, math.inf

    @property
    def settings(self) -> dict[str, Any]:
        """The name of the class and its arguments, for records."""
        arguments = {one.name: getattr(self, one.name) for one in fields(cast(Any, self)) if one.init}
        return {"name": type(self).__name__, **arguments}


@dataclass(frozen=True)
class VarianceExploding(NoiseProcess):
    """x_t = x + sigma n: alpha = 1, and the time is sigma or log sigma (Song et al. 2021, Karras et al. 2022).

    Args:
        time_of: "sigma" or "log_sigma". With an `Adapter`'s ``time_scale`` and ``time_offset``, they also give
            log sigma / 4 and log(sigma / 2).

    Example:
        >>> VarianceExploding("log_sigma").time(torch.ones(1, dtype=torch.float64))
        tensor([0.], dtype=torch.float64)
    """

    time_of: str = "sigma"

    def __post_init__(self) -> None:
        one_of("time_of", self.time_of, ("sigma", "log_sigma"))

    def scale(self, sigma: Tensor) -> Tensor:
        """1 everywhere."""
        return torch.ones_like(sigma)

    def time(self, sigma: Tensor) -> Tensor:
        """Sigma, or its logarithm."""
        return sigma.log() if self.time_of == "log_sigma" else sigma


@dataclass(frozen=True)
class Edm(NoiseProcess):
    """The input scaling of EDM: alpha = 1 / sqrt(sigma^2 + sigma_data^2), t = log(sigma) / 4.

    Karras et al. 2022, table 1: c_in and c_noise. For raw networks F without the preconditioner around them.

    Args:
        sigma_data: standard deviation of the data that the network was made for.

    Example:
        >>> sigma = torch.tensor([1.0])
        >>> Edm(sigma_data=1.0).scale(sigma), Edm().time(sigma)
        (tensor([0.7071]), tensor([0.]))
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        real_number("sigma_data", self.sigma_data, above=0, most=MAX_SIGMA)

    def scale(self, sigma: Tensor) -> Tensor:
        """c_in."""
        return (sigma**2 + self.sigma_data**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """c_noise."""
        return sigma.log() / 4


@dataclass(frozen=True)
class DiscreteVP(NoiseProcess):
    """x_t = sqrt(abar_t) x + sqrt(1 - abar_t) n at steps t = 0 .. T - 1 (Ho et al. 2020).

    sigma_t = sqrt((1 - abar_t) / abar_t). The step is the one nearest in log sigma, and alpha = sqrt(abar_t); or, for
    networks that take real times, t is interpolated linearly in log sigma, and alpha = 1 / sqrt(1 + sigma^2).

    Args:
        alphas_cumprod: abar, falling, [T]; entries of 1 and 0 (no noise, nothing but noise) are never chosen.
        rounding: "nearest" or "interpolate".

    Raises:
        InvalidValueError: abar does not fall, or leaves 0 .. 1.

    Example:
        >>> DiscreteVP.linear()
        DiscreteVP(1000 steps from sigma 0.0100005 to 157.407, rounding='nearest')
    """

    alphas_cumprod: Sequence[float]
    rounding: str = "nearest"
    _levels: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        one_of("rounding", self.rounding, ("nearest", "interpolate"))
        abar = torch.from_numpy(real_array("alphas_cumprod", self.alphas_cumprod).reshape(-1))
        falls = bool((abar.diff() < 0).all()) and bool(((abar >= 0) & (abar <= 1)).all())
        if not falls or not bool(((abar > 0) & (abar < 1)).any()):
            raise InvalidValueError(
                "alphas_cumprod are no table of falling numbers from 1 to 0, some of them between the two"
            )
        object.__setattr__(self, "alphas_cumprod", tuple(abar.tolist()))
        object.__setattr__(self, "_levels", ((1 - abar) / abar).sqrt())

    @classmethod
    def of_betas(cls, betas: Any, rounding: str = "nearest") -> "DiscreteVP":
        """The process with abar_t = product of 1 - beta_i over i <= t."""
        table = torch.from_numpy(real_array("betas", betas).reshape(-1))
        if not bool(((table > 0) & (table <= 1)).all()):
            raise InvalidValueError("betas hold numbers that are not above 0 and up to 1")
        return cls((1 - table).cumprod(0).tolist(), rounding)

    @classmethod
    def linear(
        cls, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, rounding: str = "nearest"
    ) -> "DiscreteVP":
        """Betas evenly spaced from beta_start to beta_end (Ho et al. 2020)."""
        steps = integer("num_steps", num_steps, 2, 1 << 20)
        start, end = _betas(beta_start, beta_end)
        return cls.of_betas(torch.linspace(start, end, steps, dtype=torch.float64), rounding)

    @classmethod
    def scaled_linear(
        cls, num_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012, rounding: str = "nearest"
    ) -> "DiscreteVP":
        """Square roots of the betas evenly spaced (Rombach et al. 2022)."""
        steps = integer("num_steps", num_steps, 2, 1 << 20)
        start, end = _betas(beta_start, beta_end)
        roots = torch.linspace(math.sqrt(start), math.sqrt(end), steps, dtype=torch.float64)
        return cls.of_betas(roots**2, rounding)

    @classmethod
    def cosine(
        cls, num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999, rounding: str = "nearest"
    ) -> "DiscreteVP":
        """beta_t = min(1 - f(t + 1) / f(t), max_beta), f(t) = cos^2(pi/2 (t/T + offset) / (1 + offset)).

        Nichol & Dhariwal 2021.
        """
        steps = integer("num_steps", num_steps, 2, 1 << 20)
        shift = real_number("offset", offset, least=0, most=1)
        most = real_number("max_beta", max_beta, above=0, most=1)
        times = torch.arange(steps + 1, dtype=torch.float64) / steps
        f = torch.cos(math.pi / 2 * (times + shift) / (1 + shift)) ** 2
        return cls.of_betas((1 - f[1:] / f[:-1]).clamp(max=most), rounding)

    @classmethod
    def sigmoid(
        cls, num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, rounding: str = "nearest"
    ) -> "DiscreteVP":
        """Betas from beta_start to beta_end along the logistic function of -6 .. 6 (Xu et al. 2022)."""
        steps = integer("num_steps", num_steps, 2, 1 << 20)
        start, end = _betas(beta_start, beta_end)
        rise = torch.linspace(-6, 6, steps, dtype=torch.float64).sigmoid()
        return cls.of_betas(rise * (end - start) + start, rounding)

    def with_zero_snr(self, least: float = 0.0) -> "DiscreteVP":
        """The process shifted and scaled in sqrt(abar) so that nothing of the image is left at the last step.

        Lin et al., "Common Diffusion Noise Schedules and Sample Steps are Flawed", 2024, algorithm 1.

        Args:
            least: abar of the last step, where samplers do without 0; it is 0 if the step before has less than that.

        Example:
            >>> DiscreteVP.scaled_linear().with_zero_snr().alphas_cumprod[-1]
            0.0
        """
        roots = torch.tensor(self.alphas_cumprod, dtype=torch.float64).sqrt()
        roots = (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
        abar = (roots[:-1] ** 2).tolist()
        return DiscreteVP([*abar, least if least < abar[-1] else 0.0], self.rounding)

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """The nearest levels of the table; sigma itself where times are interpolated."""
        return sigma if self.rounding == "interpolate" else self._levels.to(sigma.device)[self._nearest(sigma)]

    def scale(self, sigma: Tensor) -> Tensor:
        """sqrt(abar) = 1 / sqrt(1 + sigma^2)."""
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """The nearest step, int64, or the interpolated one."""
        return self._interpolated(sigma) if self.rounding == "interpolate" else self._nearest(sigma)

    def limits(self) -> tuple[float, float]:
        """The smallest and largest level of the table that is neither 0 nor infinite."""
        _, levels = self._usable()
        return float(levels[0]), float(levels[-1])

    def __repr__(self) -> str:
        low, high = self.limits()
        return (
            f"DiscreteVP({len(self.alphas_cumprod)} steps from sigma {low:g} to {high:g}, rounding={self.rounding!r})"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The name of the class, the rounding, and a checksum of the table."""
        table = hashlib.sha256(np.array(self.alphas_cumprod).tobytes()).hexdigest()
        return {"name": type(self).__name__, "rounding": self.rounding, "alphas_cumprod_sha256": table}

    def _usable(self) -> tuple[int, Tensor]:
        """The levels between 0 and infinity, ascending, and the step of the first."""
        first = int((self._levels == 0).sum())
        levels = self._levels[first:]
        return first, levels[levels.isfinite()]

    def _nearest(self, sigma: Tensor) -> Tensor:
        first, levels = self._usable()
        distances = (sigma.log()[..., None] - levels.to(sigma.device).log()).abs()
        return distances.argmin(-1) + first

    def _interpolated(self, sigma: Tensor) -> Tensor:
        first, levels = self._usable()
        logs = levels.to(sigma.device).log()
        wanted = sigma.log()
        if len(logs) == 1:
            return torch.full_like(wanted, first)
        above = torch.searchsorted(logs, wanted.contiguous()).clamp(1, len(logs) - 1)
        share = (wanted - logs[above - 1]) / (logs[above] - logs[above - 1])
        return first + above - 1 + share.clamp(0, 1)


@dataclass(frozen=True)
class ContinuousVP(NoiseProcess):
    """The variance preserving SDE with linear beta(t), t from 0 to 1 (Song et al. 2021).

    alpha = 1 / sqrt(1 + sigma^2), sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1 with beta_d = beta_max - beta_min,
    so t = (sqrt(beta_min^2 + 2 beta_d log(1 + sigma^2)) - beta_min) / beta_d. Networks that were trained on times up to
    999 want an `Adapter` with ``time_scale=999``.

    Args:
        beta_min: beta at time 0.
        beta_max: beta at time 1.
        epsilon_t: smallest time that the network was trained on.

    Example:
        >>> process = ContinuousVP()
        >>> process.time(torch.tensor([1.0])), round(process.limits()[1], 3)
        (tensor([0.2590]), 152.167)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    epsilon_t: float = 1e-5

    def __post_init__(self) -> None:
        low = real_number("beta_min", self.beta_min, above=0, most=80)
        if not low < real_number("beta_max", self.beta_max, least=0, most=180):
            raise InvalidValueError(f"beta_max is {self.beta_max:g}; allowed are numbers above beta_min, {low:g}")
        real_number("epsilon_t", self.epsilon_t, least=0, below=1)

    def scale(self, sigma: Tensor) -> Tensor:
        """1 / sqrt(1 + sigma^2)."""
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """The time at which the noise level is sigma."""
        growth = self.beta_max - self.beta_min
        return ((self.beta_min**2 + 2 * growth * torch.log1p(sigma**2)).sqrt() - self.beta_min) / growth

    def limits(self) -> tuple[float, float]:
        """The levels at the times epsilon_t and 1."""
        return self._level(self.epsilon_t), self._level(1.0)

    def _level(self, t: float) -> float:
        return math.sqrt(math.expm1((self.beta_max - self.beta_min) * t**2 / 2 + self.beta_min * t))


@dataclass(frozen=True)
class CosineVP(NoiseProcess):
    """x_t = cos(pi t / 2) x + sin(pi t / 2) n, t from 0 to 1 (Salimans & Ho 2022).

    alpha = 1 / sqrt(1 + sigma^2), t = 2 / pi arctan(sigma).

    Example:
        >>> CosineVP().time(torch.tensor([1.0])), CosineVP().scale(torch.tensor([1.0]))
        (tensor([0.5000]), tensor([0.7071]))
    """

    def scale(self, sigma: Tensor) -> Tensor:
        """1 / sqrt(1 + sigma^2)."""
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """2 / pi arctan(sigma)."""
        return sigma.atan() * (2 / math.pi)


@dataclass(frozen=True)
class FlowMatching(NoiseProcess):
    """x_t = (1 - t) x + t n, t from 0 to 1 (Esser et al. 2024): sigma = t / (1 - t).

    alpha = 1 / (1 + sigma), t = sigma / (1 + sigma). Networks in the convention of Lipman et al. 2023 and Liu et al.
    2023, where time runs from noise to data, predict "velocity", and their `Adapter` has ``time_scale=-1,
    time_offset=1``.

    Example:
        >>> FlowMatching().time(torch.tensor([1.0])), FlowMatching().scale(torch.tensor([1.0]))
        (tensor([0.5000]), tensor([0.5000]))
    """

    def scale(self, sigma: Tensor) -> Tensor:
        """1 / (1 + sigma)."""
        return 1 / (1 + sigma)

    def time(self, sigma: Tensor) -> Tensor:
        """Sigma / (1 + sigma)."""
        return sigma / (1 + sigma)


PROCESSES: dict[str, Callable[..., NoiseProcess]] = {
    "ve": VarianceExploding,
    "edm": Edm,
    "vp-linear": DiscreteVP.linear,
    "vp-scaled-linear": DiscreteVP.scaled_linear,
    "vp-cosine": DiscreteVP.cosine,
    "vp-sigmoid": DiscreteVP.sigmoid,
    "vp-betas": DiscreteVP.of_betas,
    "vp-table": DiscreteVP,
    "vp-sde": ContinuousVP,
    "vp-angle": CosineVP,
    "flow": FlowMatching,
}
"""Noise processes by name; their further entries are the arguments of these."""

# Arguments that may be the name of a buffer of the network.
_TABLES = ("alphas_cumprod", "betas")


def named_process(process: object, network: object = None) -> NoiseProcess:
    """The noise process of a name, or of a dict with a name and arguments.

    Args:
        process: a name of ``PROCESSES``, or a dict with such a "name" and the arguments of what is listed there.
        network: whose buffers tables of numbers may be named after.

    Raises:
        InvalidValueError: the name or an argument is unknown or out of range.
        DTypeError: it is neither.

    Example:
        >>> named_process({"name": "edm", "sigma_data": 1.0})
        Edm(sigma_data=1.0)
    """
    entries = {"name": process} if isinstance(process, str) else process
    if not isinstance(entries, Mapping):
        raise DTypeError(f"process is {process!r:.80}; allowed are names, and dicts with a name")
    name = entries.get("name")
    if not isinstance(name, str) or name not in PROCESSES:
        raise InvalidValueError(f"process has the name {name!r:.80}; allowed are {', '.join(PROCESSES)}")
    make = PROCESSES[name]
    arguments = {key: value for key, value in entries.items() if key != "name"}
    parameters = inspect.signature(make).parameters
    check_entries(f"the process {name}", arguments, list(parameters))
    missing = [key for key, one in parameters.items() if one.default is one.empty and key not in arguments]
    if missing:
        raise InvalidValueError(f"the process {name} needs {', '.join(missing)}")
    for key in _TABLES:
        if isinstance(arguments.get(key), str):
            arguments[key] = _buffer(network, arguments[key])
    return make(**arguments)


def check_entries(what: str, entries: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Refuses a dict with an entry that is not allowed.

    Raises:
        InvalidValueError: there is one.

    Example:
        >>> check_entries("the description", {"prediction": "eps"}, ["prediction", "process"])
    """
    for name in entries:
        if name not in allowed:
            raise InvalidValueError(f"{what} has an entry {name!r:.80}; allowed are {', '.join(allowed) or 'none'}")


def as_levels(sigma: Any) -> Tensor:
    """Noise levels, however they are held, as a float64 tensor (or on the device of a tensor)."""
    return sigma.double() if isinstance(sigma, Tensor) else torch.from_numpy(np.array(sigma, np.float64))


def _betas(beta_start: object, beta_end: object) -> tuple[float, float]:
    start, end = real_number("beta_start", beta_start), real_number("beta_end", beta_end)
    if not 0 < start < end < 1:
        raise InvalidValueError(f"betas go from {start:g} to {end:g}; allowed are numbers that grow between 0 and 1")
    return start, end


def _buffer(network: object, name: str) -> Any:
    table = getattr(network, name, None)
    if table is None or not hasattr(table, "shape"):
        raise InvalidValueError(f"the network has no table {name!r:.80}")
    return table
