"""Output pixels of heat maps: which ones, in which order, and their own entries."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import real_array
from pspc_rs.errors import InvalidValueError, ShapeError

Pixels = NDArray[np.int64]
"""Output pixels as indices y * W + x, [P]."""


def chosen_pixels(pixels: object, height: int, width: int) -> Pixels:
    """Output pixels as indices y * width + x, int64 [P].

    Args:
        pixels: pairs (y, x), [P, 2]; every pixel, row by row, if None.
        height: of the images.
        width: of the images.

    Raises:
        ShapeError: the pixels are no pairs.
        InvalidValueError: one lies outside the image, or there are none.

    Example:
        >>> chosen_pixels([(0, 1), (2, 0)], 3, 4)
        array([1, 8])
    """
    if pixels is None:
        return np.arange(height * width)
    pairs = real_array("pixels", pixels)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ShapeError(f"pixels have shape {list(pairs.shape)}; allowed are pairs (y, x), [pixels, 2]")
    inside = (pairs >= 0) & (pairs < (height, width)) & (pairs == np.floor(pairs))
    if len(pairs) == 0 or not inside.all():
        bad = pairs[~inside.all(axis=1)][:1].tolist()
        raise InvalidValueError(
            f"pixels hold {bad or 'nothing'}; allowed are integers (y, x) below ({height}, {width})"
        )
    y, x = pairs.astype(np.int64).T
    return np.asarray(y * width + x)


def own_pixel_first(heatmaps: NDArray[Any]) -> NDArray[Any]:
    """The heat maps with each output pixel's own entry just above all others of its map; others are as they were.

    PSPC-Flex needs every pixel in some mask. Where pixels hardly vary, as at the border of digits, their maps may be 0
    everywhere or look elsewhere; with this, each is at least in its own mask.

    Args:
        heatmaps: of every output pixel, [..., H, W, H, W], non-negative.

    Returns:
        A new array of the same shape and dtype.

    Example:
        >>> own_pixel_first(np.array([[[[0.5, 2.0]], [[0.0, 1.0]]]])).round(3).tolist()
        [[[[2.0, 2.0]], [[0.0, 1.0]]]]
    """
    if heatmaps.ndim < 4 or heatmaps.shape[-4:-2] != heatmaps.shape[-2:]:
        raise ShapeError(f"heat maps have shape {list(heatmaps.shape)}; allowed is [..., H, W, H, W]")
    raised = np.array(heatmaps)
    own = np.arange(heatmaps.shape[-2] * heatmaps.shape[-1])
    for level in raised.reshape(-1, len(own), len(own)):
        raise_own(level, own)
    return raised


def raise_own(maps: NDArray[Any], pixels: Pixels) -> None:
    """The same for the maps [P, height * width] of some output pixels, in place."""
    rows = np.arange(len(pixels))
    own = maps[rows, pixels].copy()
    maps[rows, pixels] = 0
    largest = maps.max(axis=1)
    # A map of zeros has no mass to take a share of.
    above = np.nextafter(np.maximum(largest, np.finfo(maps.dtype).tiny * 2**20), maps.dtype.type(np.inf))
    maps[rows, pixels] = np.where(own > largest, own, above)
