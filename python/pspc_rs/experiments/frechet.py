"""The Frechet distance between images' features, of which FID is the one with an Inception network's features."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite, import_torch, to_numpy
from pspc_rs.checks import integer
from pspc_rs.data import ImageSet
from pspc_rs.errors import DataError, InvalidValueError, MissingFileError, ShapeError
from pspc_rs.files import decode_errors
from pspc_rs.progress import Progress

Features = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""Features of a batch of images, uint8 [N, C, H, W] -> [N, features]."""


@dataclass(frozen=True)
class FeatureMoments:
    """Mean and covariance of features.

    Attributes:
        mean: [features].
        covariance: [features, features], with the divisor n - 1.
        n: how many images they are of; 0 if that is not known.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    n: int = 0

    def __repr__(self) -> str:
        return f"FeatureMoments({len(self.mean)} features of {self.n or 'an unknown number of'} images)"


def feature_moments(features: object) -> FeatureMoments:
    """Mean and covariance of features [N, features], N at least 2.

    Raises:
        ShapeError: they have other axes.
        InvalidValueError: there are fewer than two images, or a feature is not finite.

    Example:
        >>> feature_moments(np.array([[0.0, 1.0], [2.0, 1.0]])).covariance.tolist()
        [[2.0, 0.0], [0.0, 0.0]]
    """
    values = to_numpy(features, "features").astype(np.float64)
    if values.ndim != 2:
        raise ShapeError(f"features have shape {list(values.shape)}; needed is [N, features]")
    if len(values) < 2:
        raise InvalidValueError(f"there are features of {len(values)} images; a covariance needs at least 2")
    check_finite("features", values)
    return FeatureMoments(values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False)), len(values))


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)): FID, if the features are those of its Inception network.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017. It is
    biased: the fewer images, the larger it is, so compare only numbers of equally many.

    Raises:
        ShapeError: the two have different numbers of features.

    Example:
        >>> one = FeatureMoments(np.zeros(2), np.eye(2))
        >>> frechet_distance(one, FeatureMoments(np.array([3.0, 0.0]), 4 * np.eye(2)))
        11.0
    """
    if first.mean.shape != second.mean.shape:
        raise ShapeError(f"there are {len(first.mean)} and {len(second.mean)} features; allowed are as many in both")
    root = _square_root(first.covariance)
    # The eigenvalues of C1 C2 are those of the symmetric C1^(1/2) C2 C1^(1/2).
    values = np.linalg.eigvalsh(root @ second.covariance @ root)
    cross = np.sqrt(np.clip(values, 0, None)).sum()
    mean = np.square(first.mean - second.mean).sum()
    return float(mean + np.trace(first.covariance) + np.trace(second.covariance) - 2 * cross)


def read_moments(path: str | Path) -> FeatureMoments:
    """Moments of a reference from a file: ``.npz`` with ``mu`` and ``sigma``, as published, or ``.npy`` of features.

    Raises:
        MissingFileError: there is no such file.
        DataError: it holds something else.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"there is no file {file}")
    with decode_errors(file):
        stored = np.load(file, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return feature_moments(stored)
        with stored:
            if not {"mu", "sigma"} <= set(stored.files):
                raise DataError(f"{file} has the arrays {', '.join(stored.files)}; needed are mu and sigma")
            mean, covariance = (np.asarray(stored[name], np.float64) for name in ("mu", "sigma"))
    if covariance.shape != (*mean.shape, *mean.shape) or mean.ndim != 1:
        raise DataError(f"{file}: mu has shape {list(mean.shape)} and sigma {list(covariance.shape)}")
    return FeatureMoments(mean, covariance)


def torchscript_features(path: str | Path, *, device: str = "cpu", batch: int = 64) -> Features:
    """Features of a network in TorchScript, called with uint8 images [N, 3, H, W]; one channel stands for all three.

    That is the form of the Inception network that NVIDIA published for FID; it is called with ``return_features=True``
    if it takes that. A TorchScript file holds a program, which can read and write files: take it from where you trust.

    Args:
        path: the file, which you download; nothing is fetched.
        device: torch device.
        batch: images at once.

    Raises:
        MissingDependencyError: torch is not installed.
        MissingFileError: there is no such file.
        DataError: it is no TorchScript module, or returns no vectors.
    """
    torch = import_torch("features of a TorchScript file")
    if not Path(path).is_file():
        raise MissingFileError(f"there is no TorchScript file {path}")
    try:
        with warnings.catch_warnings():
            # That the format is deprecated concerns whoever wrote the file.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} is not a TorchScript module: {str(error).splitlines()[0]}") from error
    named = [argument.name for argument in network.forward.schema.arguments]
    options = {"return_features": True} if "return_features" in named else {}
    size = integer("batch", batch)

    def features(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        parts = []
        with torch.no_grad():
            for start in range(0, len(images), size):
                x = torch.from_numpy(np.ascontiguousarray(images[start : start + size]))
                x = x if x.shape[1] == 3 else x[:, :1].repeat(1, 3, 1, 1)
                parts.append(network(x.to(device), **options).double().cpu().numpy())
        vectors = np.concatenate(parts)
        if vectors.ndim != 2 or len(vectors) != len(images):
            raise DataError(f"{path} returned shape {list(vectors.shape)}; needed is [{len(images)}, features]")
        return vectors

    return features


def sample_features(samples: NDArray[Any], features: Features) -> NDArray[np.float64]:
    """Features of samples in [-1, 1] units, clipped and rounded to bytes; those [N, features] are taken as they are.

    Raises:
        ShapeError: they are neither.
    """
    if samples.ndim == 2:
        return samples.astype(np.float64)
    if samples.ndim != 4:
        raise ShapeError(f"samples have shape {list(samples.shape)}; needed is [N, C, H, W], or features [N, features]")
    # As published: (x 127.5 + 128) cut off, which rounds the bytes' own values to themselves.
    return features(np.clip(samples * 127.5 + 128, 0, 255).astype(np.uint8))


def data_features(
    data: ImageSet, features: Features, *, batch: int = 256, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Features of all images of a data set, flips among them if it has them.

    Args:
        data: the images.
        features: see `Features`.
        batch: images at once.
        progress: called as ``progress(images done, images)``.
    """
    parts = []
    for start in range(0, len(data), batch):
        chosen = range(start, min(start + batch, len(data)))
        parts.append(sample_features(data.batch(chosen), features))
        if progress is not None:
            progress(chosen[-1] + 1, len(data))
    return np.concatenate(parts)


def _square_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(matrix)
    root: NDArray[np.float64] = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return root
