"""From what a network predicts to the denoised image: one formula for all predictions."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pspc_rs.arrays import is_module, real_array
from pspc_rs.checks import flag, image_shape, one_of, real_number, sigma_range
from pspc_rs.denoisers.modules import input_dtype
from pspc_rs.denoisers.predictions import COEFFICIENTS, PREDICTIONS, Point
from pspc_rs.denoisers.selection import refuse_labels
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.networks.processes import Edm, NoiseProcess, as_levels, check_entries, named_process


class Adapter(nn.Module):
    """A network of any parameterisation as D(x, sigma) of [-1, 1] images.

    The network sees x_t = alpha z with z = x + sigma n in its own pixel units, and the time t, both given by its noise
    process. With s = alpha sigma, what it returns becomes the denoised image:

    ========  =====================  ==========================================
    name      the network predicts   denoised
    ========  =====================  ==========================================
    x0        x                      prediction
    eps       n                      z - sigma eps
    score     -n / s                 z + sigma s score
    residual  sigma n                z - residual
    v         alpha n - s x          (alpha x_t - s v) / (alpha^2 + s^2)
    flow      n - x                  (x_t - s u) / (alpha + s)
    velocity  x - n                  (x_t + s u) / (alpha + s)
    edm       F of Karras et al.     c_skip z + c_out F, for the process `Edm`
    ========  =====================  ==========================================

    Args:
        net: called as ``net(x_t, t)``, or ``net(x_t, t, class_labels)`` where there are labels; t is one number per
            sample, [batch]. Channels beyond those of x_t, as those of a predicted variance, are not used.
        prediction: one of the names above.
        process: which scales and times.
        pixels: what black and white are to the network: (-1, 1), (0, 1), (-0.5, 0.5), (0, 255), ...
        time_scale: the network gets time_scale t + time_offset.
        time_offset: see ``time_scale``.
        blind: the network is called as ``net(x_t)``.
        class_argument: pass labels under this name, not as the third argument.
        sigma_min: smallest noise level that the network is good for, in [-1, 1] pixels; that of the process if None.
        sigma_max: the largest one.
        shape: ``(channels, height, width)`` of its images, if known; the network's own ``shape`` if None.

    Raises:
        InvalidValueError: an argument is out of range, or "edm" with another process.
        DTypeError: an argument is of the wrong type.

    Example:
        >>> from pspc_rs.networks import DiscreteVP
        >>> net = lambda x_t, t: torch.zeros_like(x_t)   # never any noise
        >>> D = Adapter(net, "eps", DiscreteVP.linear())
        >>> D(torch.ones(1, 1, 1, 1), 0.5).item()
        1.0
    """

    accepts_float32 = True
    label_dim: int | None

    def __init__(
        self,
        net: Callable[..., Any],
        prediction: str,
        process: NoiseProcess,
        *,
        pixels: tuple[float, float] = (-1.0, 1.0),
        time_scale: float = 1.0,
        time_offset: float = 0.0,
        blind: bool = False,
        class_argument: str | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not callable(net):
            raise DTypeError(f"the network is a {type(net).__name__}; allowed are modules and other callables")
        if not isinstance(process, NoiseProcess):
            raise DTypeError(f"process is a {type(process).__name__}; allowed is a NoiseProcess")
        self.prediction = one_of("prediction", prediction, PREDICTIONS)
        if prediction == "edm" and not isinstance(process, Edm):
            raise InvalidValueError(f"prediction edm goes with the process Edm, not with {type(process).__name__}")
        self.net = net
        self.process = process
        self.gain, self.offset = _pixel_units(pixels)
        self.time_scale = real_number("time_scale", time_scale)
        self.time_offset = real_number("time_offset", time_offset)
        self.blind = flag("blind", blind)
        if class_argument is not None and not isinstance(class_argument, str):
            raise DTypeError(f"class_argument is {class_argument!r:.80}; allowed are names and None")
        self.class_argument = class_argument
        self.sigma_min, self.sigma_max = self._limits(sigma_min, sigma_max)
        known_shape = getattr(net, "shape", None) if shape is None else shape
        self.shape = None if known_shape is None else image_shape(known_shape)
        self.label_dim = getattr(net, "label_dim", None)

    def forward(self, x: Tensor, sigma: Tensor | float, class_labels: Any = None) -> Tensor:
        """The denoised images, in the type of x; the formulas are evaluated in float32, or in float64 if x has it.

        Args:
            x: noisy images [batch, channels, height, width] in [-1, 1] units.
            sigma: noise levels in the same units, a number or of shape [], [1], [batch] or [batch, 1, 1, 1].
            class_labels: passed on to the network as they are.

        Raises:
            ShapeError: sigma does not fit the batch, or the network returned another shape.
            InvalidValueError: labels were given to a network without classes.
        """
        if self.label_dim == 0:
            refuse_labels("this network", class_labels)
        levels = self.gain * as_levels(sigma).to(x.device).reshape(-1)
        if x.ndim != 4 or len(levels) not in (1, len(x)):
            raise ShapeError(
                f"x has shape {list(x.shape)} and sigma {len(levels)} entries; allowed are 1 and the batch"
            )
        dtype = x.dtype
        x = x if dtype == torch.float64 else x.float()
        rounded = self.process.round_sigma(levels)
        at = Point(self.process.scale(rounded), rounded, levels, getattr(self.process, "sigma_data", 1.0))
        skip, out = (_per_sample(one, x) for one in COEFFICIENTS[self.prediction](at))
        z = self.gain * x + self.offset
        prediction = self._predict(_per_sample(at.alpha, x) * z, rounded, class_labels)
        denoised: Tensor = (skip * z + out * prediction - self.offset) / self.gain
        return denoised.to(dtype)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers, except the network itself."""
        named = self.net if hasattr(self.net, "__qualname__") else type(self.net)
        return {
            "net": f"{named.__module__}.{named.__qualname__}",
            "prediction": self.prediction,
            "process": self.process.settings,
            "pixels": [self.offset - self.gain, self.offset + self.gain],
            "time": [self.time_scale, self.time_offset],
            "blind": self.blind,
        }

    def round_sigma(self, sigma: Any) -> Any:
        """The noise levels at which the network would be called: a tensor for a tensor, else float64 numbers."""
        rounded = self.process.round_sigma(self.gain * as_levels(sigma)) / self.gain
        return rounded.to(sigma.dtype) if isinstance(sigma, Tensor) else rounded.numpy()[()]

    def extra_repr(self) -> str:
        """What `repr` shows besides the network."""
        return f"{self.prediction}, {self.process!r}, sigma={self.sigma_min:g} to {self.sigma_max:g}"

    def _predict(self, x_t: Tensor, levels: Tensor, class_labels: Any) -> Tensor:
        own = x_t.to(input_dtype(self.net)) if is_module(self.net) else x_t
        arguments: list[Any] = [own]
        if not self.blind:
            arguments.append(self._times(levels, own).expand(len(x_t)))
        keywords = {}
        if class_labels is not None and self.class_argument is None:
            arguments.append(class_labels)
        elif class_labels is not None and self.class_argument is not None:
            keywords[self.class_argument] = class_labels
        output: Any = self.net(*arguments, **keywords)
        shape = tuple(getattr(output, "shape", ()))
        if len(shape) != 4 or shape[1] < x_t.shape[1] or (shape[0], *shape[2:]) != (len(x_t), *x_t.shape[2:]):
            raise ShapeError(f"the network returned shape {list(shape)} for an input of shape {list(x_t.shape)}")
        prediction: Tensor = output[:, : x_t.shape[1]].to(x_t.dtype)
        return prediction

    def _times(self, levels: Tensor, x: Tensor) -> Tensor:
        times = self.process.time(levels)
        if self.time_scale == 1 and self.time_offset == 0 and not times.is_floating_point():
            return times
        return (self.time_scale * times.double() + self.time_offset).to(x.dtype)

    def _limits(self, sigma_min: object, sigma_max: object) -> tuple[float, float]:
        low, high = (limit / self.gain for limit in self.process.limits())
        last = None if math.isinf(high) else high
        return sigma_range(low if sigma_min is None else sigma_min, last if sigma_max is None else sigma_max)


