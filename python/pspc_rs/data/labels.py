"""Labels as files and data sets have them, as class indices; what is no class label is left out with a warning."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import as_numpy, is_array
from pspc_rs.errors import DTypeError, ShapeError, warn

# Up to here every integer is a float64.
_LARGEST_EXACT = 2**53


def class_labels(values: object, num: int, what: str, *, needed: bool) -> NDArray[np.int64] | None:
    """One class index per image, or None where the labels are of another kind or there are no images.

    Integers, flags and floats that are integers are taken as they are, also in a column [N, 1]; rows with a single 1
    among zeros (one-hot) become the position of the 1. Anything else (several attributes, poses, words) is left out
    with a `PspcWarning`, because no denoiser needs labels.

    Args:
        values: array, tensor or list of N labels.
        num: N, the number of images.
        what: what messages call the labels.
        needed: refuse labels of another kind, because some were asked for by class.

    Raises:
        DTypeError: the labels are needed and of another kind.
        ShapeError: there is not one label, or row of labels, per image.

    Example:
        >>> class_labels([[0, 1, 0], [1, 0, 0]], 2, "labels", needed=True)
        array([1, 0])
        >>> class_labels(np.array([[3.0], [5.0]]), 2, "labels", needed=True)
        array([3, 5])
    """
    given = values if isinstance(values, list | tuple) else as_numpy(values, what)
    shape = (len(given),) if isinstance(given, list | tuple) else given.shape
    if shape[:1] != (num,):
        raise ShapeError(f"{what} have shape {shape}; {num} images need labels of shape ({num},)")
    if num == 0:
        return None
    array = _as_array(given, what)
    labels = None if array is None else _indices(array)
    if labels is None:
        found = f"{what} are {_described(given[0], array)}; class labels are one integer per image, or one-hot rows"
        if needed:
            raise DTypeError(f"{found}. Without classes= the labels are left out")
        warn(f"{found}. They are left out")
    return labels


def _as_array(values: Any, what: str) -> NDArray[Any] | None:
    """The labels as one array; None if they are of mixed shapes."""
    if not isinstance(values, list | tuple):
        return as_numpy(values, what)
    try:
        return np.asarray([as_numpy(value, what) if is_array(value) else value for value in values])
    except ValueError:
        return None


def _indices(array: NDArray[Any]) -> NDArray[np.int64] | None:
    """The class indices that an array with one row per image stands for, or None."""
    if array.dtype.kind not in "biuf":
        return None
    rows = array.reshape(len(array), -1)
    if rows.shape[1] == 1:
        return _integers(rows[:, 0])
    is_one_hot = array.ndim == 2 and np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1, dtype=np.int64) == 1)
    return rows.argmax(axis=1).astype(np.int64) if is_one_hot else None


def _integers(array: NDArray[Any]) -> NDArray[np.int64] | None:
    if array.dtype.kind == "f":
        # NaN makes the comparison false, so this finds it, too.
        fits = bool(np.all(np.abs(array.astype(np.float64)) <= _LARGEST_EXACT) and np.all(array % 1 == 0))
    else:
        fits = array.dtype.kind != "u" or int(array.max()) <= np.iinfo(np.int64).max
    return array.astype(np.int64) if fits else None


def _described(first: object, array: NDArray[Any] | None) -> str:
    if array is None:
        return "of mixed shapes"
    if array.ndim > 1:
        return f"{array[0].size} values of dtype {array.dtype} per image"
    return f"of dtype {array.dtype}, such as {first!r:.40}"
