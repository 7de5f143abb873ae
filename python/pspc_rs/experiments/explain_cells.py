"""What pages show of an explanation: pictures with their words, as ``templates/cells.html`` draws them.

The page of `pspc-rs explain` and the views of `pspc-rs explore` are made of these.
"""

import io
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet
from pspc_rs.experiments.explained import count, percent
from pspc_rs.experiments.explaining import Floats
from pspc_rs.experiments.mask_paths import bounding_box, outline, veil
from pspc_rs.experiments.nearest import NearestImages
from pspc_rs.experiments.pages import png_source
from pspc_rs.extras import import_pillow
from pspc_rs.images import image_grid

_SHARES = 8
# Sixteen colours of matplotlib's viridis, from dark to light.
_COLOURS = (
    *((68, 1, 84), (72, 26, 108), (71, 47, 125), (65, 68, 135), (57, 86, 140), (49, 104, 142), (42, 120, 142)),
    *((35, 136, 142), (31, 152, 139), (34, 168, 132), (53, 183, 121), (84, 197, 104), (122, 209, 81)),
    *((165, 219, 54), (210, 226, 27), (253, 231, 37)),
)
_DECADES = 6

GRADIENT = ", ".join(f"rgb{colour}" for colour in _COLOURS)
"""The colours of maps, from low to high, as CSS has them."""


