"""How alike the samples of several denoisers are, image by image (Figure 9), and the descriptors that are compared.

The cosine of two descriptors says how alike two images are: by pixels, by edges, or by the vectors of SSCD's network.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite, import_torch, to_numpy
from pspc_rs.checks import flag, integer
from pspc_rs.errors import DataError, InvalidValueError, MissingFileError, ShapeError
from pspc_rs.experiments.display import display_name
from pspc_rs.experiments.figures import axes_of
from pspc_rs.experiments.image_grids import check_alike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Descriptor: TypeAlias = Callable[[NDArray[Any]], NDArray[np.float64]]
"""Images [N, C, H, W] in [-1, 1] units to vectors [N, F]; their lengths do not matter."""

_LUMA = np.array([0.299, 0.587, 0.114])
_ORIENTATIONS = 8
_SSCD_SIDE = 288
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class SimilarityMatrix:
    """Mean cosines between sets of samples that started from the same noise.

    Attributes:
        names: the sets, [M].
        mean: mean over images i of cos(f(A_i), f(B_i)), float64 [M, M].
        standard_error: of that mean over images, [M, M]; 0 for a single image.
        unrelated: mean of cos(f(A_i), f(B_j)) over i != j, what chance gives, [M, M]; 0 for a single image.

    Example:
        >>> one = np.ones((2, 2))
        >>> SimilarityMatrix(("a", "b"), 0.5 * one, 0 * one, 0 * one).table()["mean"]
        [0.5]
    """

    names: tuple[str, ...]
    mean: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    unrelated: NDArray[np.float64]

    def __repr__(self) -> str:
        return f"SimilarityMatrix({', '.join(self.names)})"

    def table(self) -> dict[str, list[Any]]:
        """One row per pair of sets, each pair once."""
        pairs = [(a, b) for a in range(len(self.names)) for b in range(a + 1, len(self.names))]
        numbers = {"mean": self.mean, "standard_error": self.standard_error, "unrelated": self.unrelated}
        return {
            "first": [self.names[a] for a, _ in pairs],
            "second": [self.names[b] for _, b in pairs],
            **{name: [float(matrix[pair]) for pair in pairs] for name, matrix in numbers.items()},
        }


def similarity_matrix(samples: Mapping[str, NDArray[Any]], descriptor: Descriptor) -> SimilarityMatrix:
    """Mean cosine similarity of the descriptors of samples that started from the same noise, set against set.

    Niedoba et al. 2025, Figure 9, with SSCD descriptors of 1,000 samples; see `gradient_descriptor` for another. An
    image whose descriptor is 0 (a flat one) has cosine 0 with every other, and 1 with itself.

    Args:
        samples: [N, C, H, W] in [-1, 1] units by name; image i of every set from the same noise.
        descriptor: images to vectors.

    Raises:
        InvalidValueError: no samples.
        ShapeError: the sets differ in shape.

    Example:
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


