"""For the tests of programs that use this package: a tiny data set, a denoiser that is easy to check, and a check.

>>> from pspc_rs.testing import ReferenceComposite, assert_denoises, tiny_images
>>> data = tiny_images()
>>> assert_denoises(ReferenceComposite(data, patch_size=3), data)
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import numpy_view
from pspc_rs.checks import integer
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.base import Denoiser
from pspc_rs.denoisers.selection import Selection
from pspc_rs.progress import Progress
from pspc_rs.reprs import build_repr

__all__ = ["ReferenceComposite", "assert_denoises", "tiny_images"]


def tiny_images(
    num: int = 20, shape: tuple[int, int, int] = (3, 8, 8), *, num_classes: int = 2, xflip: bool = False, seed: int = 0
) -> ImageSet:
    """A data set of colour gradients with a square on them, made at once: the same bytes for the same arguments.

    Neighbouring pixels are alike, as in photographs, so that windows of different sides give different results.

    Args:
        num: how many images.
        shape: (channels, height, width).
        num_classes: labels are 0 .. num_classes - 1 in turn; 0 for none.
        xflip: count horizontal flips as further data.
        seed: 0 or more.

    Raises:
        InvalidValueError: a number is out of range.

    Example:
        >>> tiny_images()
        ImageSet('tiny', 20 images of [3, 8, 8] uint8, 2 classes, xflip=False)
    """
    channels, height, width = (integer("a side of the shape", size) for size in shape)
    number, classes = integer("num", num), integer("num_classes", num_classes, 0)
    random = np.random.default_rng(integer("seed", seed, 0))
    y, x = np.mgrid[:height, :width]
    slopes = random.uniform(-60, 60, (number, channels, 2))
    images = random.uniform(60, 196, (number, channels, 1, 1)) + (
        slopes[..., :1, None] * y / height + slopes[..., 1:, None] * x / width
    )
    for image in images:
        top, left = random.integers(height), random.integers(width)
        image[:, top : top + 1 + height // 3, left : left + 1 + width // 3] = random.uniform(0, 255, (channels, 1, 1))
    labels = np.arange(number) % classes if classes else None
    return ImageSet(images.clip(0, 255).round().astype(np.uint8), labels=labels, xflip=xflip, name="tiny")


class ReferenceComposite(Denoiser):
    """PSPC-Square in plain numpy, window by window in float64: slow, and short enough to be read.

    For every s x s window, w_n is proportional to exp(-|z - x_n|^2 / (2 sigma^2)) over its pixels; a pixel is the mean
    of the windows' posterior means. Niedoba et al. 2025, eq. 11. `PSPCSquare` gives the same to 1e-5.

    Args:
        data: the training images.
        patch_size: s; the side of the image makes it the empirical denoiser.

    Raises:
        InvalidValueError: a side that is larger than the image.

    Example:
        >>> import pspc_rs as pspc
        >>> data = tiny_images()
        >>> z = data.batch([0, 1]) + 0.3
        >>> np.abs(ReferenceComposite(data, 3)(z, 0.5) - pspc.PSPCSquare(data, patch_sizes=3)(z, 0.5)).max() < 1e-5
        np.True_
    """

    def __init__(self, data: ImageSet, patch_size: int) -> None:
        super().__init__(data.shape)
        self.data = data
        self.patch_size = integer("patch_size", patch_size, 1, min(data.height, data.width))
        self._images = data.batch(range(len(data))).astype(np.float64)

    @property
    def settings(self) -> dict[str, Any]:
        """The class, the fingerprint of the data, and the side."""
        return {**super().settings, "data": self.data.fingerprint, "patch_size": self.patch_size}

    def __repr__(self) -> str:
        return build_repr(self, self.data, patch_size=self.patch_size)

    def _denoise(
        self,
        z: npt.NDArray[Any],
        sigmas: npt.NDArray[np.float64],
        selection: Selection | None,
        progress: Progress | None,
    ) -> npt.NDArray[np.float64]:
        del selection
        denoised = np.empty(z.shape)
        for query, (noisy, sigma) in enumerate(zip(z.astype(np.float64), sigmas, strict=True)):
            denoised[query] = self._composite(noisy, float(sigma))
            if progress is not None:
                progress(query + 1, len(z))
        return denoised

    def _composite(self, z: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
        total, count, side = np.zeros(z.shape), np.zeros(z.shape[1:]), self.patch_size
        prior = self.data.log_prior
        for top, left in np.ndindex(self.data.height - side + 1, self.data.width - side + 1):
            window = np.s_[..., top : top + side, left : left + side]
            patches = self._images[window]
            logits = -((z[window] - patches) ** 2).sum(axis=(1, 2, 3)) / (2 * sigma**2)
            if prior is not None:
                logits = logits + np.tile(prior, 1 + self.data.xflip)
            weights = np.exp(logits - logits.max())
            total[window] += np.tensordot(weights / weights.sum(), patches, axes=1)
            count[window] += 1
        return total / count


def assert_denoises(
    denoiser: Callable[[Any, Any], Any], data: ImageSet, *, sigmas: tuple[float, ...] = (0.1, 1.0, 10.0)
) -> None:
    """Checks that a denoiser or network is called as those here are: D(z, sigma), for numpy arrays.

    Results must have the shape and dtype of z and be finite, z must stay as it is, and one image in a batch, with a
    noise level of its own, must get what it gets alone, to 1e-4.

    Args:
        denoiser: the denoiser, of your own or of this package.
        data: images of its shape, at least one.
        sigmas: noise levels that it must take.

    Raises:
        AssertionError: one of these does not hold; the message says which.

    Example:
        >>> assert_denoises(lambda z, sigma: z[:1], tiny_images())
        Traceback (most recent call last):
        AssertionError: the result has shape (1, 3, 8, 8); needed is that of z, (3, 3, 8, 8)
    """
    levels = np.array(sigmas, np.float64)
    clean = data.batch(np.arange(len(levels)) % len(data))
    noise = np.random.default_rng(0).standard_normal(clean.shape, dtype=np.float32)
    z = clean + levels.astype(np.float32).reshape(-1, 1, 1, 1) * noise
    before = z.copy()
    together = numpy_view(denoiser(z, levels))
    if not np.array_equal(z, before):
        raise AssertionError("z was changed")
    if together.shape != z.shape:
        raise AssertionError(f"the result has shape {together.shape}; needed is that of z, {z.shape}")
    if together.dtype != z.dtype:
        raise AssertionError(f"the result has dtype {together.dtype}; needed is that of z, {z.dtype}")
    if not np.isfinite(together).all():
        raise AssertionError("the result is not finite")
    for index, sigma in enumerate(sigmas):
        alone = numpy_view(denoiser(z[index : index + 1], sigma))[0]
        apart = float(np.abs(alone - together[index]).max())
        if not apart <= 1e-4:
            raise AssertionError(
                f"at sigma {sigma:g} an image in a batch differs from the same image alone by {apart:.2g}"
            )
