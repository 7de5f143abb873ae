"""Explanations of images at several noise levels: checked to belong together, as arrays, and as rows of a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.explaining import Explanation, Floats, Way
from pspc_rs.experiments.nearest import NearestImages


@dataclass(frozen=True)
class Subject:
    """One of the images that are explained.

    Attributes:
        name: what the page calls it: "training image 17, left out".
        clean: the image before noise was added, [C, H, W], if there is one.

    Example:
        >>> Subject("training image 17, left out")
        Subject('training image 17, left out')
    """

    name: str
    clean: Floats | None = None

    def __repr__(self) -> str:
        return f"Subject({self.name!r})"


class Explained:
    """Explanations of the same images and positions at different levels, and what else is known of the images.

    Attributes:
        levels: one per noise level.
        way: of sampling runs whose steps the levels are, or None.
        subjects: what the images are.
        nearest: the training images nearest to the clean images, or None.

    Raises:
        InvalidValueError: there are no levels, or not one subject per image.
        ShapeError: the levels are of other images or positions.

    Example:
        >>> Explained([])
        Traceback (most recent call last):
        ...
        pspc_rs.errors.InvalidValueError: there are no levels to show; at least one is needed
    """

    def __init__(
        self,
        levels: Sequence[Explanation],
        way: Way | None = None,
        subjects: Sequence[Subject] | None = None,
        nearest: NearestImages | None = None,
    ) -> None:
        if not levels:
            raise InvalidValueError("there are no levels to show; at least one is needed")
        self.levels, self.way, self.nearest = tuple(levels), way, nearest
        batch = len(levels[0].z)
        numbered = [Subject(f"image {number}") for number in range(batch)]
        self.subjects = tuple(numbered if subjects is None else subjects)
        if len(self.subjects) != batch:
            raise InvalidValueError(f"there are {len(self.subjects)} subjects for {batch} images; needed is one each")
        expected = _shapes(levels[0])
        for level in levels:
            if _shapes(level) != expected:
                raise ShapeError(
                    f"z, training patches and shares of a level have the shapes {_shapes(level)}; needed are those of "
                    f"the first level, {expected}"
                )

    def __repr__(self) -> str:
        return f"Explained({len(self.subjects)} images at {len(self.levels)} levels)"

    def check_data(self, data: ImageSet) -> None:
        """Refuses a data set that cannot be that of the explanations.

        Raises:
            ShapeError: it has another number of images, or images of another shape.
        """
        number, shape = self.levels[0].attribution.shape[1], self.levels[0].z.shape[1:]
        if (number, shape) != (data.num_stored, data.shape):
            raise ShapeError(f"explanations are of {number} training images of {list(shape)}; the data are {data!r}")

    def arrays(self) -> dict[str, Any]:
        """All numbers by name, those of `Explanation` stacked over the levels."""
        apart = ("sigma", "num_components", "nearest")
        names = [name for name in Explanation.__dataclass_fields__ if name not in apart]
        arrays: dict[str, Any] = {
            "sigmas": np.array([level.sigma for level in self.levels]),
            "num_components": np.array([level.num_components for level in self.levels]),
            **{name: np.stack([getattr(level, name) for level in self.levels]) for name in names},
            **_nearest_arrays("nearest", [level.nearest for level in self.levels]),
        }
        if all(subject.clean is not None for subject in self.subjects):
            arrays["clean"] = np.stack([np.asarray(subject.clean) for subject in self.subjects])
        if self.nearest is not None:
            arrays |= {name: array[0] for name, array in _nearest_arrays("clean_nearest", [self.nearest]).items()}
        if self.way is not None:
            steps = ("sigmas", "denoised", "attribution", "leading", "leading_share", "samples")
            arrays |= {f"way_{name}": np.asarray(getattr(self.way, name)) for name in steps}
            arrays |= {name: array[0] for name, array in _nearest_arrays("way_nearest", [self.way.nearest]).items()}
        return arrays

    def rows(self) -> list[dict[str, Any]]:
        """A few numbers of each image: clean or sampled (sigma 0), and at each level; None for a d2 there is not."""
        return [row for number in range(len(self.subjects)) for row in self._rows(number)]

    def lines(self) -> list[str]:
        """The rows in words."""
        return [_line(row) for row in self.rows()]

    def _rows(self, number: int) -> list[dict[str, Any]]:
        named = {"image": number, "what": self.subjects[number].name}
        rows: list[dict[str, Any]] = []
        if self.nearest is not None:
            rows.append({**named, "kind": "clean", "sigma": 0.0, **_copy_facts(self.nearest, number)})
        if self.way is not None:
            shares = self.way.attribution[number] / len(self.way.sigmas)
            facts = {**_largest(shares), **_copy_facts(self.way.nearest, number)}
            rows.append({**named, "kind": "sample", "sigma": 0.0, **facts})
        for level in self.levels:
            means = {
                "components": level.num_components,
                "median_effective_images": float(np.median(level.effective_images[number])),
                "mean_variance": float(level.variance[number].mean()),
            }
            facts = {**_largest(level.attribution[number]), **_copy_facts(level.nearest, number)}
            rows.append({**named, "kind": "denoised", "sigma": level.sigma, **means, **facts})
        return rows


def _shapes(level: Explanation) -> list[list[int]]:
    return [list(one.shape) for one in (level.z, level.top_index, level.attribution)]


def _nearest_arrays(name: str, nearest: Sequence[NearestImages]) -> dict[str, Any]:
    return {
        f"{name}_{what}": np.stack([getattr(one, what) for one in nearest])
        for what in ("index", "view", "distance", "ratio", "is_copy")
    }


def _largest(shares: Any) -> dict[str, Any]:
    largest = int(shares.argmax())
    return {"largest_share": float(shares[largest]), "of_training_image": largest}


def _copy_facts(nearest: NearestImages, number: int) -> dict[str, Any]:
    """D1, d2 and what follows from them; None where there is no second image."""
    first, second = nearest.distance[number].tolist()
    ratio = float(nearest.ratio[number])
    return {
        "nearest": nearest.index[number].tolist(),
        "d1": first,
        "d2": second if math.isfinite(second) else None,
        "ratio": ratio if math.isfinite(ratio) else None,
        "is_copy": bool(nearest.is_copy[number]),
    }


def _line(row: dict[str, Any]) -> str:
    where = f"sigma {row['sigma']:.4g}" if row["sigma"] else row["kind"]
    parts = [f"image {row['image']}, {where}:"]
    if "median_effective_images" in row:
        parts.append(f"{count(row['median_effective_images'])} effective images,")
    if "largest_share" in row:
        parts.append(f"{percent(row['largest_share'])} of training image {row['of_training_image']},")
    parts.append("no second image" if row["ratio"] is None else f"d1/d2 {row['ratio']:.3g}")
    return " ".join([*parts, "copy"] if row["is_copy"] else parts)


def training_name(data: ImageSet, index: int) -> str:
    """What a training image is called.

    Example:
        >>> from pspc_rs.testing import tiny_images
        >>> training_name(tiny_images(20, xflip=True), 23)
        'training image 3, class 1, mirrored'
    """
    stored, mirrored = index % data.num_stored, index >= data.num_stored
    label = "" if data.labels is None else f", class {data.labels[stored]}"
    return f"training image {stored}{label}{', mirrored' if mirrored else ''}"


def percent(share: float) -> str:
    """A share in words.

    Example:
        >>> percent(0.4321), percent(0.00012), percent(1e-9), percent(1.0)
        ('43 %', '0.012 %', '< 0.001 %', '100 %')
    """
    of_hundred = 100 * share
    if of_hundred < 0.001:
        return "< 0.001 %"
    return f"{of_hundred:.0f} %" if of_hundred >= 10 else f"{of_hundred:.2g} %"


def count(number: float) -> str:
    """A number of images, of three digits, or without fractions.

    Example:
        >>> count(1.0083), count(12345.6)
        ('1.01', '12,346')
    """
    return f"{number:.3g}" if number < 100 else f"{number:,.0f}"
