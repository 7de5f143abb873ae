"""The four preconditioners of Karras et al. 2022, table 1: from a raw network F to a denoiser D."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from pspc_rs.arrays import MAX_SIGMA
from pspc_rs.checks import flag, integer, integers, real_number, sigma_range
from pspc_rs.errors import ShapeError
from pspc_rs.networks.edm.layers import MAX_CHANNELS
from pspc_rs.networks.processes import as_levels
from pspc_rs.samplers.design_space import noise_table

_MAX_SIDE = 1 << 13
_MAX_CLASSES = 1 << 20

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
    accepts_float32: ClassVar[bool] = True

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
        self.img_resolution = _image_sides(img_resolution)
        self.img_channels = integer("img_channels", img_channels, 1, MAX_CHANNELS)
        self.label_dim = integer("label_dim", label_dim, 0, _MAX_CLASSES)
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

    def extra_repr(self) -> str:
        """What `repr` shows besides the modules inside."""
        return f"shape={list(self.shape)}, label_dim={self.label_dim}, sigma={self.sigma_min:g} to {self.sigma_max:g}"

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
            class_labels: one row of weights per sample [N, label_dim], one-hot for a class; None for zeros. A network
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
        half = self.use_fp16 and not force_fp32 and x.is_cuda and dtype == torch.float32
        coefficients = self.coefficients(levels)
        c_skip, c_out, c_in = (one[:, None, None, None] for one in coefficients[:3])
        labels = None if self.label_dim == 0 or class_labels is None else class_labels.to(dtype)
        model_input = (c_in * x).to(torch.float16 if half else dtype)
        raw = self.model(model_input, coefficients.c_noise, labels, augment_labels=augment_labels)
        denoised: Tensor = c_skip * x + c_out * raw[:, : self.img_channels].to(dtype)
        return denoised

    def _precision(self) -> torch.dtype:
        wide = any(parameter.dtype == torch.float64 for parameter in self.model.parameters())
        return torch.float64 if wide else torch.float32


class EDMPrecond(Preconditioner):
    """Preconditioning that keeps input and target of F at unit variance, Karras et al. 2022, table 1.

    With d = sigma_data: c_skip = d^2 / (s^2 + d^2), c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2),
    c_noise = ln(s) / 4.

    Args:
        model, img_resolution, img_channels, label_dim, use_fp16: see `Preconditioner`.
        sigma_min: smallest noise level that the network is for.
        sigma_max: largest one, None for no limit.
        sigma_data: standard deviation of the images.

    Example:
        >>> import torch
        >>> from pspc_rs.networks.registry import build_network
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
        ...     "architecture": "SongUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> net(torch.zeros(2, 1, 8, 8), torch.tensor([1.0, 0.1])).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
        sigma_min: float = 0.0,
        sigma_max: float | None = None,
        sigma_data: float = 0.5,
    ) -> None:
        super().__init__(model, img_resolution, img_channels, label_dim, use_fp16=use_fp16)
        self._limits = sigma_range(sigma_min, sigma_max)
        self.sigma_data = real_number("sigma_data", sigma_data, above=0, most=MAX_SIGMA)
        self.arguments |= {"sigma_min": self._limits[0], "sigma_max": sigma_max, "sigma_data": self.sigma_data}

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""
        return self._limits

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""
        total = sigma**2 + self.sigma_data**2
        return Coefficients(
            c_skip=self.sigma_data**2 / total,
            c_out=sigma * self.sigma_data / total.sqrt(),
            c_in=1 / total.sqrt(),
            c_noise=sigma.log() / 4,
        )


