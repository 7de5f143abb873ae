"""Any callable as a denoiser: a network, a closure, somebody else's model."""

import contextlib
import functools
import math
import sys
from collections.abc import Callable
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import (
    Array,
    as_tensor,
    check_dtype,
    check_finite,
    convert,
    copy_of,
    is_array,
    is_module,
    is_torch,
    like,
    numpy_view,
    sigma_vector,
)
from pspc_rs.checks import integer, one_of
from pspc_rs.contents import code_checksum
from pspc_rs.denoisers.batches import in_parts, out_of_memory_errors
from pspc_rs.denoisers.gradients import is_transformed, uncompiled, wants_gradient
from pspc_rs.denoisers.modules import (
    checked_device,
    device_of,
    evaluation_mode,
    in_one_line,
    input_dtype,
    takes,
    weights_checksum,
)
from pspc_rs.denoisers.selection import refuse_labels
from pspc_rs.errors import DTypeError, InvalidValueError, NetworkError, PspcError, ShapeError

_DTYPES = ("float32", "bfloat16", "float16")
# Ends of ranges are given as rounded numbers: .01 for the .0100005 of the usual linear betas.
_RANGE_TOLERANCE = 1e-3


class ShapeIfKnown:
    """What denoisers have of whose images the shape need not be known.

    Attributes:
        shape: ``(channels, height, width)`` of the images, None if they may have any.
    """

    shape: tuple[int, int, int] | None

    @property
    def img_channels(self) -> int | None:
        """Number of channels of the images, if known."""
        return None if self.shape is None else self.shape[0]

    @property
    def img_resolution(self) -> int | tuple[int, int] | None:
        """Side of the images, or ``(height, width)`` where they are not square, if known."""
        if self.shape is None:
            return None
        _, height, width = self.shape
        return height if height == width else (height, width)

    def check_shape(self, z: Any) -> None:
        """Refuses what are no floats in the shape of a batch of images.

        Raises:
            DTypeError: z is not an array or tensor of floats.
            ShapeError: z has another shape.
        """
        check_dtype(z)
        shape = tuple(z.shape)
        if len(shape) != 4 or shape[1:] != tuple(self.shape or shape[1:]):
            expected = "channels, height, width" if self.shape is None else ", ".join(map(str, self.shape))
            raise ShapeError(f"z has shape {list(shape)}, expected [batch, {expected}]")


