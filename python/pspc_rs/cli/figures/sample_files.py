"""Samples that other commands have written, by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DataError, InvalidValueError, MissingFileError

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
        click.UsageError: two of one name.
        MissingFileError, DataError: a file that is not there, or is none of numbers.
        InvalidValueError: a file with fewer images.
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
        try:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{path} cannot be read as a .npy file of numbers: {error}") from error
        if num is not None and images.ndim and len(images) < num:
            raise InvalidValueError(f"--n-samples is {num}, but {path} holds {len(images)} images")
        samples[name] = np.array(images[:num])
    return samples
