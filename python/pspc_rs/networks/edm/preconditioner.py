"""From a raw network F to a denoiser D: what all preconditioners have in common."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.networks.arguments import MAX_CHANNELS, bounded, flag, image_sides, within

Level = TypeVar("Level")


class Coefficients(NamedTuple):
    """D(x, s) = c_skip x + c_out F(c_in x, c_noise), each in the shape of sigma."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


class Preconditioner(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise), Karras et al. 2022, eq. 7.

    Everything is computed in float32, or in float64 if the parameters are float64 (``net.double()``).

    Args:
        model: F, called as ``model(x, noise_labels, class_labels, augment_labels=...)``.
        img_resolution: side of the images, or height and width.
        img_channels: channels of the images.
        label_dim: number of classes, 0 for none.
        use_fp16: on CUDA, run F in half precision; weights, conditioning and the coefficients stay in float32.

    Attributes:
        arguments: the arguments but ``model``, as JSON holds them.
        outputs_per_channel: channels that F has to return for each channel of an image; further ones are not used.
    """

    outputs_per_channel: ClassVar[int] = 1

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
    ) -> None:
        super().__init__()
        self.img_resolution = image_sides("img_resolution", img_resolution, 1 << 13)
        self.img_channels = bounded("img_channels", img_channels, 1, MAX_CHANNELS)
        self.label_dim = bounded("label_dim", label_dim, 0, 1 << 20)
        self.use_fp16 = flag("use_fp16", use_fp16)
        self.model = model
        self.arguments: dict[str, Any] = {
            "img_resolution": self.img_resolution,
            "img_channels": self.img_channels,
            "label_dim": self.label_dim,
            "use_fp16": self.use_fp16,
        }

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of an image, (channels, height, width)."""
        sides = self.img_resolution
        height, width = (sides, sides) if isinstance(sides, int) else sides
        return self.img_channels, height, width

    @property
    def sigma_min(self) -> float:
        """Smallest noise level that the network is for."""
        return self.limits()[0]

    @property
    def sigma_max(self) -> float:
        """Largest noise level that the network is for."""
        return self.limits()[1]

    @abstractmethod
    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""

    def round_sigma(self, sigma: Level) -> Level:
        """The noise levels that the network would be called at, in the type of sigma."""
        return sigma

    def forward(
        self,
        x: Tensor,
        sigma: Tensor | float,
        class_labels: Tensor | None = None,
        force_fp32: bool = False,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """The denoised images D(x, sigma), float32 (float64 for a network in float64).

        Args:
            x: noisy images [N, channels, height, width] in [-1, 1] units; any float type.
            sigma: noise levels, a number or of shape [], [1], [N] or [N, 1, 1, 1].
            class_labels: one row of weights a sample [N, label_dim], one-hot for a class; None for zeros. A network
                without classes ignores them.
            force_fp32: do not use half precision.
            augment_labels: [N, augment_dim], None for images that are not augmented.

        Raises:
            ShapeError: x, sigma or the labels do not fit the network or each other.
        """
        dtype = self._precision()
        x = x.to(dtype)
        if x.ndim != 4 or tuple(x.shape[1:]) != self.shape:
            raise ShapeError(f"x has shape {list(x.shape)}; allowed is [batch, {', '.join(map(str, self.shape))}]")
        levels = torch.as_tensor(sigma, device=x.device).to(dtype).reshape(-1)
        if len(levels) not in (1, len(x)):
            raise ShapeError(f"sigma has {len(levels)} entries for a batch of {len(x)}; allowed are 1 and {len(x)}")
        halved = self.use_fp16 and not force_fp32 and x.is_cuda and dtype == torch.float32
        c = self.coefficients(levels)
        c_skip, c_out, c_in = (one[:, None, None, None] for one in c[:3])
        labels = None if self.label_dim == 0 or class_labels is None else class_labels.to(dtype)
        raw = self.model(
            (c_in * x).to(torch.float16 if halved else dtype), c.c_noise, labels, augment_labels=augment_labels
        )
        denoised: Tensor = c_skip * x + c_out * raw[:, : self.img_channels].to(dtype)
        return denoised

    def _precision(self) -> torch.dtype:
        wide = any(parameter.dtype == torch.float64 for parameter in self.model.parameters())
        return torch.float64 if wide else torch.float32


def checked_limits(sigma_min: object, sigma_max: object) -> tuple[float, float]:
    """A smallest and a largest noise level, infinity for None.

    Example:
        >>> checked_limits(0, None)
        (0.0, inf)
    """
    low = within("sigma_min", sigma_min, 0.0, 1e9)
    high = math.inf if sigma_max is None else within("sigma_max", sigma_max, 0.0, 1e9, excluded=0.0)
    if high < low:
        raise InvalidValueError(f"sigma_max is {high:g}, below sigma_min, which is {low:g}; it must not be")
    return low, high


def as_levels(sigma: Any) -> Tensor:
    """Noise levels, however they are held, as a float64 tensor (or on the device of a tensor)."""
    return sigma.double() if isinstance(sigma, Tensor) else torch.from_numpy(np.array(sigma, np.float64))