class Cells:
    """Cells of pictures and words; pictures and masks are kept once, and shown by reference.

    Args:
        data: the training images.
        prefix: what the names of pictures and masks start with, to tell several parts of a page apart.

    Attributes:
        pictures: the embedded pictures by name.
        masks: where windows lie, by name.

    Example:
        >>> from pspc_rs.testing import tiny_images
        >>> cells = Cells(tiny_images(), "a-")
        >>> cells.training(3, 0, "50 %")["picture"], list(cells.pictures)
        ('a-t3', ['a-t3'])
    """

    def __init__(self, data: ImageSet, prefix: str = "") -> None:
        self.data, self.prefix = data, prefix
        self.pictures: dict[str, str] = {}
        self.masks: dict[str, dict[str, Any]] = {}

    def __repr__(self) -> str:
        return f"Cells({len(self.pictures)} pictures, {len(self.masks)} masks)"

    @property
    def context(self) -> dict[str, Any]:
        """What the macros of ``cells.html`` need to know."""
        _, height, width = self.data.shape
        return {"pictures": self.pictures, "masks": self.masks, "height": height, "width": width}

    def picture(self, name: str, image: Floats) -> str:
        """Embeds an image [C, H, W] in [-1, 1] units; the name by which it is shown."""
        channels = image.shape[0]
        # Other numbers of channels have no colours: their mean is shown.
        drawn = image if channels in (1, 3, 4) else image.mean(axis=0, keepdims=True)
        return self._embedded(name, image_grid(np.asarray(drawn, np.float32)[None], padding=0))

    def state(self, name: str, z: Floats, sigma: float) -> str:
        """Embeds a noisy image, which keeps its scale: at large sigma it would be all black and white."""
        return self.picture(name, z / math.sqrt(1 + sigma**2))

    def mask(self, name: str, mask: NDArray[np.bool_]) -> str:
        """Keeps where a window lies; the name by which it is shown."""
        name = f"{self.prefix}{name}"
        if name not in self.masks:
            top, left, height, width = bounding_box(mask)
            self.masks[name] = {
                "box": f"{left} {top} {width} {height}",
                "outline": outline(mask),
                "veil": veil(mask),
                "is_whole": bool(mask.all()),
            }
        return name

    def cell(self, picture: str, first: str, *further: str, mask: str = "", mirrored: bool = False) -> dict[str, Any]:
        """A picture with lines of text, and the window that is shown of it."""
        lines = [line for line in further if line]
        spoken = ", ".join([first, *lines])
        named = {"picture": picture, "first": first, "further": lines, "spoken": spoken}
        return {**named, "mask": mask, "mirrored": mirrored}

    def training(self, image: int, view: int, first: str, *, mask: str = "") -> dict[str, Any]:
        """A cell with a training image."""
        name = f"t{image}"
        if f"{self.prefix}{name}" not in self.pictures:
            self.picture(name, self.data.batch([image])[0])
        label = [] if self.data.labels is None else [f"class {self.data.labels[image]}"]
        further = ", ".join([*label, *(["mirrored"] if view else [])])
        return self.cell(f"{self.prefix}{name}", first, f"image {image}", further, mask=mask, mirrored=bool(view))

    def map(
        self, name: str, title: str, maps: NDArray[np.float64], number: int, text: Callable[[float], str]
    ) -> dict[str, Any]:
        """One of some maps [batch, H, W] in colours, on one logarithmic scale for all of them."""
        least = max(float(maps.min()), float(maps.max()) * 10.0**-_DECADES)
        most = float(maps.max())
        shares = np.zeros(maps.shape[1:])
        if most > least:
            logs = np.log(np.clip(maps[number], least, most) / least)
            shares = logs / math.log(most / least)
        picture = self._embedded(name, _coloured(shares))
        return {**self.cell(picture, title), "low": text(least), "high": text(most)}

    def effective_map(self, name: str, maps: NDArray[np.float64], number: int) -> dict[str, Any]:
        """A map of effective images out of those of a batch, [batch, H, W]."""
        return self.map(name, "effective images", maps, number, count)

    def variance_map(self, name: str, variance: NDArray[np.float64], number: int) -> dict[str, Any]:
        """A map of variance out of those of a batch, [batch, C, H, W]."""
        return self.map(name, "variance", variance.mean(axis=1), number, "{:.2g}".format)

    def shares(self, shares: NDArray[np.float64]) -> list[dict[str, Any]]:
        """The training images with the largest shares."""
        largest = np.argsort(-shares, kind="stable")[:_SHARES]
        return [self.training(image, 0, percent(shares[image])) for image in largest.tolist() if shares[image] > 0]

    def nearest(self, nearest: NearestImages, number: int) -> dict[str, Any]:
        """The two training images nearest to an image, and whether it is a copy."""
        ratio = float(nearest.ratio[number])
        pairs = zip(nearest.index[number].tolist(), nearest.view[number].tolist(), ("d1", "d2"), strict=True)
        cells = [
            self.training(image, view, f"{name} {nearest.distance[number, place]:.3g}")
            for place, (image, view, name) in enumerate(pairs)
            if image >= 0
        ]
        copies = bool(nearest.is_copy[number])
        rule = f"d1/d2 = {ratio:.3g}, {'below' if copies else 'not below'} 1/3" if math.isfinite(ratio) else ""
        return {"cells": cells, "is_copy": copies, "rule": rule}

    def patches(
        self, title: str, effective: float, atoms: Iterable[tuple[int, int, float]], *, mask: str, z: str, denoised: str
    ) -> dict[str, Any]:
        """The training patches of a window, heaviest first, after the noisy and the denoised one.

        Args:
            title: where the window lies.
            effective: its effective images.
            atoms: (image, view, weight) of each training patch; images below 0 are none.
            mask: the name of the window.
            z: the name of the noisy picture.
            denoised: the name of the denoised one.
        """
        heaviest = [
            self.training(image, view, percent(weight), mask=mask) for image, view, weight in atoms if image >= 0
        ]
        own = [self.cell(z, "noisy", mask=mask), self.cell(denoised, "denoised", mask=mask)]
        return {"title": title, "effective": count(effective), "cells": [*own, *heaviest]}

    def _embedded(self, name: str, picture: NDArray[np.uint8]) -> str:
        """Embeds a picture as a PNG file."""
        stream = io.BytesIO()
        import_pillow().fromarray(picture).save(stream, "PNG", optimize=True)
        name = f"{self.prefix}{name}"
        self.pictures[name] = png_source(stream.getvalue())
        return name


def describe_windows(masks: NDArray[np.bool_], num: int) -> str:
    """The windows of a noise level in words.

    Args:
        masks: some of them or all, [masks, H, W].
        num: how many there are.

    Example:
        >>> describe_windows(np.ones((1, 4, 4), bool), 1), describe_windows(np.eye(4, dtype=bool)[None], 7)
        ('the whole image', '7 masks')
    """
    if num == 1:
        return "the whole image" if masks[0].all() else "one mask"
    boxes = {bounding_box(mask)[2:] for mask in masks}
    square = len(boxes) == 1 and all(mask.sum() == math.prod(bounding_box(mask)[2:]) for mask in masks)
    if square:
        height, width = boxes.pop()
        return f"{num} windows of {height} x {width} pixels"
    return f"{num} masks"


def _coloured(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Numbers from 0 to 1, [H, W], as colours [H, W, 3]."""
    colours = np.array(_COLOURS, np.float64)
    places = np.linspace(0, 1, len(colours))
    channels = [np.interp(shares, places, colours[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
