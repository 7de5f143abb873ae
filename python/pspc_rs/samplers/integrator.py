"""What every sampler does besides its formula: checks, dtypes, callbacks, progress and trajectories."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from pspc_rs.arrays import check_finite, check_like, converted, copy_of, import_torch, is_array, is_torch, to_numpy
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.progress import Progress, reporting
from pspc_rs.reprs import build_repr
from pspc_rs.sigmas import check_grid

Model: TypeAlias = Callable[..., Any]
"""model(x, sigma, **extra_args) -> denoised; x and denoised are [batch, channels, height, width], sigma is [batch]."""

Callback: TypeAlias = Callable[[dict[str, Any]], object]
"""Called once per step with a dict of x, i, sigma, sigma_hat and denoised."""

Denoise: TypeAlias = Callable[[Any, float], Any]
"""denoise(state, sigma): the checked model output in the dtype of the state."""


class Step(NamedTuple):
    """The state that a step leads to, and what the callback gets: x, sigma_hat and denoised."""

    x_next: Any
    x: Any
    sigma_hat: float
    denoised: Any


Stepper: TypeAlias = Callable[[Denoise, Any, float, float], Step]
"""One step of a sampler, step(denoise, x, sigma, sigma_next)."""


class Integrator:
    """The checked arguments of a sampler; ``integrate`` takes its steps.

    The model, its extra arguments and the callback belong to others: they get copies, to which they may write, and what
    the model returns is copied, as it may return the same memory each time.

    Attributes:
        levels: the noise levels.
        steps: number of steps, one fewer than noise levels.
        start: the first state, in the dtype of the states.

    Args:
        model: called as ``model(x, sigma, **extra_args)``.
        x: initial state [batch, channels, height, width], numpy array or torch tensor of floats.
        sigmas: strictly descending noise levels, at least two.
        extra_args: further keyword arguments for the model.
        float64_state: keep states in float64; the model still gets the dtype of x.

    Raises:
        ShapeError: x does not have four axes.
        DTypeError: x is not an array of floats, or model cannot be called.
        InvalidValueError: x has NaN or infinities, or the noise levels do not descend or are fewer than two.

    Example:
        >>> Integrator(lambda x, sigma: x, np.zeros((1, 1, 2, 2)), [1.0, 0.5, 0.0], None, False)
        Integrator([1, 1, 2, 2] float64, 2 steps from sigma 1 to 0)
    """

    def __init__(
        self, model: Model, x: Any, sigmas: object, extra_args: Mapping[str, Any] | None, float64_state: bool
    ) -> None:
        images = to_numpy(x, "x")
        if images.ndim != 4:
            raise ShapeError(f"x has shape {list(images.shape)}; allowed is [batch, channels, height, width]")
        check_finite("x", images)
        if not callable(model):
            raise DTypeError(f"model is a {type(model).__name__}; allowed are functions model(x, sigma)")
        self.levels: list[float] = check_grid(sigmas).tolist()
        self.steps = len(self.levels) - 1
        if self.steps < 1:
            raise InvalidValueError(f"sigmas are {self.levels}; a step needs two noise levels, the last may be 0")
        self._model = model
        self._extra_args = dict(extra_args or {})
        self._sigma_max = _largest_level(model)
        self._input_dtype = x.dtype
        # Half precision would move a noise level by up to 0.4 %.
        self._sigma_dtype = images.dtype if images.dtype.itemsize >= 4 else np.dtype(np.float32)
        wide = (import_torch("a tensor") if is_torch(x) else np).float64
        self.start = copy_of(converted(x, wide if float64_state else x.dtype))

    def __repr__(self) -> str:
        states = f"{list(self.start.shape)} {str(self.start.dtype).removeprefix('torch.')}"
        steps = f"{self.steps} step{'s' * (self.steps != 1)}"
        return build_repr(self, states, f"{steps} from sigma {self.levels[0]:g} to {self.levels[-1]:g}")

    def integrate(self, step: Stepper, callback: Callback | None, progress: bool | Progress, trajectory: bool) -> Any:
        """The last state, or all states stacked along a new first axis, in the dtype of the input."""
        x = self.start
        states = [x]
        with without_gradients(x), reporting(progress, "step", "sampling", self.steps) as report:
            for i, (sigma, sigma_next) in enumerate(pairwise(self.levels)):
                done = step(self.denoise, x, sigma, sigma_next)
                if callback is not None:
                    state = {"x": copy_of(done.x), "i": i, "sigma": sigma, "sigma_hat": done.sigma_hat}
                    callback({**state, "denoised": copy_of(done.denoised)})
                x = done.x_next
                self.check_state(x, sigma_next)
                if trajectory:
                    states.append(x)
                report(i + 1, self.steps)
            return converted(_stacked(states) if trajectory else x, self._input_dtype)

    @contextmanager
    def after_noise(self, sigma: float, raised: float) -> Iterator[None]:
        """Adds to a model's refusal of a noise level that it was added noise that led there.

        Args:
            sigma: the noise level of the step.
            raised: the level at which the model is called.
        """
        try:
            yield
        except InvalidValueError as error:
            if raised <= max(sigma, self._sigma_max):
                raise
            raise InvalidValueError(
                f"{error}; adding noise at sigma {sigma:g} raised it to {raised:g}, so choose S_max below {sigma:g}, a "
                "smaller S_churn or a smaller first sigma"
            ) from error

    def denoise(self, x: Any, sigma: float) -> Any:
        """The checked model output at a state and a noise level, in the dtype of the state."""
        given_x, sigmas, extra_args = self.arguments(x, sigma)
        return self.checked(self._model(given_x, sigmas, **extra_args), x, sigma)

    def arguments(self, x: Any, sigma: float) -> tuple[Any, Any, dict[str, Any]]:
        """What the model is called with: copies of the state and of its extra arguments, and sigma per image."""
        levels = np.full(len(x), sigma, self._sigma_dtype)
        sigmas = import_torch("a tensor").from_numpy(levels).to(x.device) if is_torch(x) else levels
        given = {name: copy_of(value) if is_array(value) else value for name, value in self._extra_args.items()}
        return copy_of(converted(x, self._input_dtype, f"the state at sigma {sigma:g}")), sigmas, given

    def checked(self, denoised: Any, x: Any, sigma: float) -> Any:
        """What the model returned for a state, as a copy in the dtype of the state."""
        check_like("the model", denoised, x)
        name = f"the model's output at sigma {sigma:g}"
        check_finite(name, denoised)
        return copy_of(converted(denoised, x.dtype, name))

    def check_state(self, x: Any, sigma: float) -> None:
        """Refuses a state that is not finite, or that the type of the result cannot hold."""
        name = f"the state at sigma {sigma:g}"
        check_finite(name, x)
        converted(x, self._input_dtype, name)


def _largest_level(model: object) -> float:
    """The largest noise level that a model is good for, if it says so in an attribute ``sigma_max``."""
    value: Any = getattr(model, "sigma_max", None)
    return float(value) if isinstance(value, Real) or getattr(value, "ndim", None) == 0 else math.inf


def _stacked(states: list[Any]) -> Any:
    return import_torch("a tensor").stack(states) if is_torch(states[0]) else np.stack(states)


def without_gradients(x: Any) -> AbstractContextManager[object]:
    """A context in which torch records no gradients, if x is a tensor."""
    return cast(AbstractContextManager[object], import_torch("a tensor").no_grad()) if is_torch(x) else nullcontext()
