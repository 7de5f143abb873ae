"""The protocols under which papers sample: noise levels, solver and starting noise by one name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import one_of
from pspc_rs.sigmas import cosine20_sigmas, edm_sigmas

_EDM = "Karras et al. 2022 (arXiv 2206.00364), eq. 5 and algorithm 1"


@dataclass(frozen=True)
class Protocol:
    """How samples are drawn: everything but the denoiser and the seed.

    Attributes:
        name: what papers' results are listed under.
        sampler: name of the solver, one of `SAMPLERS`.
        sigmas: descending noise levels and a final 0.
        start_scale: standard deviation of the states that sampling starts from. Variance preserving protocols start
            from x_T standard normal, which is z = x_T / alpha of standard deviation sqrt(1 + sigma^2).
        source: where the protocol comes from.

    Example:
        >>> protocol = sampling_protocol("edm18")
        >>> protocol, protocol.start_scale
        (Protocol('edm18', heun, 18 steps, sigma 80 to 0.002), 80.0)
    """

    name: str
    sampler: str
    sigmas: tuple[float, ...]
    start_scale: float
    source: str

    def __repr__(self) -> str:
        span = f"sigma {self.sigmas[0]:g} to {self.sigmas[-2]:g}"
        return f"Protocol({self.name!r}, {self.sampler}, {self.num_steps} steps, {span})"

    @property
    def num_steps(self) -> int:
        """Number of noise levels above 0."""
        return len(self.sigmas) - 1

    @property
    def settings(self) -> dict[str, Any]:
        """All of it under the names of the attributes, for records."""
        return {
            "name": self.name,
            "sampler": self.sampler,
            "sigmas": list(self.sigmas),
            "start_scale": self.start_scale,
            "source": self.source,
        }

    def grid(self, *, include_zero: bool = True) -> NDArray[np.float64]:
        """The noise levels, float64 [num_steps + 1], or [num_steps] without the final 0.

        Example:
            >>> sampling_protocol("cosine20").grid(include_zero=False)[-2:].round(4)
            array([0.1571, 0.0781])
        """
        return np.array(self.sigmas if include_zero else self.sigmas[:-1])


def sampling_protocol(name: object) -> Protocol:
    """The protocol of a name.

    ========  =======================================================  ======  =====================
    name      noise levels                                             solver  start
    ========  =======================================================  ======  =====================
    ddim10    steps 900, 800, ..., 0 of DDPM's 1,000 linear betas      euler   sqrt(1 + sigma_0^2) n
    cosine20  tan(pi i / 40.32), i = 19 .. 1                           euler   sqrt(1 + sigma_0^2) n
    edm18     EDM's 18 levels from 80 to 0.002                         heun    80 n
    edm40     EDM's 40 levels from 80 to 0.002                         heun    80 n
    heun30    EDM's 30 levels from 80 to 0.002                         heun    80 n
    ========  =======================================================  ======  =====================

    All end with a step to 0. Euler's method in z is DDIM without added noise.

    Args:
        name: one of these, or a `Protocol`, which is returned as it is.

    Raises:
        DTypeError: name is neither.
        InvalidValueError: there is no protocol of this name.

    Example:
        >>> sampling_protocol("ddim10")
        Protocol('ddim10', euler, 10 steps, sigma 60.8223 to 0.0100005)
        >>> sampling_protocol("ddim10").grid()[:3].round(3)
        array([60.822, 25.736, 12.025])
    """
    return name if isinstance(name, Protocol) else PROTOCOLS[one_of("protocol", name, PROTOCOLS)]


def _ddim_levels() -> list[float]:
    """Every hundredth level of DDPM's process, sqrt((1 - abar) / abar) with abar_t = product of 1 - beta_i, i <= t."""
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[900::-100]
    levels: list[float] = np.sqrt((1 - kept) / kept).tolist()
    return levels


def _variance_preserving(name: str, levels: Sequence[float], source: str) -> Protocol:
    return Protocol(name, "euler", (*levels, 0.0), math.hypot(1.0, levels[0]), source)


def _edm(name: str, num_steps: int, source: str) -> Protocol:
    levels = edm_sigmas(num_steps).tolist()
    return Protocol(name, "heun", tuple(levels), levels[0], source)


PROTOCOLS: Mapping[str, Protocol] = {
    one.name: one
    for one in (
        _variance_preserving("ddim10", _ddim_levels(), "Lukoianov et al. 2025 (arXiv 2509.09672)"),
        _variance_preserving("cosine20", cosine20_sigmas(), "Kamb & Ganguli 2024 (arXiv 2412.20292)"),
        _edm("edm18", 18, f"{_EDM}; CIFAR-10"),
        _edm("edm40", 40, f"{_EDM}; FFHQ and AFHQv2 at 64 x 64"),
        _edm("heun30", 30, f"{_EDM}; 30 steps"),
    )
}
"""The protocols by name; see `sampling_protocol`."""
