"""The one way from what names a network to a denoiser, for every command and experiment."""

from collections.abc import Mapping
from typing import Any

from pspc_rs.arrays import import_torch
from pspc_rs.denoisers import Network
from pspc_rs.errors import ShapeError
from pspc_rs.networks.sources import load_network


def open_network(
    source: object,
    *,
    adapter: Mapping[str, Any] | None = None,
    shape: tuple[int, int, int] | None = None,
    max_batch: int | None = None,
    device: str | None = None,
    dtype: str = "float32",
) -> Network:
    """The denoiser D(z, sigma) of a network, wherever it comes from.

    Args:
        source: a callable, import path, file or folder; see ``load_network``.
        adapter: how it is adapted, if it is no denoiser of [-1, 1] images yet; see ``with_adapter``.
        shape: ``(channels, height, width)`` of the images it is wanted for.
        max_batch: largest batch given to it at once.
        device: where it computes, such as "cuda"; the CPU, or where a module is, if None.
        dtype: "float32", or "bfloat16" or "float16" for autocast.

    Raises:
        MissingFileError: there is no such file.
        InvalidValueError: the source is none, or an argument is out of range.
        DataError: a file is damaged or holds no network.
        ShapeError: the network is for images of another shape.
        MissingDependencyError: a package for it is not installed.

    Example:
        >>> import numpy as np
        >>> net = lambda x, t: x - x.mean()   # what it takes for the noise
        >>> D = open_network(net, adapter={"prediction": "residual"})
        >>> D(np.array([[[[1.0, 3.0]]]]), 0.5)
        array([[[[2., 2.]]]])
    """
    net = load_network(source)
    if adapter is not None:
        import_torch("an adapter")
        from pspc_rs.networks.description import with_adapter

        net = with_adapter(net, adapter)
    own = getattr(net, "shape", None)
    if own is not None and shape is not None and tuple(own) != tuple(shape):
        raise ShapeError(f"the network is for images of shape {list(own)}, not {list(shape)}")
    return Network(net, shape=shape, max_batch=max_batch, device=device, dtype=dtype)
