"""The Gaussian denoiser: the exact posterior mean if the data were normal with the training set's covariance."""

from pathlib import Path
from typing import Any

import numpy as np

from pspc_rs.arrays import MAX_SIGMA, Array, like
from pspc_rs.checks import integer, real_number
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import require_images
from pspc_rs.denoisers.base import Denoiser, Float64, Floats
from pspc_rs.denoisers.covariance import GaussianStatistics, principal_axes
from pspc_rs.denoisers.gradients import uncompiled
from pspc_rs.denoisers.selection import Selection
from pspc_rs.denoisers.shrinkage import Spectrum, checked_shrinkage, shrunk, with_floor
from pspc_rs.errors import DataError, InvalidValueError, OutputError, warn
from pspc_rs.files import cache_dir, decode_errors, replacing
from pspc_rs.progress import Progress
from pspc_rs.reprs import build_repr


class Gaussian(Denoiser):
    """mu + U diag(S / (S + sigma^2)) U^T (z - mu), with Sigma = U diag(S) U^T the biased covariance of the data.

    The linear denoiser of Wang & Vastola (2023) and Li et al. (2024), a baseline of Niedoba et al. 2025. It costs
    O(D r) per sample, in float64; in directions in which the data do not vary, the result is exactly the mean.

    N images vary in fewer than N directions, and those of fewer than D = C H W images say that all others do not exist:
    the result is then the mean there, however little noise there is. Two options give every direction a variance. With
    ``variance_floor`` f it is max(S, f). With ``shrinkage`` a the covariance is (1 - a) Sigma + a m I, where m is the
    mean of the variances over all D directions; "ledoit-wolf" takes the a of least expected squared error, estimated
    from the images (`denoisers.shrinkage.ledoit_wolf` has the formula).

    Args:
        data: the training images.
        rank: keep this many leading directions of Sigma; None keeps all. In the others the variance is 0, and the
            result the mean, unless one of the two options says otherwise.
        variance_floor: the least variance, above 0, in squared pixel units; that of the rounding to bytes
            is 5e-6.
        shrinkage: a number from 0 to 1, or "ledoit-wolf".
        cache: keep the statistics in the user's cache folder, keyed by the data's fingerprint; where that cannot be
            written, a `PspcWarning` says so once.

    Attributes:
        mean: mu, [D].
        axes: the leading directions as columns, [D, rank].
        variances: along them, descending, [rank].
        rest: the variance in every other direction; 0 without the options.
        shrinkage: a as a number, None if it was not given.

    Raises:
        DTypeError: rank is not an integer, or another option no number.
        InvalidValueError: rank is below 1 or above the number of directions in which the data vary, the floor is not
            above 0, the shrinkage is out of range or of another name, both are given, or the shrinkage is
            "ledoit-wolf" and the data have a ``log_prior``.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
        >>> G = pspc.Gaussian(data, cache=False)
        >>> G
        Gaussian(ImageSet('array', 2 images of [1, 1, 1] float32, no labels, xflip=False), rank=1)
        >>> G(np.array([[[[0.5]]]]), sigma=1.0).item()   # variance 1: shrinks by 1 / (1 + sigma^2)
        0.25
        >>> pspc.Gaussian(data, variance_floor=3, cache=False)(np.array([[[[0.5]]]]), sigma=1.0).item()
        0.375
    """

    _has_derivatives = True

    def __init__(
        self,
        data: ImageSet,
        rank: int | None = None,
        *,
        variance_floor: float | None = None,
        shrinkage: float | str | None = None,
        cache: bool = True,
    ) -> None:
        super().__init__(require_images(data).shape)
        if variance_floor is not None and shrinkage is not None:
            raise InvalidValueError(
                f"variance_floor is {variance_floor!r} and shrinkage {shrinkage!r}; allowed is one of both"
            )
        self.data = data
        self.variance_floor = None if variance_floor is None else real_number("variance_floor", variance_floor, above=0)
        statistics = cached_statistics(data) if cache else principal_axes(data)
        available = len(statistics.variances)
        self.rank = available if rank is None else integer("rank", rank, 1, available)
        self.shrinkage = None if shrinkage is None else checked_shrinkage(data, statistics, shrinkage)
        self.mean = statistics.mean
        self.axes = statistics.axes[:, : self.rank]
        self.variances, self.rest = self._spectrum(statistics)

    def _spectrum(self, statistics: GaussianStatistics) -> Spectrum:
        kept = statistics.variances[: self.rank]
        if self.variance_floor is not None:
            return with_floor(kept, self.variance_floor)
        if self.shrinkage is not None:
            return shrunk(kept, self.shrinkage, float(statistics.variances.sum()) / len(self.mean))
        return Spectrum(kept, 0.0)

    @property
    def _options(self) -> dict[str, float]:
        """The options that give every direction a variance, as far as they were given."""
        options = {"variance_floor": self.variance_floor, "shrinkage": self.shrinkage}
        return {name: value for name, value in options.items() if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, the rank, and the variance floor or the shrinkage if there is one."""
        return {**super().settings, "data": self.data.fingerprint, "rank": self.rank, **self._options}

    def __repr__(self) -> str:
        return build_repr(self, self.data, rank=self.rank, **self._options)

    def gains_at(self, sigma: float) -> tuple[Float64, float]:
        """S / (S + sigma^2) along the axes, [rank], and in every other direction.

        Example:
            >>> import pspc_rs as pspc
            >>> data = pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1))
            >>> pspc.Gaussian(data, cache=False).gains_at(1.0)
            (array([0.5]), 0.0)
        """
        along, elsewhere = self._gains(np.array([sigma], np.float64))
        return along[0], float(elsewhere[0])

    @uncompiled
    def jump(self, z: Array, sigma_from: Any, sigma_to: float) -> Array:
        """Noisy images at another noise level on the same path of the probability flow ODE of this denoiser, exactly.

        dz/dsigma = (z - D(z, sigma)) / sigma has the solution z_to = mu + U diag(sqrt((S + sigma_to^2) /
        (S + sigma_from^2))) U^T (z_from - mu), in directions of variance 0 as well. At high noise, networks follow
        nearly the same paths (Wang & Vastola, "The Unreasonable Effectiveness of Gaussian Score Approximation for
        Diffusion Models and its Applications", 2024), so that samplers may start where the jump ends;
        `samplers.gaussian_start` and `sample` do.

        Args:
            z: noisy images [batch, channels, height, width], a numpy array or torch tensor of floats.
            sigma_from: their noise level, a number or one per image.
            sigma_to: where the jump ends, a number from 0; it may also be above sigma_from.

        Returns:
            An array or tensor like z.

        Raises:
            ShapeError, DTypeError, InvalidValueError: see ``__call__``; or sigma_to is out of range.
            GradientError: torch wants derivatives.

        Example:
            >>> import pspc_rs as pspc
            >>> G = pspc.Gaussian(pspc.ImageSet(np.array([-1.0, 1.0], np.float32).reshape(2, 1, 1, 1)), cache=False)
            >>> G.jump(np.array([[[[5.0]]]]), 3.0, 0.0).round(4).item()  # 5 sqrt(1 / (1 + 3^2))
            1.5811
        """
        noisy, sigmas, _ = self._checked_queries("jump", z, sigma_from, None, None)
        end = real_number("sigma_to", sigma_to, least=0, most=MAX_SIGMA)
        along = np.sqrt((self.variances + end**2) / (self.variances + sigmas[:, None] ** 2))
        elsewhere = np.sqrt((self.rest + end**2) / (self.rest + sigmas**2))
        return like(self._about_mean(noisy, along, elsewhere), z)

    def _denoise(self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None) -> Float64:
        del selection, progress
        return self._about_mean(z, *self._gains(sigmas))

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
        products = self._scaled(v.reshape(len(v), len(z), len(self.mean)), *self._gains(sigmas))
        return self._denoise(z, sigmas, selection, progress), products.reshape(v.shape)

    def _divergence(
        self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None
    ) -> tuple[Float64, Float64]:
        along, elsewhere = self._gains(sigmas)
        traces = along.sum(axis=1) + (len(self.mean) - self.rank) * elsewhere
        return self._denoise(z, sigmas, selection, progress), traces

    def _gains(self, sigmas: Float64) -> tuple[Float64, Float64]:
        """S / (S + sigma^2) along the axes, [batch, r], and in the other directions, [batch]."""
        gains: Float64 = self.variances / (self.variances + sigmas[:, None] ** 2)
        return gains, self.rest / (self.rest + sigmas**2)

    def _about_mean(self, z: Floats, along: Float64, elsewhere: Float64) -> Float64:
        """Images whose distances from the mean are scaled, [batch, C, H, W]."""
        scaled = self._scaled(z.reshape(len(z), len(self.mean)) - self.mean, along, elsewhere)
        return (scaled + self.mean).reshape(z.shape)

    def _scaled(self, vectors: Float64, along: Float64, elsewhere: Float64) -> Float64:
        """Vectors [..., batch, D] times ``along`` [batch, r] along the axes and ``elsewhere`` [batch] across them."""
        scaled: Float64 = ((vectors @ self.axes) * (along - elsewhere[:, None])) @ self.axes.T
        if elsewhere.any():
            scaled += elsewhere[:, None] * vectors
        return scaled


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
