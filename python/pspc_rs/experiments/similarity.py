"""How alike the samples of several denoisers are, image by image (Figure 9)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.experiments.descriptors import Descriptor
from pspc_rs.experiments.drawing import new_figure
from pspc_rs.experiments.grids import check_alike

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SimilarityMatrix:
    """Mean cosines between sets of samples that started from the same noise.

    Attributes:
        names: the sets, [M].
        mean: mean over images i of cos(f(A_i), f(B_i)), float64 [M, M].
        standard_error: of that mean over images, [M, M]; 0 for a single image.
        unrelated: mean of cos(f(A_i), f(B_j)) over i != j, what chance gives, [M, M]; 0 for a single image.
    """

    names: tuple[str, ...]
    mean: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    unrelated: NDArray[np.float64]

    def table(self) -> dict[str, list[Any]]:
        """One row a pair of sets, each pair once."""
        pairs = [(a, b) for a in range(len(self.names)) for b in range(a + 1, len(self.names))]
        numbers = {"mean": self.mean, "standard_error": self.standard_error, "unrelated": self.unrelated}
        return {
            "first": [self.names[a] for a, _ in pairs],
            "second": [self.names[b] for _, b in pairs],
            **{name: [float(matrix[pair]) for pair in pairs] for name, matrix in numbers.items()},
        }


def similarity_matrix(samples: Mapping[str, NDArray[Any]], descriptor: Descriptor) -> SimilarityMatrix:
    """Mean cosine similarity of the descriptors of samples that started from the same noise, set against set.

    Niedoba et al. 2025, Figure 9, with SSCD descriptors of 1,000 samples; see `descriptors` for others. An image whose
    descriptor is 0 (a flat one) has cosine 0 with every other, and 1 with itself.

    Args:
        samples: [N, C, H, W] in [-1, 1] units by name; image i of every set from the same noise.
        descriptor: images to vectors.

    Raises:
        InvalidValueError: no samples.
        ShapeError: the sets differ in shape.

    Example:
        >>> from pspc_rs.experiments.descriptors import pixel_descriptor
        >>> a = np.random.default_rng(0).normal(size=(5, 1, 4, 4))
        >>> similarity_matrix({"a": a, "negative": -a}, pixel_descriptor).mean.round(6)
        array([[ 1., -1.],
               [-1.,  1.]])
    """
    check_alike(samples)
    vectors = np.stack([_unit(descriptor(images)) for images in samples.values()])  # [M, N, F]
    sets, num, _ = vectors.shape
    cosines = np.einsum("anf,bnf->abn", vectors, vectors)
    cosines[np.arange(sets), np.arange(sets)] = 1
    mean = cosines.mean(axis=2)
    error = cosines.std(axis=2, ddof=1) / np.sqrt(num) if num > 1 else np.zeros_like(mean)
    sums = vectors.sum(axis=1)
    same = np.einsum("anf,bnf->ab", vectors, vectors)
    unrelated = (sums @ sums.T - same) / (num * (num - 1)) if num > 1 else np.zeros_like(mean)
    return SimilarityMatrix(tuple(samples), mean, error, unrelated)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def similarity_figure(matrix: SimilarityMatrix, title: str) -> "Figure":
    """The matrix of means with its numbers in the cells.

    Args:
        matrix: as `similarity_matrix` returns it.
        title: what stands above, such as the descriptor's name.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    side = 1.4 + 0.62 * len(matrix.names)
    figure = new_figure(side + 0.8, side)
    axis = figure.subplots()
    image = axis.imshow(matrix.mean, cmap="viridis", vmin=min(0.0, float(matrix.mean.min())), vmax=1)
    ticks = range(len(matrix.names))
    axis.set_xticks(ticks, matrix.names, rotation=40, ha="right", fontsize=7)
    axis.set_yticks(ticks, matrix.names, fontsize=7)
    for a in ticks:
        for b in ticks:
            value = matrix.mean[a, b]
            axis.text(b, a, f"{value:.2f}", ha="center", va="center", fontsize=7, color="black" if value > 0.6 else "w")
    axis.set_title(title, fontsize=8)
    figure.colorbar(image, ax=axis, shrink=0.8)
    return figure
