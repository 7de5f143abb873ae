"""Image grids: several denoisers on the same noisy images (Figures 1, 16-23), and samples of the same seeds."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.drawing import check_levels, picture_table, sigma_label
from pspc_rs.experiments.evaluate import denoised
from pspc_rs.sigmas import check_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Model = Callable[..., Any]
"""A denoiser, D(z, sigma)."""

Tick = Callable[[str], object]
"""Called with the name of what was just finished."""


def denoised_grid(
    denoisers: Mapping[str, Model], z: NDArray[Any], sigmas: object, *, batch: int = 50, tick: Tick | None = None
) -> dict[str, NDArray[np.float32]]:
    """What every denoiser makes of the same noisy images, by name, float32 [levels, N, C, H, W].

    Args:
        denoisers: D(z, sigma) by name, in the order of the figure's columns.
        z: noisy images [levels, N, C, H, W], a row a noise level; take few levels with ``z[[4, 8]]``.
        sigmas: the noise level of every row, descending.
        batch: images at once.
        tick: called after every denoiser and level.

    Raises:
        ShapeError: z has other axes, or not as many rows as there are levels.
        InvalidValueError: no denoisers.

    Example:
        >>> z = np.ones((2, 3, 1, 4, 4), np.float32)
        >>> halves = denoised_grid({"half": lambda z, sigma: z / 2}, z, [2.0, 1.0])["half"]
        >>> halves.shape, float(halves.max())
        ((2, 3, 1, 4, 4), 0.5)
    """
    grid = check_grid(sigmas)
    check_named("denoisers", denoisers)
    if z.ndim != 5 or len(z) != len(grid):
        raise ShapeError(f"z has shape {list(z.shape)}; needed is [{len(grid)}, N, C, H, W] for these noise levels")
    outputs = {name: np.empty(z.shape, np.float32) for name in denoisers}
    for name, denoiser in denoisers.items():
        for level, sigma in enumerate(grid.tolist()):
            noisy = np.ascontiguousarray(z[level])
            outputs[name][level] = denoised(denoiser, noisy, sigma, batch, name=name, count=lambda images: None)
            if tick is not None:
                tick(f"{name}, sigma {sigma:.3g}")
    return outputs


def denoised_figure(
    outputs: Mapping[str, NDArray[Any]],
    z: NDArray[Any],
    sigmas: object,
    *,
    levels: Sequence[int] | None = None,
    images: Sequence[int] | None = None,
) -> "Figure":
    """One column a denoiser after the noisy image itself, one row an image and level; clipped to [-1, 1] for display.

    Args:
        outputs: [levels, N, C, H, W] by name, as `denoised_grid` returns them.
        z: the noisy images.
        sigmas: the noise level of every row of z.
        levels: which rows to show; all if not given.
        images: which images to show; all if not given.

    Raises:
        InvalidValueError: a level or an image that is not there.
        MissingDependencyError: matplotlib is not installed.
    """
    grid = check_grid(sigmas)
    check_named("outputs", outputs)
    rows, labels = [], []
    for level in check_levels("levels", range(len(grid)) if levels is None else levels, len(grid)):
        for image in check_levels("images", range(z.shape[1]) if images is None else images, z.shape[1]):
            rows.append([array[level, image : image + 1] for array in (z, *outputs.values())])
            labels.append(sigma_label(float(grid[level])))
    return picture_table(rows, labels, ["z", *outputs])


def sample_figure(samples: Mapping[str, NDArray[Any]], *, columns: int | None = None) -> "Figure":
    """Samples of the same initial noise, one grid a denoiser: image i of one stands where image i of another does.

    Figures 24 and 25. Samples come from `pspc_rs.sample` with one seed, or from ``pspc-rs sample``.

    Args:
        samples: [N, C, H, W] in [-1, 1] units by name, clipped for display.
        columns: images in a row of a grid; about as many as rows if not given.

    Raises:
        InvalidValueError: no samples.
        ShapeError: the arrays have different shapes.
        MissingDependencyError: matplotlib is not installed.
    """
    check_alike(samples)
    return picture_table([list(samples.values())], [""], list(samples), cell=2.4, columns=columns)


def check_named(what: str, items: Mapping[str, object]) -> None:
    """Refuses an empty mapping.

    Raises:
        InvalidValueError: there is nothing in it.

    Example:
        >>> check_named("samples", {"network": 1})
    """
    if not items:
        raise InvalidValueError(f"there are no {what}; give at least one, by name")


def check_alike(samples: Mapping[str, NDArray[Any]]) -> None:
    """Refuses sets of images that cannot be compared one by one.

    Raises:
        InvalidValueError: there are none.
        ShapeError: one is not [N, C, H, W], or they differ in shape.

    Example:
        >>> check_alike({"a": np.zeros((2, 1, 4, 4)), "b": np.ones((2, 1, 4, 4))})
    """
    check_named("samples", samples)
    shapes = {name: list(array.shape) for name, array in samples.items()}
    first = next(iter(shapes.values()))
    if len(first) != 4 or 0 in first or any(shape != first for shape in shapes.values()):
        raise ShapeError(f"samples have shapes {shapes}; needed is one shape [N, C, H, W] for all")
