"""Masks of PSPC-Flex: which input pixels count for an output pixel, cut from heat maps."""

from typing import Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from pspc_rs.checks import one_of, real_number
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.schedules import MaskSizes

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]


def masks_from_maps(heatmaps: FloatArray, threshold: float, sizes: str = "mass") -> npt.NDArray[np.bool_]:
    """The masks of one level, the highest values of each map.

    With ``sizes="mass"``, as published (Niedoba et al. 2025, sec. 5.2): a map's values are sorted ascending, equal ones
    in the order of their pixels, and a pixel is kept where the cumulative share of the map's sum up to and including it
    is at least 1 - threshold. That is the smallest set with ``threshold`` of the sum; where the shares below it are
    exactly 1 - threshold, it is one pixel more. With ``sizes="equal"`` every mask has round(threshold H W) pixels, at
    least one.

    Args:
        heatmaps: non-negative numbers [..., H, W], each map with a positive sum.
        threshold: share of the sum, or of the pixels, to keep, in (0, 1].
        sizes: "mass" or "equal".

    Returns:
        bool array of the shape of ``heatmaps``.

    Raises:
        DTypeError: the threshold is not a number.
        InvalidValueError: a threshold outside (0, 1]; negative, NaN, infinite or all-zero maps; other sizes.

    Example:
        >>> maps = np.array([[[1.0, 5.0], [3.0, 1.0]]])
        >>> masks_from_maps(maps, 0.75)
        array([[[False,  True],
                [ True, False]]])
        >>> masks_from_maps(maps, 0.75, "equal")
        array([[[False,  True],
                [ True,  True]]])
    """
    share = real_number("threshold", threshold, above=0, most=1)
    equal = one_of("sizes", sizes, get_args(MaskSizes)) == "equal"
    maps = np.asarray(heatmaps)
    flat = maps.reshape(-1, maps.shape[-2] * maps.shape[-1]).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = flat.sum(axis=1)
    if not np.isfinite(sums).all() or flat.min() < 0 or sums.min() <= 0:
        raise InvalidValueError("heat maps must be finite and non-negative, each with a positive sum")
    order = np.argsort(flat, axis=1, kind="stable")
    if equal:
        kept = np.zeros(flat.shape, bool)
        kept[:, flat.shape[1] - equal_size(share, flat.shape[1]) :] = True
    else:
        shares = np.take_along_axis(flat, order, axis=1).cumsum(axis=1) / sums[:, None]
        # The published thresholds are float32 numbers, and 1 - threshold is formed in float32.
        kept = shares >= np.float32(1) - np.float32(share)
        kept[:, -1] = True
    masks: npt.NDArray[np.bool_] = np.empty(kept.shape, bool)
    np.put_along_axis(masks, order, kept, axis=1)
    return masks.reshape(maps.shape)


def equal_size(threshold: float, pixels: int) -> int:
    """How many pixels a mask of equal size has: that share of an image of so many pixels, rounded, at least one.

    Example:
        >>> equal_size(9 / 1024, 1024), equal_size(0.0001, 1024)
        (9, 1)
    """
    return max(1, round(threshold * pixels))


def covering_masks(heatmaps: FloatArray, threshold: float, sizes: str = "mass") -> npt.NDArray[np.bool_]:
    """As `masks_from_maps`, of maps of all output pixels, so that every pixel of the image is in some mask.

    Where the masks leave a pixel out, or its own map is 0 everywhere, as those of pixels that never vary, its entry in
    its own map is raised just above the others (`own_pixel_first`), so that it is at least in its own mask. Masks that
    cover the image are those of `masks_from_maps`.

    Args:
        heatmaps: [H, W, H, W], entry [y, x] the map of output pixel (y, x).
        threshold: see `masks_from_maps`.
        sizes: see `masks_from_maps`.

    Returns:
        bool array [H W, H, W].

    Raises:
        DTypeError, InvalidValueError: see `masks_from_maps`; some maps, but not all, may be 0.

    Example:
        >>> maps = np.array([[[[0.0, 0.0]], [[0.0, 1.0]]]])
        >>> covering_masks(maps, 0.5).tolist()
        [[[True, False]], [[False, True]]]
    """
    height, width = heatmaps.shape[-2:]
    maps = np.array(heatmaps, dtype=np.result_type(heatmaps.dtype, np.float32)).reshape(-1, height * width)
    lacking = np.flatnonzero(~maps.any(axis=1))
    if len(lacking) == len(maps):
        raise InvalidValueError("all heat maps of a level are 0; needed are maps with a positive sum")
    while True:
        raised = maps[lacking]
        raise_own(raised, lacking)
        maps[lacking] = raised
        masks = masks_from_maps(maps.reshape(-1, height, width), threshold, sizes)
        lacking = np.flatnonzero(~masks.any(axis=0))
        if len(lacking) == 0:
            return masks


def own_pixel_first(heatmaps: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The heat maps with each output pixel's own entry just above all others of its map; the others keep their values.

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


def raise_own(maps: npt.NDArray[Any], pixels: npt.NDArray[np.integer[Any]]) -> None:
    """Raises the own entries in the maps [P, height * width] of some output pixels, in place; see `own_pixel_first`."""
    rows = np.arange(len(pixels))
    own = maps[rows, pixels].copy()
    maps[rows, pixels] = 0
    largest = maps.max(axis=1, initial=0)
    # A map of zeros has no mass to take a share of.
    above = np.nextafter(np.maximum(largest, np.finfo(maps.dtype).tiny * 2**20), maps.dtype.type(np.inf))
    maps[rows, pixels] = np.where(own > largest, own, above)