def similarity_figure(matrix: SimilarityMatrix, title: str, *, ax: "Axes | None" = None) -> "Figure":
    """The matrix of means with its numbers in the cells.

    Args:
        matrix: as `similarity_matrix` returns it.
        title: what stands above, such as the descriptor's name.
        ax: axes of matplotlib to draw on; those of a new figure if not given.

    Raises:
        DTypeError: ax is something else.
        MissingDependencyError: matplotlib is not installed.

    Example:
        >>> samples = np.random.default_rng(0).normal(size=(2, 3, 1, 4, 4))
        >>> matrix = similarity_matrix({"ls": samples[0], "net": samples[1]}, pixel_descriptor)
        >>> figure = similarity_figure(matrix, "pixels")
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['LS', 'net']
    """
    side = 1.4 + 0.62 * len(matrix.names)
    figure, axis = axes_of(ax, side + 0.8, side)
    image = axis.imshow(matrix.mean, cmap="viridis", vmin=min(0.0, float(matrix.mean.min())), vmax=1)
    ticks, names = range(len(matrix.names)), [display_name(name) for name in matrix.names]
    axis.set_xticks(ticks, names, rotation=40, ha="right", fontsize=7)
    axis.set_yticks(ticks, names, fontsize=7)
    for a in ticks:
        for b in ticks:
            value = matrix.mean[a, b]
            axis.text(b, a, f"{value:.2f}", ha="center", va="center", fontsize=7, color="black" if value > 0.6 else "w")
    axis.set_title(title, fontsize=8)
    figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def pixel_descriptor(images: object) -> NDArray[np.float64]:
    """The pixels themselves, float64 [N, C H W], less their mean over the image.

    The cosine of two such vectors is the correlation of their pixels: brightness and contrast do not matter.

    Args:
        images: [N, C, H, W] in [-1, 1] units.

    Raises:
        ShapeError, DTypeError, InvalidValueError: not a batch of finite floats.

    Example:
        >>> pixel_descriptor(np.array([[[[1.0, -1.0]], [[1.0, 1.0]]]]))
        array([[ 0.5, -1.5,  0.5,  0.5]])
    """
    pixels = _checked_images(images)
    flat = pixels.reshape(len(pixels), -1)
    vectors: NDArray[np.float64] = flat - flat.mean(axis=1, keepdims=True)
    return vectors


def gradient_descriptor(images: object, cells: int = 4) -> NDArray[np.float64]:
    """A histogram of edge directions in every cell of a coarse grid, float64 [N, cells * cells * 8].

    A descriptor in the manner of Dalal & Triggs (2005) that needs no network: of the grey image (luma of the first
    three channels), the gradient g by central differences (one-sided at the border); its length goes to the two
    nearest of 8 directions over the full circle and to the nearest cells of a cells x cells grid, both by linear
    interpolation, so that a shift by a pixel changes little. Then square roots, so that few strong edges do not
    outweigh all others, less the mean over the vector, so that unrelated images have cosines near 0. A flat image has
    the descriptor 0.

    Args:
        images: [N, C, H, W] in [-1, 1] units.
        cells: cells in each direction, at most the shorter side.

    Raises:
        ShapeError, DTypeError, InvalidValueError: not a batch of finite floats, or a grid finer than the image.

    Example:
        >>> gradient_descriptor(np.random.default_rng(0).normal(size=(2, 3, 16, 16))).shape
        (2, 128)
    """
    grey = _grey(_checked_images(images))
    num, height, width = grey.shape
    if integer("cells", cells) > min(height, width) or min(height, width) < 2:
        raise InvalidValueError(f"cells is {cells}; allowed are 1 to the shorter side of {height} x {width} images")
    down, right = np.gradient(grey, axis=(1, 2))
    lengths = np.hypot(down, right)
    turns = (np.arctan2(down, right) / (2 * np.pi) * _ORIENTATIONS) % _ORIENTATIONS
    first = turns.astype(np.int64) % _ORIENTATIONS
    share = turns - np.floor(turns)
    directions = np.zeros((num, height, width, _ORIENTATIONS))
    for index, part in ((first, 1 - share), ((first + 1) % _ORIENTATIONS, share)):
        values = np.take_along_axis(directions, index[..., None], axis=3) + (lengths * part)[..., None]
        np.put_along_axis(directions, index[..., None], values, axis=3)
    rows, columns = _cell_weights(height, cells), _cell_weights(width, cells)
    histogram = np.einsum("nyxo,ay,bx->nabo", directions, rows, columns, optimize=True)
    vectors = np.sqrt(histogram).reshape(num, -1)
    centred: NDArray[np.float64] = vectors - vectors.mean(axis=1, keepdims=True)
    return centred


def _cell_weights(length: int, cells: int) -> NDArray[np.float64]:
    """How much each of the pixels in a row counts in each cell, [cells, length]; over cells they sum to 1."""
    position = ((np.arange(length) + 0.5) * cells / length - 0.5).clip(0, cells - 1)
    weights: NDArray[np.float64] = (1 - np.abs(np.arange(cells)[:, None] - position)).clip(min=0)
    return weights


