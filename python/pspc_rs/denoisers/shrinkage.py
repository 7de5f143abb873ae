"""Covariances of few images: a floor under their eigenvalues, or shrinkage towards a multiple of the identity."""

from typing import NamedTuple

import numpy as np

from pspc_rs.checks import real_number
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.base import Float64
from pspc_rs.denoisers.covariance import GaussianStatistics, stored_chunks
from pspc_rs.errors import InvalidValueError

LEDOIT_WOLF = "ledoit-wolf"
"""Shrinkage by the formula of Ledoit and Wolf."""


class Spectrum(NamedTuple):
    """The eigenvalues of a covariance matrix.

    Attributes:
        variances: along the principal directions, [r].
        rest: in every other direction.
    """

    variances: Float64
    rest: float


def with_floor(variances: Float64, floor: float) -> Spectrum:
    """Variances of at least so much, in all directions.

    Example:
        >>> with_floor(np.array([2.0, 0.1]), 0.5)
        Spectrum(variances=array([2. , 0.5]), rest=0.5)
    """
    return Spectrum(np.maximum(variances, floor), floor)


def shrunk(variances: Float64, shrinkage: float, mean: float) -> Spectrum:
    """The eigenvalues of (1 - shrinkage) Sigma + shrinkage mean I.

    Args:
        variances: of Sigma along its principal directions; 0 in the others.
        shrinkage: from 0 to 1.
        mean: of the variances over all directions.

    Example:
        >>> shrunk(np.array([3.0, 1.0]), 0.5, 1.0)
        Spectrum(variances=array([2., 1.]), rest=0.5)
    """
    return Spectrum((1 - shrinkage) * variances + shrinkage * mean, shrinkage * mean)


def checked_shrinkage(data: ImageSet, statistics: GaussianStatistics, shrinkage: object) -> float:
    """A shrinkage from 0 to 1: the number given, or that of `ledoit_wolf` for its name.

    Args:
        data: the images.
        statistics: of the images, in all directions.
        shrinkage: a number, or "ledoit-wolf".

    Raises:
        DTypeError: it is neither.
        InvalidValueError: a number out of range, another name, or the formula for images with prior weights.

    Example:
        >>> data = ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
        >>> from pspc_rs.denoisers.covariance import principal_axes
        >>> checked_shrinkage(data, principal_axes(data), 0.25)
        0.25
    """
    if not isinstance(shrinkage, str):
        return real_number("shrinkage", shrinkage, least=0, most=1)
    if shrinkage != LEDOIT_WOLF:
        raise InvalidValueError(f"shrinkage is {shrinkage!r:.80}; allowed are numbers from 0 to 1 and {LEDOIT_WOLF!r}")
    if data.log_prior is not None:
        raise InvalidValueError(
            f"shrinkage is {LEDOIT_WOLF!r}, whose formula is for images of equal weight, but the data have a "
            "log_prior; allowed are numbers from 0 to 1"
        )
    return ledoit_wolf(data, statistics)


def ledoit_wolf(data: ImageSet, statistics: GaussianStatistics) -> float:
    """The shrinkage of least expected squared error of the covariance matrix, estimated from the images themselves.

    With n images of D values, A_k = (x_k - mean) (x_k - mean)^T, Sigma the mean of the A_k and m its trace over D:

        min(1, (mean of |A_k|^2 - |Sigma|^2) / (n (|Sigma|^2 - D m^2)))          |A|^2 the sum of the squared entries

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004, lemma 3.4. An image
    and its flip are one sample, not two: A_k is then the mean of both.

    Args:
        data: the images, all of the same prior weight.
        statistics: of the images, in all directions.

    Example:
        >>> rows = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], np.float32)
        >>> data = ImageSet(rows.reshape(4, 1, 1, 2))
        >>> from pspc_rs.denoisers.covariance import principal_axes
        >>> round(ledoit_wolf(data, principal_axes(data)), 4)  # (8.5 - 4.25) / (4 (4.25 - 2 * 1.25^2))
        0.9444
    """
    size = float((statistics.variances**2).sum())
    distance = size - float(statistics.variances.sum()) ** 2 / len(statistics.mean)
    spread = _mean_square(data, statistics.mean) - size
    return min(1.0, max(0.0, spread) / (data.num_stored * distance)) if distance > 0 else 0.0


def _mean_square(data: ImageSet, mean: Float64) -> float:
    """The mean of |A_k|^2 over the stored images."""
    total = 0.0
    for _, chunk in stored_chunks(data):
        centred = chunk - mean
        squares = (centred**2).sum(axis=1) ** 2
        if data.xflip:
            flipped = centred.reshape(-1, *data.shape)[..., ::-1].reshape(centred.shape)
            squares = (squares + (centred * flipped).sum(axis=1) ** 2) / 2
        total += float(squares.sum())
    return total / data.num_stored
