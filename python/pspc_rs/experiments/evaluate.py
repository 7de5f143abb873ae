"""The outputs of denoisers for many noisy images, batch by batch."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite, copy_of, to_numpy
from pspc_rs.denoisers import Denoiser, Piecewise
from pspc_rs.errors import ShapeError
from pspc_rs.progress import Progress

Model: TypeAlias = Callable[..., Any]
"""A denoiser or network, D(z, sigma)."""


def denoise(
    model: Model,
    z: NDArray[Any],
    sigma: float,
    batch: int = 50,
    *,
    name: str = "D",
    class_labels: NDArray[Any] | None = None,
    exclude: NDArray[np.integer[Any]] | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The model's outputs, float32 in the shape of z.

    Args:
        model: D(z, sigma), called with sigma as float64 [batch].
        z: noisy images [N, C, H, W].
        sigma: noise level.
        batch: images at once.
        name: what messages call the model.
        class_labels: one entry per noisy image, for a model that takes ``class_labels=``.
        exclude: images that do not count, one per noisy image, for a model that takes ``exclude=``; see
            `Denoiser.__call__`.
        progress: called as ``progress(images done, images)`` during long calls and after every batch.

    Raises:
        ShapeError: the model returned another shape.
        InvalidValueError: the model returned NaN or infinities.

    Example:
        >>> z = np.ones((5, 1, 2, 2), np.float32)
        >>> denoise(lambda z, sigma: z / 2, z, 1.0, 3, progress=print).max()
        3 5
        5 5
        np.float32(0.5)
    """
    outputs = np.empty(z.shape, np.float32)
    for start in range(0, len(z), batch):
        part = z[start : start + batch]
        within = _images_done(progress, start, len(part), len(z))
        reports = isinstance(model, Denoiser | Piecewise) and within is not None
        given: dict[str, Any] = {"progress": within} if reports else {}
        selected = {"class_labels": class_labels, "exclude": exclude}
        given |= {key: one[start : start + batch] for key, one in selected.items() if one is not None}
        # A copy: z is compared with what other models make of it.
        images = to_numpy(model(copy_of(part), np.full(len(part), sigma), **given), f"the output of {name}")
        if images.shape != part.shape:
            raise ShapeError(f"{name} returned shape {list(images.shape)} for {list(part.shape)}; it must be the same")
        check_finite(f"the output of {name} at sigma {sigma:g}", images)
        outputs[start : start + batch] = images
        if progress is not None:
            progress(start + len(part), len(z))
    return outputs


def _images_done(progress: Progress | None, start: int, size: int, total: int) -> Progress | None:
    """Progress within a batch as progress of all images, in whole images."""
    return progress and (lambda done, whole: progress(start + size * done // whole, total))
