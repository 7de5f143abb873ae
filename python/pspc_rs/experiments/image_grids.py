"""Pictures of several denoisers side by side: on the same noisy images, along trajectories, and their samples.

Figures 1, 8 and 16 to 25 of Niedoba et al. 2025.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import to_numpy
from pspc_rs.checks import one_of
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.display import display_name
from pspc_rs.experiments.evaluate import Model, denoise
from pspc_rs.experiments.figures import check_levels, picture_table, sigma_label, spread_evenly
from pspc_rs.progress import Progress, Steps, renamed_progress
from pspc_rs.samplers import SAMPLERS
from pspc_rs.sigmas import check_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Shown: TypeAlias = Literal["denoised", "state"]
"""What a figure of trajectories shows: D(z, sigma), or z to its own scale."""

_MAX_LEVELS = 10


def denoised_grid(
    denoisers: Mapping[str, Model],
    z: NDArray[Any],
    sigmas: object,
    *,
    batch: int = 50,
    progress: Progress | None = None,
    tick: Callable[[str], object] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """What every denoiser makes of the same noisy images, by name, float32 [levels, N, C, H, W].

    Args:
        denoisers: D(z, sigma) by name, in the order of the figure's columns.
        z: noisy images [levels, N, C, H, W], one row per noise level; take few levels with ``z[[4, 8]]``.
        sigmas: the noise level of every row, descending.
        batch: images at once.
        progress: called after every denoiser and level, as ``progress(done, total)``; its `describe` gets which one.
        tick: deprecated; the earlier name of ``progress``, called as ``tick(what)``.

    Raises:
        ShapeError: z has other axes, or not as many rows as there are levels.
        InvalidValueError: no denoisers.

    Example:
        >>> z = np.ones((2, 3, 1, 4, 4), np.float32)
        >>> halves = denoised_grid({"half": lambda z, sigma: z / 2}, z, [2.0, 1.0])["half"]
        >>> halves.shape, float(halves.max())
        ((2, 3, 1, 4, 4), 0.5)
    """
    progress = renamed_progress(progress, "tick", tick, ("what",))
    grid = check_grid(sigmas)
    _check_named("denoisers", denoisers)
    if z.ndim != 5 or len(z) != len(grid):
        raise ShapeError(f"z has shape {list(z.shape)}; needed is [{len(grid)}, N, C, H, W] for these noise levels")
    outputs = {name: np.empty(z.shape, np.float32) for name in denoisers}
    steps = Steps(progress, len(denoisers) * len(grid))
    for name, denoiser in denoisers.items():
        for level, sigma in enumerate(grid.tolist()):
            noisy = np.ascontiguousarray(z[level])
            outputs[name][level] = denoise(denoiser, noisy, sigma, batch, name=name)
            steps.finish(f"{name}, sigma {sigma:.3g}")
    return outputs


def denoised_figure(
    outputs: Mapping[str, NDArray[Any]],
    z: NDArray[Any],
    sigmas: object,
    *,
    levels: Sequence[int] | None = None,
    images: Sequence[int] | None = None,
) -> "Figure":
    """One column per denoiser after the noisy image, one row per image and level; clipped to [-1, 1] for display.

    Args:
        outputs: [levels, N, C, H, W] by name, as `denoised_grid` returns them.
        z: the noisy images.
        sigmas: the noise level of every row of z.
        levels: which rows to show; all if not given.
        images: which images to show; all if not given.

    Raises:
        InvalidValueError: a level or an image that is not there.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> z = np.zeros((2, 3, 1, 4, 4), np.float32)
        >>> figure = denoised_figure({"pspc_sq": z}, z, [1.0, 0.1], images=[0])
        >>> [axis.get_title() for axis in figure.axes[:2]]
        ['z', 'PSPC-Square']
    """
    grid = check_grid(sigmas)
    _check_named("outputs", outputs)
    rows, labels = [], []
    for level in check_levels("levels", range(len(grid)) if levels is None else levels, len(grid)):
        for image in check_levels("images", range(z.shape[1]) if images is None else images, z.shape[1]):
            rows.append([array[level, image : image + 1] for array in (z, *outputs.values())])
            labels.append(sigma_label(float(grid[level])))
    return picture_table(rows, labels, ["z", *map(display_name, outputs)])


def sample_figure(samples: Mapping[str, NDArray[Any]], *, columns: int | None = None) -> "Figure":
    """Samples of the same initial noise, one grid per denoiser: image i of one stands where image i of another does.

    Figures 24 and 25. Samples come from `pspc_rs.sample` with one seed, or from ``pspc-rs sample``.

    Args:
        samples: [N, C, H, W] in [-1, 1] units by name, clipped for display.
        columns: images in a row of a grid; about as many as rows if not given.

    Raises:
        InvalidValueError: no samples.
        ShapeError: the arrays have different shapes.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> x = np.zeros((9, 1, 4, 4), np.float32)
        >>> [axis.get_title() for axis in sample_figure({"network": x, "pspc_sq": x}).axes]
        ['Network', 'PSPC-Square']
    """
    check_alike(samples)
    return picture_table(
        [list(samples.values())], [""], [display_name(name) for name in samples], cell=2.4, columns=columns
    )


@dataclass(frozen=True)
class Trajectory:
    """The states and denoised images of one denoiser from noise to samples.

    Attributes:
        states: z at every level and the samples, float32 [steps + 1, N, C, H, W].
        denoised: D(z, sigma) at every level above 0, float32 [steps, N, C, H, W].

    Example:
        >>> Trajectory(np.zeros((3, 2, 1, 4, 4), np.float32), np.zeros((2, 2, 1, 4, 4), np.float32))
        Trajectory(2 steps, 2 images)
    """

    states: NDArray[np.float32]
    denoised: NDArray[np.float32]

    def __repr__(self) -> str:
        return f"Trajectory({len(self.denoised)} steps, {self.states.shape[1]} images)"


def trajectories(
    denoisers: Mapping[str, Model],
    z_init: NDArray[Any],
    sigmas: object,
    *,
    sampler: str = "heun",
    progress: Progress | None = None,
    tick: Callable[[str], object] | None = None,
) -> dict[str, Trajectory]:
    """The trajectory of every denoiser from the same initial noise, by name.

    Args:
        denoisers: D(z, sigma) by name.
        z_init: [N, C, H, W], already scaled by the first sigma.
        sigmas: descending noise levels that end in 0.
        sampler: "euler", "heun", "edm" (without churn) or "dpmpp_2m".
        progress: called after every step of the sampler, as ``progress(done, total)``; its `describe` gets which one.
        tick: deprecated; the earlier name of ``progress``, called as ``tick(what)``.

    Raises:
        InvalidValueError: no denoisers, an unknown sampler, or noise levels that do not end in 0.

    Example:
        >>> z = np.full((1, 1, 1, 2), 80.0, np.float32)
        >>> way = trajectories({"half": lambda z, sigma: 0 * z + 0.5}, z, [80.0, 1.0, 0.0])["half"]
        >>> way.states.shape, way.denoised.shape, way.states[-1].ravel()
        ((3, 1, 1, 1, 2), (2, 1, 1, 1, 2), array([0.5, 0.5], dtype=float32))
    """
    progress = renamed_progress(progress, "tick", tick, ("what",))
    _check_named("denoisers", denoisers)
    solve, grid = SAMPLERS[one_of("sampler", sampler, SAMPLERS)], check_grid(sigmas)
    if grid[-1] != 0:
        raise InvalidValueError("sigmas do not end in 0, so there would be no samples; append 0")
    steps = Steps(progress, len(denoisers) * (len(grid) - 1))
    return {
        name: _trajectory(name, denoiser, z_init, sigmas, solve=solve, steps=steps)
        for name, denoiser in denoisers.items()
    }


def _trajectory(
    name: str, denoiser: Model, z_init: NDArray[Any], sigmas: object, *, solve: Callable[..., Any], steps: Steps
) -> Trajectory:
    denoised: list[NDArray[np.float32]] = []

    def keep(step: dict[str, Any]) -> None:
        denoised.append(to_numpy(step["denoised"], "denoised").astype(np.float32))
        steps.finish(f"{name}, sigma {step['sigma']:.3g}")

    states = solve(denoiser, np.asarray(z_init, np.float32), sigmas, callback=keep, trajectory=True)
    return Trajectory(to_numpy(states, "states").astype(np.float32), np.stack(denoised))


def trajectory_figure(
    ways: Mapping[str, Trajectory],
    sigmas: object,
    *,
    show: Shown = "denoised",
    images: Sequence[int] | None = None,
    levels: Sequence[int] | None = None,
) -> "Figure":
    """One row per image and denoiser, one column per noise level, the samples last; clipped to [-1, 1] for display.

    Args:
        ways: trajectories by name.
        sigmas: the noise levels they were computed with.
        show: "denoised" for D(z, sigma), or "state" for z / sqrt(1 + sigma^2), which keeps its scale.
        images: which images; all if not given.
        levels: indices of the levels above 0 to show; up to ten, evenly spread, if not given.

    Raises:
        InvalidValueError: an image or level that is not there, or another ``show``.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> way = Trajectory(np.zeros((3, 1, 1, 4, 4), np.float32), np.zeros((2, 1, 1, 4, 4), np.float32))
        >>> figure = trajectory_figure({"pspc_sq": way}, [1.0, 0.1, 0.0])
        >>> figure.axes[2].get_title()
        'sample'
    """
    _check_named("trajectories", ways)
    one_of("show", show, get_args(Shown))
    grid = check_grid(sigmas)[:-1]
    columns = check_levels("levels", spread_evenly(len(grid), _MAX_LEVELS) if levels is None else levels, len(grid))
    number = next(iter(ways.values())).states.shape[1]
    rows, labels = [], []
    for image in check_levels("images", range(number) if images is None else images, number):
        for name, way in ways.items():
            cells = [_cell(way, show, level, float(grid[level]))[image : image + 1] for level in columns]
            rows.append([*cells, way.states[-1][image : image + 1]])
            labels.append(display_name(name))
    return picture_table(rows, labels, [*(sigma_label(float(grid[level])) for level in columns), "sample"])


def crossed_outputs(
    denoisers: Mapping[str, Model], ways: Mapping[str, Trajectory], sigmas: object, *, progress: Progress | None = None
) -> dict[str, dict[str, NDArray[np.float32]]]:
    """What every denoiser makes of the states on every trajectory: Figure 8 of Niedoba et al. 2025 with two of them.

    Args:
        denoisers: D(z, sigma) by name.
        ways: trajectories by name, of the same number of images.
        sigmas: the noise levels they were computed with.
        progress: called as ``progress(done, total)`` after every denoiser, trajectory and level.

    Returns:
        float32 [levels, N, C, H, W] by the name of the trajectory, then by that of the denoiser.

    Raises:
        InvalidValueError: no trajectories, or no denoisers.

    Example:
        >>> halves = {"half": lambda z, sigma: z / 2}
        >>> ways = trajectories(halves, np.full((1, 1, 1, 2), 8.0, np.float32), [8.0, 1.0, 0.0])
        >>> crossed = crossed_outputs({**halves, "none": lambda z, sigma: 0 * z}, ways, [8.0, 1.0, 0.0])
        >>> crossed["half"]["none"].shape, bool((crossed["half"]["half"] == ways["half"].denoised).all())
        ((2, 1, 1, 1, 2), True)
    """
    _check_named("trajectories", ways)
    levels = check_grid(sigmas)[:-1]
    steps = Steps(progress, len(ways) * len(denoisers) * len(levels))
    crossed = {}
    for name, way in ways.items():
        part: Progress | None = None if progress is None else lambda done, total: steps.finish()
        crossed[name] = denoised_grid(denoisers, way.states[:-1], levels, progress=part)
    return crossed


def crossed_figure(
    crossed: Mapping[str, Mapping[str, NDArray[Any]]],
    ways: Mapping[str, Trajectory],
    sigmas: object,
    *,
    levels: Sequence[int] | None = None,
) -> "Figure":
    """For every image and trajectory, one row per denoiser: D(z, sigma) on the same z, one column per noise level.

    Args:
        crossed: as `crossed_outputs` returns it.
        ways: the trajectories, whose samples stand last.
        sigmas: the noise levels.
        levels: see `trajectory_figure`.

    Raises:
        InvalidValueError: a level that is not there.
        MissingDependencyError: matplotlib is not installed.
    """
    grid = check_grid(sigmas)[:-1]
    columns = check_levels("levels", spread_evenly(len(grid), _MAX_LEVELS) if levels is None else levels, len(grid))
    rows: list[list[NDArray[Any] | None]] = []
    labels = []
    for image in range(next(iter(ways.values())).states.shape[1]):
        for name, outputs in crossed.items():
            for denoiser, images in outputs.items():
                sample = ways[name].states[-1][image : image + 1] if denoiser == name else None
                rows.append([*(images[level, image : image + 1] for level in columns), sample])
                labels.append(f"{denoiser} on {name}")
    return picture_table(rows, labels, [*(sigma_label(float(grid[level])) for level in columns), "sample"])


def _cell(way: Trajectory, show: Shown, level: int, sigma: float) -> NDArray[Any]:
    scale = 1.0 if show == "denoised" else math.sqrt(1 + sigma**2)
    states: NDArray[Any] = way.denoised if show == "denoised" else way.states
    shown: NDArray[Any] = states[level] / np.float32(scale)
    return shown


def _check_named(what: str, items: Mapping[str, object]) -> None:
    """Refuses an empty mapping.

    Raises:
        InvalidValueError: there is nothing in it.
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
    _check_named("samples", samples)
    shapes = {name: list(array.shape) for name, array in samples.items()}
    first = next(iter(shapes.values()))
    if len(first) != 4 or 0 in first or any(shape != first for shape in shapes.values()):
        raise ShapeError(f"samples have shapes {shapes}; needed is one shape [N, C, H, W] for all")
