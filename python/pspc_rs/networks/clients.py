"""Denoisers as models of other libraries: of diffusers, in its schedulers and pipelines, and of azula."""

import functools
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pspc_rs.checks import image_shape
from pspc_rs.denoisers.predictions import Prediction
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.extras import import_extra
from pspc_rs.networks.diffusers_scheduler import training_of
from pspc_rs.networks.processes import FlowMatching

_NOISE_ALONE = 1e6
"""The noise level that stands for an infinite one, at steps where nothing of the image is left."""


class ModelOutput(NamedTuple):
    """What a model of diffusers returns.

    Attributes:
        sample: the prediction.
    """

    sample: Tensor


class DiffusersModel(nn.Module):
    """A denoiser as a `UNet2DModel` of diffusers: it predicts what a scheduler of that library expects.

    What is predicted, and at which alpha and sigma, follows from the scheduler: its configuration, as in
    `open_network` of diffusers folders, and the noise levels of its timesteps. At a step where nothing of the image is
    left (zero terminal SNR, the first step of flow matching) the prediction is the limit of large sigma. diffusers
    itself is not imported.

    Args:
        D: denoiser or network D(z, sigma).
        scheduler: the scheduler that the model is used with, after ``set_timesteps``.
        shape: ``(channels, height, width)`` of the images, for pipelines; that of D if None.

    Attributes:
        config: ``sample_size`` and ``in_channels``, which pipelines read.

    Raises:
        DataError: the scheduler is of a kind that `open_network` does not know, or its configuration cannot be used.
        DTypeError: scheduler has no configuration, or D cannot be called.
        ShapeError: shape does not have three lengths.

    Example:
        >>> class DDIMScheduler:  # that of diffusers has these attributes, too
        ...     config = {"num_train_timesteps": 10}
        ...     alphas_cumprod = torch.linspace(0.9, 0.1, 10)
        >>> model = DiffusersModel(lambda z, sigma: 0 * z, DDIMScheduler())
        >>> model(torch.ones(1, 1, 2, 2), 9).sample.ravel()  # x_t / sqrt(1 - 0.1)
        tensor([1.0541, 1.0541, 1.0541, 1.0541])
    """

    config: SimpleNamespace
    _place: Tensor

    def __init__(self, D: Callable[..., Any], scheduler: Any, *, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        if not hasattr(scheduler, "config"):
            raise DTypeError(f"scheduler is a {type(scheduler).__name__}; allowed are schedulers of diffusers")
        self._training = training_of({**dict(scheduler.config), "_class_name": type(scheduler).__name__})
        sigma_data = getattr(self._training.process, "sigma_data", 0.5)
        self._predict = Prediction(D, self._training.prediction, sigma_data=sigma_data)
        self._scheduler = scheduler
        known = getattr(D, "shape", None) if shape is None else shape
        channels, height, width = (None, None, None) if known is None else image_shape(tuple(known))
        size = height if height == width else (height, width)
        self.config = SimpleNamespace(in_channels=channels, out_channels=channels, sample_size=size)
        # Moves with the module, as weights would.
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where pipelines draw noise."""
        return self._place.device

    @property
    def dtype(self) -> torch.dtype:
        """The type in which pipelines draw noise."""
        return self._place.dtype

    def forward(
        self, sample: Tensor, timestep: Any, class_labels: Any = None, *, return_dict: bool = True
    ) -> ModelOutput | tuple[Tensor]:
        """What the scheduler expects of a model for noisy images at one of its timesteps.

        Args:
            sample: noisy images [batch, channels, height, width], scaled by the scheduler's ``scale_model_input``.
            timestep: a timestep of the scheduler, or one per image.
            class_labels: passed on to D.
            return_dict: False for a tuple.

        Raises:
            InvalidValueError: the timestep is none of the scheduler's, or D refuses its noise level.
            ShapeError: there are several timesteps, and not one per image.
        """
        times = torch.as_tensor(timestep).reshape(-1)
        if len(times) not in (1, len(sample)):
            raise ShapeError(f"timestep has {len(times)} entries; allowed are 1 and the batch, {len(sample)}")
        levels = torch.tensor([self._level(t) for t in times], dtype=torch.float64).expand(len(sample))
        alpha = self._training.process.scale(levels)
        further = {} if class_labels is None else {"class_labels": class_labels}
        predicted: Any = self._predict(sample, alpha, alpha * levels, **further)
        predicted = -predicted if self._training.negated else predicted
        return ModelOutput(predicted) if return_dict else (predicted,)

    def extra_repr(self) -> str:
        """What `repr` shows: the prediction, and the scheduler by name."""
        return f"{self._predict!r} for {type(self._scheduler).__name__}"

    def _level(self, t: Tensor) -> float:
        """The noise level of z at a timestep."""
        sigmas = getattr(self._scheduler, "sigmas", None)
        if sigmas is None:
            kept = self._kept(t)
            level = math.sqrt((1 - kept) / kept) if kept > 0 else math.inf
        else:
            level = float(sigmas[self._index(t)])
            if isinstance(self._training.process, FlowMatching):
                level = level / (1 - level) if level < 1 else math.inf
        return _NOISE_ALONE if math.isinf(level) else level

    def _kept(self, t: Tensor) -> float:
        """The share of the image's variance that is left, abar, for schedulers that count steps."""
        table = self._scheduler.alphas_cumprod
        if t.is_floating_point() or not 0 <= int(t) < len(table):
            raise InvalidValueError(f"timestep is {t.item()}; allowed are integers from 0 to {len(table) - 1}")
        return float(table[int(t)])

    def _index(self, t: Tensor) -> int:
        """Which of the scheduler's steps a timestep is: the present one, where two have the same."""
        steps = self._scheduler.timesteps
        present = getattr(self._scheduler, "step_index", None)
        if present is not None and present < len(steps) and steps[present] == t:
            return int(present)
        found = (steps.cpu() == t.cpu()).nonzero()
        if len(found) == 0:
            raise InvalidValueError(
                f"timestep is {t.item():g}, none of the scheduler's; call set_timesteps and take them from there"
            )
        return int(found[0])


def azula_denoiser(D: Callable[..., Any], schedule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Any:
    """A denoiser as one of azula, for its samplers and guidance: an ``azula.denoise.Denoiser``.

    Called as ``denoiser(x_t, t)`` it returns a posterior whose mean is D at z = x_t / alpha_t and sigma_t / alpha_t.
    Keyword arguments, such as ``class_labels``, go to D.

    Args:
        D: denoiser or network D(z, sigma) of images [batch, channels, height, width].
        schedule: azula's noise schedule: called as ``schedule(t)``, it returns alpha_t and sigma_t.

    Raises:
        MissingDependencyError: azula is not installed, or cannot be imported.
        DTypeError: D or schedule cannot be called.

    Example:
        >>> from azula.noise import VPSchedule  # doctest: +SKIP
        >>> denoiser = azula_denoiser(D, VPSchedule())  # doctest: +SKIP
        >>> x = denoiser(x_t, t).mean  # doctest: +SKIP
    """
    denoiser = _azula_class()
    if not callable(schedule):
        raise DTypeError(f"schedule is a {type(schedule).__name__}; allowed are noise schedules of azula")
    return denoiser(Prediction(D, "x0"), schedule)


@functools.cache
def _azula_class() -> Any:
    azula = import_extra("azula.denoise", "azula_denoiser", "azula")

    class AzulaDenoiser(azula.Denoiser):  # type: ignore[misc, name-defined]
        """A denoiser of pspc_rs under a noise schedule."""

        def __init__(self, mean: Prediction, schedule: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
            super().__init__()
            self.mean = mean
            self.schedule = schedule

        def forward(self, x_t: Tensor, t: Tensor, **further: Any) -> Any:
            """The posterior of x_t at the time t."""
            alpha, sigma = self.schedule(t)
            return azula.DiracPosterior(mean=self.mean(x_t, alpha, sigma, **further))

        def extra_repr(self) -> str:
            """What `repr` shows: the denoiser."""
            return repr(self.mean.denoiser)

    return AzulaDenoiser
