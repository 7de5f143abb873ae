"""`Filters`: components with a query precision and response weights, as the engine takes them, and their source."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pspc_rs import _core, cuda
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.orbit import Orbit, Views
from pspc_rs.errors import CudaError, DTypeError

Windows: TypeAlias = _core.Components | _core.Filter
"""What the engine compares queries on."""


class Filters(NamedTuple):
    """What the engine needs of a level.

    Attributes:
        precision: how much the values count for the distance of every component.
        response: how much every component counts for the values.
        views: the maps under which it sees the images.
        seen_by: which components see which view, bool [views, components]; None if all do.
    """

    precision: _core.Weights
    response: _core.Weights
    views: Views
    seen_by: npt.NDArray[np.bool_] | None = None


def on_cpu(name: str, source: Orbit, device: str) -> str:
    """The device of a denoiser that is computed on the CPU, which "auto" means, too.

    Raises:
        CudaError: a GPU is asked for.
    """
    if device == "auto":
        return "cpu"
    if cuda.resolve(device) is not None:
        who = f"{name} with a source" if source.numbers else name
        raise CudaError(
            f"device is {device!r}, but {who} is computed on the CPU only for now; allowed are 'cpu' and 'auto'"
        )
    return device


def checked_source(source: Any) -> Orbit | None:
    """The maps of a source.

    Raises:
        DTypeError: it is none.
    """
    if source is None or isinstance(source, Orbit):
        return source
    raise DTypeError(f"source is {source!r:.80}; allowed are an Orbit, and None for the data as they are")


def source_settings(source: Orbit | None) -> dict[str, Any]:
    """What records say of a source: nothing where it is the data as they are."""
    return {} if source is None or not source.numbers else {"source": source.numbers}


def views_of(data: ImageSet, source: Orbit | None) -> Views:
    """The maps under which a denoiser sees the images of a data set."""
    return (Orbit() if source is None else source).views(data.height, data.width, data.xflip)


def build_filter(shape: tuple[int, int, int], filters: Filters) -> _core.Filter:
    """The engine's form of the components of a level."""
    seen = None if filters.seen_by is None else np.ascontiguousarray(filters.seen_by).view(np.uint8)
    return _core.Filter(shape, filters.precision, filters.response, np.ascontiguousarray(filters.views), seen)


def filter_of_masks(shape: tuple[int, int, int], masks: npt.NDArray[np.bool_], views: Views) -> _core.Filter:
    """The components of masks [components, height, width], compared and answering on all of their pixels."""
    weights = _core.Weights.rows(masks.reshape(len(masks), -1).astype(np.float64), per_value=False)
    return build_filter(shape, Filters(weights, weights, views))
