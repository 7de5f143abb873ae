"""Mean and principal axes of a data set: what the denoisers that know its covariance are made of."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pspc_rs.data import ImageSet
from pspc_rs.denoisers.base import Float64
from pspc_rs.reprs import build_repr

_IMAGES_PER_CHUNK = 1024


@dataclass(frozen=True, repr=False)
class GaussianStatistics:
    """Mean and principal axes of a data set, in float64; D = channels * height * width.

    Attributes:
        mean: [D].
        axes: orthonormal principal directions as columns, [D, r].
        variances: biased variances along them, descending, [r].
    """

    mean: Float64
    axes: Float64
    variances: Float64

    def __repr__(self) -> str:
        dimension, rank = self.axes.shape
        return build_repr(self, f"{rank} direction{'s' * (rank != 1)} of {dimension}")


def principal_axes(data: ImageSet) -> GaussianStatistics:
    """Mean, principal directions and biased variances of a data set, with its flips and prior weights if it has them.

    Up to D images: singular value decomposition of the centred images. More: eigenvectors of the covariance. Both in
    float64, so that the variances of null directions stay below any useful sigma^2; directions whose variance is at
    rounding level are left out.

    Args:
        data: the images.

    Returns:
        The statistics with at most min(number of images, D) directions.

    Example:
        >>> principal_axes(ImageSet(np.array([[[[-1.0, 3.0]]], [[[1.0, 3.0]]]], np.float32)))
        GaussianStatistics(1 direction of 2)
    """
    dimension = int(np.prod(data.shape))
    mean = _mean(data)
    if len(data) <= dimension:
        centred = data.batch(range(len(data))).reshape(len(data), -1).astype(np.float64) - mean
        shares = _shares(data)
        if shares is not None:
            views = 1 + data.xflip
            # As if every image were there in proportion to its weight.
            centred *= np.sqrt(np.tile(shares, views) * data.num_stored)[:, None]
        _, scales, rows = np.linalg.svd(centred, full_matrices=False)
        variances, axes = scales**2 / len(data), rows.T
    else:
        variances, axes = np.linalg.eigh(_covariance(data, mean))
        variances, axes = variances[::-1], axes[:, ::-1]
    rounding = np.finfo(np.float64).eps * max(len(data), dimension) * variances[0]
    kept = max(1, int((variances > rounding).sum()))
    return GaussianStatistics(mean, np.ascontiguousarray(axes[:, :kept]), variances[:kept].clip(min=0))


def _shares(data: ImageSet) -> Float64 | None:
    """The prior weights of the stored images, with the sum 1; None where all weigh the same."""
    if data.log_prior is None:
        return None
    weights = np.exp(data.log_prior - data.log_prior.max())
    shares: Float64 = weights / weights.sum()
    return shares


def stored_chunks(data: ImageSet) -> Iterator[tuple[slice, Float64]]:
    """The stored images, without flips, as float64 rows, in chunks, with the indices of each.

    Example:
        >>> [(part.stop, rows.shape) for part, rows in stored_chunks(ImageSet(np.zeros((5, 1, 2, 2), np.uint8)))]
        [(5, (5, 4))]
    """
    for start in range(0, data.num_stored, _IMAGES_PER_CHUNK):
        part = slice(start, min(start + _IMAGES_PER_CHUNK, data.num_stored))
        images = data.batch(range(part.start, part.stop))
        yield part, images.reshape(len(images), -1).astype(np.float64)


def _mean(data: ImageSet) -> Float64:
    shares = _shares(data)
    if shares is None:
        total = sum(chunk.sum(axis=0) for _, chunk in stored_chunks(data)) / data.num_stored
    else:
        total = sum(shares[part] @ chunk for part, chunk in stored_chunks(data))
    mean: Float64 = np.asarray(total)
    if data.xflip:
        mean = (mean + mean.reshape(data.shape)[..., ::-1].ravel()) / 2
    return mean


def _covariance(data: ImageSet, mean: Float64) -> Float64:
    covariance, shares = np.zeros((len(mean), len(mean))), _shares(data)
    for part, chunk in stored_chunks(data):
        centred = chunk - mean
        covariance += centred.T @ (centred if shares is None else shares[part, None] * centred)
    if shares is None:
        covariance /= data.num_stored
    if data.xflip:
        # The mean is symmetric, so the flipped images have the covariance with both axes flipped.
        six = covariance.reshape(*data.shape, *data.shape)
        covariance = (covariance + six[:, :, ::-1, :, :, ::-1].reshape(covariance.shape)) / 2
    return covariance