class Network(ShapeIfKnown):
    """A callable ``net(x, sigma)`` or ``net(x, sigma, class_labels)`` that returns the denoised images, as a denoiser.

    A torch module gets tensors on its own device, in the type of its weights (float32 where they differ), with sigma as
    a vector [batch] of the same kind; it runs in evaluation mode, and is put back into training mode if it was in it.
    Any other callable gets what the caller passes, numpy arrays or torch tensors. Both get copies, to which they may
    write. The result is like z. Where torch records derivatives with respect to z, sigma or the labels, the result has
    them, also under torch.func; otherwise torch runs without gradients: to train a network, call ``net`` itself.
    Batches that do not fit into memory are split.

    Args:
        net: the callable.
        shape: ``(channels, height, width)`` of its images, if samplers are to know it; its own ``shape`` if None.
        max_batch: largest batch given to the callable at once; larger ones are split.
        sigma_min: smallest noise level it is good for; its own ``sigma_min`` if None.
        sigma_max: largest noise level it is good for; its own ``sigma_max`` if None.
        label_dim: number of classes of a conditional network; its own ``label_dim`` if None.
        device: where it computes, such as "cuda"; where it is if None.
        dtype: "float32", or "bfloat16" or "float16" for torch's autocast to it.

    Raises:
        InvalidValueError: sigma is not a positive number, or outside the range that the network is good for; z or what
            the network returned holds NaN or infinities, or numbers too large for the dtype of z; labels were given to
            a network without classes; or an argument is out of range, or there is no such device.
        ShapeError: z has another shape than the network's images, the labels do not fit the batch, or the callable
            returned another shape than it was given.
        DTypeError: z, or what the callable returned, is not an array or tensor of floats.
        NetworkError: the callable raised an exception, which is the cause of this one.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> N = pspc.Network(lambda x, sigma: x / (1 + sigma[:, None, None, None] ** 2))
        >>> N(np.ones((2, 1, 1, 1)), sigma=1.0).ravel()
        array([0.5, 0.5])
        >>> pspc.Network(np.multiply, shape=(3, 8, 8), sigma_max=5)
        Network(numpy.multiply, images of [3, 8, 8], sigma from 0 to 5)
    """

    def __init__(
        self,
        net: Callable[..., Any],
        *,
        shape: tuple[int, int, int] | None = None,
        max_batch: int | None = None,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        label_dim: int | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self.max_batch = None if max_batch is None else integer("max_batch", max_batch)
        self.dtype = one_of("dtype", dtype, _DTYPES)
        self.device = None if device is None else checked_device(device)
        self.net = net if self.device is None or not is_module(net) else cast(Any, net).to(self.device)
        self.shape = getattr(net, "shape", None) if shape is None else shape
        self.sigma_min: float = getattr(net, "sigma_min", 0.0) if sigma_min is None else sigma_min
        self.sigma_max: float = getattr(net, "sigma_max", math.inf) if sigma_max is None else sigma_max
        classes = getattr(net, "label_dim", None) if label_dim is None else label_dim
        self.label_dim: int = classes or 0
        self._has_no_classes = classes == 0
        self._largest_that_fits: int | None = None

    def __repr__(self) -> str:
        shape = "images of any shape" if self.shape is None else f"images of {list(self.shape)}"
        return f"Network({self._name_of_net}, {shape}, sigma from {self.sigma_min:g} to {self.sigma_max:g})"

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the callable's name, code and settings, and a checksum of the weights of a torch module."""
        settings = {"denoiser": type(self).__name__, "net": self._name_of_net, "code_sha256": self._code_sha256}
        settings |= getattr(self.net, "settings", {})
        if self.dtype != "float32":
            settings["dtype"] = self.dtype
        if hasattr(self.net, "state_dict"):
            settings["weights_sha256"] = weights_checksum(self.net)
        return settings

    @functools.cached_property
    def _code_sha256(self) -> str:
        # Once: what a function loads with its first call does not make it another function.
        return code_checksum(self.net)

    @property
    def _name_of_net(self) -> str:
        named = self.net if hasattr(self.net, "__qualname__") else type(self.net)
        return f"{named.__module__}.{named.__qualname__}"

    def round_sigma(self, sigma: Array) -> Array:
        """The noise levels the network itself would round to, if it says so."""
        rounding = getattr(self.net, "round_sigma", None)
        rounded: Array = sigma if rounding is None else rounding(sigma)
        return rounded

    def to(self, device: Any) -> Self:
        """The denoiser itself, from now on computing on that device; a module is moved there.

        Args:
            device: a torch device or its name.

        Raises:
            InvalidValueError: there is no such device.
        """
        self.device = checked_device(device)
        if is_module(self.net):
            cast(Any, self.net).to(self.device)
        return self

    def eval(self) -> Self:
        """The denoiser itself, with its module in evaluation mode, in which it is called anyway."""
        if is_module(self.net):
            cast(Any, self.net).eval()
        return self

    @uncompiled
    def __call__(self, z: Array, sigma: Any, class_labels: Any = None, *, force_fp32: bool = False) -> Array:
        """The network's estimate of the clean images; see `Denoiser.__call__` for shapes and units.

        Args:
            z: noisy images [batch, channels, height, width].
            sigma: noise level, a number or one per image.
            class_labels: one entry per image, such as one-hot rows [batch, label_dim], for a network that takes them.
            force_fp32: do without half precision: no autocast, and passed on to a callable with such an argument.
        """
        x: Any = z
        self._check_images(x)
        sigmas = sigma_vector(sigma, x.shape[0])
        self.check_sigmas(sigmas)
        self._check_labels(class_labels, len(x))
        with _recording(wants_gradient(x, sigma, class_labels)):
            net_input = self.as_input(x)
            levels, labels = _levels_for(net_input, sigma, sigmas), _labels_for(net_input, class_labels)
            largest = min(self.max_batch or len(x), self._largest_that_fits or len(x))
            parts, size = in_parts(
                lambda part: self.evaluate(
                    net_input[part], levels[part], None if labels is None else labels[part], force_fp32=force_fp32
                ),
                len(x),
                max(largest, 1),
            )
            if size < largest:
                self._largest_that_fits = size
            return cast(Array, _result_like(_joined(parts, net_input), x))

    def evaluate(self, x: Any, sigma: Any, class_labels: Any = None, *, force_fp32: bool = False) -> Any:
        """What the callable returns for an input of `as_input`: not split, and with gradients where torch records them.

        The callable gets copies, and what it returns is copied.

        Raises:
            ShapeError: the callable returned another shape than that of x.
            DTypeError: it returned no array or tensor.
            InvalidValueError: it returned NaN or infinities.
            NetworkError: it raised an exception.
        """
        given = [copy_of(one) for one in (x, sigma, class_labels) if one is not None]
        keywords = {"force_fp32": True} if force_fp32 and takes(self.net, "force_fp32") else {}
        try:
            with evaluation_mode(self.net), self._precision(x, force_fp32):
                denoised = self.net(*given, **keywords)
        except Exception as error:
            if isinstance(error, (PspcError, *out_of_memory_errors())):
                raise
            without = " (it was called without class labels)" if class_labels is None and self._asks_for_labels else ""
            raise NetworkError(f"the network {self._name_of_net} failed: {in_one_line(error)}{without}") from error
        if not is_array(denoised):
            kind = type(denoised).__name__
            raise DTypeError(f"the network returned a {kind}; it must return an array or tensor like its input")
        if tuple(denoised.shape) != tuple(x.shape):
            raise ShapeError(f"the network returned shape {list(denoised.shape)} for an input of shape {list(x.shape)}")
        returned = copy_of(denoised)
        if not is_transformed(returned):
            check_finite(f"what the network {self._name_of_net} returned", returned)
        return returned

    def as_input(self, x: Any) -> Any:
        """The images as the callable takes them: for a module a tensor on its device, for others as they are."""
        if not is_module(self.net):
            return x if self.device is None else self._as_tensor(x)
        tensor = self._as_tensor(x)
        device = device_of(self.net) or tensor.device
        return _converted(tensor, sys.modules["torch"].empty(0, dtype=input_dtype(self.net), device=device))

    def check_sigmas(self, sigmas: npt.NDArray[np.float64]) -> None:
        """Refuses noise levels outside the range that the network is good for.

        Raises:
            InvalidValueError: one is; the message names it and the range.
        """
        bad = (sigmas < self.sigma_min * (1 - _RANGE_TOLERANCE)) | (sigmas > self.sigma_max * (1 + _RANGE_TOLERANCE))
        if bad.any():
            raise InvalidValueError(
                f"sigma is {sigmas[bad][0]:g}; this network is good for {self.sigma_min:g} to {self.sigma_max:g}"
            )

    @property
    def _asks_for_labels(self) -> bool:
        return self.label_dim > 0 or any(takes(self.net, name) for name in ("class_labels", "labels", "y"))

    def _check_images(self, x: Any) -> None:
        self.check_shape(x)
        if not is_transformed(x):
            check_finite("z", x)

    def _check_labels(self, labels: Any, batch: int) -> None:
        if labels is None:
            return
        if self._has_no_classes:
            refuse_labels(f"the network {self._name_of_net}", labels)
        shape = list(np.shape(labels))
        if not shape or shape[0] != batch:
            raise ShapeError(f"class_labels have shape {shape}; allowed is one entry per image, [{batch}, ...]")

    def _as_tensor(self, x: Any) -> Any:
        tensor = x if is_torch(x) else as_tensor(x)
        return tensor if self.device is None else tensor.to(self.device)

    def _precision(self, x: Any, force_fp32: bool) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == "float32" or force_fp32 or not is_torch(x):
            return contextlib.nullcontext()
        torch = sys.modules["torch"]
        autocast: contextlib.AbstractContextManager[Any] = torch.autocast(x.device.type, getattr(torch, self.dtype))
        return autocast


def _recording(wanted: bool) -> contextlib.AbstractContextManager[None]:
    torch = sys.modules.get("torch")
    return contextlib.nullcontext() if torch is None or wanted else torch.no_grad()


def _levels_for(images: Any, sigma: Any, sigmas: npt.NDArray[np.float64]) -> Any:
    """The noise levels [batch] as the images are; those of a tensor keep its graph."""
    if not (is_torch(images) and wants_gradient(sigma)):
        return like(sigmas, images)
    return _converted(sigma.reshape(-1).expand(len(sigmas)), images)


def _labels_for(images: Any, labels: Any) -> Any:
    """Labels as tensors where the images are tensors, as arrays elsewhere; none for a network without classes."""
    if labels is None or math.prod(np.shape(labels)) == 0:
        return None
    if not is_torch(images):
        return numpy_view(labels)
    return sys.modules["torch"].as_tensor(labels, device=images.device)


def _result_like(denoised: Any, x: Any) -> Any:
    """The network's output in the kind, dtype and device of x."""
    return _converted(denoised, x) if is_torch(x) and is_torch(denoised) else like(numpy_view(denoised), x)


def _converted(tensor: Any, template: Any) -> Any:
    """The tensor in the dtype and on the device of another; one of torch.func, whose numbers are hidden, unchecked."""
    if is_transformed(tensor):
        return tensor.to(device=template.device, dtype=template.dtype)
    return convert(tensor, template)


def _joined(parts: list[Any], empty: Any) -> Any:
    if len(parts) < 2:
        return parts[0] if parts else empty
    return sys.modules["torch"].cat(parts) if is_torch(parts[0]) else np.concatenate(parts)
