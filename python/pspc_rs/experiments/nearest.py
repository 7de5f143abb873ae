"""The two training images nearest to an image: the field's test for copies."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite, check_image_shape, to_numpy
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import to_float
from pspc_rs.denoisers.selection import select
from pspc_rs.progress import Progress

COPY_RATIO = 1 / 3
"""An image whose nearest training image is nearer than a third of the way to the second nearest is called a copy."""

_UNIT = np.finfo(np.float64).eps / 2
# Few enough for the cache, and for memory that is used again.
_NUMBERS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class NearestImages:
    """The nearest and the second nearest training image of some images.

    Attributes:
        index: of the two images, int64 [batch, 2]; -1 where there is no second one.
        view: which view of them is nearest, int64 [batch, 2]: 0 as stored, 1 mirrored.
        distance: d1 and d2, |x - x_n| over all pixels and channels, float64 [batch, 2]; infinite where there is none.

    Example:
        >>> found = NearestImages(np.array([[4, 7]]), np.zeros((1, 2), int), np.array([[1.0, 5.0]]))
        >>> found, found.ratio
        (NearestImages(1 images, 1 copy), array([0.2]))
    """

    index: NDArray[np.int64]
    view: NDArray[np.int64]
    distance: NDArray[np.float64]

    def __repr__(self) -> str:
        copies = int(self.is_copy.sum())
        return f"NearestImages({len(self.index)} images, {copies} cop{'y' if copies == 1 else 'ies'})"

    @property
    def ratio(self) -> NDArray[np.float64]:
        """d1 / d2, [batch]: 0 for an image of the data set, NaN where there is no second image."""
        first, second = self.distance.T
        ratio = np.divide(first, second, out=np.zeros(len(first)), where=second > 0)
        return np.where(np.isfinite(second), ratio, np.nan)

    @property
    def is_copy(self) -> NDArray[np.bool_]:
        """Whether d1 / d2 < 1/3, [batch]."""
        return self.ratio < COPY_RATIO


def nearest_images(
    data: ImageSet,
    images: Any,
    *,
    class_labels: Any = None,
    exclude: Any = None,
    progress: Progress | None = None,
) -> NearestImages:
    """The two nearest training images of each image, exactly, in float64 and over whole images.

    An image and its flip are one training image, at the distance of the nearer one. Of images at equal distances the
    first is taken. d1 / d2 < 1/3 is the rule by which the field calls a sample a copy (Yoon et al., "Diffusion
    Probabilistic Models Generalize when They Fail to Memorize", 2023). It says nothing of copied parts, and two
    training images that are nearly the same hide a copy of both.

    Args:
        data: the training images; flips count if they do there.
        images: [batch, C, H, W] in [-1, 1] units, such as samples.
        class_labels: which images count for each of them; see `Denoiser.__call__`.
        exclude: which do not; see `Denoiser.__call__`.
        progress: called as ``progress(training images done, training images)``.

    Raises:
        ShapeError, DTypeError, InvalidValueError: the images, labels or indices are not as described.

    Example:
        >>> data = ImageSet(np.array([0, 3, 10], np.float32).reshape(3, 1, 1, 1))
        >>> near = nearest_images(data, np.array([1.0, 2.9]).reshape(2, 1, 1, 1))
        >>> near.index.tolist(), near.distance.round(1).tolist(), near.is_copy.tolist()
        ([[0, 1], [1, 0]], [[1.0, 2.0], [0.1, 2.9]], [False, True])
    """
    x = to_numpy(images, "images").astype(np.float64)
    check_image_shape(x.shape, data.shape)
    check_finite("images", x)
    selection = select("nearest_images", data, class_labels, exclude, len(x))
    squares, error = _squares(data, x, progress)
    index, view = np.full((len(x), 2), -1), np.zeros((len(x), 2), np.int64)
    distance = np.full((len(x), 2), np.inf)
    for query, image in enumerate(x):
        counted = np.arange(data.num_stored) if selection is None else selection.images_of(query, data.num_stored)
        near = squares[query, counted]
        second = np.partition(near, 1)[1] if len(near) > 1 else near[0]
        candidates = counted[near <= second + 2 * error[query]]
        exact = _exact(data, image, candidates)
        of_image = exact.min(axis=0)
        two = np.argsort(of_image, kind="stable")[:2]
        found = slice(len(two))
        index[query, found], distance[query, found] = candidates[two], of_image[two]
        view[query, found] = exact[:, two].argmin(axis=0)
    return NearestImages(index, view, distance)


def _squares(
    data: ImageSet, x: NDArray[np.float64], progress: Progress | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The squared distances [batch, N], each to the nearer view, by products, and a bound of their errors [batch]."""
    views = [x, x[..., ::-1]] if data.xflip else [x]
    dimension = math.prod(data.shape)
    # All views in one product: the images are then read once.
    columns = np.concatenate(views).reshape(-1, dimension).T
    own = np.square(x).sum(axis=(1, 2, 3))
    squares, largest = np.empty((len(x), data.num_stored)), 0.0
    step = max(1, _NUMBERS_AT_ONCE // dimension)
    for start in range(0, data.num_stored, step):
        part = slice(start, min(start + step, data.num_stored))
        y = to_float(data.images[part]).reshape(-1, dimension).astype(np.float64)
        norms = np.einsum("nd,nd->n", y, y)
        products = (y @ columns).reshape(len(y), len(views), len(x)).max(axis=1)
        squares[:, part] = own[:, None] - 2 * products.T + norms
        largest = max(largest, float(norms.max()))
        if progress is not None:
            progress(part.stop, data.num_stored)
    # Sums of d products in any order are off by d units of the last place of the sum of magnitudes at most.
    terms = dimension + 4
    return squares, 2 * terms * _UNIT * (np.sqrt(own) + np.sqrt(largest)) ** 2


def _exact(data: ImageSet, image: NDArray[np.float64], candidates: NDArray[np.int64]) -> NDArray[np.float64]:
    """The distances to every view of some training images, [views, images]."""
    distances = np.empty((1 + data.xflip, len(candidates)))
    for view in range(1 + data.xflip):
        mirrored = image[..., ::-1] if view else image
        # One at a time: where many images are the same, they need not fit into memory.
        for column, candidate in enumerate(candidates.tolist()):
            y = to_float(data.images[candidate]).astype(np.float64)
            distances[view, column] = np.sqrt(np.square(mirrored - y).sum())
    return distances
