"""Affine transformations of images without aliasing: wavelet filters around a bilinear sampler."""

import math

import torch
from torch import Tensor
from torch.nn import functional

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
