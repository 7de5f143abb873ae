"""What denoisers make of many noisy images, batch by batch, and how far apart two of them are."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite, to_numpy
from pspc_rs.denoisers import Denoiser
from pspc_rs.errors import InvalidValueError, ShapeError

Count: TypeAlias = Callable[[float], object]
"""Called with the number of images done so far."""


class Mean(NamedTuple):
    """A mean over images and its standard error."""

    mean: float
    standard_error: float


def denoised(
    model: Callable[..., Any], z: NDArray[Any], sigma: float, batch: int = 50, *, name: str = "D", count: Count
) -> NDArray[np.float32]:
    """The model's outputs, float32 in the shape of z.

    Args:
        model: D(z, sigma), called with sigma as float64 [batch].
        z: noisy images [N, C, H, W].
        sigma: noise level.
        batch: images at once.
        name: what messages call the model.
        count: called during long calls and after every batch.

    Raises:
        ShapeError: the model returned another shape.
        InvalidValueError: the model returned NaN or infinities.

    Example:
        >>> z = np.ones((5, 1, 2, 2), np.float32)
        >>> denoised(lambda z, sigma: z / 2, z, 1.0, 3, count=print).max()
        3
        5
        np.float32(0.5)
    """
    outputs = np.empty(z.shape, np.float32)
    for start in range(0, len(z), batch):
        part = z[start : start + batch]
        given = {"progress": _within(start, len(part), count)} if isinstance(model, Denoiser) else {}
        images = to_numpy(model(part, np.full(len(part), sigma), **given), f"the output of {name}")
        if images.shape != part.shape:
            raise ShapeError(f"{name} returned shape {list(images.shape)} for {list(part.shape)}; it must be the same")
        check_finite(f"the output of {name} at sigma {sigma:g}", images)
        outputs[start : start + batch] = images
        count(start + len(part))
    return outputs


def mean_squared_error(first: NDArray[Any], second: NDArray[Any]) -> Mean:
    """Mean over all pixels and images of (a - b)^2, and its standard error over images, in float64.

    Args:
        first: images [N, C, H, W], at least two.
        second: images of the same shape.

    Raises:
        ShapeError: the shapes differ.
        InvalidValueError: fewer than two images, which leave no standard error.

    Example:
        >>> a = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
        >>> error = mean_squared_error(a, 0 * a)
        >>> round(error.mean, 4), round(error.standard_error, 4)
        (4.6667, 2.3333)
    """
    errors = squared_errors(first, second)
    if len(errors) < 2:
        raise InvalidValueError(f"there are {len(errors)} images; a standard error needs at least 2")
    return Mean(float(errors.mean()), float(errors.std(ddof=1) / np.sqrt(len(errors))))


def squared_errors(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over the pixels of every image of (a - b)^2, float64 [N].

    Raises:
        ShapeError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ShapeError(f"images have shapes {list(first.shape)} and {list(second.shape)}; they must be the same")
    pairs = zip(first, second, strict=True)
    return np.array([np.square(np.subtract(a, b, dtype=np.float64)).mean() for a, b in pairs])


def _within(start: int, size: int, count: Count) -> Callable[[int, int], object]:
    """Progress within a batch as images done."""
    return lambda done, total: count(start + size * done / total)
