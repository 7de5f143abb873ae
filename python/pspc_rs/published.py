"""The schedules that papers print, as values with their noise levels."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pspc_rs.sigmas import cosine20_sigmas, edm_sigmas


class Published(NamedTuple):
    """A published schedule.

    Attributes:
        values: window sides or thresholds, one per level.
        sigmas: noise levels, descending.
        source: the paper.
        image_size: (height, width) of the images that it was made for.
    """

    values: tuple[Any, ...]
    sigmas: tuple[float, ...]
    source: str
    image_size: tuple[int, int] = (32, 32)


_NIEDOBA = "Niedoba et al., ICML 2025 (arXiv 2411.19339)"
_KAMB = "Kamb and Ganguli (arXiv 2412.20292)"
_EDM18 = tuple(edm_sigmas(18, include_zero=False).tolist())


def _kamb(sides: str) -> Published:
    """Sides by step i = 0 .. 19 of the cosine schedule; at i = 0 no step is taken."""
    by_time = [int(side) for side in sides.split()]
    return Published(tuple(by_time[:0:-1]), cosine20_sigmas(), _KAMB)


SIDES: Mapping[str, Published] = {
    "cifar10": Published((32,) * 7 + (23, 15, 11, 7, 5) + (3,) * 6, _EDM18, _NIEDOBA),
    "kamb-cifar10-resnet": _kamb("3 3 3 3 5 5 5 7 7 7 7 9 9 11 11 13 15 17 17 17"),
    "kamb-cifar10-resnet-circular": _kamb("3 3 3 3 5 5 5 5 7 7 7 9 9 11 11 13 13 15 15 15"),
    "kamb-cifar10-unet": _kamb("3 3 3 3 5 5 5 5 7 7 7 7 9 9 11 13 13 15 17 25"),
    "kamb-fashion-resnet": _kamb("3 3 5 5 7 7 9 9 9 11 11 11 13 13 13 15 15 15 17 17"),
    "kamb-fashion-unet": _kamb("3 3 5 5 7 7 7 9 11 11 11 13 15 15 21 23 25 25 25 25"),
    "kamb-mnist-resnet": _kamb("3 3 5 5 5 7 7 7 9 9 11 11 11 11 13 15 15 15 15 15"),
    "kamb-mnist-unet": _kamb("3 3 3 5 5 7 7 7 9 9 9 11 13 15 17 21 23 23 25 27"),
}
"""Window sides by name."""

THRESHOLDS: Mapping[str, Published] = {
    "cifar10": Published((1.0,) * 7 + (0.7, 0.7, 0.5) + (0.4,) * 4 + (0.3,) * 4, _EDM18, _NIEDOBA),
}
"""Heat-map thresholds by name."""
