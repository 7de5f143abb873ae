"""The augmentation of EDM: flips and affine maps, and labels that tell the network about them.

Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, appendix F.2; first in
Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020. A network that is told what was done
to its training images gives images that nothing was done to when it is told nothing.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pspc_rs.checks import real_number
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.training.resampling import rotation, scaling, transform, translation

# log2 of the factor that one standard deviation enlarges by, and the share of the image's side that it moves by.
_SCALE_STD = 0.2
_SHIFT_STD = 0.125
# An angle of anisotropic scaling is kept in half of the images; in the others the axes are those of the image.
_ANISO_ANGLE_RATE = 0.5
# The operations in their order, and how many labels each has.
_LABELS = {"xflip": 1, "yflip": 1, "scale": 1, "rotate": 2, "aniso": 2, "translate": 2}


class Draws(Protocol):
    """A source of random numbers, one a image and call, each float64 [N] on the CPU."""

    def coin(self) -> Tensor:
        """0 or 1 with equal chances."""

    def uniform(self) -> Tensor:
        """Uniform on [0, 1)."""

    def normal(self) -> Tensor:
        """Standard normal."""


@dataclass(frozen=True)
class Augmentation:
    """What is to be done to N images.

    Attributes:
        xflip: mirror left to right, bool [N].
        yflip: mirror top to bottom, bool [N].
        inverse: map from output to input coordinates, but for the translation, float64 [N, 3, 3].
        shift: translation in units of width and height, float64 [N, 2].
        labels: what the network is told, float32 [N, label_dim]; zeros where nothing is done.
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
        self.p = real_number("p", p)
        if not 0 <= self.p <= 1:
            raise InvalidValueError(f"p is {p}; allowed are numbers from 0 to 1")
        multipliers = {
            "xflip": xflip,
            "yflip": yflip,
            "scale": scale,
            "rotate": rotate,
            "aniso": aniso,
            "translate": translate,
        }
        for name, value in multipliers.items():
            if real_number(name, value) < 0:
                raise InvalidValueError(f"{name} is {value}; allowed are multipliers of at least 0")
        self._multipliers = multipliers
        self._enabled = [name for name in _LABELS if multipliers[name] > 0]

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
                factor, told = getattr(self, f"_draw_{name}")(draws)
                inverse = inverse @ factor
                labels += told
        told = torch.stack(labels, 1) if labels else none[:, None][:, :0]
        return Augmentation(flips["xflip"] > 0, flips["yflip"] > 0, inverse, _SHIFT_STD * shift, told.float())

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
        on_device = [flip.to(images.device)[:, None, None, None] for flip in (augmentation.xflip, augmentation.yflip)]
        images = torch.where(on_device[0], images.flip(3), images)
        images = torch.where(on_device[1], images.flip(2), images)
        # Indices rather than a mask, which a GPU would have to be waited for.
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
