"""Noisy images level by level, made or read when a level is asked for, with what identifies them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.errors import DataError, InvalidValueError, ShapeError
from pspc_rs.experiments.noisy import Model, Start, Tick, check_start, forward_noisy, save_reverse
from pspc_rs.experiments.settings import data_settings, model_settings, settings_key
from pspc_rs.provenance import sha256
from pspc_rs.samplers import noise_source


class NoisyLevels(Sequence[NDArray[Any]]):
    """A sequence of noisy images [n, C, H, W], one entry a noise level of a grid.

    Attributes:
        settings: what decides them, for records.

    Args:
        num: number of levels.
        make: the noisy images of a level.
        settings: see above.

    Example:
        >>> levels = NoisyLevels(3, lambda level: np.full((1, 1, 2, 2), level), {"process": "example"})
        >>> len(levels), float(levels[-1].max())
        (3, 2.0)
    """

    def __init__(self, num: int, make: Callable[[int], NDArray[Any]], settings: Mapping[str, Any]) -> None:
        self._num, self._make = num, make
        self.settings = dict(settings)

    def __len__(self) -> int:
        return self._num

    @overload
    def __getitem__(self, level: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, level: slice) -> list[NDArray[Any]]: ...
    def __getitem__(self, level: int | slice) -> Any:
        if isinstance(level, slice):
            return [self[one] for one in range(*level.indices(self._num))]
        if not -self._num <= level < self._num:
            raise IndexError(f"level {level} of {self._num}")
        return self._make(level % self._num)


def forward_levels(data: ImageSet, sigmas: Sequence[float], n: int, seed: int = 0) -> NoisyLevels:
    """Noisy images of a data set; see `forward_noisy`."""
    settings = {"process": "forward", "n": n, "seed": seed, "noise": noise_source(), **data_settings(data)}
    return NoisyLevels(len(sigmas), lambda level: forward_noisy(data, n, sigmas[level], seed), settings)


def reverse_levels(
    folder: Path,
    model: Model,
    data: ImageSet,
    sigmas: Sequence[float],
    n: int,
    *,
    seed: int = 0,
    sampler: str = "heun",
    start: Start = "noise",
    limits: tuple[float, float] = (0.0, float("inf")),
    batch: int = 50,
    tick: Tick | None = None,
) -> NoisyLevels:
    """Images on a network's trajectories, kept in a file below ``folder``; see `save_reverse`.

    Args:
        folder: where the file goes; an earlier one of the same settings is gone on with.
        model: D(z, sigma).
        data: the images that trajectories start at, for ``start="data"``, and whose shape they have.
        sigmas: the whole grid, descending.
        n: images.
        seed: of their start.
        sampler: of the trajectories.
        start: "noise" at the first level of the grid, or noisy "data" at the highest level within the limits.
        limits: lowest and highest level that will be asked for; no others are computed, but those above for
            ``start="noise"``.
        batch: images at once.
        tick: called as ``tick(batches done, batches)``.

    Raises:
        InvalidValueError: no level within the limits; asking for a level outside.
    """
    check_start(start)
    inside = [level for level, sigma in enumerate(sigmas) if limits[0] <= sigma <= limits[1]]
    if not inside:
        raise InvalidValueError(f"no noise level lies in {limits[0]:g} to {limits[1]:g}")
    first = 0 if start == "noise" else inside[0]
    chosen = list(sigmas[first : inside[-1] + 1])
    settings = {
        "process": "reverse",
        "n": n,
        "seed": seed,
        "noise": noise_source(),
        "sampler": sampler,
        "start": start,
        "sigmas": chosen,
        "batch": batch,
        "network": model_settings(model),
        **data_settings(data),
    }
    output = folder / "noisy" / f"reverse_{settings_key(settings)}.npy"
    start_data = data if start == "data" else None
    save_reverse(
        output,
        model,
        data.shape,
        chosen,
        n,
        seed=seed,
        sampler=sampler,
        batch=batch,
        start_data=start_data,
        resume=True,
        tick=tick,
    )
    stored = np.load(output, mmap_mode="r")

    def read(level: int) -> NDArray[Any]:
        if not 0 <= level - first < len(stored):
            raise InvalidValueError(f"trajectories do not reach level {level}, sigma {sigmas[level]:g}")
        return np.array(stored[level - first])

    return NoisyLevels(len(sigmas), read, settings)


def file_levels(path: Path, shape: tuple[int, int, int], num_levels: int, n: int | None = None) -> NoisyLevels:
    """The first images of a noisy set's file, `.npy` [levels, N, C, H, W], as ``pspc-rs noise`` writes it.

    Args:
        path: the file.
        shape: (channels, height, width) of the images.
        num_levels: how many levels there must be.
        n: images a level; all if None.

    Raises:
        DataError: no `.npy` file of numbers.
        ShapeError: another shape.
        InvalidValueError: fewer images.
    """
    try:
        stored = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a .npy file of numbers: {error}") from error
    if stored.ndim != 5 or stored.shape[0] != num_levels or stored.shape[2:] != shape:
        raise ShapeError(f"{path} has shape {list(stored.shape)}; needed is [{num_levels}, N, {shape}]")
    number = stored.shape[1] if n is None else n
    if number > stored.shape[1]:
        raise InvalidValueError(f"n is {n}, but {path} holds {stored.shape[1]} images a level")
    settings = {"process": "file", "n": number, "sha256": sha256(path)}
    return NoisyLevels(num_levels, lambda level: np.array(stored[level, :number]), settings)
