"""The empirical denoiser: the posterior mean over whole training images, and the density that it belongs to."""

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.arrays import Array, beside
from pspc_rs.denoisers.base import Float64
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.denoisers.gradients import uncompiled
from pspc_rs.denoisers.selection import Selection
from pspc_rs.errors import InvalidValueError
from pspc_rs.progress import Progress


class Empirical(PosteriorComposite):
    """The empirical (optimal) denoiser: the posterior mean over whole training images.

    D(z, sigma) = sum_n w_n x_n, w = softmax_n(-|z - x_n|^2 / (2 sigma^2)); Niedoba et al. 2025, eq. 6-7. It is the
    minimiser of the denoising loss over the training set, and samples nothing but training images.

    Args:
        data: the training images.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"auto"``; see `PosteriorComposite`.
        temperature: T, positive; above 1 the posteriors are wider than Bayes' rule has them.
        conditional: tell samplers of the classes of the data by ``label_dim``, so that they draw some.
        source: the maps under which it sees every image, an `Orbit`; the images as they are if not given. With one,
            ``device`` has to be ``"cpu"`` or ``"auto"``.

    Raises:
        InvalidValueError: a temperature that is not positive and finite.
        DataError: conditional, but the data have no labels.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
        >>> D = pspc.Empirical(data)
        >>> D(np.array([[[[-0.8, 0.9]]]]), sigma=0.1)
        array([[[[-1.,  1.]]]])
    """

    def _levels(self, sigmas: npt.NDArray[np.float64]) -> list[Hashable]:
        return ["full"] * len(sigmas)

    def _build_windows(self, level: Hashable) -> _core.Components:
        _, height, width = self.shape
        return _core.Components.full(height, width)

    @uncompiled
    def log_prob(
        self,
        z: Array,
        sigma: Any,
        class_labels: Any = None,
        *,
        exclude: Any = None,
        progress: Progress | None = None,
    ) -> Array:
        """The log density log p(z; sigma), in nats, of the data with noise: the density of which D gives the score.

        p(z; sigma) = sum_n pi_n N(z; x_n, sigma^2 I) / sum_n pi_n over the images that count, flips among them. Its
        gradient is the score, (D(z, sigma) - z) / sigma^2.

        Args:
            z: see ``__call__``.
            sigma: see ``__call__``.
            class_labels: see ``__call__``.
            exclude: see ``__call__``.
            progress: see ``__call__``.

        Returns:
            float64 [batch], an array or tensor as z is.

        Raises:
            InvalidValueError: the temperature is not 1, as the tempered density is not normalised, or see ``__call__``.
            ShapeError, DTypeError: see ``__call__``.
            GradientError: torch wants derivatives.

        Example:
            >>> import pspc_rs as pspc
            >>> D = pspc.Empirical(pspc.ImageSet(np.zeros((3, 1, 1, 1), np.float32)))
            >>> D.log_prob(np.zeros((1, 1, 1, 1)), sigma=1.0).round(4)  # log N(0; 0, 1)
            array([-0.9189])
        """
        if self.temperature != 1:
            raise InvalidValueError(
                f"temperature is {self.temperature:g}, and the tempered density is not normalised; log_prob needs 1"
            )
        noisy, sigmas, selection = self._checked_queries("log_prob", z, sigma, class_labels, exclude)
        log_prob = np.empty(len(noisy))
        for part in self._posteriors(noisy, sigmas, selection, progress, stages=1):
            log_prob[part.queries] = part.found.log_evidence[:, 0]
        log_prob -= self._log_weight(selection, len(noisy)) + noisy[0:1].size / 2 * np.log(2 * np.pi * sigmas**2)
        return beside(log_prob, z)

    def _log_weight(self, selection: Selection | None, batch: int) -> Float64:
        """The log of the sum of the prior weights of all that counts for each query, [batch]."""
        prior, num = self.data.log_prior, self.data.num_stored
        weights = np.zeros(num) if prior is None else prior

        def total(counted: npt.NDArray[np.int64] | slice) -> float:
            chosen = weights[counted]
            return float(chosen.max() + np.log(np.exp(chosen - chosen.max()).sum()))

        if selection is None:
            totals = np.full(batch, total(slice(None)))
        else:
            totals = np.array([total(selection.images_of(query, num)) for query in range(batch)])
        return totals + math.log(self.num_views)
