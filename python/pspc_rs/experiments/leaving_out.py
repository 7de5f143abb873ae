"""Leaving one out: a noisy image made of a training image is denoised as if that image were not in the data set."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.denoisers import CFDM, SNIS, Denoiser, Network, Piecewise, PosteriorComposite
from pspc_rs.errors import InvalidValueError

_ABLE = (PosteriorComposite, CFDM, SNIS)


class Sources(NamedTuple):
    """Which images noisy images were made of.

    Attributes:
        fingerprint: of the data set.
        indices: the image behind each noisy image, int64 [n], N + i for the flip of image i.
    """

    fingerprint: str
    indices: NDArray[np.int64]


def left_out(name: str, model: object, sources: Sources) -> NDArray[np.int64] | None:
    """What a model must be given as ``exclude=`` in order not to find the image behind a noisy image.

    Args:
        name: what messages call the model.
        model: a denoiser, network or function D(z, sigma).
        sources: of the noisy images.

    Returns:
        The index of the image behind each noisy image; None for networks and functions, which hold no images.

    Raises:
        InvalidValueError: the denoiser cannot leave an image out, or its images are not those behind z.

    Example:
        >>> import pspc_rs as pspc
        >>> data = pspc.ImageSet(np.zeros((5, 1, 4, 4), np.uint8))
        >>> left_out("empirical", pspc.Empirical(data), Sources(data.fingerprint, np.array([3, 0])))
        array([3, 0])
    """
    held: Any = model.net if isinstance(model, Network) else model
    if isinstance(model, Piecewise):
        return _left_out_by_parts(name, model, sources)
    if not isinstance(held, Denoiser | Piecewise):
        return None
    if held is not model or not isinstance(held, _ABLE):
        kind = f"{type(held).__name__}{' in a Network' * (held is not model)}"
        raise InvalidValueError(
            f"leave_one_out is on, but {name} ({kind}) cannot leave an image out; allowed are Empirical, PSPCSquare, "
            "PSPCFlex, CFDM and SNIS, networks and functions"
        )
    check_images(name, held.data, sources)
    return sources.indices


def _left_out_by_parts(name: str, model: Piecewise, sources: Sources) -> NDArray[np.int64] | None:
    """As `left_out`, of parts which must be of one kind: all leave images out, or all hold none."""
    found = [left_out(f"{name}, sigma {part.low:g} to {part.high:g}", part.model, sources) for part in model.parts]
    if len({one is None for one in found}) > 1:
        raise InvalidValueError(
            f"leave_one_out is on, but of the parts of {name} some hold images and some, networks and functions, do "
            "not; allowed are parts of one kind"
        )
    return found[0]


def check_images(name: str, data: ImageSet, sources: Sources) -> None:
    """Refuses a denoiser of other images than those that z are made of.

    Raises:
        InvalidValueError: they are others, or flips count in one of both alone.

    Example:
        >>> data = ImageSet(np.zeros((5, 1, 4, 4), np.uint8))
        >>> check_images("empirical", data, Sources(data.fingerprint, np.array([3, 0])))
    """
    if data.fingerprint != sources.fingerprint:
        raise InvalidValueError(
            f"leave_one_out is on, but the images of {name}, {data!r}, are not those that z are made of; give both the "
            "same data set"
        )