def sscd_descriptor(path: str | Path, *, device: str = "cpu", batch: int = 32, trust: bool = False) -> Descriptor:
    """The descriptor of an SSCD network in TorchScript, such as ``sscd_imagenet_mixup.torchscript.pt``.

    Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022. Images are clipped to [-1, 1],
    mapped to [0, 1], enlarged to 288 x 288 (bilinear, antialiased), normalised by ImageNet's mean and standard
    deviation and given to the network; one channel stands for all three. The file is yours to get: nothing is
    downloaded. A TorchScript file holds a program, which can read and write files; take it from where you trust.

    Args:
        path: the TorchScript file.
        device: torch device.
        batch: images at once.
        trust: that the program in the file may run. Without it there is a DeprecationWarning; a later version will
            refuse the file.

    Raises:
        MissingDependencyError: torch is not installed.
        MissingFileError: there is no such file.
        DataError: the file is not a TorchScript module, or returns no vectors.

    Example:
        >>> describe = sscd_descriptor("sscd_imagenet_mixup.torchscript.pt", trust=True)  # doctest: +SKIP
        >>> describe(np.zeros((2, 3, 32, 32))).shape  # doctest: +SKIP
        (2, 512)
    """
    torch = import_torch("SSCD")
    if not Path(path).is_file():
        raise MissingFileError(f"there is no TorchScript file {path}")
    if not flag("trust", trust):
        warnings.warn(
            f"{path} is TorchScript, a program that can read and write files; if you trust it, write "
            "sscd_descriptor(..., trust=True); a later version will refuse it without",
            DeprecationWarning,
            stacklevel=2,
        )
    try:
        with warnings.catch_warnings():
            # torch advises other formats than the one that SSCD is published in.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path} is not a TorchScript module: {str(error).splitlines()[0]}") from error
    size = integer("batch", batch)

    def describe(images: object) -> NDArray[np.float64]:
        pixels = _three_channels(_checked_images(images))
        parts = []
        with torch.no_grad():
            for start in range(0, len(pixels), size):
                x = _prepared(torch, pixels[start : start + size]).to(device)
                parts.append(network(x).double().cpu().numpy())
        vectors = np.concatenate(parts)
        if vectors.ndim != 2 or len(vectors) != len(pixels):
            raise DataError(f"{path} returned shape {list(vectors.shape)}; needed is [{len(pixels)}, features]")
        check_finite(f"what {path} returned", vectors)
        return vectors

    return describe


def _prepared(torch: Any, pixels: NDArray[np.float64]) -> Any:
    x = (torch.from_numpy(pixels.astype(np.float32)).clamp(-1, 1) + 1) / 2
    x = torch.nn.functional.interpolate(
        x, size=(_SSCD_SIDE, _SSCD_SIDE), mode="bilinear", align_corners=False, antialias=True
    )
    mean, std = (torch.tensor(values)[:, None, None] for values in (_IMAGENET_MEAN, _IMAGENET_STD))
    return (x - mean) / std


def _checked_images(images: object) -> NDArray[np.float64]:
    """A batch of images as float64 [N, C, H, W].

    Raises:
        ShapeError: it has other axes or is empty.
        DTypeError: it is not an array of floats.
        InvalidValueError: a pixel is NaN or infinite.
    """
    pixels = to_numpy(images, "images")
    if pixels.ndim != 4 or 0 in pixels.shape:
        raise ShapeError(f"images have shape {list(pixels.shape)}; needed is [N, C, H, W]")
    check_finite("images", pixels)
    return pixels.astype(np.float64)


def _three_channels(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(pixels[:, :1], 3, axis=1) if pixels.shape[1] < 3 else pixels[:, :3]


def _grey(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    grey: NDArray[np.float64] = np.tensordot(_three_channels(pixels), _LUMA, (1, 0))
    return grey
