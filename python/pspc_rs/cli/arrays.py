"""The noisy images a command works on: read from a file, or drawn."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.errors import DataError, InvalidValueError, ShapeError
from pspc_rs.samplers import initial_noise


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


def draw_noisy(data: ImageSet, num: int, sigma: float, seed: int) -> NDArray[np.float32]:
    """Noisy images z = x + sigma n of the forward process, float32 [num, C, H, W].

    As the published scripts draw them: every image's index by numpy's legacy ``RandomState(seed).randint(N)``, flips
    counted in N, and one torch batch of normal numbers from a generator with the same seed. Without torch the normal
    numbers come from ``numpy.random.default_rng(seed)``.
    """
    random = np.random.RandomState(seed)
    indices = [int(random.randint(len(data))) for _ in range(num)]
    return data.batch(indices) + initial_noise(num, data.shape, sigma, seed)
