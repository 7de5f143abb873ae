"""The samplers by name, and `sample`, which draws images of a denoiser with any of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import Array, import_torch, is_torch, to_numpy
from pspc_rs.checks import flag, image_shape, integer, one_of, real_number
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.progress import Progress
from pspc_rs.samplers.integrator import Callback, Denoise, Integrator, Model, Step
from pspc_rs.samplers.noise import Churn, Generator, ImageSeeds, Noise, initial_noise, noise_like
from pspc_rs.samplers.protocols import Protocol, sampling_protocol
from pspc_rs.samplers.starts import ExactPath, gaussian_start
from pspc_rs.sigmas import check_grid, edm_sigmas


def sample_euler(
    model: Model,
    x: Array,
    sigmas: object,
    *,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    progress: bool | Progress = False,
    float64_state: bool = False,
    trajectory: bool = False,
) -> Array:
    """Samples by Euler's method, one model call per step.

    z <- z + (s_next - s) (z - D(z, s)) / s; a step to s_next = 0 returns D itself.

    Args:
        model: called as ``model(x, sigma, **extra_args)`` with sigma [batch] in float32 (float64 if x is float64);
            returns the denoised images in the shape of x. Torch models run without gradients.
        x: noisy images [batch, channels, height, width], already scaled by the first sigma; a numpy array or torch
            tensor of floats. It is not written to.
        sigmas: strictly descending noise levels, at least two, the last of which may be 0.
        extra_args: further keyword arguments for the model.
        callback: called once per step with a dict: the state ``x``, the number of the step ``i``, ``sigma``,
            ``sigma_hat`` (the level at which the model was called, above sigma if noise was added) and ``denoised``.
        progress: True for a progress bar, or a function called as ``progress(done, total)``.
        float64_state: keep the state in float64 between steps; the model still gets the dtype of x.
        trajectory: return all states instead of the last one.

    Returns:
        The samples, an array or tensor like x. With ``trajectory``, all states
        [steps + 1, batch, channels, height, width], from x itself to the samples.

    Raises:
        ShapeError: x does not have four axes, or the model returned another shape.
        DTypeError: x is not an array of floats, or the model returned something else.
        InvalidValueError: x or the model's result has NaN or infinities, or the sigmas do not descend.

    Example:
        >>> def D(x, sigma):  # of data whose only image is 0.5 everywhere
        ...     return np.full_like(x, 0.5)
        >>> sample_euler(D, np.full((1, 1, 1, 2), 80.0), edm_sigmas(18))
        array([[[[0.5, 0.5]]]])
    """
    integrator = Integrator(model, x, sigmas, extra_args, float64_state)
    return cast(Array, integrator.integrate(_euler_step, callback, progress, trajectory))


def sample_heun(
    model: Model,
    x: Array,
    sigmas: object,
    *,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    progress: bool | Progress = False,
    float64_state: bool = False,
    trajectory: bool = False,
) -> Array:
    """Samples by Heun's second-order method, two model calls per step and one for a step to 0.

    With d = (z - D(z, s)) / s and z' = z + (s_next - s) d:
    z <- z + (s_next - s) (d + (z' - D(z', s_next)) / s_next) / 2; a step to s_next = 0 returns D(z, s). Karras et al.,
    "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, algorithm 1.

    Arguments, result and errors are those of ``sample_euler``.

    Example:
        >>> x = np.array([[[[80.0, -80.0]]]])  # of data that are normal with variance 1
        >>> sample_heun(lambda x, sigma: x / (1 + sigma**2), x, edm_sigmas(100)).round(2)
        array([[[[ 1., -1.]]]])
    """
    integrator = Integrator(model, x, sigmas, extra_args, float64_state)
    return cast(Array, integrator.integrate(_heun_step, callback, progress, trajectory))


def sample_edm(
    model: Model,
    x: Array,
    sigmas: object,
    *,
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
    """Samples by EDM's stochastic sampler: noise is added before each of Heun's steps.

    With g = min(S_churn / steps, sqrt(2) - 1) where S_min <= s <= S_max and 0 elsewhere, s_hat = (1 + g) s and
    z_hat = z + S_noise sqrt(s_hat^2 - s^2) eps, a step goes from z_hat at s_hat to s_next. Karras et al., "Elucidating
    the Design Space of Diffusion-Based Generative Models", 2022, algorithm 2. S_churn = 0 is ``sample_heun``.

    eps is drawn at every step, also where g is 0, as in EDM's program: with its generator as ``noise``, its state in
    float64 and its noise levels, the samples are those of that program.

    Arguments, result and errors are those of ``sample_euler``, and:

    Args:
        model: see ``sample_euler``.
        x: see ``sample_euler``.
        sigmas: see ``sample_euler``.
        S_churn: how much noise is added in all, 0 or more.
        S_min: lowest noise level at which noise is added.
        S_max: highest noise level at which noise is added.
        S_noise: standard deviation of eps, 0 or more; slightly above 1 makes up for lost detail.
        noise: seed of eps, or a function that returns eps for a given state, called once per step. The seed is for
            numpy's generator (arrays) or torch's CPU generator (tensors); ``initial_noise`` draws other numbers with
            the same seed.
        extra_args: see ``sample_euler``.
        callback: see ``sample_euler``; ``x`` is the state after noise was added.
        progress: see ``sample_euler``.
        float64_state: see ``sample_euler``.
        trajectory: see ``sample_euler``.

    Example:
        >>> x = np.full((1, 1, 1, 2), 80.0)
        >>> sample_edm(lambda x, sigma: np.full_like(x, 0.5), x, edm_sigmas(18), S_churn=40.0, noise=1)
        array([[[[0.5, 0.5]]]])
    """
    integrator = Integrator(model, x, sigmas, extra_args, float64_state)
    churn = Churn.checked(integrator.steps, S_churn, S_min, S_max, S_noise)
    draw = noise_like(noise, integrator.start)

    def step(denoise: Denoise, x: Any, sigma: float, sigma_next: float) -> Step:
        x, raised = churn.add(x, sigma, draw)
        with integrator.after_noise(sigma, raised):
            return _heun_step(denoise, x, raised, sigma_next)

    return cast(Array, integrator.integrate(step, callback, progress, trajectory))


def sample_dpmpp_2m(
    model: Model,
    x: Array,
    sigmas: object,
    *,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
    progress: bool | Progress = False,
    float64_state: bool = False,
    trajectory: bool = False,
) -> Array:
    """Samples by DPM-Solver++(2M), a second-order multistep method, one model call per step.

    In sigma form, with h = log(s / s_next) and h_last that of the step before, r = h_last / h:
    z <- (s_next / s) z + (1 - s_next / s) ((1 + 1 / 2r) D(z, s) - (1 / 2r) D_last), where the first step and a step to
    s_next = 0 use D(z, s) alone. Lu et al., "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
    Models", 2022, algorithm 2, with alpha = 1.

    Arguments, result and errors are those of ``sample_euler``.

    Example:
        >>> x = np.array([[[[80.0, -80.0]]]])  # of data that are normal with variance 1
        >>> sample_dpmpp_2m(lambda x, sigma: x / (1 + sigma**2), x, edm_sigmas(100)).round(2)
        array([[[[ 1., -1.]]]])
    """
    integrator = Integrator(model, x, sigmas, extra_args, float64_state)
    last: tuple[float, Any] | None = None

    def step(denoise: Denoise, x: Any, sigma: float, sigma_next: float) -> Step:
        nonlocal last
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            return Step(denoised, x, sigma, denoised)
        h = math.log(sigma / sigma_next)
        target = denoised
        if last is not None:
            h_last, denoised_last = last
            target = denoised + h / (2 * h_last) * (denoised - denoised_last)
        last = h, denoised
        ratio = sigma_next / sigma
        return Step(ratio * x + (1 - ratio) * target, x, sigma, denoised)

    return cast(Array, integrator.integrate(step, callback, progress, trajectory))


SAMPLERS: Mapping[str, Callable[..., Any]] = {
    "euler": sample_euler,
    "heun": sample_heun,
    "edm": sample_edm,
    "dpmpp_2m": sample_dpmpp_2m,
}
"""The samplers by name."""


def sample(
    D: Model,
    n: int,
    sampler: str | None = None,
    num_steps: int | None = None,
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float | None = None,
    protocol: str | Protocol | None = None,
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    x_init: Any = None,
    round_sigma: bool = False,
    jump: ExactPath | None = None,
    jump_to: float | None = None,
    shape: Sequence[int] | None = None,
    as_torch: bool = False,
    generator: Generator = "auto",
    **sampler_options: Any,
) -> Any:
    """Draws n samples [n, channels, height, width] of a denoiser: initial noise, noise levels, sampler.

    The noise levels are EDM's, and as in EDM they are clipped to ``D.sigma_min`` .. ``D.sigma_max`` where D has these
    attributes; or sampler, noise levels and the scale of the initial noise are those of a protocol, as they are.

    With ``jump``, a `Gaussian`, its exact path leads from sigma_max to ``jump_to``, and the sampler starts there: its
    num_steps levels are those of the EDM grid from jump_to down, and D need not take levels above.

    Args:
        D: denoiser, called as D(x, sigma).
        n: number of samples, drawn as one batch.
        sampler: "euler", "heun" (if None), "edm" or "dpmpp_2m".
        num_steps: number of noise levels above 0, 18 if None.
        sigma_min: last noise level above 0, in pixel units, 0.002 if None.
        sigma_max: first noise level, in pixel units, 80 if None.
        rho: curvature of the grid, see ``edm_sigmas``; 7 if None.
        protocol: "ddim10", "cosine20", "edm18", "edm40" or "heun30", see ``sampling_protocol``; without any of the five
            arguments above, which it decides.
        seed: seed of the initial noise, and of the noise that the sampler "edm" adds.
        seeds: in its place, a seed for every image, as EDM's program takes them; see `ImageSeeds`.
        x_init: initial states [n, channels, height, width], already scaled by sigma_max, or by the protocol's
            ``start_scale``, in place of drawn ones.
        round_sigma: take the levels that ``D.round_sigma`` makes of the grid's, as EDM's program does, for networks
            that know a table of levels.
        jump: a `Gaussian` denoiser, see `gaussian_start`.
        jump_to: where its path ends, a noise level up to sigma_max which D takes; not beside a protocol.
        shape: (channels, height, width), for a D without an attribute ``shape``.
        as_torch: sample with torch tensors, as a torch model needs; otherwise with numpy arrays, or in the kind of
            ``x_init``.
        generator: see ``initial_noise``.
        **sampler_options: further keyword arguments of the sampler: ``callback``, ``progress``, ``trajectory``, ...

    Returns:
        float32 numpy array or CPU tensor, or one like ``x_init``, in [-1, 1] units, not clipped.

    Raises:
        InvalidValueError: an argument is out of range, the sampler or protocol is unknown, an argument is given beside
            a protocol that decides it, D takes none of the noise levels, or not jump_to, or one of jump and jump_to is
            given alone.
        ShapeError: x_init and shape do not fit each other, or neither they nor D give the shape.
        DTypeError: an argument is of the wrong type.
        MissingDependencyError: torch was asked for and is not installed.

    Example:
        >>> def D(x, sigma):  # of data whose only image is 0.5 everywhere
        ...     return np.full_like(x, 0.5)
        >>> sample(D, 1, protocol="ddim10", shape=(1, 1, 2))
        array([[[[0.5, 0.5]]]], dtype=float32)
    """
    given = {"num_steps": num_steps, "sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho}
    level = _jump_level(D, jump, jump_to)
    if protocol is None:
        below = given if level is None else {**given, "sigma_max": level}
        chosen = _edm_grid(D, "heun" if sampler is None else sampler, below)
        highest = chosen.start_scale if level is None else 80.0 if sigma_max is None else sigma_max
    else:
        chosen = _alone(sampling_protocol(protocol), {"sampler": sampler, "jump_to": jump_to, **given})
        highest = chosen.start_scale
    size = (integer("n", n), *_image_shape(D, shape, x_init))
    by_image = _image_seeds(n, seeds, generator)
    if x_init is None:
        drawn = initial_noise(n, size[1:], highest, seed, generator=generator) if by_image is None else None
        x_init = drawn if by_image is None else by_image.initial(size[1:], highest)
    elif to_numpy(x_init, "x_init").shape != size:
        raise ShapeError(f"x_init has shape {list(x_init.shape)}; needed is {list(size)}")
    if as_torch and not is_torch(x_init):
        x_init = import_torch("as_torch=True").from_numpy(np.array(x_init))
    if jump is not None and level is not None:
        x_init = gaussian_start(jump, n, level, sigma_max=highest, x_init=x_init)
    if chosen.sampler == "edm":
        sampler_options.setdefault("noise", seed if by_image is None else by_image)
    sigmas = rounded_levels(D, chosen.sigmas) if flag("round_sigma", round_sigma) else chosen.sigmas
    return SAMPLERS[chosen.sampler](D, x_init, sigmas, **sampler_options)


def rounded_levels(D: object, sigmas: object) -> NDArray[np.float64]:
    """The levels of a grid as ``D.round_sigma`` has them, and the final 0, if there is one.

    Raises:
        InvalidValueError: D has no such method, or it takes two levels for the same.

    Example:
        >>> rounded_levels(type("D", (), {"round_sigma": lambda self, sigma: np.round(sigma)})(), [3.2, 0.9, 0.0])
        array([3., 1., 0.])
    """
    levels = check_grid(sigmas)
    method = getattr(D, "round_sigma", None)
    if not callable(method):
        raise InvalidValueError(f"round_sigma is on, but {type(D).__name__} has no method round_sigma")
    above = levels[levels > 0]
    rounded = np.asarray(to_numpy(np.asarray(method(above), np.float64), "the rounded levels"))
    return check_grid(np.concatenate([rounded, levels[levels == 0]]))


def _image_seeds(n: int, seeds: Sequence[int] | None, generator: Generator) -> ImageSeeds | None:
    if seeds is None:
        return None
    found = ImageSeeds(seeds, generator)
    if len(found.seeds) != n:
        raise InvalidValueError(f"there are {len(found.seeds)} seeds for n {n}; allowed is one for each sample")
    return found


def _edm_grid(D: object, sampler: str, given: Mapping[str, Any]) -> Protocol:
    """A sampler on EDM's grid with these parameters, those of None as for CIFAR-10, within what D takes."""
    one_of("sampler", sampler, SAMPLERS)
    grid: dict[str, Any] = {"num_steps": 18, "sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0}
    grid |= {name: value for name, value in given.items() if value is not None}
    grid["sigma_min"], grid["sigma_max"] = clipped_range(D, grid["sigma_min"], grid["sigma_max"])
    levels = edm_sigmas(**grid).tolist()
    return Protocol("EDM grid", sampler, tuple(levels), levels[0], "the arguments of sample")


def _alone(protocol: Protocol, given: Mapping[str, Any]) -> Protocol:
    """The protocol, after refusing arguments that it decides."""
    for name, value in given.items():
        if value is not None:
            raise InvalidValueError(f"{name} is {value!r:.80} beside protocol {protocol.name!r}, which decides it")
    return protocol


def _jump_level(D: object, jump: object, jump_to: float | None) -> float | None:
    """Where a jump ends, which must be a level that D takes; None for no jump."""
    if jump is None and jump_to is None:
        return None
    if jump is None or jump_to is None:
        raise InvalidValueError(f"jump is {jump!r:.80} and jump_to is {jump_to!r}; allowed are both, or none of them")
    if not callable(getattr(jump, "jump", None)):
        raise DTypeError(f"jump is {jump!r:.80}; allowed are Gaussian denoisers")
    level, highest = real_number("jump_to", jump_to, above=0), _limit(D, "sigma_max", math.inf)
    if level > highest:
        raise InvalidValueError(f"jump_to is {level:g}; the denoiser takes noise levels up to {highest:g}")
    return level


def _euler_step(denoise: Denoise, x: Any, sigma: float, sigma_next: float) -> Step:
    denoised = denoise(x, sigma)
    x_next = denoised if sigma_next == 0 else x + (sigma_next - sigma) * ((x - denoised) / sigma)
    return Step(x_next, x, sigma, denoised)


def _heun_step(denoise: Denoise, x: Any, sigma: float, sigma_next: float) -> Step:
    denoised = denoise(x, sigma)
    if sigma_next == 0:
        return Step(denoised, x, sigma, denoised)
    slope = (x - denoised) / sigma
    x_next = x + (sigma_next - sigma) * slope
    slope_next = (x_next - denoise(x_next, sigma_next)) / sigma_next
    return Step(x + (sigma_next - sigma) * ((slope + slope_next) / 2), x, sigma, denoised)


def clipped_range(D: object, sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """The part of a range of noise levels that D takes.

    Raises:
        DTypeError: a bound is not a number.
        InvalidValueError: D takes none of the range.
    """
    lowest, highest = _limit(D, "sigma_min", 0.0), _limit(D, "sigma_max", math.inf)
    low = max(real_number("sigma_min", sigma_min), lowest)
    high = min(real_number("sigma_max", sigma_max), highest)
    if low > highest or high < lowest:
        raise InvalidValueError(
            f"sigma_min {sigma_min:g} to sigma_max {sigma_max:g} lies outside {lowest:g} to {highest:g}, the noise "
            "levels that the denoiser takes"
        )
    return low, high


def _limit(D: object, name: str, otherwise: float) -> float:
    """A bound of the noise levels that D takes; an attribute of that name that is no number is none."""
    value: Any = getattr(D, name, None)
    return float(value) if isinstance(value, Real) or getattr(value, "ndim", None) == 0 else otherwise


def _image_shape(D: object, shape: Sequence[int] | None, x_init: Any) -> tuple[int, int, int]:
    """The shape of images: the one given, that of D or that of x_init."""
    of_denoiser = getattr(D, "shape", None)
    if not isinstance(of_denoiser, tuple | list):
        of_denoiser = None
    if shape is None and of_denoiser is None and x_init is not None:
        return image_shape(tuple(to_numpy(x_init, "x_init").shape[1:]))
    if shape is None and of_denoiser is None:
        raise ShapeError("the denoiser has no attribute shape; give shape=(channels, height, width)")
    checked = image_shape(of_denoiser if shape is None else shape)
    if of_denoiser is not None and tuple(of_denoiser) != checked:
        raise ShapeError(f"shape is {list(checked)}, but the denoiser is for images of shape {list(of_denoiser)}")
    return checked
