"""Two small data sets that need no download: scikit-learn carries their images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.image_set import ImageSet
from pspc_rs.errors import MissingDependencyError

_SIDE = 32
_CROPS = 4000
_SCALES = (2, 3, 4)
_SEED = 2411


def digits() -> ImageSet:
    """1,797 handwritten digits, 8 x 8 grey, with labels 0 .. 9 (scikit-learn's `load_digits`).

    The values v = 0 .. 16 become the bytes round(255 v / 16).

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    bunch = _sklearn_datasets().load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return ImageSet(pixels, bunch.target, name="digits")


def photos() -> ImageSet:
    """4,000 colour crops, 32 x 32, of two photographs (scikit-learn's `load_sample_images`); label = photograph.

    Each photograph is reduced by 2, 3 and 4 (means of square blocks); the positions of the crops are drawn without
    repetition, with a fixed seed, and so is their order.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    # RandomState, because its numbers are promised never to change.
    random = np.random.RandomState(_SEED)
    pictures = _sklearn_datasets().load_sample_images().images
    crops, labels = [], []
    for label, picture in enumerate(pictures):
        for scale, count in zip(_SCALES, _shares(_CROPS // len(pictures), len(_SCALES)), strict=True):
            crops.append(_random_crops(_reduced(picture, scale), count, random))
            labels += [label] * count
    order = random.permutation(len(labels))
    return ImageSet(np.concatenate(crops)[order], np.array(labels)[order], name="photos")


def _sklearn_datasets() -> Any:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise MissingDependencyError(
            'the data sets digits and photos come with scikit-learn: pip install "pspc-rs[demo]"'
        ) from error
    return sklearn.datasets


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _reduced(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    height, width, channels = picture.shape
    rows, columns = height // scale, width // scale
    blocks = picture[: rows * scale, : columns * scale].reshape(rows, scale, columns, scale, channels)
    reduced: NDArray[np.uint8] = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return reduced


def _random_crops(picture: NDArray[np.uint8], count: int, random: np.random.RandomState) -> NDArray[np.uint8]:
    windows = np.lib.stride_tricks.sliding_window_view(picture, (_SIDE, _SIDE), axis=(0, 1))
    rows, columns = windows.shape[:2]
    tops, lefts = np.divmod(random.choice(rows * columns, count, replace=False), columns)
    crops: NDArray[np.uint8] = windows[tops, lefts]
    return crops
