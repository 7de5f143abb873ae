"""Log likelihoods by the probability flow ODE: the change of density along the path from an image to noise."""

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import beside, check_finite, import_torch, is_torch, like, numpy_view, to_numpy
from pspc_rs.checks import integer, one_of
from pspc_rs.errors import GradientError
from pspc_rs.progress import Progress, reporting
from pspc_rs.samplers.integrator import Integrator, Model, without_gradients
from pspc_rs.samplers.solvers import clipped_range
from pspc_rs.sigmas import check_grid, edm_sigmas

Float64: TypeAlias = NDArray[np.float64]

Divergence: TypeAlias = Callable[[Any, float], tuple[Any, Float64]]
"""divergence(state, sigma): the checked model output, and its divergence or estimates of it, [estimates, batch]."""

_NUM_LEVELS = 128
_LARGEST_EXACT = 256
_NUMBERS_AT_ONCE = 1 << 22
_MOST_PROBES = 10**6
_STREAM = 0x10611  # keeps these probes apart from all other numbers that are drawn with the same seed


class LogLikelihood(NamedTuple):
    """Log likelihoods and how far chance may have moved them.

    Attributes:
        value: in nats per image, float64 [batch].
        standard_error: of the value, from the random probes of Hutchinson's estimate; 0 where the divergence is exact.

    Example:
        >>> value, error = LogLikelihood(np.array([-3.5]), np.array([0.1]))
        >>> value / np.log(2)  # in bits
        array([-5.04943264])
    """

    value: Any
    standard_error: Any


def log_likelihood(
    model: Model,
    x: Any,
    sigmas: object = None,
    *,
    divergence: str = "auto",
    num_probes: int = 16,
    seed: int = 0,
    extra_args: Mapping[str, Any] | None = None,
    progress: bool | Progress = False,
) -> LogLikelihood:
    """The log likelihood of images under the probability flow ODE of a denoiser, in nats.

    The ODE dz/dsigma = f(z, sigma) = (z - D(z, sigma)) / sigma is solved from x at the last noise level up to the first
    one, and log p(x) = log N(z; 0, sigma_max^2 I) + integral of div f dsigma along the path, with
    div f = (d - div D) / sigma and d the number of pixels times channels: Song et al., "Score-Based Generative Modeling
    through Stochastic Differential Equations", 2021, sec. 4.3. Steps are Heun's; div D is integrated over log sigma by
    the trapezoidal rule. Both errors fall with the square of the number of levels. It is the density at the last noise
    level, of images with that noise: nothing is dequantised.

    Where a denoiser has a method ``divergence``, as `Empirical`, the PSPC ones, `CFDM` and `Gaussian` have, div D is
    exact at the cost of a call or two. Of other models it is the sum of products with all unit vectors for images of
    up to 256 numbers, and Hutchinson's estimate above: the mean of v . J v over vectors v of random signs, the same
    ones all along the path. The products come from the model's ``jvp`` or from torch's autograd.

    Args:
        model: called as ``model(x, sigma, **extra_args)`` with sigma [batch]; see ``sample_euler``.
        x: images [batch, channels, height, width], a numpy array or torch tensor of floats. The state is float64; the
            model gets the dtype of x.
        sigmas: strictly descending noise levels, at least two above 0; a final 0 is left out. None for 128 levels of
            EDM from 80 to 0.002, as far as the model takes them.
        divergence: "exact", "hutchinson", or "auto" for exact where the model has a divergence or images are small.
        num_probes: number of random vectors of Hutchinson's estimate, at least 2.
        seed: of the vectors, drawn with numpy's default generator; 0 or more.
        extra_args: further keyword arguments for the model, such as ``class_labels``.
        progress: True for a progress bar, or a function called as ``progress(done, total)``.

    Returns:
        The log likelihoods and their standard errors, float64 [batch] each, arrays or tensors as x is. Divided by
        -d log 2 a log likelihood is in bits per dimension.

    Raises:
        ShapeError: x does not have four axes, or the model returned another shape.
        DTypeError: x is not an array of floats, or the model returned something else.
        InvalidValueError: an argument is out of range, or x, a state or what the model returned is not finite.
        GradientError: the model has no derivatives.

    Example:
        >>> import pspc_rs as pspc
        >>> D = pspc.Gaussian(pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1)), cache=False)
        >>> found = log_likelihood(D, np.array([[[[0.5]]]]))
        >>> found.value.round(3), found.standard_error  # log N(0.5; 0, 1)
        (array([-1.044]), array([0.]))
    """
    probes, start = integer("num_probes", num_probes, 2, _MOST_PROBES), integer("seed", seed, least=0)
    kind = one_of("divergence", divergence, ("auto", "exact", "hutchinson"))
    if sigmas is None:
        sigmas = edm_sigmas(_NUM_LEVELS, *clipped_range(model, 0.002, 80.0))
    levels = check_grid(sigmas)
    integrator = Integrator(model, x, levels[levels > 0], extra_args, float64_state=True)
    z, size = integrator.start, math.prod(integrator.start.shape[1:])
    if kind == "auto":
        kind = "exact" if _provides(model, "divergence") or size <= _LARGEST_EXACT else "hutchinson"
    if kind == "exact":
        directions = None
    else:
        signs = np.random.default_rng([start, _STREAM]).integers(0, 2, (probes, *z.shape), dtype=np.int8)
        directions = 2 * signs - np.int8(1)
    measure = _divergence(model, integrator, directions)
    z, traces = _to_noise(integrator, measure, progress)
    first, last = integrator.levels[0], integrator.levels[-1]
    squares = (to_numpy(z, "the state").reshape(len(z), -1) ** 2).sum(axis=1)
    normal = -squares / (2 * first**2) - size / 2 * math.log(2 * math.pi * first**2)
    values = normal + size * math.log(first / last) - traces
    error = np.zeros(len(z)) if len(values) == 1 else values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return LogLikelihood(beside(values.mean(axis=0), x), beside(error, x))


