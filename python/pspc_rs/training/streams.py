"""Order and randomness of training as functions of the number of the image: nothing that would have to be remembered.

Image n of a run is the same image with the same noise however the run is cut into batches and processes, or stopped.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pspc_rs.data import ImageSet
from pspc_rs.training.augment import Augmentation, AugmentPipe
from pspc_rs.training.evaluate import one_hot

Made = TypeVar("Made")

# Random numbers of an image besides its noise; augmentation takes 9 uniform (coins count) and 5 normal ones.
_UNIFORMS = 16
_NORMALS = 16
# Purposes, which keep streams of one seed apart.
_IMAGES, _ORDER, _STEP = 0, 1, 2


class ShuffledOrder:
    """An endless order of the images 0 .. num - 1: all of them, shuffled, then all of them shuffled anew.

    Args:
        num: how many images there are.
        seed: 0 .. 2^64 - 1.

    Example:
        >>> sorted(ShuffledOrder(4, seed=0).indices(4, 4).tolist())
        [0, 1, 2, 3]
    """

    def __init__(self, num: int, seed: int) -> None:
        self._num = num
        self._seed = seed
        self._epoch = -1
        self._shuffled = np.empty(0, np.int64)

    def indices(self, start: int, count: int) -> NDArray[np.int64]:
        """The images at the places start .. start + count - 1 of the order."""
        found: list[NDArray[np.int64]] = []
        while count > 0:
            epoch, place = divmod(start, self._num)
            part = self._permutation(epoch)[place : place + count]
            found.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._shuffled = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(self._num)
            self._epoch = epoch
        return self._shuffled


class RowDraws:
    """Random numbers for N images, each from the image's own stream; see ``pspc_rs.training.augment.Draws``."""

    def __init__(self, uniforms: Tensor, normals: Tensor) -> None:
        self._uniforms, self._normals = iter(uniforms.unbind(1)), iter(normals.unbind(1))

    def coin(self) -> Tensor:
        """0 or 1 with equal chances."""
        return (next(self._uniforms) < 0.5).double()

    def uniform(self) -> Tensor:
        """Uniform on [0, 1)."""
        return next(self._uniforms)

    def normal(self) -> Tensor:
        """Standard normal."""
        return next(self._normals)


@dataclass(frozen=True)
class Batch:
    """Images of a step and everything random about them, on the CPU.

    Attributes:
        images: [N, C, H, W], not augmented yet.
        noise: standard normal, [N, C, H, W].
        number: what the noise level is made of, float64 [N].
        augmentation: what is to be done to the images; None for nothing.
        class_labels: one-hot [N, classes], None for none.
    """

    images: Tensor
    noise: Tensor
    number: Tensor
    augmentation: Augmentation | None
    class_labels: Tensor | None


class Batches:
    """Makes the batches of a run.

    Args:
        data: the images; flips among them count if the set has them.
        seed: of order, noise and augmentation.
        normal: whether the number of the noise level is standard normal, or uniform on [0, 1).
        label_dim: number of classes to tell, 0 for none.
        augment: what draws the augmentations, None for none.
    """

    def __init__(
        self, data: ImageSet, seed: int, *, normal: bool, label_dim: int = 0, augment: AugmentPipe | None = None
    ) -> None:
        self._data = data
        self._seed = seed
        self._normal = normal
        self._label_dim = label_dim
        self._augment = augment
        self._order = ShuffledOrder(len(data), seed)

    def batch(self, first: int, count: int) -> Batch:
        """The images first .. first + count - 1 of the run."""
        indices = self._order.indices(first, count)
        streams = [_stream(self._seed, first + row) for row in range(count)]
        uniforms = torch.from_numpy(np.stack([stream.random(_UNIFORMS) for stream in streams]))
        normals = torch.from_numpy(np.stack([stream.standard_normal(_NORMALS) for stream in streams]))
        noise = np.empty((count, *self._data.shape), np.float32)
        for row, stream in zip(noise, streams, strict=True):
            stream.standard_normal(out=row, dtype=np.float32)
        number = normals[:, 0] if self._normal else uniforms[:, 0]
        draws = RowDraws(uniforms[:, 1:], normals[:, 1:])
        return Batch(
            torch.from_numpy(self._data.batch(indices)),
            torch.from_numpy(noise),
            number,
            None if self._augment is None else self._augment.draw(count, draws),
            one_hot(self._data, indices, self._label_dim),
        )


def dropout_seed(seed: int, first: int) -> int:
    """The seed of torch's own generators for the part of a step that begins with image ``first``."""
    return int(np.random.SeedSequence([seed, _STEP, first]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _stream(seed: int, number: int) -> np.random.Generator:
    """The stream of image ``number``: streams are 2^128 blocks apart in one sequence of the Philox generator."""
    return np.random.Generator(np.random.Philox(key=[seed, _IMAGES], counter=[0, 0, number, 0]))


class Ahead(Generic[Made]):
    """Makes the next batch in a thread of its own while the current one is computed with.

    Args:
        make: makes the batch of a key.

    Example:
        >>> with Ahead(lambda first, count: list(range(first, first + count))) as ahead:
        ...     ahead.get((0, 2), (2, 2)), ahead.get((2, 2), (4, 2))
        ([0, 1], [2, 3])
    """

    def __init__(self, make: Callable[[int, int], Made]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1)
        self._coming: tuple[tuple[int, int], Future[Made]] | None = None

    def get(self, key: tuple[int, int], coming: tuple[int, int]) -> Made:
        """The batch of ``key``; that of ``coming`` is begun."""
        ready = self._coming[1] if self._coming and self._coming[0] == key else self._pool.submit(self._make, *key)
        batch = ready.result()
        self._coming = (coming, self._pool.submit(self._make, *coming))
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
