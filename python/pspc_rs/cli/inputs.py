"""What commands read besides their data: noisy images from four places, and samples that other commands wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs.cli.commands import option_group
from pspc_rs.cli.models import load_data
from pspc_rs.cli.options import (
    Options,
    n_option,
)
from pspc_rs.cli.values import input_file
from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError, MissingFileError, ShapeError
from pspc_rs.experiments.noisy_sets import (
    NoisyLevels,
    Start,
    drawn_images,
    file_levels,
    forward_levels,
    reverse_levels,
)
from pspc_rs.outputs import open_array
from pspc_rs.progress import Progress, describe
from pspc_rs.samplers import PROTOCOLS

Command = TypeVar("Command", bound=Callable[..., Any])

_noisy, _images = option_group("Noisy images"), option_group("Images")

_NOISE_IMAGES = (
    _noisy("--noise-data", metavar="PATH|NAME", help="Images to add noise to, held-out ones say.  [default: --data]"),
    _noisy("--noise-split", type=click.Choice(["train", "test"]), default="train", help="Which part of them."),
)

_Z = _noisy("--z", type=input_file(), help="Noisy images from a file of pspc-rs noise, [n_steps, N, C, H, W].")

_OPTIONS = (
    _noisy(
        "--process",
        type=click.Choice(["forward", "reverse"]),
        default="forward",
        help="Noisy images of the data, or images on the target's own trajectories.",
    ),
    _noisy(
        "--start",
        type=click.Choice(["noise", "data"]),
        default="noise",
        help="Where trajectories start: at noise at t_max, or at noisy images at the highest level in range.",
    ),
    *_NOISE_IMAGES,
    _Z,
    _noisy("--sigma-from", type=float, default=0.0, help="Lowest noise level in range."),
    _noisy("--sigma-to", type=float, help="Highest noise level in range.  [default: no limit]"),
)


@lru_cache(maxsize=1)
def _loaded(data: str, split: str) -> ImageSet:
    return load_data(data, split=split)


def noise_images(data_name: str, data: ImageSet, noise_data: str | None, noise_split: str) -> ImageSet:
    """The images that noise is added to.

    Args:
        data_name: what ``--data`` names.
        data: the training images.
        noise_data: what ``--noise-data`` names, None for the training images.
        noise_split: which part of them, "train" or "test".

    Raises:
        ShapeError: they have another shape than the data.
    """
    if noise_data is None and noise_split == "train":
        return data
    images = _loaded(data_name if noise_data is None else noise_data, noise_split)
    if images.shape != data.shape:
        raise ShapeError(
            f"--noise-data has images of shape {list(images.shape)}; those of --data are {list(data.shape)}"
        )
    return images


@dataclass(frozen=True, kw_only=True)
class NoisySource:
    """The values of the options, under the names of the options."""

    process: str
    start: str
    noise_data: str | None
    noise_split: str
    z: Path | None
    sigma_from: float
    sigma_to: float | None

    @property
    def limits(self) -> tuple[float, float]:
        """Lowest and highest noise level."""
        return self.sigma_from, float("inf") if self.sigma_to is None else self.sigma_to

    def chosen_levels(self, options: Options) -> list[tuple[int, float]]:
        """The levels of the run's grid in range, as (index, sigma)."""
        low, high = self.limits
        return [(level, sigma) for level, sigma in enumerate(options.sigmas().tolist()) if low <= sigma <= high]

    def images(self, options: Options, data: ImageSet) -> ImageSet:
        """The images that noise is added to.

        Raises:
            ShapeError: they have another shape than the data.
        """
        return noise_images(options.data, data, self.noise_data, self.noise_split)

    def levels(self, options: Options, data: ImageSet, target: Any, progress: Progress | None = None) -> NoisyLevels:
        """The noisy images of every level of the grid.

        Args:
            options: of the run.
            data: the training images.
            target: the network that trajectories are of.
            progress: called while trajectories are computed.
        """
        sigmas = options.sigmas().tolist()
        if self.z is not None:
            return file_levels(self.z, data.shape, len(sigmas), options.n_samples)
        if self.process == "forward":
            return forward_levels(self.images(options, data), sigmas, options.n_samples, options.seed)
        describe(progress, "trajectories")
        return reverse_levels(
            options.outdir,
            target,
            self.images(options, data),
            sigmas,
            options.n_samples,
            seed=options.seed,
            sampler="heun" if options.protocol is None else PROTOCOLS[options.protocol].sampler,
            start=cast(Start, self.start),
            start_scale=options.start_scale,
            limits=self.limits,
            batch=options.batch,
            progress=progress,
        )

    def clean(self, options: Options, data: ImageSet) -> list[NDArray[np.float32]]:
        """The clean images behind the forward process, the same for every level.

        Raises:
            click.UsageError: the noisy images are of another process or from a file.
        """
        if self.process != "forward" or self.z is not None:
            raise click.UsageError("--target clean needs --process forward, and no --z: other z have no clean images")
        clean = drawn_images(self.images(options, data), options.n_samples, options.seed)
        return [clean] * len(options.sigmas())


