"""One sampler for every noise schedule and scaling: EDM's, Song et al.'s and Nichol and Dhariwal's are cases of it."""

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from pspc_rs.arrays import Array
from pspc_rs.checks import one_of, real_number
from pspc_rs.errors import DTypeError
from pspc_rs.progress import Progress
from pspc_rs.samplers.design_space import EPSILON_S, NoiseSchedule, noise_schedule
from pspc_rs.samplers.integrator import Callback, Denoise, Integrator, Model, Step
from pspc_rs.samplers.noise import Churn, Noise, noise_like

_SOLVERS = ("euler", "heun")
_SCALINGS = ("none", "vp")


def sample_general(
    model: Model,
    x: Array,
    sigmas: object,
    *,
    schedule: str | NoiseSchedule = "linear",
    scaling: str = "none",
    solver: str = "heun",
    alpha: float = 1.0,
    epsilon_s: float = EPSILON_S,
    round_sigma: Callable[[float], float] | None = None,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    noise: Noise = 0,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    progress: bool | Progress = False,
    float64_state: bool = False,
    trajectory: bool = False,
) -> Array:
    """Samples along any noise schedule sigma(t) and scaling s(t) by Euler's method or a second-order one.

    The images y = s(t) z follow dy/dt = (sigma'/sigma + s'/s) y - (sigma' s / sigma) D(y / s, sigma). From t to t + h
    and with the slope d at t, Euler's method takes y + h d. The second-order ones take the slope d' at
    y + alpha h d and y + h ((1 - 1 / (2 alpha)) d + d' / (2 alpha)): alpha = 1 is Heun's method, 1/2 the midpoint's,
    2/3 Ralston's. Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithms
    1 to 3. With the defaults this is ``sample_edm``.

    Noise is added as in ``sample_edm``. Arguments, result and errors are those of ``sample_edm``, and:

    Args:
        model: see ``sample_euler``.
        x: see ``sample_euler``; it is not scaled by s.
        sigmas: see ``sample_euler``; ``samplers.design_space`` has the discretisations of earlier samplers.
        schedule: "linear", "ve", "vp", or an object like ``samplers.design_space.VPSchedule()``. "vp" is made to pass
            through the first and the last noise level above 0.
        scaling: "none", or "vp" for s = 1 / sqrt(1 + sigma^2).
        solver: "heun" for the second-order methods, or "euler".
        alpha: where the second slope is taken, above 0 and up to 1.
        epsilon_s: time of the last noise level above 0 of the schedule "vp".
        round_sigma: returns the level that the model knows for a level that noise was added up to.
        S_churn: see ``sample_edm``.
        S_min: see ``sample_edm``.
        S_max: see ``sample_edm``.
        S_noise: see ``sample_edm``.
        noise: see ``sample_edm``.
        extra_args: see ``sample_euler``.
        callback: see ``sample_euler``; ``x`` is the state after noise was added.
        progress: see ``sample_euler``.
        float64_state: see ``sample_euler``.
        trajectory: see ``sample_euler``; states are not scaled by s.

    Example:
        >>> import numpy as np
        >>> from pspc_rs.samplers.design_space import vp_sigmas
        >>> x = np.array([[[[80.0, -80.0]]]])  # of data that are normal with variance 1
        >>> def D(x, sigma):
        ...     return x / (1 + sigma**2)
        >>> sample_general(D, x, vp_sigmas(50, 0.002, 80.0), schedule="vp", scaling="vp").round(2)
        array([[[[ 1., -1.]]]])
    """
    integrator = Integrator(model, x, sigmas, extra_args, float64_state)
    lowest = min(level for level in integrator.levels if level > 0)
    times = _as_schedule(schedule, lowest, integrator.levels[0], epsilon_s)
    path = _Path(times, one_of("scaling", scaling, _SCALINGS))
    second_order = one_of("solver", solver, _SOLVERS) == "heun"
    reach = real_number("alpha", alpha, above=0, most=1)
    churn = Churn.checked(integrator.steps, S_churn, S_min, S_max, S_noise)
    draw = noise_like(noise, integrator.start)

    def step(denoise: Denoise, x: Any, sigma: float, sigma_next: float) -> Step:
        before = sigma
        x, sigma = churn.add(x, sigma, draw, round_sigma)
        with integrator.after_noise(before, sigma):
            denoised = denoise(x, sigma)
        t, t_next = path.time(sigma), path.time(sigma_next)
        h = t_next - t
        y = path.scale(t) * x
        slope = path.slope(t, y, denoised)
        if second_order and sigma_next > 0:
            t_mid = t + reach * h
            y_mid = y + reach * h * slope
            denoised_mid = denoise(y_mid / path.scale(t_mid), path.sigma(t_mid))
            slope_mid = path.slope(t_mid, y_mid, denoised_mid)
            slope = (1 - 1 / (2 * reach)) * slope + slope_mid / (2 * reach)
        return Step((y + h * slope) / path.scale(t_next), x, sigma, denoised)

    return cast(Array, integrator.integrate(step, callback, progress, trajectory))


class _Path:
    """Noise level and scale as functions of time, and the slope of the scaled images that follow them."""

    def __init__(self, schedule: NoiseSchedule, scaling: str) -> None:
        self.sigma = schedule.sigma
        self.time = schedule.time
        self._sigma_slope = schedule.slope
        self._scaled = scaling == "vp"

    def scale(self, t: float) -> float:
        return 1 / math.sqrt(1 + self.sigma(t) ** 2) if self._scaled else 1.0

    def slope(self, t: float, y: Any, denoised: Any) -> Any:
        sigma, scale, sigma_slope = self.sigma(t), self.scale(t), self._sigma_slope(t)
        scale_slope = -sigma * sigma_slope * scale**3 if self._scaled else 0.0
        return (sigma_slope / sigma + scale_slope / scale) * y - (sigma_slope * scale / sigma) * denoised


def _as_schedule(schedule: str | NoiseSchedule, sigma_min: float, sigma_max: float, epsilon_s: object) -> NoiseSchedule:
    if isinstance(schedule, str):
        return noise_schedule(schedule, sigma_min, sigma_max, real_number("epsilon_s", epsilon_s))
    if not all(callable(getattr(schedule, name, None)) for name in ("sigma", "slope", "time")):
        raise DTypeError(f"schedule is a {type(schedule).__name__}; allowed are names, and objects like VPSchedule()")
    return schedule
