"""The Gaussian denoiser: the exact posterior mean if the data were normal with the training set's covariance."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pspc_rs.checks import integer
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import require_images
from pspc_rs.denoisers.base import Denoiser, Float64, Floats
from pspc_rs.denoisers.selection import Selection
from pspc_rs.errors import DataError, OutputError, warn
from pspc_rs.files import cache_dir, decode_errors, replacing
from pspc_rs.progress import Progress
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


class Gaussian(Denoiser):
    """mu + U diag(S / (S + sigma^2)) U^T (z - mu), with Sigma = U diag(S) U^T the biased covariance of the data.

    The linear denoiser of Wang & Vastola (2023) and Li et al. (2024), a baseline of Niedoba et al. 2025. It costs
    O(D r) per sample, in float64; in directions in which the data do not vary, the result is exactly the mean.

    Args:
        data: the training images.
        rank: keep this many leading directions and take the mean in the others; None keeps all.
        cache: keep the statistics in the user's cache folder, keyed by the data's fingerprint; where that cannot be
            written, a `PspcWarning` says so once.

    Raises:
        DTypeError: rank is not an integer.
        InvalidValueError: rank is below 1 or above the number of directions in which the data vary.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
        >>> G = pspc.Gaussian(data, cache=False)
        >>> G
        Gaussian(ImageSet('array', 2 images of [1, 1, 1] float32, no labels, xflip=False), rank=1)
        >>> G(np.array([[[[0.5]]]]), sigma=1.0).item()   # variance 1: shrinks by 1 / (1 + sigma^2)
        0.25
    """

    _has_derivatives = True

    def __init__(self, data: ImageSet, rank: int | None = None, *, cache: bool = True) -> None:
        super().__init__(require_images(data).shape)
        self.data = data
        statistics = cached_statistics(data) if cache else principal_axes(data)
        available = len(statistics.variances)
        self.rank = available if rank is None else integer("rank", rank, 1, available)
        self.mean = statistics.mean
        self.axes = statistics.axes[:, : self.rank]
        self.variances = statistics.variances[: self.rank]

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data and the rank."""
        return {**super().settings, "data": self.data.fingerprint, "rank": self.rank}

    def __repr__(self) -> str:
        return build_repr(self, self.data, rank=self.rank)

    def _denoise(self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None) -> Float64:
        del selection, progress
        coordinates = (z.reshape(len(z), len(self.mean)) - self.mean) @ self.axes
        coordinates *= self._gains(sigmas)
        denoised: Float64 = coordinates @ self.axes.T + self.mean
        return denoised.reshape(z.shape)

    def _derivative(
        self,
        z: Floats,
        sigmas: Float64,
        selection: Selection | None,
        v: Float64,
        progress: Progress | None,
        *,
        transposed: bool,
    ) -> tuple[Float64, Float64]:
        del transposed  # the Jacobian is symmetric
        coordinates = v.reshape(len(v), len(z), len(self.mean)) @ self.axes
        products = (coordinates * self._gains(sigmas)) @ self.axes.T
        return self._denoise(z, sigmas, selection, progress), products.reshape(v.shape)

    def _divergence(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None
    ) -> tuple[Float64, Float64]:
        return self._denoise(z, sigmas, selection, progress), self._gains(sigmas).sum(axis=1)

    def _gains(self, sigmas: Float64) -> Float64:
        """S / (S + sigma^2), [batch, r]."""
        gains: Float64 = self.variances / (self.variances + sigmas[:, None] ** 2)
        return gains


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


def cached_statistics(data: ImageSet) -> GaussianStatistics:
    """`principal_axes` of the data, read from or written to the cache folder, which is no need.

    Args:
        data: the images; their fingerprint is the key.

    Returns:
        The statistics.
    """
    path, stored = None, None
    try:
        path = cache_dir() / "gaussian" / f"{data.fingerprint}.npz"
        stored = _read_statistics(path, int(np.prod(data.shape)))
    except OutputError as error:
        _warn_once(error)
    statistics = principal_axes(data) if stored is None else stored
    if path is not None and stored is None:
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, mean=statistics.mean, axes=statistics.axes, variances=statistics.variances)
        except OutputError as error:
            _warn_once(error)
    return statistics


_warned: list[str] = []


def _warn_once(error: OutputError) -> None:
    if not _warned:
        _warned.append(str(error))
        warn(f"statistics of data sets are not kept for the next time: {error}. cache=False avoids this warning")


def _read_statistics(path: Path, dimension: int) -> GaussianStatistics | None:
    """The statistics in a file; None if there are none, or they are damaged."""
    try:
        with decode_errors(path), path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            mean, axes, variances = stored["mean"], stored["axes"], stored["variances"]
    except DataError:
        return None
    fit = (mean.shape, axes.shape) == ((dimension,), (dimension, len(np.atleast_1d(variances)))) and variances.ndim == 1
    known = all(array.dtype == np.float64 and np.isfinite(array).all() for array in (mean, axes, variances))
    return GaussianStatistics(mean, axes, variances) if fit and known else None


def _shares(data: ImageSet) -> Float64 | None:
    """The prior weights of the stored images, with the sum 1; None where all weigh the same."""
    if data.log_prior is None:
        return None
    weights = np.exp(data.log_prior - data.log_prior.max())
    shares: Float64 = weights / weights.sum()
    return shares


def _stored_chunks(data: ImageSet) -> Iterator[tuple[slice, Float64]]:
    """The stored images, without flips, as float64 rows, in chunks."""
    for start in range(0, data.num_stored, _IMAGES_PER_CHUNK):
        part = slice(start, min(start + _IMAGES_PER_CHUNK, data.num_stored))
        images = data.batch(range(part.start, part.stop))
        yield part, images.reshape(len(images), -1).astype(np.float64)


def _mean(data: ImageSet) -> Float64:
    shares = _shares(data)
    if shares is None:
        total = sum(chunk.sum(axis=0) for _, chunk in _stored_chunks(data)) / data.num_stored
    else:
        total = sum(shares[part] @ chunk for part, chunk in _stored_chunks(data))
    mean: Float64 = np.asarray(total)
    if data.xflip:
        mean = (mean + mean.reshape(data.shape)[..., ::-1].ravel()) / 2
    return mean


def _covariance(data: ImageSet, mean: Float64) -> Float64:
    covariance, shares = np.zeros((len(mean), len(mean))), _shares(data)
    for part, chunk in _stored_chunks(data):
        centred = chunk - mean
        covariance += centred.T @ (centred if shares is None else shares[part, None] * centred)
    if shares is None:
        covariance /= data.num_stored
    if data.xflip:
        # The mean is symmetric, so the flipped images have the covariance with both axes flipped.
        six = covariance.reshape(*data.shape, *data.shape)
        covariance = (covariance + six[:, :, ::-1, :, :, ::-1].reshape(covariance.shape)) / 2
    return covariance
