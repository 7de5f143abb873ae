"""Masks as paths of SVG: where a window lies in an image."""

import numpy as np
from numpy.typing import NDArray


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the smallest box around a mask [H, W] with at least one pixel.

    Example:
        >>> bounding_box(np.eye(5, dtype=bool)[1:4])
        (0, 1, 3, 3)
    """
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def outline(mask: NDArray[np.bool_]) -> str:
    """The edges of a mask as a path to be stroked, straight edges in one piece.

    Example:
        >>> mask = np.zeros((4, 4), bool)
        >>> mask[1:3, 1:4] = True
        >>> outline(mask)
        'M1 1h3M1 3h3M1 1v2M4 1v2'
    """
    padded = np.pad(mask, 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]
    down = (padded[1:-1, 1:] != padded[1:-1, :-1]).T
    horizontal = [f"M{start} {y}h{length}" for y, row in enumerate(across) for start, length in _runs(row)]
    vertical = [f"M{x} {start}v{length}" for x, column in enumerate(down) for start, length in _runs(column)]
    return "".join(horizontal + vertical)


def veil(mask: NDArray[np.bool_]) -> str:
    """The pixels of the bounding box outside the mask as a path to be filled; empty where there are none.

    Example:
        >>> veil(np.array([[True, True], [True, False]]))
        'M1 1h1v1h-1z'
    """
    top, left, height, width = bounding_box(mask)
    outside = ~mask[top : top + height, left : left + width]
    return "".join(
        f"M{left + start} {top + y}h{length}v1h-{length}z"
        for y, row in enumerate(outside)
        for start, length in _runs(row)
    )


def _runs(row: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The start and length of every run of True."""
    steps = np.diff(np.pad(row, 1).astype(np.int8))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return list(zip(starts.tolist(), (ends - starts).tolist(), strict=True))
