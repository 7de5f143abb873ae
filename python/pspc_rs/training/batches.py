"""The batches of a run: order and randomness are functions of the number of the image, so there is no state to keep.

Image n of a run is the same image with the same noise however the run is cut into batches and ranks, or stopped.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pspc_rs.data import ImageSet
from pspc_rs.training.augment import Augmentation, AugmentPipe

Made = TypeVar("Made")

# Random numbers per image besides its noise; augmentation takes 9 uniform ones (coins count) and 5 normal ones.
_UNIFORMS = 16
_NORMALS = 16
# What a stream is for: part of its key, so that streams of one seed differ.
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

    def __repr__(self) -> str:
        return f"ShuffledOrder({self._num}, seed={self._seed})"

    def indices(self, start: int, count: int) -> NDArray[np.int64]:
        """The images at the places start .. start + count - 1 of the order."""
        parts = [np.empty(0, np.int64)]
        while count > 0:
            epoch, place = divmod(start, self._num)
            part = self._permutation(epoch)[place : place + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._shuffled = np.random.default_rng([self._seed, _ORDER, epoch]).permutation(self._num)
            self._epoch = epoch
        return self._shuffled


class RowDraws:
    """Random numbers for N images, each from the image's own stream; see ``pspc_rs.training.augment.Draws``."""

    def __init__(self, uniforms: Tensor, normals: Tensor) -> None:
        self._uniforms, self._normals = iter(uniforms.unbind(1)), iter(normals.unbind(1))
        self._num = len(uniforms)

    def __repr__(self) -> str:
        return f"RowDraws({self._num} images)"

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
        number: the drawn numbers that noise levels are functions of, see `DenoisingLoss`, float64 [N].
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
        label_dim: number of classes of the network, 0 for none.
        augment: draws the augmentations; None for none.
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

    def __repr__(self) -> str:
        return f"Batches({self._data!r}, seed={self._seed})"

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


def one_hot(data: ImageSet, indices: NDArray[np.int64], label_dim: int) -> Tensor | None:
    """The labels of images as float32 [N, label_dim], None for a network without classes."""
    if not label_dim or data.labels is None:
        return None
    labels = torch.from_numpy(data.labels[indices % data.num_stored])
    return nn.functional.one_hot(labels, label_dim).float()


class Prefetcher(Generic[Made]):
    """Makes the next batch in a thread of its own while the network computes with the current one.

    Args:
        make: makes the batch for a key.

    Example:
        >>> with Prefetcher(lambda first, count: list(range(first, first + count))) as prefetcher:
        ...     prefetcher.get((0, 2), (2, 2)), prefetcher.get((2, 2), (4, 2))
        ([0, 1], [2, 3])
    """

    def __init__(self, make: Callable[[int, int], Made]) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[tuple[int, int], Future[Made]] | None = None

    def __repr__(self) -> str:
        return f"Prefetcher({self._make!r})"

    def get(self, key: tuple[int, int], next_key: tuple[int, int]) -> Made:
        """The batch for ``key``; that for ``next_key`` is begun."""
        future = self._next[1] if self._next and self._next[0] == key else self._pool.submit(self._make, *key)
        batch = future.result()
        self._next = (next_key, self._pool.submit(self._make, *next_key))
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