def noisy_options(least: int = 2) -> Callable[[Command], Command]:
    """Adds the options of `NoisySource`, and the number of images, to a command.

    Args:
        least: how many images there must be; two where there are standard errors.
    """

    def add(command: Command) -> Command:
        for option in reversed((n_option("Noisy images per noise level.", least=least), *_OPTIONS)):
            command = option(command)
        return command

    return add


def noise_image_options(command: Command) -> Command:
    """Adds --noise-data and --noise-split to a command."""
    for option in reversed(_NOISE_IMAGES):
        command = option(command)
    return command


def held_out_options(command: Command) -> Command:
    """Adds --noise-data, --noise-split and --z to a command."""
    return noise_image_options(_Z(command))


def split_options(given: dict[str, Any]) -> tuple[Options, NoisySource]:
    """The keyword arguments of a command with both kinds of options, as two objects."""
    own = {name: given.pop(name) for name in NoisySource.__dataclass_fields__}
    return Options(**given), NoisySource(**own)


def image_options(command: Command) -> Command:
    """Adds --images and --images-split to a command."""
    split = click.Choice(["train", "test"])
    command = _images("--images-split", type=split, default="train", help="Which part of --images.")(command)
    return _images("--images", metavar="PATH|NAME", help="Images to add noise to, such as samples.  [default: --data]")(
        command
    )


def shown_images(name: str, split: str, data: ImageSet) -> ImageSet:
    """The images that --images and --images-split name.

    Raises:
        ShapeError: they have another shape than the data.
    """
    images = load_data(name, split=split)
    if images.shape != data.shape:
        raise ShapeError(f"--images has images of shape {list(images.shape)}; those of --data are {list(data.shape)}")
    return images


def read_noisy(path: Path, num: int, data: ImageSet, *, row: int | None = None, rows: int = 0) -> NDArray[Any]:
    """The first `num` noisy images of a `.npy` file [N, C, H, W], or of one row of a file [rows, N, C, H, W].

    Args:
        path: the file; only what is needed is read.
        num: how many images.
        data: the training images, whose shape they must have.
        row: which row, for a file with one row per noise level.
        rows: how many rows there must be.

    Raises:
        DataError: the file is not a `.npy` file of numbers.
        ShapeError: the file has other axes, or images of another shape.
        InvalidValueError: the file holds fewer images.
    """
    stored = open_array(path)
    leading = [] if row is None else [rows]
    expected = [*leading, "N", *data.shape]
    found = list(stored.shape)
    if len(found) != len(expected) or found[: len(leading)] != leading or tuple(found[-3:]) != data.shape:
        raise ShapeError(
            f"{path} has shape {found}; needed is [{', '.join(map(str, expected))}] for these data and steps"
        )
    images = stored if row is None else stored[row]
    if num > len(images):
        raise InvalidValueError(f"--n-samples is {num}, but {path} holds {len(images)} images")
    return np.array(images[:num])


samples_option = click.option(
    "--samples",
    "specs",
    multiple=True,
    required=True,
    metavar="[NAME=]FILE",
    help="Samples, .npy [N, C, H, W], image i of every file from the same noise; give several.",
)


def read_samples(specs: Sequence[str], num: int | None) -> dict[str, NDArray[Any]]:
    """The first images of every file.

    Args:
        specs: "NAME=FILE" or "FILE", whose name is then that of the file.
        num: how many; all if None.

    Raises:
        click.UsageError: two files have one name.
        MissingFileError, DataError: a file is missing, or is not a `.npy` file of numbers.
        InvalidValueError: a file holds fewer images.
    """
    samples: dict[str, NDArray[Any]] = {}
    for spec in specs:
        name, equals, rest = spec.partition("=")
        path = Path(rest if equals else spec)
        name = name if equals else path.stem.removesuffix("_samples")
        if name in samples:
            raise click.UsageError(f"two samples are called {name!r}; write NAME={path} with another name")
        if not path.is_file():
            raise MissingFileError(f"there is no file {path}")
        images = open_array(path)
        if num is not None and images.ndim and len(images) < num:
            raise InvalidValueError(f"--n-samples is {num}, but {path} holds {len(images)} images")
        samples[name] = np.array(images[:num])
    return samples
