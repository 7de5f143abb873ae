"""`Orbit`: the maps under which a denoiser sees every training image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from pspc_rs.checks import integer
from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.reprs import build_repr

Border: TypeAlias = Literal["wrap", "zero"]
"""What lies beyond the border of a shifted image: its other side, or 0 in [-1, 1] units."""

Views = npt.NDArray[np.int32]
"""Which pixel of an image lies at every pixel, [views, height * width]; -1 where none does."""


@dataclass(frozen=True)
class Orbit:
    """The maps of a source distribution: flips and rotations, combined in every way, and then shifts.

    A denoiser with ``source=Orbit(...)`` is that of the data set in which every image stands once under each of these
    maps, the identity among them; equal maps count once. Under a group of symmetries that is the optimal denoiser of
    the data's orbit (Kamb and Ganguli, arXiv 2412.20292, theorem B.2). Images of a data set with ``xflip`` are seen
    as they are and flipped.

    Attributes:
        xflip: left to right.
        yflip: upside down.
        rot90: by 90, 180 and 270 degrees; for square images.
        shifts: pairs (dy, dx) in pixels: y(i, j) = x(i - dy, j - dx).
        border: "wrap", where shifted images go on at the other side, or "zero", 0 in [-1, 1] units (mid grey).

    Raises:
        InvalidValueError: another border.
        DTypeError: shifts that are not pairs of integers, or flags that are not booleans.

    Example:
        >>> Orbit(xflip=True, rot90=True).num_views(8, 8), Orbit(shifts=[(0, 1), (0, 9)]).num_views(8, 8)
        (8, 2)
    """

    xflip: bool = False
    yflip: bool = False
    rot90: bool = False
    shifts: Sequence[tuple[int, int]] = ()
    border: Border = "wrap"

    def __post_init__(self) -> None:
        """Checks the fields and stores the shifts as a tuple."""
        for name in ("xflip", "yflip", "rot90"):
            if not isinstance(getattr(self, name), bool):
                raise DTypeError(f"{name} is {getattr(self, name)!r}; allowed are True and False")
        if self.border not in get_args(Border):
            raise InvalidValueError(f"border is {self.border!r}; allowed are 'wrap' and 'zero'")
        try:
            pairs = [(int(dy), int(dx)) for dy, dx in self.shifts]
            same = all(pair == tuple(given) for pair, given in zip(pairs, self.shifts, strict=True))
        except (TypeError, ValueError):
            same = False
        if not same:
            raise DTypeError(f"shifts are {self.shifts!r:.80}; allowed are pairs (dy, dx) of integers")
        object.__setattr__(self, "shifts", tuple(pairs))

    def __repr__(self) -> str:
        return build_repr(self, **self.numbers)

    @property
    def numbers(self) -> dict[str, Any]:
        """The fields, for records."""
        flags = {name: True for name in ("xflip", "yflip", "rot90") if getattr(self, name)}
        return flags | ({"shifts": list(map(list, self.shifts)), "border": self.border} if self.shifts else {})

    def num_views(self, height: int, width: int, data_xflip: bool = False) -> int:
        """The number of distinct maps for images of a size."""
        return len(self.views(height, width, data_xflip))

    def views(self, height: int, width: int, data_xflip: bool = False) -> Views:
        """The maps for images of a size, the identity first; with ``data_xflip``, also those of flipped images.

        Raises:
            InvalidValueError: rotations of images that are not square.
        """
        height, width = integer("height", height), integer("width", width)
        if self.rot90 and height != width:
            raise InvalidValueError(f"rot90 is on, but the images are {height} x {width}; rotations need square images")
        pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
        maps = [pixels]
        if self.rot90:
            maps = [np.rot90(one, turns) for one in maps for turns in range(4)]
        if self.yflip:
            maps = [flipped for one in maps for flipped in (one, one[::-1])]
        if self.xflip:
            maps = [flipped for one in maps for flipped in (one, one[:, ::-1])]
        if data_xflip:
            # The pixel that lies there in an image flipped first.
            mirrored = pixels[:, ::-1].ravel()
            maps += [mirrored[one] for one in maps]
        shifted = [shift(one, dy, dx, self.border) for dy, dx in ((0, 0), *self.shifts) for one in maps]
        return distinct(np.stack(shifted).reshape(len(shifted), -1))


def shift(pixels: npt.NDArray[np.int32], dy: int, dx: int, border: Border) -> npt.NDArray[np.int32]:
    """A map [height, width] followed by a shift: y(i, j) = x(i - dy, j - dx).

    Example:
        >>> shift(np.array([[0, 1, 2]], np.int32), 0, 1, "zero"), shift(np.array([[0, 1, 2]], np.int32), 0, 1, "wrap")
        (array([[-1,  0,  1]], dtype=int32), array([[2, 0, 1]], dtype=int32))
    """
    height, width = pixels.shape
    y, x = np.arange(height)[:, None] - dy, np.arange(width)[None] - dx
    moved: npt.NDArray[np.int32] = pixels[y % height, x % width]
    if border == "zero":
        moved = np.where((y >= 0) & (y < height) & (x >= 0) & (x < width), moved, np.int32(-1))
    return moved


def distinct(views: Views) -> Views:
    """Each map once, in the order of their first places."""
    _, first = np.unique(views, axis=0, return_index=True)
    kept: Views = np.ascontiguousarray(views[np.sort(first)])
    return kept