class VPPrecond(Preconditioner):
    """Preconditioning of Song et al.'s VP networks, Karras et al. 2022, table 1.

    c_skip = 1, c_out = -s, c_in = 1 / sqrt(s^2 + 1), c_noise = (M - 1) t(s) with
    s(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1). The formulas are evaluated as they stand, in float32 for a
    network in float32, as the published networks were trained: at the smallest levels that is off by a few per cent.

    Args:
        model, img_resolution, img_channels, label_dim, use_fp16: see `Preconditioner`.
        beta_d: growth of the process's beta.
        beta_min: its beginning.
        M: number of time steps that c_noise counts.
        epsilon_t: time of the smallest noise level.
    """

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
    ) -> None:
        super().__init__(model, img_resolution, img_channels, label_dim, use_fp16=use_fp16)
        self.beta_d = real_number("beta_d", beta_d, above=0, most=100)
        self.beta_min = real_number("beta_min", beta_min, above=0, most=80)
        self.M = integer("M", M, 2, 1 << 20)
        self.epsilon_t = real_number("epsilon_t", epsilon_t, least=0, below=1)
        self.arguments |= {
            "beta_d": self.beta_d,
            "beta_min": self.beta_min,
            "M": self.M,
            "epsilon_t": self.epsilon_t,
        }
        ends = self.sigma(torch.tensor([self.epsilon_t, 1.0], device="cpu"))
        self._limits = float(ends[0]), float(ends[1])

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""
        return self._limits

    def sigma(self, t: Tensor) -> Tensor:
        """Noise level at the time t, 0 .. 1, in the type of t."""
        return (torch.exp(0.5 * self.beta_d * t**2 + self.beta_min * t) - 1).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Time at which the noise level is sigma, in the type of sigma."""
        return ((self.beta_min**2 + 2 * self.beta_d * (1 + sigma**2).log()).sqrt() - self.beta_min) / self.beta_d

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""
        return Coefficients(
            c_skip=sigma.new_ones(sigma.shape),
            c_out=-sigma,
            c_in=1 / (sigma**2 + 1).sqrt(),
            c_noise=(self.M - 1) * self.time(sigma),
        )


class VEPrecond(Preconditioner):
    """Preconditioning of Song et al.'s VE networks, Karras et al. 2022, table 1.

    c_skip = 1, c_out = s, c_in = 1, c_noise = ln(s / 2).

    Args:
        model, img_resolution, img_channels, label_dim, use_fp16: see `Preconditioner`.
        sigma_min: smallest noise level that the network is for.
        sigma_max: largest one, None for no limit.
    """

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
        sigma_min: float = 0.02,
        sigma_max: float | None = 100.0,
    ) -> None:
        super().__init__(model, img_resolution, img_channels, label_dim, use_fp16=use_fp16)
        self._limits = sigma_range(sigma_min, sigma_max)
        self.arguments |= {"sigma_min": self._limits[0], "sigma_max": sigma_max}

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""
        return self._limits

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""
        one = sigma.new_ones(sigma.shape)
        return Coefficients(c_skip=one, c_out=sigma, c_in=one, c_noise=(sigma / 2).log())


class IDDPMPrecond(Preconditioner):
    """Preconditioning of Nichol and Dhariwal's networks, which know M noise levels; Karras et al. 2022, table 1.

    c_skip = 1, c_out = -s, c_in = 1 / sqrt(s^2 + 1), c_noise = M - 1 - (index of the level nearest to s). F returns
    twice the channels; the second half, a variance, is not used.

    Args:
        model, img_resolution, img_channels, label_dim, use_fp16: see `Preconditioner`.
        C_1: smallest share of the signal that a step of the table keeps.
        C_2: how far from zero noise the table begins.
        M: number of noise levels.

    Attributes:
        u: the table, float32 [M + 1], from the largest level to 0; kept with the network.
    """

    outputs_per_channel: ClassVar[int] = 2
    u: Tensor

    def __init__(
        self,
        model: nn.Module,
        img_resolution: int | Sequence[int],
        img_channels: int,
        label_dim: int = 0,
        *,
        use_fp16: bool = False,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
    ) -> None:
        super().__init__(model, img_resolution, img_channels, label_dim, use_fp16=use_fp16)
        self.C_1 = real_number("C_1", C_1, least=1e-6, below=1)
        self.C_2 = real_number("C_2", C_2, least=1e-6, most=1)
        self.M = integer("M", M, 2, 1 << 16)
        self.arguments |= {"C_1": self.C_1, "C_2": self.C_2, "M": self.M}
        self.register_buffer("u", torch.tensor(noise_table(self.M, self.C_1, self.C_2), dtype=torch.float32))

    def limits(self) -> tuple[float, float]:
        """Smallest and largest noise level that the network is for."""
        return float(self.u[-2]), float(self.u[0])

    def wrong_constant(self) -> str | None:
        """What is wrong with the table, None if it falls to 0."""
        right = bool((self.u.diff() < 0).all() and self.u[-1] == 0)
        return None if right else "u is not a table of falling noise levels that ends with 0"

    def nearest(self, sigma: Tensor) -> Tensor:
        """Index of the level of the table nearest to sigma, in the shape of sigma."""
        distances = (sigma.reshape(-1, 1).double() - self.u.to(sigma.device).double()).abs()
        return distances.argmin(1).reshape(sigma.shape)

    def round_sigma(self, sigma: Level) -> Level:
        """The levels of the table nearest to sigma, in the type of sigma."""
        levels = as_levels(sigma)
        rounded: Any = self.u.to(levels.device).double()[self.nearest(levels)]
        if isinstance(sigma, Tensor):
            result: Level = rounded.to(sigma.dtype)
            return result
        array = rounded.numpy()
        plain: Any = array.astype(getattr(sigma, "dtype", array.dtype)) if array.ndim else float(array)
        return plain  # type: ignore[no-any-return]

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels sigma, in its shape and type."""
        return Coefficients(
            c_skip=sigma.new_ones(sigma.shape),
            c_out=-sigma,
            c_in=1 / (sigma**2 + 1).sqrt(),
            c_noise=(self.M - 1 - self.nearest(sigma)).to(sigma.dtype),
        )


def _image_sides(img_resolution: int | Sequence[int]) -> int | list[int]:
    """The side of square images, or height and width of others."""
    if not isinstance(img_resolution, Sequence):
        return integer("img_resolution", img_resolution, 1, _MAX_SIDE)
    height, width = integers("img_resolution", img_resolution, 1, _MAX_SIDE, shortest=2, longest=2)
    return height if height == width else [height, width]
