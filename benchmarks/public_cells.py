"""The cells of the public table: squared errors of a denoiser at a noise level, kept in a folder as soon as known."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from public_members import MEMBERS, Pool

import pspc_rs as pspc
from pspc_rs.experiments.evaluate import denoise
from pspc_rs.experiments.fit_rules import Rule
from pspc_rs.experiments.metrics import squared_errors
from pspc_rs.files import decode_errors, replacing
from pspc_rs.progress import ProgressBar
from pspc_rs.provenance import Clock, settings_key

_FIT_SEED = 1_000_000
"""Seed of the noise under which settings are chosen, the same for every table."""


class Cell(NamedTuple):
    """The errors of a member at a noise level under one draw of noise.

    Attributes:
        member: its key in `MEMBERS`.
        sigma01: noise level in [0, 1] pixels.
        seed: of the noise.
        setting: what was given or chosen; None where there is nothing to choose.
        errors: squared error to the clean image, summed over the image in [0, 1] pixels, float64 [images].
        seconds: what they took, without choosing the setting.
    """

    member: str
    sigma01: float
    seed: int
    setting: float | None
    errors: NDArray[np.float64]
    seconds: float


class Scored:
    """Images that denoisers are tried on: the same noisy ones for all denoisers of a level and seed.

    Args:
        data: the images; the first ones get the same noise, however many there are.
    """

    def __init__(self, data: pspc.ImageSet) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"Scored({self.data!r})"

    @cached_property
    def clean(self) -> NDArray[np.float32]:
        """The images [N, C, H, W] in [-1, 1] pixels."""
        return self.data.batch(range(len(self.data)))

    def noisy(self, sigma: float, seed: int) -> NDArray[np.float32]:
        """The images with noise, another draw for every level and seed."""
        noise = np.random.default_rng((seed, round(1e6 * sigma))).standard_normal(self.clean.shape)
        return (self.clean + sigma * noise).astype(np.float32)


class Cells:
    """Computes cells, and finds those again that are in the folder.

    Args:
        folder: where they are kept, one file each, under a name with a key of all that decides them.
        batch: images at once.
    """

    def __init__(self, folder: Path, batch: int) -> None:
        self.folder = folder
        self.batch = batch

    def __repr__(self) -> str:
        return f"Cells({str(self.folder)!r})"

    def cell(
        self, pool: Pool, scored: Scored, *, name: str, sigma01: float, seed: int, setting: float | None = None
    ) -> Cell:
        """The errors of a member of `MEMBERS` with a setting.

        Raises:
            DataError: the file of the cell is damaged.
        """
        decided: Mapping[str, Any] = {
            "member": name,
            "setting": setting,
            "sigma01": sigma01,
            "seed": seed,
            "pool": pool.data.fingerprint,
            "scored": scored.data.fingerprint,
        }
        path = self.folder / f"{name}_{sigma01:g}_{seed}_{settings_key(decided)}.npz"
        if not path.exists():
            clock = Clock()
            errors = self._errors(name, MEMBERS[name].build(pool, 2 * sigma01, setting), scored, 2 * sigma01, seed)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, errors=errors, seconds=clock.seconds)
        with decode_errors(path), np.load(path) as kept:
            return Cell(name, sigma01, seed, setting, kept["errors"], float(kept["seconds"]))

    def _errors(self, name: str, D: Any, scored: Scored, sigma: float, seed: int) -> NDArray[np.float64]:
        """The errors of a denoiser."""
        z = scored.noisy(sigma, seed)
        with ProgressBar("img", f"{name}, sigma {sigma / 2:g}", total=len(z), delay=2) as progress:
            denoised = denoise(D, z, sigma, self.batch, name=name, progress=progress)
        return squared_errors(denoised, scored.clean, pixels="[0, 1]", per="image")


def choose_settings(
    cells: Cells,
    name: str,
    sigmas: Sequence[float],
    candidates: Sequence[float],
    *,
    pool: Pool,
    held_out: Scored,
    rule: Rule,
) -> list[float | None]:
    """The candidate that a rule takes for a member at each of some ascending levels, by errors on held-out images."""
    chosen: list[float | None] = []
    last = 0
    for sigma01 in sigmas:

        def error(index: int, sigma01: float = sigma01) -> float:
            tried = cells.cell(pool, held_out, name=name, sigma01=sigma01, seed=_FIT_SEED, setting=candidates[index])
            return float(tried.errors.mean())

        last = rule.choose(error, len(candidates), last)
        chosen.append(candidates[last])
    return chosen