def _to_noise(integrator: Integrator, measure: Divergence, progress: bool | Progress) -> tuple[Any, Float64]:
    """The state at the first noise level, and the integral of div D over log sigma, [estimates, batch]."""
    z, upward = integrator.start, integrator.levels[::-1]
    with without_gradients(z), reporting(progress, "step", "integrating", integrator.steps) as report:
        denoised, trace = measure(z, upward[0])
        total = np.zeros_like(trace)
        for i, (sigma, following) in enumerate(pairwise(upward)):
            slope = (z - denoised) / sigma
            ahead = z + (following - sigma) * slope
            slope_ahead = (ahead - integrator.denoise(ahead, following)) / following
            z = z + (following - sigma) * ((slope + slope_ahead) / 2)
            integrator.check_state(z, following)
            before = trace
            denoised, trace = measure(z, following)
            total += (before + trace) / 2 * math.log(following / sigma)
            report(i + 1, integrator.steps)
    return z, total


def _divergence(model: Any, integrator: Integrator, directions: NDArray[np.int8] | None) -> Divergence:
    """How the divergence of a model is measured: exactly if there are no directions.

    Args:
        model: the model.
        integrator: makes its arguments and checks what it returns.
        directions: vectors of signs [estimates, batch, channels, height, width].
    """

    def closed_form(z: Any, sigma: float) -> tuple[Any, Float64]:
        given, sigmas, extra_args = integrator.arguments(z, sigma)
        denoised, divergence = model.divergence(given, sigmas, **extra_args)
        return integrator.checked(denoised, z, sigma), numpy_view(divergence).astype(np.float64)[None]

    def by_products(z: Any, sigma: float) -> tuple[Any, Float64]:
        given, sigmas, extra_args = integrator.arguments(z, sigma)
        multiply = _products(model, given, sigmas, extra_args)
        traces, denoised = [], None
        for v in _parts(directions, z.shape):
            denoised, products = multiply(v)
            traces.append((v * numpy_view(products)).reshape(*v.shape[:2], -1).sum(axis=-1))
        found = np.concatenate(traces)
        check_finite(f"the divergence of the model at sigma {sigma:g}", found)
        total = found.sum(axis=0, keepdims=True) if directions is None else found
        return integrator.checked(denoised, z, sigma), total

    return closed_form if directions is None and _provides(model, "divergence") else by_products


def _provides(model: Any, method: str) -> bool:
    """Whether a model has a method: for all of its noise levels, if it says so."""
    asked = getattr(model, "provides", None)
    return bool(asked(method)) if callable(asked) else callable(getattr(model, method, None))


def _parts(directions: NDArray[np.int8] | None, shape: tuple[int, ...]) -> Iterator[Float64]:
    """The directions, or the unit vectors of all images at once, some at a time: [m, *shape] each."""
    size = math.prod(shape[1:])
    total = size if directions is None else len(directions)
    step = max(1, _NUMBERS_AT_ONCE // max(1, math.prod(shape)))
    for start in range(0, total, step):
        stop = min(start + step, total)
        if directions is not None:
            yield directions[start:stop].astype(np.float64)
            continue
        units = np.zeros((stop - start, shape[0], size))
        units[np.arange(stop - start), :, np.arange(start, stop)] = 1
        yield units.reshape(-1, *shape)


def _products(model: Any, x: Any, sigmas: Any, extra_args: Mapping[str, Any]) -> Callable[[Float64], tuple[Any, Any]]:
    """A function of vectors [m, *x.shape]: the model's output at x, and their products with its Jacobian J.

    By torch's autograd they are products with the transpose of J, but v . J v is the same for both.
    """
    if _provides(model, "jvp"):
        return lambda v: model.jvp(x, sigmas, like(v, x), **extra_args)
    if not is_torch(x):
        raise GradientError(
            f"the divergence of a {type(model).__name__} needs a method jvp, or torch's autograd and so x as a tensor"
        )
    torch: Any = import_torch("a tensor")
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        denoised = model(z, sigmas, **extra_args)
    if not is_torch(denoised) or not denoised.requires_grad:
        raise GradientError("the model's output has no gradient with respect to its input, so no divergence either")

    def multiply(v: Float64) -> tuple[Any, Any]:
        rows = [torch.autograd.grad(denoised, z, like(one, denoised), retain_graph=True)[0] for one in v]
        return denoised.detach(), torch.stack(rows)

    return multiply
