"""The augmentation of EDM: flips and affine maps without aliasing, and labels that tell the network about them.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, appendix F.2; first in
Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020. A network that gets the augmentation
of its training images as labels gives images without augmentation where the labels are zero.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pspc_rs.checks import real_number
from pspc_rs.errors import ShapeError

# One standard deviation: of scaling, in log2 of the factor; of translation, as a share of the image's side.
_SCALE_STD = 0.2
_SHIFT_STD = 0.125
# Half of the images are stretched along an axis at a random angle, the others along an axis of the image.
_ANISO_ANGLE_RATE = 0.5
# The operations in their order, and how many labels each has.
_LABELS = {"xflip": 1, "yflip": 1, "scale": 1, "rotate": 2, "aniso": 2, "translate": 2}

# Decomposition low-pass filter of the Symlet-6 wavelet (Daubechies, "Ten Lectures on Wavelets", 1992). It is
# orthonormal to its own shifts by two, so that downsampling undoes upsampling.
_LOW_PASS = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_FILTER_PADDING = 5
# Reach of the filter at the resolution of the images, on either side.
_REACH = len(_LOW_PASS) // 4


class Draws(Protocol):
    """A source of random numbers, one per image and call, each float64 [N] on the CPU."""

    def coin(self) -> Tensor:
        """0 or 1 with equal chances."""

    def uniform(self) -> Tensor:
        """Uniform on [0, 1)."""

    def normal(self) -> Tensor:
        """Standard normal."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentations of N images.

    Attributes:
        xflip: mirror left to right, bool [N].
        yflip: mirror top to bottom, bool [N].
        inverse: map from output to input coordinates, but for the translation, float64 [N, 3, 3].
        shift: translation in units of width and height, float64 [N, 2].
        labels: augmentation labels for the network, float32 [N, label_dim]; zeros where nothing is done.
    """

    xflip: Tensor
    yflip: Tensor
    inverse: Tensor
    shift: Tensor
    labels: Tensor

    @property
    def moved(self) -> Tensor:
        """Which images have more done to them than flips, bool [N]."""
        identity = torch.eye(3, dtype=self.inverse.dtype)
        return (self.inverse != identity).flatten(1).any(1) | (self.shift != 0).any(1)


class AugmentPipe:
    """Draws augmentations and carries them out.

    Every operation happens to an image with probability ``p`` times its multiplier; one whose multiplier is 0 does
    not exist, and has no labels. x flips happen to half of the images at any p but 0.

    | operation | parameters | labels |
    |---|---|---|
    | x flip, y flip | w in {0, 1} | w each |
    | scale | w normal, factor 2^(0.2 w) | w |
    | rotation | angle w uniform | cos w - 1, sin w |
    | anisotropic scale | w normal, angle r uniform or 0, factors 2^(0.2 w) and 2^(-0.2 w) | w cos r, w sin r |
    | translation | w0, w1 normal, by w / 8 of the side | w0, w1 |

    Args:
        p: probability of each operation, 0 .. 1.
        xflip: multiplier of x flips.
        yflip: multiplier of y flips.
        scale: multiplier of isotropic scaling.
        rotate: multiplier of rotations.
        aniso: multiplier of anisotropic scaling.
        translate: multiplier of translations.

    Raises:
        InvalidValueError: p is no probability, or a multiplier is negative.

    Example:
        >>> AugmentPipe(0.12, rotate=0)
        AugmentPipe(p=0.12, xflip, yflip, scale, aniso, translate)
        >>> AugmentPipe(0.12).label_dim
        9
    """

    def __init__(
        self,
        p: float,
        *,
        xflip: float = 1e8,
        yflip: float = 1.0,
        scale: float = 1.0,
        rotate: float = 1.0,
        aniso: float = 1.0,
        translate: float = 1.0,
    ) -> None:
        self.p = real_number("p", p, least=0, most=1)
        multipliers = {
            "xflip": xflip,
            "yflip": yflip,
            "scale": scale,
            "rotate": rotate,
            "aniso": aniso,
            "translate": translate,
        }
        self._multipliers = {name: real_number(name, value, least=0) for name, value in multipliers.items()}
        self._enabled = [name for name in _LABELS if multipliers[name] > 0]

    def __repr__(self) -> str:
        return f"AugmentPipe(p={self.p:g}, {', '.join(self._enabled) or 'nothing'})"

    @property
    def label_dim(self) -> int:
        """How many labels the network gets."""
        return sum(_LABELS[name] for name in self._enabled)

    def draw(self, num: int, draws: Draws) -> Augmentation:
        """Augmentations of ``num`` images: for every operation its parameters first, then whether it happens.

        Args:
            num: N.
            draws: the source of random numbers.
        """
        none = torch.zeros(num, dtype=torch.float64)
        flips = {"xflip": none, "yflip": none}
        inverse = torch.eye(3, dtype=torch.float64).repeat(num, 1, 1)
        shift = torch.stack([none, none], 1)
        labels: list[Tensor] = []
        for name in self._enabled:
            if name in flips:
                flips[name] = draws.coin() * self._gate(name, draws)
                labels.append(flips[name])
            elif name == "translate":
                shift = torch.stack([draws.normal(), draws.normal()], 1) * self._gate(name, draws)[:, None]
                labels += shift.unbind(1)
            else:
                factor, factor_labels = getattr(self, f"_draw_{name}")(draws)
                inverse = inverse @ factor
                labels += factor_labels
        stacked = torch.stack(labels, 1) if labels else none[:, None][:, :0]
        return Augmentation(flips["xflip"] > 0, flips["yflip"] > 0, inverse, _SHIFT_STD * shift, stacked.float())

    def apply(self, images: Tensor, augmentation: Augmentation) -> Tensor:
        """The augmented images.

        Images that are not moved are not resampled: that would give them back up to rounding.

        Args:
            images: [N, C, H, W], float32 or float64, on any device.
            augmentation: of as many images, on the CPU.

        Returns:
            A new tensor like the images.

        Raises:
            ShapeError: there are more or fewer images than augmentations.
        """
        if images.ndim != 4 or len(images) != len(augmentation.shift):
            needed = f"[{len(augmentation.shift)}, channels, height, width]"
            raise ShapeError(f"images have shape {list(images.shape)}; needed is {needed}")
        for flips, axis in ((augmentation.xflip, 3), (augmentation.yflip, 2)):
            images = torch.where(flips.to(images.device)[:, None, None, None], images.flip(axis), images)
        # Indices made on the CPU: with a mask, the CPU would wait for the GPU.
        moved = augmentation.moved.nonzero()[:, 0]
        if len(moved):
            height, width = images.shape[2:]
            shift = translation(-width * augmentation.shift[:, 0], -height * augmentation.shift[:, 1])
            inverse = (augmentation.inverse @ shift)[moved]
            where = moved.to(images.device)
            images = images.index_copy(0, where, transform(images[where], inverse))
        return images

    def _draw_scale(self, draws: Draws) -> tuple[Tensor, list[Tensor]]:
        w = draws.normal() * self._gate("scale", draws)
        shrink = 2 ** (-_SCALE_STD * w)
        return scaling(shrink, shrink), [w]

    def _draw_rotate(self, draws: Draws) -> tuple[Tensor, list[Tensor]]:
        w = _angle(draws) * self._gate("rotate", draws)
        return rotation(w), [w.cos() - 1, w.sin()]

    def _draw_aniso(self, draws: Draws) -> tuple[Tensor, list[Tensor]]:
        w, r = draws.normal(), _angle(draws)
        w = w * self._gate("aniso", draws)
        r = r * (draws.uniform() < _ANISO_ANGLE_RATE)
        # Exactly the identity where the gate is closed, whatever the angle.
        stretch = 2 ** (_SCALE_STD * w)
        factor = rotation(-r) @ scaling(1 / stretch, stretch) @ rotation(r)
        identity = torch.eye(3, dtype=factor.dtype)
        return torch.where((w == 0)[:, None, None], identity, factor), [w * r.cos(), w * r.sin()]

    def _gate(self, name: str, draws: Draws) -> Tensor:
        return draws.uniform() < self._multipliers[name] * self.p


def _angle(draws: Draws) -> Tensor:
    return (2 * draws.uniform() - 1) * math.pi


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Matrices [N, 3, 3] that move points by (x, y), each [N].

    Example:
        >>> translation(torch.tensor([2.0]), torch.tensor([3.0]))[0, :2, 2]
        tensor([2., 3.])
    """
    return _matrix(torch.ones_like(x), torch.zeros_like(x), x, torch.zeros_like(x), torch.ones_like(x), y)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Matrices [N, 3, 3] that multiply coordinates by x and y, each [N].

    Example:
        >>> scaling(torch.tensor([2.0]), torch.tensor([3.0]))[0].diagonal()
        tensor([2., 3., 1.])
    """
    zero = torch.zeros_like(x)
    return _matrix(x, zero, zero, zero, y, zero)


def rotation(angle: Tensor) -> Tensor:
    """Matrices [N, 3, 3] [[cos, -sin], [sin, cos]] of angles [N] in radians.

    Example:
        >>> rotation(torch.tensor([0.0]))[0].diagonal()
        tensor([1., 1., 1.])
    """
    zero = torch.zeros_like(angle)
    return _matrix(angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero)


def transform(images: Tensor, inverse: Tensor) -> Tensor:
    """Images under affine maps, resampled at twice their resolution.

    Images are continued by reflection as far as they reach, and by zeros beyond.

    Args:
        images: [N, C, H, W], float32 or float64.
        inverse: [N, 3, 3] on the CPU, maps from output to input coordinates in pixels, the origin at the centre.

    Returns:
        [N, C, H, W].

    Example:
        >>> x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> bool((transform(x, torch.eye(3, dtype=torch.float64).expand(2, 3, 3)) - x).abs().max() < 1e-6)
        True
    """
    num, channels, height, width = images.shape
    left, top, right, bottom = _margins(inverse, height, width)
    x = functional.pad(images, [left, right, top, bottom], mode="reflect")
    inverse = _shift((left - right) / 2, (top - bottom) / 2) @ inverse
    taps = torch.tensor(_LOW_PASS, dtype=images.dtype, device=images.device)
    x = _upsampled(x.flatten(0, 1)[:, None], taps)
    inverse = _stretch(2, 2) @ inverse @ _stretch(0.5, 0.5)
    inverse = _shift(-0.5, -0.5) @ inverse @ _shift(0.5, 0.5)
    rows, columns = 2 * (height + 2 * _REACH), 2 * (width + 2 * _REACH)
    # The sampler's coordinates run from -1 to 1 across its input and its output.
    inverse = _stretch(2 / x.shape[3], 2 / x.shape[2]) @ inverse @ _stretch(columns / 2, rows / 2)
    theta = inverse[:, :2].to(device=images.device, dtype=images.dtype)
    grid = functional.affine_grid(theta, [num, channels, rows, columns], align_corners=False)
    x = x.view(num, channels, *x.shape[2:])
    x = functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    x = _downsampled(x.flatten(0, 1)[:, None], taps)
    return x[:, :, _REACH:-_REACH, _REACH:-_REACH].reshape(images.shape)


def _margins(inverse: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """How far the transformed frames, and the filters on them, reach beyond the images: left, top, right, bottom."""
    cx, cy = (width - 1) / 2, (height - 1) / 2
    corners = torch.tensor([[-cx, cx, -cx, cx], [-cy, -cy, cy, cy], [1, 1, 1, 1]], dtype=inverse.dtype)
    x, y, _ = (inverse @ corners).unbind(1)
    reach = 2 * _REACH

    def margin(farthest: Tensor, half: float, limit: int) -> int:
        return math.ceil(min(max(float(farthest.max()) + reach - half, 0.0), limit))

    return (
        margin(-x, cx, width - 1),
        margin(-y, cy, height - 1),
        margin(x, cx, width - 1),
        margin(y, cy, height - 1),
    )


def _upsampled(x: Tensor, taps: Tensor) -> Tensor:
    """[N, 1, H, W] -> [N, 1, 2 H, 2 W]: zeros between the pixels, then the filter reversed."""
    x = functional.conv_transpose2d(x, taps.view(1, 1, 1, -1), stride=(1, 2), padding=(0, _FILTER_PADDING))
    return functional.conv_transpose2d(x, taps.view(1, 1, -1, 1), stride=(2, 1), padding=(_FILTER_PADDING, 0))


def _downsampled(x: Tensor, taps: Tensor) -> Tensor:
    """[N, 1, 2 H, 2 W] -> [N, 1, H, W]: the filter, then every second pixel."""
    x = functional.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, 2), padding=(0, _FILTER_PADDING))
    return functional.conv2d(x, taps.view(1, 1, -1, 1), stride=(2, 1), padding=(_FILTER_PADDING, 0))


def _shift(x: float, y: float) -> Tensor:
    return translation(torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64))


def _stretch(x: float, y: float) -> Tensor:
    return scaling(torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64))


def _matrix(*entries: Tensor) -> Tensor:
    """[N, 3, 3] from the six entries of the upper two rows."""
    zero, one = torch.zeros_like(entries[0]), torch.ones_like(entries[0])
    return torch.stack([*entries, zero, zero, one], -1).reshape(-1, 3, 3)
