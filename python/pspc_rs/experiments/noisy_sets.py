"""Noisy sets: z at every level of a noise grid, from the data or along a network's trajectory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args, overload

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import image_shape, integer, one_of, real_number
from pspc_rs.data import ImageSet
from pspc_rs.deprecation import overwriting
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.evaluate import Model
from pspc_rs.experiments.leaving_out import Sources
from pspc_rs.outputs import ResumableArray, open_array
from pspc_rs.progress import Progress, Steps, renamed_progress
from pspc_rs.provenance import (
    Clock,
    data_settings,
    describe_data,
    machine_settings,
    model_settings,
    provenance,
    settings_key,
    sha256,
)
from pspc_rs.samplers import SAMPLERS, initial_noise, noise_source
from pspc_rs.sigmas import check_grid

Start: TypeAlias = Literal["noise", "data"]
"""Where trajectories start: at noise alone, or at noisy images of the data."""

DETERMINISTIC_SAMPLERS = tuple(name for name in SAMPLERS if name != "edm")
"""Samplers whose trajectories depend on their start alone."""

_MAX_SEED = 2**32 - 1


def forward_noisy(data: ImageSet, n: int, sigma: float, seed: int = 0) -> NDArray[np.float32]:
    """Noisy images z = x + sigma n of the forward process, float32 [n, C, H, W].

    As the published scripts draw them: every image's index by numpy's legacy ``RandomState(seed).randint(N)``, flips
    counted in N, and one torch batch of normal numbers from a generator with the same seed. Without torch the normal
    numbers come from ``numpy.random.default_rng(seed)``. A seed thus gives the same images and the same noise at every
    level, and levels can be computed apart from each other.

    Args:
        data: the images that are drawn from, with replacement.
        n: how many.
        sigma: noise level in pixel units.
        seed: 0 .. 2^32 - 1.

    Raises:
        InvalidValueError: an argument is out of range.

    Example:
        >>> data = ImageSet(np.zeros((5, 1, 4, 4), np.uint8))
        >>> z = forward_noisy(data, 3, 0.001)
        >>> z.shape, z.mean().round(2)
        ((3, 1, 4, 4), np.float32(-1.0))
    """
    return drawn_images(data, n, seed) + initial_noise(n, data.shape, sigma, seed)


def drawn_images(data: ImageSet, n: int, seed: int = 0) -> NDArray[np.float32]:
    """The clean images behind `forward_noisy`, float32 [n, C, H, W], the same at every level.

    Example:
        >>> drawn_images(ImageSet(np.zeros((5, 1, 4, 4), np.uint8)), 3).shape
        (3, 1, 4, 4)
    """
    return data.batch(drawn_indices(data, n, seed))


def drawn_indices(data: ImageSet, n: int, seed: int = 0) -> NDArray[np.int64]:
    """Which images of the data lie behind `forward_noisy`, int64 [n], N + i for the flip of image i.

    Example:
        >>> drawn_indices(ImageSet(np.zeros((5, 1, 4, 4), np.uint8)), 3)
        array([4, 0, 3])
    """
    random = np.random.RandomState(check_seed(seed))
    return np.array([int(random.randint(len(data))) for _ in range(integer("n", n))], np.int64)


def reverse_noisy(model: Model, z: NDArray[Any], sigmas: object, sampler: str = "heun") -> NDArray[np.float32]:
    """Noisy images at every level along the deterministic trajectory of a network, float32 [levels, N, C, H, W].

    Args:
        model: D(z, sigma).
        z: states at the first level, [N, C, H, W].
        sigmas: descending noise levels; a final 0 is ignored.
        sampler: "heun", as published, "euler" or "dpmpp_2m".

    Raises:
        InvalidValueError: another sampler, or noise levels that are not a grid.

    Example:
        >>> z = np.full((2, 1, 1, 1), 4.0, np.float32)
        >>> reverse_noisy(lambda z, sigma: 0 * z, z, [2.0, 1.0]).ravel()  # z / sigma keeps its value
        array([4., 4., 2., 2.], dtype=float32)
    """
    levels = positive_levels(sigmas)
    solve = SAMPLERS[check_sampler(sampler)]
    start = np.asarray(z, np.float32)
    states = start[None] if len(levels) == 1 else solve(model, start, levels, trajectory=True)
    return np.asarray(states, np.float32)


def save_forward(
    output: Path,
    data: ImageSet,
    sigmas: object,
    n: int,
    *,
    seed: int = 0,
    resume: bool | None = None,
    overwrite: bool = False,
    record: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    tick: Callable[[int, int], object] | None = None,
) -> bool:
    """Writes the forward noisy set of a data set, `.npy` float32 [levels, n, C, H, W], a level at a time.

    The same arguments give the same bytes, and a row is what `forward_noisy` draws at that level. Beside the output
    lies a JSON record. An interrupted run is continued.

    Args:
        output: the `.npy` file.
        data: see `forward_noisy`.
        sigmas: descending noise levels; a final 0 is ignored.
        n: images per level.
        seed: see `forward_noisy`.
        resume: deprecated; a run with the same settings is always continued.
        overwrite: replace an output that has other settings.
        record: further options for the record.
        progress: called as ``progress(levels done, levels)``.
        tick: deprecated; the earlier name of ``progress``.

    Returns:
        Whether anything had to be written; False if the output was complete already.

    Raises:
        OutputError: the file cannot be written, an earlier run had other settings, or another run is writing it.
        InvalidValueError: an argument is out of range.

    Example:
        >>> import tempfile
        >>> data = ImageSet(np.zeros((5, 1, 4, 4), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = save_forward(Path(folder, "z.npy"), data, [2.0, 1.0], 3)
        ...     np.load(Path(folder, "z.npy")).shape
        (2, 3, 1, 4, 4)
    """
    progress = renamed_progress(progress, "tick", tick, ("done", "total"))
    clock, levels = Clock(), positive_levels(sigmas)
    settings = {
        "process": "forward",
        "sigmas": levels,
        "n": integer("n", n),
        "seed": check_seed(seed),
        **data_settings(data),
        **_draw_settings(),
    }
    with ResumableArray(output, settings, overwrite=overwriting(resume, overwrite)) as stored:
        if stored.complete:
            return False
        for index in _pending(stored, len(levels), progress):
            stored.keep(index, forward_noisy(data, n, levels[index], seed)[None])
        stored.finish(len(levels), provenance("noise forward", dict(record or {}), data=data, clock=clock))
    return True


def save_reverse(
    output: Path,
    model: Model,
    shape: tuple[int, int, int],
    sigmas: object,
    n: int,
    *,
    seed: int = 0,
    sampler: str = "heun",
    batch: int = 50,
    start_scale: float | None = None,
    start_data: ImageSet | None = None,
    resume: bool | None = None,
    overwrite: bool = False,
    wait: bool = False,
    record: Mapping[str, object] | None = None,
    progress: Progress | None = None,
    tick: Callable[[int, int], object] | None = None,
) -> bool:
    """Writes z along the deterministic trajectories of a network, `.npy` float32 [levels, n, C, H, W].

    Trajectories start at the first level, at normal noise of that standard deviation or another one, or, for a network
    that is not good at levels as high as that takes, at noisy images of a data set, as `forward_noisy` draws them. They
    are computed and kept batch by batch; see `save_forward` for files, bytes and interruptions.

    Args:
        output: the `.npy` file.
        model: D(z, sigma).
        shape: (channels, height, width) of the images.
        sigmas: descending noise levels; a final 0 is ignored.
        n: images per level.
        seed: of the noise at the first level, 0 .. 2^32 - 1.
        sampler: "heun", as published, "euler" or "dpmpp_2m".
        batch: images at once.
        start_scale: standard deviation of the noise, such as that of a `Protocol`; the first level if None. It plays
            no part with ``start_data``.
        start_data: images to start at, with noise added, instead of noise alone.
        resume: deprecated; a run with the same settings is always continued.
        overwrite: replace an output that has other settings.
        wait: for another run that is writing the output; without it, such a run is an error.
        record: further options for the record.
        progress: called as ``progress(batches done, batches)``.
        tick: deprecated; the earlier name of ``progress``.

    Returns:
        Whether anything had to be computed; False if the output was complete already.

    Raises:
        OutputError: the file cannot be written, an earlier run had other settings, or another run is writing it.
        InvalidValueError: an argument is out of range, or the model returned NaN.
        ShapeError: the model or the data have images of another shape.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "z.npy")
        ...     _ = save_reverse(path, lambda z, sigma: 0 * z, (1, 2, 2), [2.0, 1.0], 5, batch=3)
        ...     z = np.load(path)
        >>> z.shape, bool(np.allclose(z[0], 2 * z[1]))
        ((2, 5, 1, 2, 2), True)
    """
    progress = renamed_progress(progress, "tick", tick, ("done", "total"))
    clock, levels = Clock(), positive_levels(sigmas)
    size = image_shape(shape)
    settings = {
        "process": "reverse",
        "sigmas": levels,
        "n": integer("n", n),
        "seed": check_seed(seed),
        "sampler": check_sampler(sampler),
        "batch": integer("batch", batch),
        "start": "noise" if start_data is None else describe_data(start_data),
        **({} if start_data is not None else scale_settings(start_scale, levels[0])),
        "shape": size,
        "model": model_settings(model),
        **_draw_settings(),
    }
    allowed = overwriting(resume, overwrite)
    with ResumableArray(output, settings, axis=1, overwrite=allowed, wait=wait, progress=progress) as stored:
        if stored.complete:
            return False
        z = _starts(start_data, n, size, levels[0], seed, scale=start_scale)
        cuts = range(0, n, batch)
        for index in _pending(stored, len(cuts), progress):
            stored.keep(index, reverse_noisy(model, z[cuts[index] : cuts[index] + batch], levels, sampler))
        stored.finish(len(cuts), provenance("noise reverse", dict(record or {}), clock=clock, noise=noise_source()))
    return True


def _starts(
    data: ImageSet | None, n: int, shape: tuple[int, int, int], sigma: float, seed: int, *, scale: float | None
) -> NDArray[np.float32]:
    """Where trajectories start: noise alone, or noisy images of a data set."""
    if data is not None:
        return forward_noisy(data, n, sigma, seed)
    return initial_noise(n, shape, sigma if scale is None else scale, seed)


def scale_settings(start_scale: float | None, sigma: float) -> dict[str, float]:
    """What a standard deviation of the initial noise other than the first level adds to settings.

    Example:
        >>> scale_settings(None, 80.0), scale_settings(80.0, 80.0), scale_settings(5.1, 5.0)
        ({}, {}, {'start_scale': 5.1})
    """
    return {} if start_scale in (None, sigma) else {"start_scale": real_number("start_scale", start_scale, above=0)}


class NoisyLevels(Sequence[NDArray[Any]]):
    """A sequence of noisy images [n, C, H, W], one entry a noise level of a grid.

    Attributes:
        settings: what decides them, for records.
        sources: which images they were made of, the same at every level; None where that is not known.

    Args:
        num: number of levels.
        make: the noisy images of a level.
        settings: see above.
        sources: see above.

    Example:
        >>> levels = NoisyLevels(3, lambda level: np.full((1, 1, 2, 2), level), {"process": "example"})
        >>> len(levels), float(levels[-1].max())
        (3, 2.0)
    """

    def __init__(
        self,
        num: int,
        make: Callable[[int], NDArray[Any]],
        settings: Mapping[str, Any],
        sources: Sources | None = None,
    ) -> None:
        self._num, self._make = num, make
        self.settings = dict(settings)
        self.sources = sources

    def __repr__(self) -> str:
        return f"NoisyLevels({self._num} levels, process {self.settings.get('process', 'unknown')})"

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
    sources = Sources(data.fingerprint, drawn_indices(data, n, seed))
    return NoisyLevels(len(sigmas), lambda level: forward_noisy(data, n, sigmas[level], seed), settings, sources)


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
    start_scale: float | None = None,
    limits: tuple[float, float] = (0.0, float("inf")),
    batch: int = 50,
    progress: Progress | None = None,
) -> NoisyLevels:
    """Images on a network's trajectories, kept in a file below ``folder``; see `save_reverse`.

    Args:
        folder: where the file goes; an earlier one of the same settings is continued.
        model: D(z, sigma).
        data: the images that trajectories start at, for ``start="data"``, and whose shape they have.
        sigmas: the whole grid, descending.
        n: images.
        seed: of their start.
        sampler: of the trajectories.
        start: "noise" at the first level of the grid, or noisy "data" at the highest level within the limits.
        start_scale: see `save_reverse`; for ``start="noise"``.
        limits: lowest and highest level that will be asked for; with ``start="noise"`` the levels above are
            computed too.
        batch: images at once.
        progress: called as ``progress(batches done, batches)``.

    Raises:
        InvalidValueError: no level within the limits, or a level outside is asked for.
    """
    inside = [level for level, sigma in enumerate(sigmas) if limits[0] <= sigma <= limits[1]]
    if not inside:
        raise InvalidValueError(f"no noise level lies in {limits[0]:g} to {limits[1]:g}")
    first = first_level(start, inside)
    settings = {
        "process": "reverse",
        "n": n,
        "seed": seed,
        "noise": noise_source(),
        "sampler": sampler,
        "start": start,
        **(scale_settings(start_scale, sigmas[0]) if start == "noise" else {}),
        "sigmas": list(sigmas[first : inside[-1] + 1]),
        "batch": batch,
        "network": model_settings(model),
        **data_settings(data),
    }
    return trajectory_levels(
        folder / "noisy" / f"reverse_{settings_key(settings)}.npy",
        model,
        data,
        sigmas,
        n,
        inside=inside,
        seed=seed,
        sampler=sampler,
        start=start,
        start_scale=start_scale,
        batch=batch,
        settings=settings,
        progress=progress,
    )


def trajectory_levels(
    output: Path,
    model: Model,
    data: ImageSet,
    sigmas: Sequence[float],
    n: int,
    *,
    inside: Sequence[int],
    seed: int,
    sampler: str,
    start: Start,
    start_scale: float | None = None,
    batch: int,
    settings: Mapping[str, Any],
    record: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> NoisyLevels:
    """Images on a network's trajectories, kept in the file ``output``, which is computed or continued first.

    Args:
        output: the `.npy` file.
        model: D(z, sigma).
        data: see `reverse_levels`.
        sigmas: the whole grid, descending.
        n: images.
        inside: indices of the levels that will be asked for, ascending.
        seed: of the start of the trajectories.
        sampler: of the trajectories.
        start: see `reverse_levels`.
        start_scale: see `reverse_levels`.
        batch: images at once.
        settings: what identifies the images, for the records of those who use them.
        record: further options for the record beside the file.
        progress: called as ``progress(batches done, batches)``.

    Raises:
        InvalidValueError: a level is asked for that the trajectories do not reach.
    """
    first = first_level(start, inside)
    save_reverse(
        output,
        model,
        data.shape,
        sigmas[first : inside[-1] + 1],
        n,
        seed=seed,
        sampler=sampler,
        batch=batch,
        start_scale=start_scale,
        start_data=data if start == "data" else None,
        wait=True,
        record=record,
        progress=progress,
    )
    stored = np.load(output, mmap_mode="r")

    def read(level: int) -> NDArray[Any]:
        if not 0 <= level - first < len(stored):
            raise InvalidValueError(f"trajectories do not reach level {level}, sigma {sigmas[level]:g}")
        return np.array(stored[level - first])

    return NoisyLevels(len(sigmas), read, settings)


def first_level(start: Start, inside: Sequence[int]) -> int:
    """The level at which trajectories start: that of the grid for noise, the first one inside the range for data."""
    return 0 if check_start(start) == "noise" else inside[0]


def file_levels(path: Path, shape: tuple[int, int, int], num_levels: int, n: int | None = None) -> NoisyLevels:
    """The first images of a noisy set's file, `.npy` [levels, N, C, H, W], as ``pspc-rs noise`` writes it.

    Args:
        path: the file.
        shape: (channels, height, width) of the images.
        num_levels: how many levels there must be.
        n: images per level; all if None.

    Raises:
        DataError: no `.npy` file of numbers.
        ShapeError: another shape.
        InvalidValueError: fewer images.
    """
    stored = open_array(path)
    if stored.ndim != 5 or stored.shape[0] != num_levels or stored.shape[2:] != shape:
        raise ShapeError(f"{path} has shape {list(stored.shape)}; needed is [{num_levels}, N, {shape}]")
    number = stored.shape[1] if n is None else n
    if number > stored.shape[1]:
        raise InvalidValueError(f"n is {n}, but {path} holds {stored.shape[1]} images per level")
    settings = {"process": "file", "n": number, "sha256": sha256(path)}
    return NoisyLevels(num_levels, lambda level: np.array(stored[level, :number]), settings)


def check_start(start: object) -> Start:
    """Where trajectories start.

    Raises:
        InvalidValueError: neither "noise" nor "data".

    Example:
        >>> check_start("data")
        'data'
    """
    return cast(Start, one_of("start", start, get_args(Start)))


def check_sampler(sampler: object) -> str:
    """The name of a sampler whose trajectories depend on their start alone.

    Raises:
        InvalidValueError: it is none of `DETERMINISTIC_SAMPLERS`.

    Example:
        >>> check_sampler("heun")
        'heun'
    """
    return one_of("sampler", sampler, DETERMINISTIC_SAMPLERS)


def check_seed(seed: object) -> int:
    """A seed that numpy's legacy generator takes.

    Raises:
        InvalidValueError: it is not 0 .. 2^32 - 1.
        DTypeError: it is not an integer.

    Example:
        >>> check_seed(7)
        7
    """
    return integer("seed", seed, 0, _MAX_SEED)


def positive_levels(sigmas: object) -> list[float]:
    """The levels of a noise grid above 0.

    Raises:
        InvalidValueError, ShapeError, DTypeError: sigmas are not a noise grid.

    Example:
        >>> positive_levels([2, 1, 0])
        [2.0, 1.0]
    """
    levels: list[float] = check_grid(sigmas).tolist()
    return [level for level in levels if level > 0]


def _draw_settings() -> dict[str, Any]:
    """What decides the last bits of a noisy set."""
    return {**machine_settings(), "noise": f"{noise_source()} generator"}


def _pending(stored: ResumableArray, num: int, progress: Progress | None) -> Iterator[int]:
    """The batches that are pending; each is reported when the next is asked for."""
    pending = stored.pending(num)
    steps = Steps(progress, num, num - len(pending))
    for index in pending:
        yield index
        steps.finish()
