"""Any callable as a denoiser: a network, a closure, somebody else's model."""

import contextlib
import hashlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from pspc_rs.arrays import Array, is_torch, like, numpy_view, sigma_vector
from pspc_rs.errors import InvalidValueError, ShapeError


class Network:
    """A callable ``net(x, sigma)`` or ``net(x, sigma, class_labels)`` that returns the denoised images, as a denoiser.

    The callable sees what the caller passes: numpy arrays or torch tensors, with sigma as a vector [batch] of the same
    kind. A torch module that is given numpy arrays gets float32 tensors on its own device, and the result comes
    back as numpy. Torch runs without gradients.

    Args:
        net: the callable.
        shape: ``(channels, height, width)`` of its images, if samplers are to know it.
        max_batch: largest batch given to the callable at once; larger ones are split.
        sigma_min: smallest noise level it is good for.
        sigma_max: largest noise level it is good for.
        label_dim: number of classes of a conditional network.

    Raises:
        InvalidValueError: sigma is not a positive number, or ``max_batch`` is below 1.
        ShapeError: the callable returned another shape than it was given.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> N = pspc.Network(lambda x, sigma: x / (1 + sigma[:, None, None, None] ** 2))
        >>> N(np.ones((2, 1, 1, 1)), sigma=1.0).ravel()
        array([0.5, 0.5])
    """

    def __init__(
        self,
        net: Callable[..., Any],
        *,
        shape: tuple[int, int, int] | None = None,
        max_batch: int | None = None,
        sigma_min: float = 0.0,
        sigma_max: float = float("inf"),
        label_dim: int = 0,
    ) -> None:
        if max_batch is not None and max_batch < 1:
            raise InvalidValueError(f"max_batch is {max_batch}, allowed are whole numbers from 1 up, or None")
        self.net = net
        self.shape = shape
        self.max_batch = max_batch
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.label_dim = label_dim

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
        """The class, the name of the callable, and a checksum of its weights where it is a torch module."""
        named = self.net if hasattr(self.net, "__qualname__") else type(self.net)
        settings = {"denoiser": type(self).__name__, "net": f"{named.__module__}.{named.__qualname__}"}
        if hasattr(self.net, "state_dict"):
            settings["weights_sha256"] = _weights_checksum(self.net)
        return settings

    def round_sigma(self, sigma: Array) -> Array:
        """The noise levels the network itself would round to, if it says so."""
        rounding = getattr(self.net, "round_sigma", None)
        rounded: Array = sigma if rounding is None else rounding(sigma)
        return rounded

    def __call__(self, z: Array, sigma: Any, class_labels: Any = None) -> Array:
        """The network's estimate of the clean images; see `Denoiser.__call__` for shapes and units."""
        x: Any = z
        if len(x.shape) != 4:
            raise ShapeError(f"z has shape {list(x.shape)}, expected [batch, channels, height, width]")
        sigmas = sigma_vector(sigma, x.shape[0])
        with _no_grad():
            given = self._as_input(x)
            levels = like(sigmas, given)
            step = self.max_batch or len(x)
            parts = [
                self._part(given[i : i + step], levels[i : i + step], _rows(class_labels, i, step))
                for i in range(0, len(x), step)
            ]
            denoised = parts[0] if len(parts) == 1 else _concatenate(parts)
        if is_torch(z) == is_torch(denoised):
            same: Array = denoised
            return same
        return like(denoised.detach().cpu().numpy() if is_torch(denoised) else np.asarray(denoised), z)

    def _part(self, x: Any, sigma: Any, class_labels: Any) -> Any:
        denoised = self.net(x, sigma) if class_labels is None else self.net(x, sigma, class_labels)
        found = tuple(getattr(denoised, "shape", ()))
        if found != tuple(x.shape):
            raise ShapeError(f"the network returned shape {list(found)} for an input of shape {list(x.shape)}")
        return denoised

    def _as_input(self, x: Any) -> Any:
        torch = sys.modules.get("torch")
        if is_torch(x) or torch is None or not isinstance(self.net, torch.nn.Module):
            return x
        weight = next(self.net.parameters(), torch.zeros(()))
        return torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(weight.device)


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


def _rows(labels: Any, start: int, step: int) -> Any:
    return None if labels is None else labels[start : start + step]


def _concatenate(parts: list[Any]) -> Any:
    return sys.modules["torch"].cat(parts) if is_torch(parts[0]) else np.concatenate(parts)
