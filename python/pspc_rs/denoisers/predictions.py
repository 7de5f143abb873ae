"""What models predict at x_t = alpha x + sigma n, and denoisers seen as such models: eps, v, score, velocity, ...

The denoised image is linear in every prediction: with z = x_t / alpha, D = skip z + out prediction. One table gives the
two coefficients, for networks that become denoisers (`pspc_rs.networks.Adapter`) and for denoisers that are called as
networks are (`Prediction`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import (
    MAX_SIGMA,
    Array,
    check_dtype,
    check_finite,
    check_like,
    check_sigma_shape,
    converted,
    is_torch,
    like,
    real_array,
)
from pspc_rs.checks import one_of, real_number
from pspc_rs.denoisers.gradients import is_transformed, refuse_gradient
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.reprs import build_repr


class Point(NamedTuple):
    """Where a model is called, as arrays or tensors [batch]: x_t = alpha z at the level r that sigma was rounded to.

    Attributes:
        alpha: scale of the image.
        r: noise level of z at which the model is called.
        sigma: noise level of z.
        sigma_data: standard deviation of the data in EDM's preconditioning.
    """

    alpha: Any
    r: Any
    sigma: Any
    sigma_data: float


# At the true level r = sigma; a prediction at a rounded one is taken as it was trained, but for eps and score: they
# give a direction, and the amount of noise is known from sigma.
COEFFICIENTS: Mapping[str, Callable[[Point], tuple[Any, Any]]] = {
    "x0": lambda at: (0 * at.r, 1 + 0 * at.r),
    "eps": lambda at: (1 + 0 * at.r, -at.sigma),
    "score": lambda at: (1 + 0 * at.r, at.sigma * at.alpha * at.r),
    "residual": lambda at: (1 + 0 * at.r, -1 + 0 * at.r),
    "v": lambda at: (1 / (1 + at.r**2), -at.r / (at.alpha * (1 + at.r**2))),
    "flow": lambda at: (1 / (1 + at.r), -at.r / (1 + at.r)),
    "velocity": lambda at: (1 / (1 + at.r), at.r / (1 + at.r)),
    "edm": lambda at: (
        at.sigma_data**2 / (at.r**2 + at.sigma_data**2),
        at.r * at.sigma_data * (at.r**2 + at.sigma_data**2) ** -0.5,
    ),
}
"""skip and out of D = skip z + out prediction, by what is predicted."""

PREDICTIONS = tuple(COEFFICIENTS)
"""What models predict."""


class Prediction:
    """A denoiser as a model of another convention: what it predicts for x_t = alpha x + sigma n.

    With D the denoised image of z = x_t / alpha at the noise level sigma / alpha, and eps = (x_t - alpha D) / sigma:

    ========  ===========================  ==================================================================
    name      returned                     convention
    ========  ===========================  ==================================================================
    x0        D                            the clean image
    eps       (x_t - alpha D) / sigma      the noise; Ho et al. 2020
    score     (alpha D - x_t) / sigma^2    the gradient of log p(x_t); Song et al. 2021
    residual  (x_t - alpha D) / alpha      the noise in z, sigma / alpha eps
    v         alpha eps - sigma D          Salimans & Ho 2022
    flow      eps - D                      d x_t / d sigma of x_t = (1 - sigma) x + sigma n: from data to noise
    velocity  D - eps                      d x_t / d alpha of x_t = alpha x + (1 - alpha) n: from noise to data,
                                           (D - x_t) / (1 - alpha); Lipman et al. 2023
    edm       (D - c_skip z) / c_out       F of Karras et al. 2022
    ========  ===========================  ==================================================================

    Variance preserving models have alpha^2 + sigma^2 = 1, flow matching alpha + sigma = 1, variance exploding models
    alpha = 1; any two positive numbers will do. At alpha = 0 nothing of the image is left to denoise.

    Args:
        D: denoiser or network D(z, sigma); called with z and sigma [batch] in the dtype of x_t, float32 at least.
        prediction: one of the names above.
        sigma_data: for "edm", the standard deviation of the data.

    Raises:
        InvalidValueError: there is no such prediction, or sigma_data is not above 0.
        DTypeError: D cannot be called, or another argument is of the wrong type.

    Example:
        >>> def D(z, sigma):  # of data that are normal with variance 1
        ...     return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
        >>> x_t = np.full((1, 1, 1, 1), 2.0)
        >>> Prediction(D, "score")(x_t, 0.6, 0.8).item()  # x_t is normal with variance 1, too
        -2.0
        >>> Prediction(D, "eps")
        Prediction('eps' of D)
    """

    def __init__(self, D: Callable[..., Any], prediction: str, *, sigma_data: float = 0.5) -> None:
        if not callable(D):
            raise DTypeError(f"D is a {type(D).__name__}; allowed are denoisers and other functions D(z, sigma)")
        self.denoiser = D
        self.prediction = one_of("prediction", prediction, PREDICTIONS)
        self.sigma_data = real_number("sigma_data", sigma_data, above=0, most=MAX_SIGMA)

    def __repr__(self) -> str:
        return build_repr(self, f"{self.prediction!r} of {getattr(self.denoiser, '__qualname__', self.denoiser)}")

    def __call__(self, x_t: Array, alpha: object, sigma: object, **further: Any) -> Array:
        """What is predicted for noisy images, an array or tensor like them.

        Derivatives with respect to x_t are those that D has; there are none with respect to alpha and sigma.

        Args:
            x_t: alpha x + sigma n, [batch, channels, height, width]; x in [-1, 1] units.
            alpha: scale of the image, a number above 0 or one per image.
            sigma: scale of the noise, a number above 0 or one per image.
            **further: further arguments of D: ``class_labels``, ``exclude``.

        Raises:
            ShapeError: x_t, alpha or sigma has the wrong shape, or D returned another one.
            DTypeError: one of them is not made of real numbers, or D did not return an array or tensor like x_t.
            InvalidValueError: alpha or sigma is not finite and above 0, or D refuses sigma / alpha; x_t or what D
                returned is not finite; or the prediction does not fit into the dtype of x_t.
            GradientError: torch wants a derivative with respect to alpha or sigma.
        """
        refuse_gradient("Prediction", alpha=alpha, sigma=sigma)
        check_dtype(x_t, "x_t")
        x: Any = x_t
        if x.ndim != 4:
            raise ShapeError(f"x_t has shape {list(x.shape)}; allowed is [batch, channels, height, width]")
        scale, noise = (_scales(name, given, len(x)) for name, given in (("alpha", alpha), ("sigma", sigma)))
        level = noise / scale
        skip, out = COEFFICIENTS[self.prediction](Point(scale, level, level, self.sigma_data))
        wide = _at_least_float32(x)
        with np.errstate(all="ignore"):  # what does not fit is refused below, as torch gives no warning
            z = wide / _per_image(scale, wide)
            denoised = self._denoised(z, like(level, z), further)
            predicted = (denoised - _per_image(skip, z) * z) / _per_image(out, z)
        _check_numbers(f"the prediction {self.prediction}", predicted)
        return cast(Array, converted(predicted, x.dtype, f"the prediction {self.prediction}"))

    def _denoised(self, z: Any, level: Any, further: Mapping[str, Any]) -> Any:
        _check_numbers("x_t / alpha", z)
        denoised = self.denoiser(z, level, **further)
        check_like("D", denoised, z)
        _check_numbers("what D returned", denoised)
        return denoised


def _at_least_float32(x: Any) -> Any:
    """Half precision as float32, in which the formulas are evaluated; everything else as it is."""
    if x.dtype.itemsize >= 4:
        return x
    return x.float() if is_torch(x) else x.astype(np.float32)


def _check_numbers(name: str, x: Any) -> None:
    """Refuses what is not finite, but in tensors of torch.func, whose numbers are hidden."""
    if not is_transformed(x):
        check_finite(name, x)


def _scales(name: str, given: object, batch: int) -> NDArray[np.float64]:
    """Numbers above 0, one per image."""
    values = real_array(name, given)
    check_sigma_shape(values.shape, batch, name)
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        raise InvalidValueError(f"{name} is {values[bad][0]:g}; allowed are finite numbers above 0")
    return np.broadcast_to(values.reshape(-1), (batch,)).copy()


def _per_image(values: NDArray[np.float64], x: Any) -> Any:
    """One number per image, as x is."""
    return like(values.reshape(-1, 1, 1, 1), x)
