"""The denoisers of the public table: how each is made for a noise level, and what must be chosen for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import pspc_rs as pspc

_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_WIDTHS = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0)


class Pool:
    """The images that denoisers are made of, and the Gaussian that several of them share."""

    def __init__(self, data: pspc.ImageSet) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"Pool({self.data!r})"

    @cached_property
    def gaussian(self) -> pspc.Gaussian:
        """Their Gaussian denoiser."""
        return pspc.Gaussian(self.data)


Build: TypeAlias = Callable[[Pool, float, Any], Any]
"""D of a pool, a noise level in [-1, 1] pixels and a setting."""


@dataclass(frozen=True)
class Member:
    """A column of the table.

    Attributes:
        title: what the table calls it.
        build: makes the denoiser.
        published: its name in the file of published numbers; None if it is not there.
        setting: what its setting is called; empty if it has none.
        given: the column of the file that has the setting; None if it is chosen on held-out images.
        candidates: the settings that are tried for images of (height, width), ascending.
    """

    title: str
    build: Build
    published: str | None = None
    setting: str = ""
    given: str | None = None
    candidates: Callable[[int, int], tuple[float, ...]] = lambda height, width: ()


def _sides(height: int, width: int) -> tuple[float, ...]:
    """Odd sides from 1 up, and that of the image."""
    side = min(height, width)
    return (*range(1, side, 2), side)


def _flex(pool: Pool, sigma: float, threshold: float) -> pspc.PSPCFlex:
    maps = pspc.gaussian_heatmaps(pool.gaussian, [sigma])
    return pspc.PSPCFlex(pool.data, heatmaps=maps, thresholds=threshold, sigmas=[sigma])


MEMBERS: Mapping[str, Member] = {
    "gaussian": Member("Gaussian", lambda pool, sigma, setting: pool.gaussian, "gaussian"),
    "ls": Member("LS", lambda pool, sigma, k: pspc.LS(pool.data, window_sizes=int(k)), "ls", "k", "ls_k"),
    "pca": Member(
        "PCA-locality",
        lambda pool, sigma, tau: pspc.PCALocality(pool.data, tau, normalise="output"),
        "pca_locality",
        "tau",
        "pca_locality_tau",
    ),
    "empirical": Member("empirical", lambda pool, sigma, setting: pspc.Empirical(pool.data), "global_heldout"),
    "pspc_sq": Member(
        "PSPC-Square",
        lambda pool, sigma, side: pspc.PSPCSquare(pool.data, patch_sizes=int(side)),
        setting="side",
        candidates=_sides,
    ),
    "pspc_flex": Member("PSPC-Flex", _flex, setting="threshold", candidates=lambda height, width: _THRESHOLDS),
    "soft": Member(
        "soft windows",
        lambda pool, sigma, width: pspc.SoftPSPC(pool.data, width),
        setting="width",
        candidates=lambda height, width: _WIDTHS,
    ),
    "els": Member("ELS", lambda pool, sigma, k: pspc.ELS(pool.data, window_sizes=int(k)), setting="k", given="ls_k"),
}
"""All members, in the order of the table."""
