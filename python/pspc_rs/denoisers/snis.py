"""SNIS: the posterior mean over whole images, estimated from draws that favour the nearest ones."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs.checks import integer
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import require_images
from pspc_rs.denoisers.base import Denoiser, Float64, Floats
from pspc_rs.denoisers.selection import Selection, label_dim, select
from pspc_rs.progress import Progress
from pspc_rs.reprs import build_repr

_MOST_DRAWS = 10**8
_QUERIES_PER_GROUP = 64
_PIXELS_PER_CHUNK = 2**18  # so many pixels stay in a core's cache while all queries of a group are compared with them


class SNIS(Denoiser):
    """The empirical denoiser as a self-normalised importance-sampling estimate from nearest neighbours.

    With w_n = pi_n exp(-|z - x_n|^2 / (2 sigma^2)) as in the empirical denoiser, images are drawn from q, where the k
    nearest images have q_n in proportion to w_n and every other one to the smallest w among the k. With L draws
    n_1 .. n_L, with replacement, D = sum_l r_l x_(n_l) / sum_l r_l, r_l = w_(n_l) / q_(n_l): Niedoba et al., "Nearest
    Neighbour Score Estimators for Diffusion Generative Models", 2024 (arXiv 2402.08018). Here the k nearest are exact.

    This is a baseline, to compare with: it reads every image, as `Empirical` does, and takes 6 to 12 times as long for
    an estimate of what `Empirical` computes exactly. To denoise, use that.

    Where the data have a ``log_prior``, the nearest are those of the greatest w. There are no derivatives, as the draws
    jump when z moves.

    The draws for a query depend on the seed and the query only, not on the other queries of a batch.

    Args:
        data: the training images.
        num_neighbors: k; if k is at least the number of images (flips counted), all are neighbours and all draws have
            the same weight.
        num_draws: L.
        seed: seed of the draws, 0 or more.
        conditional: see `Empirical`.

    Raises:
        InvalidValueError: an argument is below 1, or the seed below 0.
        DTypeError: an argument is not an integer.
        DataError: conditional, but the data have no labels.

    Example:
        >>> import numpy as np, pspc_rs as pspc
        >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
        >>> D = pspc.SNIS(data, num_neighbors=1)
        >>> D  # doctest: +ELLIPSIS
        SNIS(ImageSet('array', 2 images of ...), num_neighbors=1, num_draws=256, seed=0)
        >>> D(np.array([[[[-0.8, 0.9]]]]), sigma=0.3)
        array([[[[-1.,  1.]]]])
    """

    def __init__(
        self,
        data: ImageSet,
        num_neighbors: int = 2048,
        num_draws: int = 256,
        seed: int = 0,
        *,
        conditional: bool = False,
    ) -> None:
        super().__init__(require_images(data).shape)
        self.data = data
        self.num_neighbors = integer("num_neighbors", num_neighbors)
        self.num_draws = integer("num_draws", num_draws, 1, _MOST_DRAWS)
        self.seed = integer("seed", seed, least=0)
        self.label_dim = label_dim(conditional, data)

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, numbers of neighbours and draws, and the seed."""
        return {**super().settings, "data": self.data.fingerprint, **self._parameters}

    @property
    def _parameters(self) -> dict[str, Any]:
        return {"num_neighbors": self.num_neighbors, "num_draws": self.num_draws, "seed": self.seed}

    def __repr__(self) -> str:
        return build_repr(self, self.data, **self._parameters, **({"conditional": True} if self.label_dim else {}))

    def _select(self, class_labels: Any, exclude: Any, batch: int) -> Selection | None:
        return select(type(self).__name__, self.data, class_labels, exclude, batch)

    def _denoise(self, z: Floats, sigmas: Float64, selection: Selection | None, progress: Progress | None) -> Float64:
        denoised = np.empty(z.shape)
        for start in range(0, len(z), _QUERIES_PER_GROUP):
            group = z[start : start + _QUERIES_PER_GROUP].astype(np.float64)
            energies = self._energies(group, progress, start, len(z))
            for query, energy in enumerate(energies):
                counted = None if selection is None else self._counted(selection, start + query)
                denoised[start + query] = self._estimate(group[query], energy, sigmas[start + query], counted)
        return denoised

    def _counted(self, selection: Selection, query: int) -> npt.NDArray[np.int64]:
        """The indices of what counts for a query, flips after the stored images."""
        images = selection.images_of(query, self.data.num_stored)
        return np.concatenate([images, images + self.data.num_stored]) if self.data.xflip else images

    def _energies(self, z: Float64, progress: Progress | None, before: int, batch: int) -> Float64:
        """|x_n|^2 - 2 z x_n, the squared distances less |z|^2, [queries, images], flips after the stored images."""
        stored = self.data.num_stored
        energies = np.empty((len(z), len(self.data)))
        chunk = max(1, _PIXELS_PER_CHUNK // z[0].size)
        flat = z.reshape(len(z), -1)
        mirrored = np.ascontiguousarray(z[..., ::-1]).reshape(len(z), -1)
        for start in range(0, stored, chunk):
            stop = min(start + chunk, stored)
            x = self.data.batch(range(start, stop)).reshape(stop - start, -1).astype(np.float64)
            squares = np.einsum("nd,nd->n", x, x)
            # Query by query: in a product of matrices the rounding would depend on the size of the batch.
            for query in range(len(z)):
                energies[query, start:stop] = squares - 2 * (x @ flat[query])
                if self.data.xflip:
                    energies[query, stored + start : stored + stop] = squares - 2 * (x @ mirrored[query])
            if progress is not None:
                progress(before * stored + len(z) * stop, batch * stored)
        return energies

    def _estimate(self, z: Float64, energies: Float64, sigma: float, counted: npt.NDArray[np.int64] | None) -> Float64:
        if self.data.log_prior is not None:
            # A prior weight counts as a shorter distance.
            energies = energies - 2 * sigma**2 * np.tile(self.data.log_prior, 1 + self.data.xflip)
        if counted is not None:
            energies = energies[counted]
        order, logits = _proposal(energies, self.num_neighbors, sigma)
        ranks = self._ranks(z, np.exp(logits), len(energies))
        # w / q is the same for every neighbour, and less for an image further away than the last of them.
        behind = energies[order[ranks]] - energies[order[len(logits) - 1]]
        logs = np.where(ranks < len(logits), 0, -behind / (2 * sigma**2))
        ratios = np.exp(logs - logs.max())
        images, where = np.unique(order[ranks], return_inverse=True)
        shares = np.bincount(where, weights=ratios) / ratios.sum()
        x = self.data.batch(images if counted is None else counted[images]).reshape(len(images), -1).astype(np.float64)
        estimate: Float64 = (shares @ x).reshape(self.shape)
        return estimate

    def _ranks(self, z: Float64, weights: Float64, num_images: int) -> npt.NDArray[np.int64]:
        """The draws for a query as positions in the order of the proposal, by inverting its distribution function."""
        near, each = np.cumsum(weights), weights[-1]
        total = near[-1] + (num_images - len(near)) * each
        drawn = np.minimum(self._uniforms(z) * total, np.nextafter(total, 0))
        ranks: npt.NDArray[np.int64] = np.searchsorted(near, drawn, side="right").astype(np.int64)
        far = ranks == len(near)
        beyond = np.floor((drawn[far] - near[-1]) / each).astype(np.int64) if far.any() else 0
        ranks[far] = np.minimum(len(near) + beyond, num_images - 1)
        return ranks

    def _uniforms(self, z: Float64) -> Float64:
        """Random numbers in [0, 1), a function of the seed and the query."""
        digest = hashlib.sha256(f"{self.seed} {z.shape}".encode() + np.ascontiguousarray(z).tobytes()).digest()
        return np.random.default_rng(int.from_bytes(digest, "little")).random(self.num_draws)


def _proposal(energies: Float64, num_neighbors: int, sigma: float) -> tuple[npt.NDArray[np.int64], Float64]:
    """The indices of the images, the nearest by distance, then the rest by index, and log w of the nearest.

    Logits are relative to the nearest image. Of images at equal distances, the first is the nearer.
    """
    num = min(num_neighbors, len(energies))
    limit = np.partition(energies, num - 1)[num - 1]
    closer, level = np.flatnonzero(energies < limit), np.flatnonzero(energies == limit)
    chosen = np.concatenate([closer, level[: num - len(closer)]])
    chosen = chosen[np.lexsort((chosen, energies[chosen]))]
    rest = np.ones(len(energies), bool)
    rest[chosen] = False
    logits: Float64 = -(energies[chosen] - energies[chosen[0]]) / (2 * sigma**2)
    return np.concatenate([chosen, np.flatnonzero(rest)]), logits
