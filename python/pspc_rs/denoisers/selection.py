"""Which training images count for each query of a batch: class labels and left-out images as the engine takes them."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pspc_rs.arrays import numpy_view
from pspc_rs.checks import flag
from pspc_rs.data import ImageSet
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, ShapeError
from pspc_rs.reprs import build_repr

Indices: TypeAlias = npt.NDArray[np.uint32]
"""Indices of stored images, strictly ascending."""

_NONE: Indices = np.empty(0, np.uint32)

# Images left out of a base set cost the engine a look-up each; above this share, another base set is cheaper.
_MOST_LEFT_OUT = 1 / 8


@dataclass(frozen=True, eq=False, repr=False)
class Selection:
    """The images that count for each query of a batch: those of its base set that are not left out.

    An image counts with all of its views, its flip too.

    Attributes:
        bases: the different base sets of the batch; None stands for all images.
        base_of: which of them each query has, [batch].
        left_out: the images of its base set that do not count for a query, one array per query.
    """

    bases: Sequence[Indices | None]
    base_of: npt.NDArray[np.intp]
    left_out: Sequence[Indices]

    def __repr__(self) -> str:
        return build_repr(self, f"{len(self.base_of)} queries", f"{len(self.bases)} base sets")

    def of(self, queries: npt.NDArray[np.intp]) -> "Selection":
        """The selection of other queries, each of which counts what a query of this batch counts.

        Args:
            queries: indices of queries of this batch, in any order and number.
        """
        return Selection(self.bases, self.base_of[queries], [self.left_out[query] for query in queries])

    def images_of(self, query: int, num: int) -> npt.NDArray[np.int64]:
        """The indices of the images that count for a query, ascending.

        Args:
            query: index of the query.
            num: number of stored images.
        """
        base = self.bases[self.base_of[query]]
        counts = np.zeros(num, bool)
        counts[slice(None) if base is None else base] = True
        counts[self.left_out[query]] = False
        return np.flatnonzero(counts)


def select(who: str, data: ImageSet, class_labels: Any, exclude: Any, batch: int) -> Selection | None:
    """The images that count for each query; None where all of them do.

    Args:
        who: the denoiser, for messages.
        data: its images.
        class_labels: see `Denoiser.__call__`.
        exclude: see `Denoiser.__call__`.
        batch: number of queries.

    Raises:
        DTypeError: labels or indices are of another type.
        InvalidValueError: an unknown label, a row that is not one-hot, data without labels, an image out of range, or a
            query for which no image is left.
        ShapeError: another shape.

    Example:
        >>> data = ImageSet(np.zeros((9, 1, 2, 2), np.uint8), labels=[4, 4, 4, 5, 5, 5, 5, 5, 5])
        >>> chosen = select("Empirical", data, class_labels=[4, 5], exclude=[0, -1], batch=2)
        >>> [chosen.images_of(query, 9).tolist() for query in range(2)]
        [[1, 2], [3, 4, 5, 6, 7, 8]]
    """
    labels = _labels(who, data, class_labels, batch)
    excluded = _excluded(data, exclude, batch)
    if labels is None and excluded is None:
        return None
    base_of, left_out = np.empty(batch, np.intp), []
    images: dict[int | None, Indices] = {None: np.arange(data.num_stored, dtype=np.uint32)}
    bases: dict[Hashable, tuple[int, Indices | None]] = {}
    for query in range(batch):
        label = None if labels is None else labels[query]
        if label not in images:
            images[label] = np.flatnonzero(data.labels == label).astype(np.uint32)
        base, left = images[label], _NONE if excluded is None else excluded[query]
        key: Hashable = label
        if label is not None:
            left = np.intersect1d(left, base, assume_unique=True)
        if len(left) == len(base):
            those = "the data set" if label is None else f"class {label}"
            raise InvalidValueError(
                f"exclude leaves no image for query {query}: it holds all {len(base)} of {those}; one must be left"
            )
        if len(left) > _MOST_LEFT_OUT * len(base):
            base, left = np.setdiff1d(base, left, assume_unique=True), _NONE
            key = base.tobytes()
        held = None if len(base) == data.num_stored else base
        base_of[query], _ = bases.setdefault(key, (len(bases), held))
        left_out.append(left)
    selection = Selection([held for _, held in bases.values()], base_of, left_out)
    return selection if any(base is not None for base in selection.bases) or any(map(len, left_out)) else None


def label_dim(conditional: object, data: ImageSet) -> int:
    """The number of classes that a denoiser tells samplers of: those of the data if it is conditional, else 0.

    Raises:
        DTypeError: conditional is not a flag.
        DataError: it is True, and the data have no labels.

    Example:
        >>> label_dim(True, ImageSet(np.zeros((3, 1, 2, 2), np.uint8), labels=[4, 4, 5]))
        2
    """
    if not flag("conditional", conditional):
        return 0
    if data.classes is None:
        raise DataError(f"conditional is True, but {data!r} has no labels")
    return len(data.classes)


def refuse_labels(who: str, class_labels: Any, why: str = "") -> None:
    """Refuses class labels where they would not count. Labels of no classes, [batch, 0], count as none.

    Raises:
        InvalidValueError: there are some.

    Example:
        >>> refuse_labels("Gaussian", np.zeros((4, 0)))
    """
    if not _is_nothing("class_labels", class_labels):
        raise InvalidValueError(
            f"class_labels were given, but {who} has no classes{why} and would ignore them; allowed is None"
        )


def refuse_exclude(who: str, exclude: Any) -> None:
    """Refuses images to leave out where they would not be left out.

    Raises:
        InvalidValueError: there are some.

    Example:
        >>> refuse_exclude("Gaussian", None)
    """
    if not _is_nothing("exclude", exclude):
        raise InvalidValueError(f"exclude was given, but {who} cannot leave images out; allowed is None")


def _is_nothing(name: str, values: Any) -> bool:
    return values is None or math.prod(values.shape if hasattr(values, "shape") else _array(name, values).shape) == 0


def _labels(who: str, data: ImageSet, class_labels: Any, batch: int) -> list[int | None] | None:
    """The label of each query, None for all images; None where there are no labels."""
    if _is_nothing("class_labels", class_labels):
        return None
    classes = data.classes
    if classes is None:
        refuse_labels(who, class_labels, ", as its data set has no labels,")
        return None
    labels = _array("class_labels", class_labels)
    if labels.shape == (batch,):
        return _known_labels(labels, classes)
    if labels.shape == (batch, len(classes)):
        return _one_hot(labels, classes)
    raise ShapeError(
        f"class_labels have shape {list(labels.shape)}; allowed are [{batch}] and, one-hot, [{batch}, {len(classes)}], "
        f"for a batch of {batch}"
    )


def _known_labels(labels: npt.NDArray[Any], classes: npt.NDArray[np.int64]) -> list[int | None]:
    if labels.dtype.kind not in "iu":
        raise DTypeError(
            f"class_labels have dtype {labels.dtype}; allowed are integers, and one-hot rows of any numbers"
        )
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        query = int(unknown.argmax())
        raise InvalidValueError(
            f"class_labels hold {labels[query]} for query {query}, which no image has; the labels of the data set are "
            f"{np.array2string(classes, threshold=20, separator=', ')}"
        )
    return [int(label) for label in labels]


def _one_hot(rows: npt.NDArray[Any], classes: npt.NDArray[np.int64]) -> list[int | None]:
    """The labels of one-hot rows, whose columns stand for the sorted labels; a row of zeros is for all images."""
    if rows.dtype.kind not in "biuf":
        raise DTypeError(f"class_labels have dtype {rows.dtype}; allowed are integers, and one-hot rows of any numbers")
    wrong = ((rows != 0) & (rows != 1)).any(axis=1) | ((rows != 0).sum(axis=1) > 1)
    if wrong.any():
        query = int(wrong.argmax())
        raise InvalidValueError(
            f"class_labels hold {np.array2string(rows[query], threshold=20, separator=', ')} for query {query}; "
            "allowed are rows with a single 1, or of zeros for all images"
        )
    return [int(classes[row.argmax()]) if row.any() else None for row in rows]


def _excluded(data: ImageSet, exclude: Any, batch: int) -> list[Indices] | None:
    """The images that each query leaves out; None where none are left out."""
    if _is_nothing("exclude", exclude):
        return None
    array, num = _array("exclude", exclude), data.num_stored
    if array.dtype.kind == "b":
        if array.shape != (batch, num):
            raise ShapeError(
                f"exclude is bool of shape {list(array.shape)}; allowed is [{batch}, {num}], True: left out"
            )
        return [np.flatnonzero(row).astype(np.uint32) for row in array]
    if array.dtype.kind not in "iu":
        raise DTypeError(f"exclude has dtype {array.dtype}; allowed are indices of images and bool [{batch}, {num}]")
    if array.ndim not in (1, 2) or len(array) != batch:
        raise ShapeError(
            f"exclude has shape {list(array.shape)}; allowed are [{batch}], [{batch}, m] and bool [{batch}, {num}]"
        )
    rows = array.reshape(batch, -1)
    wrong = (rows < -1) | (rows >= len(data))
    if wrong.any():
        query, column = (int(at) for at in np.argwhere(wrong)[0])
        raise InvalidValueError(
            f"exclude holds {rows[query, column]} for query {query}; allowed are images 0 to {len(data) - 1}, and -1 "
            "for none"
        )
    # N + n is the flip of image n, and goes with it.
    return [np.unique(row[row >= 0].astype(np.int64) % num).astype(np.uint32) for row in rows]


def _array(name: str, values: Any) -> npt.NDArray[Any]:
    try:
        return numpy_view(values)
    except ValueError as error:
        raise ShapeError(f"{name} are nested lists of mixed lengths") from error
