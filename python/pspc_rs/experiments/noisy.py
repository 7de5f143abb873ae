"""Noisy sets: z at every level of a noise grid, from the data or along a network's trajectory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import image_shape, integer
from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.settings import data_settings, model_settings, numeric_settings
from pspc_rs.provenance import Clock, describe_data, provenance
from pspc_rs.runs import BatchRun
from pspc_rs.samplers import SAMPLERS, initial_noise, noise_source
from pspc_rs.sigmas import check_grid

Model: TypeAlias = Callable[..., Any]
"""A denoiser or network, D(z, sigma)."""

Tick: TypeAlias = Callable[[int, int], object]
"""Called as tick(done, total)."""

Start: TypeAlias = Literal["noise", "data"]
"""Where trajectories start: at noise alone, or at noisy images of the data."""

DETERMINISTIC = tuple(name for name in SAMPLERS if name != "edm")
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
    random = np.random.RandomState(checked_seed(seed))
    indices = [int(random.randint(len(data))) for _ in range(integer("n", n))]
    return data.batch(indices)


def reverse_noisy(model: Model, z: NDArray[Any], sigmas: object, sampler: str = "heun") -> NDArray[np.float32]:
    """Noisy images at every level along the deterministic trajectory of a network, float32 [levels, N, C, H, W].

    Args:
        model: D(z, sigma).
        z: states at the first level, [N, C, H, W].
        sigmas: descending noise levels; a final 0 plays no part.
        sampler: "heun", as published, "euler" or "dpmpp_2m".

    Raises:
        InvalidValueError: another sampler, or noise levels that are no grid.

    Example:
        >>> z = np.full((2, 1, 1, 1), 4.0, np.float32)
        >>> reverse_noisy(lambda z, sigma: 0 * z, z, [2.0, 1.0]).ravel()  # z / sigma stays what it is
        array([4., 4., 2., 2.], dtype=float32)
    """
    levels = _levels(sigmas)
    solve = SAMPLERS[checked_sampler(sampler)]
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
    resume: bool = False,
    record: Mapping[str, object] | None = None,
    tick: Tick | None = None,
) -> bool:
    """Writes the forward noisy set of a data set, `.npy` float32 [levels, n, C, H, W], a level at a time.

    The same arguments give the same bytes, and a row is what `forward_noisy` draws at that level. Beside the output
    lies a JSON record; an interrupted run goes on with ``resume``.

    Args:
        output: the `.npy` file.
        data: see `forward_noisy`.
        sigmas: descending noise levels; a final 0 plays no part.
        n: images a level.
        seed: see `forward_noisy`.
        resume: go on with levels that an earlier run kept.
        record: further options for the record.
        tick: called after every level.

    Returns:
        Whether anything had to be written; False if the output was complete already.

    Raises:
        OutputError: the file cannot be written, or an earlier run to be resumed had other settings.
        InvalidValueError: an argument is out of range.

    Example:
        >>> import tempfile
        >>> data = ImageSet(np.zeros((5, 1, 4, 4), np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = save_forward(Path(folder, "z.npy"), data, [2.0, 1.0], 3)
        ...     np.load(Path(folder, "z.npy")).shape
        (2, 3, 1, 4, 4)
    """
    clock, levels = Clock(), _levels(sigmas)
    settings = {
        "process": "forward",
        "sigmas": levels,
        "n": integer("n", n),
        "seed": checked_seed(seed),
        **data_settings(data),
        **numeric_settings(),
    }
    run = BatchRun(output, settings, resume=resume)
    if run.complete:
        return False
    for index in _ticked(run, len(levels), tick):
        run.keep(index, forward_noisy(data, n, levels[index], seed)[None])
    run.finish(len(levels), provenance("noise forward", dict(record or {}), data=data, clock=clock))
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
    start_data: ImageSet | None = None,
    resume: bool = False,
    record: Mapping[str, object] | None = None,
    tick: Tick | None = None,
) -> bool:
    """Writes z along the deterministic trajectories of a network, `.npy` float32 [levels, n, C, H, W].

    Trajectories start at the first level at normal noise of that standard deviation, or, for a network that is not
    good at levels as high as that takes, at noisy images of a data set, as `forward_noisy` draws them. They are
    computed and kept batch by batch; see `save_forward` for files, bytes and ``resume``.

    Args:
        output: the `.npy` file.
        model: D(z, sigma).
        shape: (channels, height, width) of the images.
        sigmas: descending noise levels; a final 0 plays no part.
        n: images a level.
        seed: of the noise at the first level, 0 .. 2^32 - 1.
        sampler: "heun", as published, "euler" or "dpmpp_2m".
        batch: images at once.
        start_data: images to start at, with noise added, instead of noise alone.
        resume: go on with batches that an earlier run kept.
        record: further options for the record.
        tick: called as ``tick(batches done, batches)``.

    Returns:
        Whether anything had to be computed; False if the output was complete already.

    Raises:
        OutputError: the file cannot be written, or an earlier run to be resumed had other settings.
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
    clock, levels = Clock(), _levels(sigmas)
    size = image_shape(shape)
    settings = {
        "process": "reverse",
        "sigmas": levels,
        "n": integer("n", n),
        "seed": checked_seed(seed),
        "sampler": checked_sampler(sampler),
        "batch": integer("batch", batch),
        "start": "noise" if start_data is None else describe_data(start_data),
        "shape": size,
        "model": model_settings(model),
        **numeric_settings(),
    }
    run = BatchRun(output, settings, axis=1, resume=resume)
    if run.complete:
        return False
    z = initial_noise(n, size, levels[0], seed) if start_data is None else forward_noisy(start_data, n, levels[0], seed)
    cuts = range(0, n, batch)
    for index in _ticked(run, len(cuts), tick):
        run.keep(index, reverse_noisy(model, z[cuts[index] : cuts[index] + batch], levels, sampler))
    run.finish(len(cuts), provenance("noise reverse", dict(record or {}), clock=clock, noise=noise_source()))
    return True


def check_start(start: object) -> None:
    """Refuses anything that is not a place where trajectories start.

    Raises:
        InvalidValueError: neither "noise" nor "data".

    Example:
        >>> check_start("data")
    """
    if start not in get_args(Start):
        raise InvalidValueError(f"start is {start!r}; allowed are 'noise' and 'data'")


def checked_sampler(sampler: str) -> str:
    """The sampler, after checking that its trajectories depend on their start alone.

    Raises:
        InvalidValueError: it is none of `DETERMINISTIC`.

    Example:
        >>> checked_sampler("heun")
        'heun'
    """
    if sampler not in DETERMINISTIC:
        raise InvalidValueError(f"sampler is {sampler!r}; allowed are {', '.join(DETERMINISTIC)}")
    return sampler


def checked_seed(seed: object) -> int:
    """The seed, after checking that numpy's legacy generator takes it.

    Raises:
        InvalidValueError: it is not 0 .. 2^32 - 1.
        DTypeError: it is not a whole number.

    Example:
        >>> checked_seed(7)
        7
    """
    number = integer("seed", seed, least=0)
    if number > _MAX_SEED:
        raise InvalidValueError(f"seed is {number}; allowed are 0 to {_MAX_SEED}")
    return number


def _ticked(run: BatchRun, num: int, tick: Tick | None) -> Any:
    """The batches that are pending; what is done is told after each."""
    pending = run.pending(num)
    for count, index in enumerate(pending):
        yield index
        if tick is not None:
            tick(num - len(pending) + count + 1, num)


def _levels(sigmas: object) -> list[float]:
    levels: list[float] = [level for level in check_grid(sigmas).tolist() if level > 0]
    return levels
