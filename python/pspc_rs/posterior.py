"""`Posterior`: what the posteriors over training images say, as a value."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pspc_rs import _core
from pspc_rs.arrays import beside, is_torch, like, numpy_view
from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError
from pspc_rs.notebook import described, table
from pspc_rs.progress import Progress, part_of
from pspc_rs.reprs import build_repr

if TYPE_CHECKING:
    from pspc_rs.denoisers.across_ranks import PosteriorsAcrossRanks

MOST_TOP = 65536
"""So many of the heaviest images are found for a component at most."""


_SHOWN_QUERIES = 5
_COLUMNS = (
    "query",
    "effective images: least",
    "median",
    "most",
    "greatest weight",
    "of image",
    "in component",
)


class PosteriorPart(NamedTuple):
    """What the engine found for some queries of a batch.

    Attributes:
        queries: indices in the batch.
        found: what the engine's first pass found.
        progress: of further work on the part.
    """

    queries: list[int]
    found: "_core.Posteriors | PosteriorsAcrossRanks"
    progress: Progress | None


class Posterior:
    """The posteriors over training images given each component of each noisy image.

    `PosteriorComposite.posterior` makes them. A component is a window or mask of the denoiser. With pi_a the prior
    weight of an image or flip a (1 unless the data have a ``log_prior``), T the temperature and the distance taken
    inside component k, l_ka = log pi_a - |z - y_a|^2 / (2 T sigma^2) and w_ka = exp(l_ka) / sum_a exp(l_ka).
    Components are in the order of ``masks_at``; every query of the batch has K of them. Numbers are numpy arrays, or
    tensors beside z where z is one; float64 unless it says otherwise.

    Attributes:
        log_evidence: log sum_a exp(l_ka), [batch, K]; neither the number of images nor the constant of the normal
            distribution is in it.
        entropy: -sum_a w_ka log w_ka in nats, [batch, K].
        effective_images: exp(entropy), the number of equally likely images with that entropy, [batch, K].
        top_index: the images of the heaviest atoms, heaviest first, int64 [batch, K, top]: 0 .. N - 1, or -1 where no
            further atom has a weight that float32 shows beside the sum.
        top_view: which view of the image, int64 [batch, K, top]: 0 as it is stored, 1 mirrored; of denoisers with more
            maps, the number of the map.
        top_weight: their weights, [batch, K, top]; 0 where the index is -1.

    Example:
        >>> import pspc_rs as pspc
        >>> from pspc_rs.testing import tiny_images
        >>> data = tiny_images()
        >>> P = pspc.PSPCSquare(data, patch_sizes=5).posterior(data.batch([3]), sigma=0.01, top=2)
        >>> P
        Posterior(1 query, 16 components, top 2 of 20 images)
        >>> P.top_index[0, :, 0].tolist() == [3] * 16, P.effective_images.round(2).max().item()
        (True, 1.0)
    """

    def __init__(self, parts: Sequence[PosteriorPart], data: ImageSet, z: Any, top: int, views: int) -> None:
        self._attribution: Any = None
        self._variances: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] | None = None
        self._parts = [part._replace(progress=None) for part in parts]
        self._shape = tuple(z.shape)
        self._num_images, self._num_stored, self._top = data.num_stored * views, data.num_stored, top
        # Of the kind, dtype and device of z, without keeping its memory.
        self._template: Any = z.new_empty(0) if is_torch(z) else np.empty(0, z.dtype)
        numbers = {part.found.log_evidence.shape[1] for part in parts}
        if len(numbers) > 1:
            raise InvalidValueError(
                f"the noise levels of the batch have different numbers of components, {sorted(numbers)}, so that their "
                "posteriors do not fit into one array; call posterior for the levels of one number at a time"
            )
        self.num_components = numbers.pop() if numbers else 0
        # The engine need not look for more than there are.
        most = min(top, self._num_images)
        found = [part.found.statistics(most, part.progress) for part in parts]
        size = (self.num_components,)
        self.log_evidence = self._joined([part.found.log_evidence for part in parts], size)
        self.entropy = self._joined([one[0] for one in found], size)
        self.effective_images = self._joined([np.exp(one[0]) for one in found], size)
        tops = (self.num_components, top)
        self.top_index = self._joined([one[1].astype(np.int64) for one in found], tops, fill=-1)
        self.top_view = self._joined([one[2].astype(np.int64) for one in found], tops)
        self.top_weight = self._joined([one[3] for one in found], tops)

    def __repr__(self) -> str:
        batch, components = self._shape[0], self.num_components
        queries = "1 query" if batch == 1 else f"{batch} queries"
        images = f"{self._num_stored} image{'s' * (self._num_stored != 1)}"
        return build_repr(
            self, queries, f"{components} component{'s' * (components != 1)}", f"top {self._top} of {images}"
        )

    def _repr_html_(self) -> str:
        """What notebooks show: the repr, and what the posteriors of the first queries say, over their components."""
        effective, weights, index = map(numpy_view, (self.effective_images, self.top_weight, self.top_index))
        rows = []
        for query in range(min(self._shape[0], _SHOWN_QUERIES) if weights.size else 0):
            component = int(weights[query, :, 0].argmax())
            spread = [float(np.quantile(effective[query], q)) for q in (0.0, 0.5, 1.0)]
            heaviest = float(weights[query, component, 0]), int(index[query, component, 0])
            rows.append([query, *spread, *heaviest, component])
        return described(self, table(_COLUMNS, rows) if rows else "")

    @cached_property
    def denoised(self) -> Any:
        """The denoised images, [batch, channels, height, width], like z: those of the denoiser's call."""
        composites = [part.found.composite() for part in self._parts]
        return like(self._merged(composites, self._shape[1:], np.float32), self._template)

    @cached_property
    def variance(self) -> Any:
        """The posterior variance per pixel and channel, [batch, channels, height, width], like z.

        It is the mean over the components at a pixel of their posterior variance there, and T sigma^2 dD_d/dz_d; for
        the empirical denoiser at T = 1 that is the variance of x given z.
        """
        found = [one[0] for one in self._found_variances()]
        return like(self._merged(found, self._shape[1:], np.float64), self._template)

    @cached_property
    def component_variance(self) -> Any:
        """The posterior variance per channel of each component at its middle pixel, [batch, K, channels].

        The middle is that of the component's bounding box, the later one of two, or the pixel of the component nearest
        to it.
        """
        found = [one[1] for one in self._found_variances()]
        return self._joined(found, (self.num_components, self._shape[1]))

    def find_variance(self, progress: Progress | None = None) -> Any:
        """`variance`, with progress: over many images it is the longest part of the work.

        Args:
            progress: called as ``progress(done, total)`` at the first use of a variance, which computes it.

        Example:
            >>> import pspc_rs as pspc
            >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
            >>> P = pspc.Empirical(data).posterior(np.array([[[[0.0, 0.0]]]]), sigma=1.0)
            >>> P.find_variance().ravel()
            array([1., 1.])
        """
        self._found_variances(progress)
        return self.variance

    def attribution(self, progress: Progress | None = None) -> Any:
        """How much of the components each image explains: the sum of its weights over them, [batch, N].

        The sum over the images is K. An image and its flip count together.

        Args:
            progress: called as ``progress(done, total)`` at the first use, which computes it.

        Example:
            >>> import pspc_rs as pspc
            >>> data = pspc.ImageSet(np.array([[[[0, 255]]], [[[255, 0]]]], np.uint8))
            >>> P = pspc.PSPCSquare(data, patch_sizes=1).posterior(np.array([[[[-1.0, -1.0]]]]), sigma=0.1)
            >>> P.attribution().round(6)
            array([[1., 1.]])
        """
        if self._attribution is None:
            shares = self._shares_of_parts(progress)
            found = [part.found.attribution(share) for part, share in zip(self._parts, shares, strict=True)]
            self._attribution = self._joined(found, (self._num_stored,))
        return self._attribution

    def _found_variances(
        self, progress: Progress | None = None
    ) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
        """The variances of every part, at its pixels and of its components."""
        if self._variances is None:
            shares = self._shares_of_parts(progress)
            self._variances = [part.found.variance(share) for part, share in zip(self._parts, shares, strict=True)]
        return self._variances

    def _shares_of_parts(self, progress: Progress | None) -> list[Progress | None]:
        """The progress of work on each part."""
        sizes = [len(part.queries) for part in self._parts]
        return [part_of(progress, sum(sizes[:index]), size, self._shape[0]) for index, size in enumerate(sizes)]

    def _joined(self, found: Sequence[npt.NDArray[Any]], shape: tuple[int, ...], fill: int = 0) -> Any:
        """Statistics of the parts as those of the batch, in their own dtype, beside z."""
        dtype = found[0].dtype if found else np.dtype(np.float64)
        return beside(self._merged(found, shape, dtype, fill), self._template)

    def _merged(
        self, found: Sequence[npt.NDArray[Any]], shape: tuple[int, ...], dtype: npt.DTypeLike, fill: int = 0
    ) -> npt.NDArray[Any]:
        merged = np.full((self._shape[0], *shape), fill, dtype)
        for part, one in zip(self._parts, found, strict=True):
            # Fewer of the heaviest atoms were found than were asked for where there are no more.
            merged[part.queries, ..., : one.shape[-1]] = one
        return merged