def with_adapter(network: Callable[..., Any], description: Mapping[str, Any]) -> Adapter:
    """The network with the adapter that a description asks for.

    Args:
        network: the network as it is.
        description: entries are the arguments of `Adapter`. "prediction" is "x0" if not given, and "process", one of
            ``PROCESSES`` or a dict with such a "name" and its arguments, is "ve". A table of numbers may be the name
            of a buffer of the network: ``{"name": "vp-table", "alphas_cumprod": "alpha_t"}``.

    Raises:
        InvalidValueError: an entry is unknown or out of range.
        DTypeError: one is of the wrong type.

    Example:
        >>> D = with_adapter(lambda x: 0 * x, {"prediction": "residual", "blind": True, "sigma_max": 0.8})
        >>> D.prediction, D.sigma_max
        ('residual', 0.8)
    """
    entries = {"prediction": "x0", "process": "ve", **description}
    allowed = [name for name in inspect.signature(Adapter).parameters if name != "net"]
    check_entries("the description", entries, allowed)
    process = named_process(entries.pop("process"), network)
    return Adapter(network, process=process, **entries)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype)[:, None, None, None]


def _pixel_units(pixels: object) -> tuple[float, float]:
    """Gain and offset from [-1, 1] pixels to those between these two."""
    ends = real_array("pixels", pixels)
    if ends.shape != (2,) or not ends[0] < ends[1]:
        raise InvalidValueError(f"pixels are {pixels!r:.80}; allowed are two growing numbers, such as (0, 1)")
    low, high = ends.tolist()
    return (high - low) / 2, (high + low) / 2
