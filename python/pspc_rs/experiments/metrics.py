"""Metrics between images, each under a name of its own: papers give different numbers under one name.

Images are arrays or tensors of floats [N, C, H, W] in [-1, 1] units, image i of the one beside image i of the other. D
is the number of values of an image, C H W. All sums are in float64, and every metric comes with its standard error over
images.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite, real_array, to_numpy
from pspc_rs.checks import integer, one_of
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.nearest import NearestImages

Pixels: TypeAlias = Literal["[-1, 1]", "[0, 1]"]
"""The units in which an error is given; images are in [-1, 1] units in any case."""

Per: TypeAlias = Literal["value", "image"]
"""Whether a squared error is a mean over the values of an image, or their sum."""

_HALF_RANGE = {"[-1, 1]": 1.0, "[0, 1]": 0.5}


class MeanError(NamedTuple):
    """A mean over images: of an error, or of another metric.

    Attributes:
        mean: the mean.
        standard_error: its standard error over images.

    Example:
        >>> mean_over_images([1.0, 2.0, 3.0]).mean
        2.0
    """

    mean: float
    standard_error: float


def mean_over_images(values: object) -> MeanError:
    """The mean of one number per image, and its standard error, the standard deviation over sqrt(N).

    Args:
        values: finite numbers [N], at least two.

    Raises:
        DTypeError: they are not numbers.
        ShapeError: they have another shape.
        InvalidValueError: there are fewer than two, or one is not finite.

    Example:
        >>> mean_over_images([1.0, 3.0])
        MeanError(mean=2.0, standard_error=1.0)
    """
    numbers = real_array("values", values)
    if numbers.ndim != 1:
        raise ShapeError(f"values have shape {list(numbers.shape)}; allowed is one per image, [N]")
    if len(numbers) < 2:
        raise InvalidValueError(f"there are {len(numbers)} images; a standard error needs at least 2")
    check_finite("values", numbers)
    return MeanError(float(numbers.mean()), float(numbers.std(ddof=1) / np.sqrt(len(numbers))))


def squared_errors(
    first: object, second: object, *, pixels: Pixels = "[-1, 1]", per: Per = "value"
) -> NDArray[np.float64]:
    """(a - b)^2 of every image, averaged over its values or summed, float64 [N].

    Two denoisers of the same noisy images are told apart best by the paired differences of their errors, whose standard
    error is much smaller than that of either mean: ``mean_over_images(squared_errors(A, x) - squared_errors(B, x))``.

    Args:
        first: images [N, C, H, W] in [-1, 1] units, at least two.
        second: images of the same shape.
        pixels: units of the result, "[-1, 1]" or "[0, 1]", in which errors are a quarter.
        per: "value" for the mean over the values of an image, "image" for their sum.

    Raises:
        ShapeError: the images do not have four axes, or the shapes differ.
        DTypeError: they are not arrays of floats.
        InvalidValueError: fewer than two images, which leave no standard error; NaN or infinities; other units.

    Example:
        >>> a = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
        >>> squared_errors(a, 0 * a), squared_errors(a, 0 * a, pixels="[0, 1]")
        (array([1., 4., 9.]), array([0.25, 1.  , 2.25]))
        >>> mean_over_images(squared_errors(a + 1, 0 * a) - squared_errors(a, 0 * a)).mean
        5.0
    """
    scale = _HALF_RANGE[one_of("pixels", pixels, _HALF_RANGE)] ** 2
    total = one_of("per", per, ("value", "image")) == "image"
    a, b = _pairs(first, second)
    return scale * (_sums_of_squares(a, b) if total else _sums_of_squares(a, b) / a[0].size)


def mean_squared_error(first: object, second: object, *, pixels: Pixels = "[-1, 1]", per: Per = "value") -> MeanError:
    """Mean over images of `squared_errors`, which has the arguments and errors.

    An error in [0, 1] pixels is a quarter of that in [-1, 1] pixels. Summed in [0, 1] pixels it is that of the public
    comparison CondDiffNonlinearTheory (2026).

    Example:
        >>> a = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
        >>> error = mean_squared_error(a, 0 * a)
        >>> round(error.mean, 4), round(error.standard_error, 4)
        (4.6667, 2.3333)
        >>> round(mean_squared_error(a, 0 * a, pixels="[0, 1]").mean, 4)
        1.1667
    """
    return mean_over_images(squared_errors(first, second, pixels=pixels, per=per))


def r2(predicted: object, target: object, *, ddof: int = 1) -> MeanError:
    """The r2 of papers on local denoisers: mean over images of 1 - SSE / (D var(target image)).

    The variance is over all values of the image, about their mean over pixels and channels. With ``ddof=1`` it is
    unbiased, sum / (D - 1); with ``ddof=0`` it is sum / D, which makes this 1 - |a - b|^2 / |b - mean(b)|^2, the final
    R2 of CondDiffNonlinearTheory, where both are clipped to [-1, 1] before. It is 1 for equal images, 0 for a flat
    image of the right brightness (with ``ddof=0``), and has no lower bound.

    Args:
        predicted: images [N, C, H, W] in [-1, 1] units, at least two.
        target: images of the same shape.
        ddof: 1 for the unbiased variance, 0 for the other.

    Raises:
        ShapeError, DTypeError: see `squared_errors`.
        InvalidValueError: see there, or an image of the target is flat, so that it has no r2.

    Example:
        >>> target = np.array([[0.0, 1.0], [0.0, -1.0]]).reshape(2, 1, 1, 2)
        >>> r2(target + 0.5, target, ddof=0)  # SSE 0.5, D var 0.5
        MeanError(mean=0.0, standard_error=0.0)
        >>> r2(target + 0.5, target)  # SSE 0.5, D var 1
        MeanError(mean=0.5, standard_error=0.0)
    """
    return mean_over_images(_r2_by_image(*_pairs(predicted, target), ddof))


def pearson_r(predicted: object, target: object) -> MeanError:
    """Mean over images of Pearson's correlation between the values of the two images, each less its mean.

    A released script calls it r2. It is neither that nor its square: it does not see brightness and contrast. From -1
    to 1.

    Args:
        predicted: images [N, C, H, W] in [-1, 1] units, at least two.
        target: images of the same shape.

    Raises:
        ShapeError, DTypeError: see `squared_errors`.
        InvalidValueError: see there, or an image is flat, so that it has no correlation.

    Example:
        >>> target = np.array([[0.0, 1.0], [0.0, -1.0]]).reshape(2, 1, 1, 2)
        >>> pearson_r(target / 4 + 0.5, target)
        MeanError(mean=1.0, standard_error=0.0)
    """
    a, b = _pairs(predicted, target)
    lengths = np.sqrt(_spreads(a, "the predicted images") * _spreads(b, "the target"))
    products = np.array([np.dot(_centred(one), _centred(other)) for one, other in zip(a, b, strict=True)])
    return mean_over_images(products / lengths)


def pixel_r2(predicted: object, target: object) -> MeanError:
    """R2 over all values of all images at once: 1 - sum (a - b)^2 / sum (b - mean(b))^2, one mean for all.

    Images with much contrast count more than in `r2`. The standard error is that of a ratio of two means over images
    (delta method).

    Args:
        predicted: images [N, C, H, W] in [-1, 1] units, at least two.
        target: images of the same shape.

    Raises:
        ShapeError, DTypeError: see `squared_errors`.
        InvalidValueError: see there, or all values of the target are equal.

    Example:
        >>> target = np.array([[0.0, 1.0], [0.0, -1.0]]).reshape(2, 1, 1, 2)
        >>> pixel_r2(target + 0.5, target).mean  # 1 - 1 / 2
        0.5
    """
    a, b = _pairs(predicted, target)
    if b.min() == b.max():
        raise InvalidValueError(f"all values of the target are {b.max():g}; R2 needs some that differ")
    errors, spreads = _sums_of_squares(a, b), _sums_of_squares(b, np.full(b.shape[1:], b.mean(dtype=np.float64)))
    ratio = errors.sum() / spreads.sum()
    residuals = (errors - ratio * spreads) / spreads.mean()
    return MeanError(float(1 - ratio), mean_over_images(residuals).standard_error)


def trajectory_r2(predicted: object, target: object, *, ddof: int = 0) -> MeanError:
    """R2 along trajectories: the mean over noise levels of `r2` at every level.

    As CondDiffNonlinearTheory has it (``ddof=0``): both are D(x_t) on the states of the target's own trajectories.

    Args:
        predicted: denoised images [levels, N, C, H, W] in [-1, 1] units, at least two per level.
        target: images of the same shape.
        ddof: see `r2`.

    Returns:
        The mean, and its standard error over trajectories.

    Raises:
        ShapeError: there are not five axes, or the shapes differ.
        DTypeError, InvalidValueError: see `r2`.

    Example:
        >>> target = np.random.default_rng(0).normal(size=(3, 2, 1, 4, 4))
        >>> trajectory_r2(target, target)
        MeanError(mean=1.0, standard_error=0.0)
    """
    a, b = (to_numpy(images, name) for name, images in (("predicted", predicted), ("target", target)))
    if a.shape != b.shape or a.ndim != 5 or len(a) == 0:
        raise ShapeError(
            f"trajectories have shapes {list(a.shape)} and {list(b.shape)}; needed is one shape [levels, N, C, H, W]"
        )
    by_level = [_r2_by_image(*_pairs(one, other), ddof) for one, other in zip(a, b, strict=True)]
    return mean_over_images(np.mean(by_level, axis=0))


def copy_ratio(near: NearestImages) -> MeanError:
    """Mean over images of d1 / d2, the distances to the nearest and the second nearest training image.

    From 0 for training images to 1. The rule of Yoon et al. 2023 calls an image a copy where it is below 1/3; see
    `copy_share`.

    Args:
        near: of at least two images, as `nearest_images` returns it.

    Raises:
        InvalidValueError: there are fewer than two images, or there is one training image alone.

    Example:
        >>> from pspc_rs import ImageSet
        >>> from pspc_rs.experiments import nearest_images
        >>> data = ImageSet(np.array([0, 4], np.float32).reshape(2, 1, 1, 1))
        >>> near = nearest_images(data, np.array([0.0, 1.0, 2.0]).reshape(3, 1, 1, 1))
        >>> copy_ratio(near).mean == (0 + 1 / 3 + 1) / 3, copy_share(near).mean == 1 / 3
        (True, True)
    """
    if np.isnan(near.ratio).any():
        raise InvalidValueError("there is one training image; d1 / d2 needs at least 2")
    return mean_over_images(near.ratio)


def copy_share(near: NearestImages) -> MeanError:
    """The share of images that are copies, d1 / d2 < 1/3; see `copy_ratio`.

    Example:
        >>> from pspc_rs.data import ImageSet
        >>> from pspc_rs.experiments.nearest import nearest_images
        >>> data = ImageSet(np.array([0, 3, 10], np.float32).reshape(3, 1, 1, 1))
        >>> copy_share(nearest_images(data, np.array([1.0, 2.9]).reshape(2, 1, 1, 1))).mean
        0.5
    """
    copy_ratio(near)
    return mean_over_images(near.is_copy.astype(np.float64))


def flow_distance(
    first: object, second: object, *, order: int = 1, descriptor: Callable[[Any], NDArray[np.float64]] | None = None
) -> MeanError:
    """The probability flow distance of two denoisers, from samples that started from the same noise.

    The mean over shared noise of the distance between the two end points of the probability flow,
    E |Phi_a(n) - Phi_b(n)|, or the root of the mean squared distance. Zhang et al., "Understanding Generalization in
    Diffusion Models via Probability Flow Distance", 2025 (arXiv 2505.20123).

    Args:
        first: samples [N, C, H, W] in [-1, 1] units, at least two.
        second: samples of the same shape, image i from the same noise, by a deterministic sampler.
        order: 1 for the mean distance, 2 for the root of the mean squared distance.
        descriptor: measures distances between descriptors instead of values, such as `sscd_descriptor`.

    Raises:
        ShapeError, DTypeError, InvalidValueError: see `squared_errors`, or another order.

    Example:
        >>> a = np.zeros((2, 1, 1, 2))
        >>> b = np.array([[3.0, 4.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
        >>> flow_distance(a, b).mean, round(flow_distance(a, b, order=2).mean, 4)
        (3.0, 3.6056)
    """
    power = integer("order", order, 1, 2)
    a, b = _pairs(first, second)
    if descriptor is not None:
        a, b = (np.asarray(descriptor(images), np.float64) for images in (a, b))
    found = mean_over_images(np.sqrt(_sums_of_squares(a, b)) ** power)
    if power == 1:
        return found
    root = float(np.sqrt(found.mean))
    return MeanError(root, found.standard_error / (2 * root) if root > 0 else 0.0)


@dataclass(frozen=True)
class Metric:
    """A metric between two sets of images, as tables and figures name it.

    Attributes:
        name: what tables call it.
        title: what figures call it: with its units and what it is a mean over.
        compute: called as ``compute(predicted, target)``.
        is_error: whether less is better and 0 is best; else more is better and 1 is best.

    Example:
        >>> METRICS["r2"]
        Metric('r2': r2 (unbiased variance), mean over images)
        >>> METRICS["mse"].compute(np.ones((2, 1, 1, 1)), np.zeros((2, 1, 1, 1)))
        MeanError(mean=1.0, standard_error=0.0)
    """

    name: str
    title: str
    compute: Callable[[object, object], MeanError]
    is_error: bool

    def __repr__(self) -> str:
        return f"Metric({self.name!r}: {self.title})"


METRICS: Mapping[str, Metric] = {
    one.name: one
    for one in (
        Metric("mse", "MSE per value, [-1, 1] pixels", mean_squared_error, True),
        Metric("mse01", "MSE per value, [0, 1] pixels", lambda a, b: mean_squared_error(a, b, pixels="[0, 1]"), True),
        Metric(
            "sse01",
            "squared error per image, [0, 1] pixels",
            lambda a, b: mean_squared_error(a, b, pixels="[0, 1]", per="image"),
            True,
        ),
        Metric("r2", "r2 (unbiased variance), mean over images", r2, False),
        Metric("image_r2", "R2 of an image's values, mean over images", lambda a, b: r2(a, b, ddof=0), False),
        Metric("pearson_r", "Pearson's r, mean over images", pearson_r, False),
        Metric("pixel_r2", "R2 over all pixels", pixel_r2, False),
    )
}
"""The metrics between two sets of images by name."""


def _pairs(first: object, second: object) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two checked sets of images."""
    a, b = (to_numpy(images, "images") for images in (first, second))
    if a.shape != b.shape:
        raise ShapeError(f"images have shapes {list(a.shape)} and {list(b.shape)}; they must be the same")
    if a.ndim != 4 or 0 in a.shape[1:]:
        raise ShapeError(f"images have shape {list(a.shape)}; needed is [N, C, H, W]")
    if len(a) < 2:
        raise InvalidValueError(f"there are {len(a)} images; a standard error needs at least 2")
    for images in (a, b):
        check_finite("images", images)
    return a, b


# Image by image: in float64, sets of ten thousands would take twice their memory and more.
def _sums_of_squares(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """|a - b|^2 of every image of a, [N]; b are as many, or one."""
    others = np.broadcast_to(b, a.shape)
    pairs = zip(a, others, strict=True)
    return np.array([np.square(np.subtract(one, other, dtype=np.float64)).sum() for one, other in pairs])


def _centred(image: NDArray[Any]) -> NDArray[np.float64]:
    """The values of an image less their mean, [D]."""
    values = image.astype(np.float64).ravel()
    values -= values.mean()
    return values


def _spreads(images: NDArray[Any], what: str) -> NDArray[np.float64]:
    """The sum of squares of every image less its mean, [N], by which metrics divide."""
    for index, image in enumerate(images):
        if image.min() == image.max():
            raise InvalidValueError(
                f"image {index} of {what} is {image.max():g} everywhere; allowed are images whose values differ"
            )
    return np.array([np.square(_centred(image)).sum() for image in images])


def _r2_by_image(a: NDArray[Any], b: NDArray[Any], ddof: int) -> NDArray[np.float64]:
    size = a[0].size
    scores: NDArray[np.float64] = 1 - _sums_of_squares(a, b) * (size - integer("ddof", ddof, 0, 1)) / (
        size * _spreads(b, "the target")
    )
    return scores
