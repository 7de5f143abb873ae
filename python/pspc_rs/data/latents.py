"""Latents: float images in the space of an autoencoder, how they were scaled, and the way back to pictures."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import as_numpy, import_torch, is_array, is_module, to_numpy
from pspc_rs.checks import integer
from pspc_rs.errors import DTypeError, InvalidValueError, ShapeError
from pspc_rs.reprs import build_repr

Decode = Callable[[Any], Any]
"""The decoder of an autoencoder: latents [B, C, H, W] in, pictures [B, channels, height, width] in [-1, 1] out."""


class Scaling:
    """How latents were scaled for a denoiser: x = (latent - shift) * scale, as in ``AutoencoderKL`` of diffusers.

    Args:
        scale: one number, or one per channel, finite and not 0.
        shift: one number, or one per channel, finite.

    Raises:
        DTypeError: they are no real numbers.
        InvalidValueError: one is not finite, or a scale is 0.
        ShapeError: they are neither one number nor one per channel.

    Example:
        >>> scaling = Scaling(0.18215)
        >>> scaling
        Scaling(scale=0.18215, shift=0.0)
        >>> scaling.restore(scaling.apply(np.full((1, 4, 2, 2), 3.0)))[0, 0, 0]
        array([3., 3.], dtype=float32)
    """

    def __init__(self, scale: Any = 1.0, shift: Any = 0.0) -> None:
        self.scale = _per_channel("scale", scale)
        self.shift = _per_channel("shift", shift)
        if (self.scale == 0).any():
            raise InvalidValueError("scale is 0; allowed are finite numbers other than 0")

    def __repr__(self) -> str:
        return build_repr(self, f"scale={_shown(self.scale)}", f"shift={_shown(self.shift)}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scaling):
            return NotImplemented
        return self.settings == other.settings

    def __hash__(self) -> int:
        return hash((self.scale.tobytes(), self.shift.tobytes()))

    @property
    def settings(self) -> dict[str, list[float]]:
        """The numbers as JSON holds them."""
        return {"scale": self.scale.tolist(), "shift": self.shift.tolist()}

    def apply(self, latents: object) -> NDArray[np.float32]:
        """Latents of the autoencoder as a denoiser sees them, float32 [B, C, H, W].

        Args:
            latents: array or tensor of floats, [B, C, H, W].

        Raises:
            DTypeError: they are no floats.
            ShapeError: they have other axes, or another number of channels than the scale.
        """
        values = self._checked(latents)
        scaled: NDArray[np.float32] = ((values - _column(self.shift)) * _column(self.scale)).astype(np.float32)
        return scaled

    def restore(self, x: object) -> NDArray[np.float32]:
        """What `apply` had: latents of the autoencoder, float32 [B, C, H, W].

        Args:
            x: array or tensor of floats, [B, C, H, W].

        Raises:
            DTypeError, ShapeError: see `apply`.
        """
        values = self._checked(x)
        restored: NDArray[np.float32] = (values / _column(self.scale) + _column(self.shift)).astype(np.float32)
        return restored

    def _checked(self, latents: object) -> NDArray[np.float64]:
        values = to_numpy(latents, "latents")
        if values.ndim != 4:
            raise ShapeError(f"latents have shape {list(values.shape)}; allowed is [B, C, H, W]")
        self.check_channels(values.shape[1])
        return values.astype(np.float64)

    def check_channels(self, channels: int) -> None:
        """Refuses latents with other channels.

        Raises:
            ShapeError: there are not as many as numbers per channel.
        """
        for name, numbers in (("scale", self.scale), ("shift", self.shift)):
            if len(numbers) not in (1, channels):
                raise ShapeError(f"latents have {channels} channels, but {name} has {len(numbers)} numbers")


def _per_channel(name: str, value: Any) -> NDArray[np.float64]:
    try:
        given = as_numpy(value, name) if is_array(value) else np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"{name} is {value!r:.80}; allowed is one number, or one per channel") from error
    if given.dtype.kind not in "iuf":
        raise DTypeError(f"{name} is {value!r:.80}; allowed are real numbers")
    numbers = np.atleast_1d(given).astype(np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ShapeError(f"{name} has shape {list(given.shape)}; allowed is one number, or one per channel")
    if not np.isfinite(numbers).all():
        raise InvalidValueError(f"{name} is {value!r:.80}; allowed are finite numbers")
    return numbers


def _column(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return numbers[:, None, None]


def _shown(numbers: NDArray[np.float64]) -> str:
    return repr(float(numbers[0])) if len(numbers) == 1 else repr(numbers.tolist())


def decode_latents(x: object, decode: Decode, scaling: Scaling | None = None, batch: int = 64) -> NDArray[np.float32]:
    """Pictures of latents, float32 [B, channels, height, width] in [-1, 1] units, not clipped.

    Args:
        x: latents as a denoiser has them, [B, C, H, W]; array or tensor of floats.
        decode: the decoder. A torch module gets tensors of its own type on its own device, without gradients; any other
            function gets float32 arrays. A result with an attribute ``sample``, as of diffusers, stands for that.
        scaling: how the latents were scaled; None if they were not.
        batch: how many are decoded at once.

    Raises:
        DTypeError: x or what the decoder returns is no array or tensor of floats.
        InvalidValueError: batch is below 1, or the decoder returns numbers that are not finite.
        ShapeError: x has other axes, or the decoder returns anything but a picture for each.

    Example:
        >>> double = lambda latents: latents.repeat(2, axis=2).repeat(2, axis=3)
        >>> decode_latents(np.ones((3, 4, 8, 8)), double, Scaling(2.0)).shape
        (3, 4, 16, 16)
    """
    latents = (Scaling() if scaling is None else scaling).restore(x)
    size, pictures = integer("batch", batch), []
    for start in range(0, len(latents), size):
        part = latents[start : start + size]
        found = to_numpy(_decoded(part, decode), "what decode returns")
        if found.ndim != 4 or len(found) != len(part) or found.shape[1] not in (1, 3, 4):
            raise ShapeError(
                f"decode returns {list(found.shape)} for {len(part)} latents; needed is [{len(part)}, 1 or 3 or 4, "
                "height, width]"
            )
        if not np.isfinite(found).all():
            raise InvalidValueError("decode returns numbers that are not finite")
        pictures.append(found.astype(np.float32))
    if not pictures:
        raise ShapeError("there are no latents to decode; at least one is needed")
    return np.concatenate(pictures)


def _decoded(part: NDArray[np.float32], decode: Decode) -> Any:
    owner: Any = getattr(decode, "__self__", decode)
    if not is_module(owner):
        return _sample_of(decode(part))
    torch = import_torch("a decoder")
    weights = next(iter(owner.parameters()), torch.zeros(()))
    with torch.no_grad():
        return _sample_of(decode(torch.from_numpy(part).to(weights)))


def _sample_of(result: Any) -> Any:
    return result if is_array(result) else getattr(result, "sample", result)
