"""Mean and principal axes of a data set: what the denoisers that know its covariance are made of.

With flips the covariance is that of the sums of a pixel and its mirror pixel, and that of their differences: x and its
flip have the same sums and opposite differences, so that the two do not vary together. Each is half as large as the
whole, which makes the products half as many and the eigenvectors a quarter of the work.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pspc_rs import _core
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
    mean, variances, axes = _of_images(data) if len(data) <= dimension else _of_covariance(data)
    rounding = np.finfo(np.float64).eps * max(len(data), dimension) * variances[0]
    kept = max(1, int((variances > rounding).sum()))
    return GaussianStatistics(mean, np.ascontiguousarray(axes[:, :kept]), variances[:kept].clip(min=0))


def _of_images(data: ImageSet) -> tuple[Float64, Float64, Float64]:
    """Mean, variances and axes by the singular values of the centred images."""
    mean = _mean(data)
    pixels = _pixels(data.images)
    views = [pixels, pixels[..., ::-1]] if data.xflip else [pixels]
    centred = np.concatenate(views).reshape(len(data), -1) - mean
    shares = _shares(data)
    if shares is not None:
        # As if every image were there in proportion to its weight.
        centred *= np.sqrt(np.tile(shares, len(views)) * data.num_stored)[:, None]
    _, scales, rows = np.linalg.svd(centred, full_matrices=False)
    return mean, scales**2 / len(data), rows.T


def _of_covariance(data: ImageSet) -> tuple[Float64, Float64, Float64]:
    """Mean, variances and axes by the eigenvectors of the covariances of the parts."""
    parts = _parts(data)
    if data.images.dtype == np.uint8 and data.log_prior is None:
        mean, covariances = _moments_of_bytes(data.images.astype(np.uint8, copy=False), parts)
    else:
        mean, covariances = _moments_of_floats(data, parts)
    # One after the other is let go: without flips it is as large as what it becomes.
    found = [np.linalg.eigh(covariances.pop(0)) for _ in parts]
    variances = np.concatenate([values for values, _ in found])
    order = np.argsort(-variances, kind="stable")
    axes, start = np.empty((len(mean), len(mean))), 0
    places = np.argsort(order)
    for part, (values, vectors) in zip(parts, found, strict=True):
        axes[:, places[start : start + len(values)]] = part.unfold(vectors, len(mean))
        start += len(values)
    return mean, variances[order], axes


@dataclass(frozen=True)
class _Part:
    """Orthonormal coordinates: scale times the sum of two pixel values, or their difference."""

    left: NDArray[np.uint32]
    right: NDArray[np.uint32]
    is_difference: bool

    @property
    def scale(self) -> Float64:
        """[K]; a pixel that is its own mirror pixel counts twice."""
        scale: Float64 = np.where(self.left == self.right, 0.5, np.sqrt(0.5))
        return scale

    def fold(self, rows: Float64) -> Float64:
        """Images [n, D] in these coordinates, [n, K]."""
        left, right = rows[:, self.left], rows[:, self.right]
        folded: Float64 = (left - right if self.is_difference else left + right) * self.scale
        return folded

    def unfold(self, columns: Float64, dimension: int) -> Float64:
        """Columns [K, r] in these coordinates as images [D, r]."""
        images, scaled = np.zeros((dimension, columns.shape[1])), columns * self.scale[:, None]
        images[self.left] = scaled
        if self.is_difference:
            images[self.right] -= scaled
        else:
            images[self.right] += scaled
        return images


def _parts(data: ImageSet) -> list[_Part]:
    """Coordinates that do not vary together: with flips sums and differences, without them the pixels themselves."""
    positions = np.arange(np.prod(data.shape), dtype=np.uint32).reshape(data.shape)
    if not data.xflip:
        pixels = positions.ravel()
        return [_Part(pixels, pixels, is_difference=False)]
    width = data.shape[2]
    mirrored = positions[:, :, ::-1]
    columns = {False: (width + 1) // 2, True: width // 2}
    pairs = {kind: (positions[..., :count].ravel(), mirrored[..., :count].ravel()) for kind, count in columns.items()}
    return [_Part(*pair, is_difference=kind) for kind, pair in pairs.items() if len(pair[0])]


def _moments_of_bytes(images: NDArray[np.uint8], parts: list[_Part]) -> tuple[Float64, list[Float64]]:
    """Mean and the covariance of every part, by sums of integers, which are exact."""
    mean, covariances = np.zeros(images[0].size), []
    for part in parts:
        means, covariance = _core.covariance_of_bytes(images, part.left, part.right, part.is_difference)
        if not part.is_difference:
            # Bytes u are pixels u / 127.5 - 1.
            mean += part.unfold((means / 127.5 - 2)[:, None] * part.scale[:, None], len(mean))[:, 0]
        scale = part.scale / 127.5
        covariance *= scale[:, None]
        covariance *= scale
        covariances.append(covariance)
    return mean, covariances


def _moments_of_floats(data: ImageSet, parts: list[_Part]) -> tuple[Float64, list[Float64]]:
    """Mean and the covariance of every part, in float64."""
    mean, shares = _mean(data), _shares(data)
    totals = [np.zeros((len(part.left), len(part.left))) for part in parts]
    for chunk, rows in stored_chunks(data):
        centred = rows - mean
        for part, total in zip(parts, totals, strict=True):
            folded = part.fold(centred)
            np.add(total, folded.T @ (folded if shares is None else shares[chunk, None] * folded), out=total)
    return mean, totals if shares is not None else [total / data.num_stored for total in totals]


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
        images = _pixels(data.images[part])
        yield part, images.reshape(len(images), -1)


def _pixels(images: NDArray[np.uint8] | NDArray[np.float32]) -> Float64:
    """Pixels in the unit of the denoisers, to the last digit of float64."""
    pixels = images.astype(np.float64)
    return pixels / 127.5 - 1 if images.dtype == np.uint8 else pixels


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
