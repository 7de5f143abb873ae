"""The noisy images a command works on, read from a file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.errors import DataError, InvalidValueError, ShapeError


def read_noisy(path: Path, num: int, data: ImageSet, *, row: int | None = None, rows: int = 0) -> NDArray[Any]:
    """The first `num` noisy images of a `.npy` file [N, C, H, W], or of one row of a file [rows, N, C, H, W].

    Args:
        path: the file; only what is needed is read.
        num: how many images.
        data: the training images, whose shape they must have.
        row: which row, for a file with one row a noise level.
        rows: how many rows there must be.

    Raises:
        DataError: the file is not a `.npy` file of numbers.
        ShapeError: the file has other axes, or images of another shape.
        InvalidValueError: the file holds fewer images.
    """
    try:
        stored = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise DataError(f"{path} cannot be read as a .npy file of numbers: {error}") from error
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
