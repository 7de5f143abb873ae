"""Any callable as a denoiser: a network, a closure, somebody else's model."""

import contextlib
import functools
import hashlib
import math
import sys
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import Array, import_torch, is_torch, like, numpy_view, sigma_vector
from pspc_rs.checks import integer, one_of
from pspc_rs.contents import code_checksum
from pspc_rs.denoisers.batches import in_parts
from pspc_rs.errors import InvalidValueError, ShapeError

_DTYPES = ("float32", "bfloat16", "float16")
# Ends of ranges are given as rounded numbers: .01 for the .0100005 of the usual linear betas.
_RANGE_TOLERANCE = 1e-3


class Network:
    """A callable ``net(x, sigma)`` or ``net(x, sigma, class_labels)`` that returns the denoised images, as a denoiser.

    A torch module gets tensors on its own device, float32 unless its weights are float64, with sigma as a vector
    [batch] of the same kind. Any other callable sees what the caller passes, numpy arrays or torch tensors. The result
    is like z. Torch runs without gradients. Batches that do not fit into memory are split.

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
        InvalidValueError: sigma is not a positive number, or outside the range that the network is good for; or an
            argument is out of range, or there is no such device.
        ShapeError: z has another shape than the network's images, or the callable returned another one than it was
            given.

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
        self.device = None if device is None else _checked_device(device)
        self.net = net if self.device is None or not _is_module(net) else cast(Any, net).to(self.device)
        self.shape = getattr(net, "shape", None) if shape is None else shape
        self.sigma_min: float = getattr(net, "sigma_min", 0.0) if sigma_min is None else sigma_min
        self.sigma_max: float = getattr(net, "sigma_max", math.inf) if sigma_max is None else sigma_max
        self.label_dim: int = getattr(net, "label_dim", 0) if label_dim is None else label_dim
        self._largest_that_fits: int | None = None

    def __repr__(self) -> str:
        shape = "images of any shape" if self.shape is None else f"images of {list(self.shape)}"
        return f"Network({self._name_of_net}, {shape}, sigma from {self.sigma_min:g} to {self.sigma_max:g})"

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

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the callable's name, code and settings, and a checksum of the weights of a torch module."""
        settings = {"denoiser": type(self).__name__, "net": self._name_of_net, "code_sha256": self._code_sha256}
        settings |= getattr(self.net, "settings", {})
        if self.dtype != "float32":
            settings["dtype"] = self.dtype
        if hasattr(self.net, "state_dict"):
            settings["weights_sha256"] = _weights_checksum(self.net)
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

    def __call__(self, z: Array, sigma: Any, class_labels: Any = None) -> Array:
        """The network's estimate of the clean images; see `Denoiser.__call__` for shapes and units."""
        x: Any = z
        self._check_shape(tuple(x.shape))
        sigmas = sigma_vector(sigma, x.shape[0])
        self.check_sigmas(sigmas)
        with _no_grad():
            net_input = self.as_input(x)
            levels, labels = like(sigmas, net_input), _labels_for(net_input, class_labels)
            largest = min(self.max_batch or len(x), self._largest_that_fits or len(x))
            parts, size = in_parts(
                lambda part: self.evaluate(net_input[part], levels[part], None if labels is None else labels[part]),
                len(x),
                max(largest, 1),
            )
            if size < largest:
                self._largest_that_fits = size
            denoised = _joined(parts, net_input)
        if is_torch(z) and is_torch(denoised):
            return cast(Array, denoised.to(device=z.device, dtype=z.dtype))
        return like(numpy_view(denoised), z)

    def evaluate(self, x: Any, sigma: Any, class_labels: Any = None) -> Any:
        """What the callable returns for an input of `as_input`: not split, and with gradients where torch records them.

        Raises:
            ShapeError: the callable returned another shape than that of x.
        """
        with self._precision(x):
            denoised = self.net(x, sigma) if class_labels is None else self.net(x, sigma, class_labels)
        shape = tuple(getattr(denoised, "shape", ()))
        if shape != tuple(x.shape):
            raise ShapeError(f"the network returned shape {list(shape)} for an input of shape {list(x.shape)}")
        return denoised

    def as_input(self, x: Any) -> Any:
        """The images as the callable takes them: for a module a tensor on its device, for others as they are."""
        if not _is_module(self.net):
            return x if self.device is None else self._as_tensor(x)
        weights = [one for one in cast(Any, self.net).parameters() if one.is_floating_point()]
        wide = any(str(one.dtype) == "torch.float64" for one in weights)
        tensor = self._as_tensor(x).to(weights[0].device if weights else None)
        return tensor.double() if wide else tensor.float()

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

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4 or shape[1:] != tuple(self.shape or shape[1:]):
            expected = "channels, height, width" if self.shape is None else ", ".join(map(str, self.shape))
            raise ShapeError(f"z has shape {list(shape)}, expected [batch, {expected}]")

    def _as_tensor(self, x: Any) -> Any:
        torch = sys.modules["torch"]
        tensor = x if is_torch(x) else torch.from_numpy(np.ascontiguousarray(x))
        return tensor if self.device is None else tensor.to(self.device)

    def _precision(self, x: Any) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == "float32" or not is_torch(x):
            return contextlib.nullcontext()
        torch = sys.modules["torch"]
        autocast: contextlib.AbstractContextManager[Any] = torch.autocast(x.device.type, getattr(torch, self.dtype))
        return autocast


def _weights_checksum(module: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        weights = numpy_view(tensor.detach())
        digest.update(f"{name} {tensor.dtype} {weights.shape}".encode())
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def _no_grad() -> contextlib.AbstractContextManager[None]:
    torch = sys.modules.get("torch")
    return contextlib.nullcontext() if torch is None else torch.no_grad()


def _is_module(net: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(net, torch.nn.Module)


def _checked_device(device: str) -> Any:
    torch = import_torch("a device")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidValueError(f"device is {device!r:.80}, which cannot be used: {reason}") from error
    return torch.device(device)


def _labels_for(images: Any, labels: Any) -> Any:
    """Labels as tensors where the images are tensors."""
    if labels is None or not is_torch(images):
        return labels
    return sys.modules["torch"].as_tensor(labels, device=images.device)


def _joined(parts: list[Any], empty: Any) -> Any:
    if len(parts) < 2:
        return parts[0] if parts else empty
    return sys.modules["torch"].cat(parts) if is_torch(parts[0]) else np.concatenate(parts)
