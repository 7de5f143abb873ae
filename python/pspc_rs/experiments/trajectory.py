"""Trajectories of several denoisers from the same noise, side by side (Figure 8)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import to_numpy
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.drawing import check_levels, evenly, picture_table, sigma_label
from pspc_rs.experiments.grids import Model, Tick, check_named
from pspc_rs.samplers import SAMPLERS
from pspc_rs.sigmas import check_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Shown = Literal["denoised", "state"]

_MAX_LEVELS = 10


@dataclass(frozen=True)
class Trajectory:
    """One denoiser's way from noise to samples.

    Attributes:
        states: z at every level and the samples, float32 [steps + 1, N, C, H, W].
        denoised: D(z, sigma) at every level above 0, float32 [steps, N, C, H, W].
    """

    states: NDArray[np.float32]
    denoised: NDArray[np.float32]


def trajectories(
    denoisers: Mapping[str, Model],
    z_init: NDArray[Any],
    sigmas: object,
    *,
    sampler: str = "heun",
    tick: Tick | None = None,
) -> dict[str, Trajectory]:
    """The trajectory of every denoiser from the same initial noise, by name.

    Args:
        denoisers: D(z, sigma) by name.
        z_init: [N, C, H, W], already scaled by the first sigma.
        sigmas: descending noise levels that end in 0.
        sampler: "euler", "heun", "edm" (without churn) or "dpmpp_2m".
        tick: called after every step.

    Raises:
        InvalidValueError: no denoisers, an unknown sampler, or noise levels that do not end in 0.

    Example:
        >>> z = np.full((1, 1, 1, 2), 80.0, np.float32)
        >>> way = trajectories({"half": lambda z, sigma: 0 * z + 0.5}, z, [80.0, 1.0, 0.0])["half"]
        >>> way.states.shape, way.denoised.shape, way.states[-1].ravel()
        ((3, 1, 1, 1, 2), (2, 1, 1, 1, 2), array([0.5, 0.5], dtype=float32))
    """
    check_named("denoisers", denoisers)
    if sampler not in SAMPLERS:
        raise InvalidValueError(f"sampler is {sampler!r}; allowed are {', '.join(SAMPLERS)}")
    if check_grid(sigmas)[-1] != 0:
        raise InvalidValueError("sigmas do not end in 0, so there would be no samples; append 0")
    return {
        name: _trajectory(denoiser, z_init, sigmas, SAMPLERS[sampler], partial(_tell, tick, name))
        for name, denoiser in denoisers.items()
    }


def _trajectory(
    denoiser: Model, z_init: NDArray[Any], sigmas: object, solve: Callable[..., Any], tell: Callable[[float], object]
) -> Trajectory:
    denoised: list[NDArray[np.float32]] = []

    def keep(told: dict[str, Any]) -> None:
        denoised.append(to_numpy(told["denoised"], "denoised").astype(np.float32))
        tell(told["sigma"])

    states = solve(denoiser, np.asarray(z_init, np.float32), sigmas, callback=keep, trajectory=True)
    return Trajectory(to_numpy(states, "states").astype(np.float32), np.stack(denoised))


def _tell(tick: Tick | None, name: str, sigma: float) -> None:
    if tick is not None:
        tick(f"{name}, sigma {sigma:.3g}")


def trajectory_figure(
    ways: Mapping[str, Trajectory],
    sigmas: object,
    *,
    show: Shown = "denoised",
    images: Sequence[int] | None = None,
    levels: Sequence[int] | None = None,
) -> "Figure":
    """One row an image and denoiser, one column a noise level, the samples last; clipped to [-1, 1] for display.

    Args:
        ways: trajectories by name.
        sigmas: the noise levels they were computed with.
        show: "denoised" for D(z, sigma), or "state" for z / sqrt(1 + sigma^2), which keeps its scale.
        images: which images; all if not given.
        levels: indices of the levels above 0 to show; up to ten, evenly spread, if not given.

    Raises:
        InvalidValueError: an image or level that is not there, or another ``show``.
        MissingDependencyError: matplotlib is not installed.
    """
    check_named("trajectories", ways)
    if show not in ("denoised", "state"):
        raise InvalidValueError(f"show is {show!r}; allowed are 'denoised' and 'state'")
    grid = check_grid(sigmas)[:-1]
    columns = check_levels("levels", evenly(len(grid), _MAX_LEVELS) if levels is None else levels, len(grid))
    number = next(iter(ways.values())).states.shape[1]
    rows, labels = [], []
    for image in check_levels("images", range(number) if images is None else images, number):
        for name, way in ways.items():
            cells = [_cell(way, show, level, float(grid[level]))[image : image + 1] for level in columns]
            rows.append([*cells, way.states[-1][image : image + 1]])
            labels.append(name)
    return picture_table(rows, labels, [*(sigma_label(float(grid[level])) for level in columns), "sample"])


def _cell(way: Trajectory, show: Shown, level: int, sigma: float) -> NDArray[Any]:
    scale = 1.0 if show == "denoised" else math.sqrt(1 + sigma**2)
    states: NDArray[Any] = way.denoised if show == "denoised" else way.states
    shown: NDArray[Any] = states[level] / np.float32(scale)
    return shown
