"""Published errors of training-free denoisers, a CSV file with one row per noise level."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pspc_rs.checks import integer, real_number
from pspc_rs.errors import DataError, InvalidValueError
from pspc_rs.experiments.metrics import MeanError
from pspc_rs.files import decode_errors

DENOISERS = ("gaussian", "ls", "pca_locality", "global_heldout")
"""The denoisers of the file, each with the columns NAME_mse and NAME_se."""

SETTINGS = ("ls_k", "pca_locality_tau")
"""Columns of what was chosen for a denoiser at a level."""


class PublishedLevel(NamedTuple):
    """A row of the file.

    Attributes:
        sigma01: noise level in [0, 1] pixels, half of that in [-1, 1] pixels.
        errors: by denoiser, the squared error summed over an image in [0, 1] pixels, mean over images.
        settings: what was chosen, by column.
        images: how many test images the means are over.
    """

    sigma01: float
    errors: dict[str, MeanError]
    settings: dict[str, float]
    images: int


def read_published(path: Path) -> list[PublishedLevel]:
    """The levels of a file, ascending.

    Raises:
        DataError: it cannot be read, lacks a column, has no rows or something else than numbers in them.
    """
    needed = ["sigma_pixel01", "n_test", *SETTINGS, *(f"{name}_{what}" for name in DENOISERS for what in ("mse", "se"))]
    with decode_errors(path), path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing or not rows:
        lacking = f"the columns {', '.join(missing)}" if missing else "rows"
        raise DataError(f"{path} lacks {lacking}; needed are {', '.join(needed)}, a row per noise level")
    levels = [_level(path, row, line) for line, row in enumerate(rows, start=2)]
    return sorted(levels, key=lambda level: level.sigma01)


def _level(path: Path, row: dict[str, str], line: int) -> PublishedLevel:
    def number(name: str) -> float:
        try:
            return real_number(name, float(row[name]), least=0)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, line {line}: {name} is {row[name]!r}; allowed are numbers from 0") from error

    errors = {name: MeanError(number(f"{name}_mse"), number(f"{name}_se")) for name in DENOISERS}
    settings = {name: number(name) for name in SETTINGS}
    return PublishedLevel(number("sigma_pixel01"), errors, settings, integer("n_test", int(number("n_test"))))


def chosen_levels(levels: Sequence[PublishedLevel], wanted: Sequence[float] | None) -> list[PublishedLevel]:
    """The levels of some sigmas in [0, 1] pixels, all of them for None.

    Raises:
        InvalidValueError: a sigma that is not among them.
    """
    by_sigma = {level.sigma01: level for level in levels}
    unknown = [sigma for sigma in wanted or () if sigma not in by_sigma]
    if unknown:
        allowed = ", ".join(f"{sigma:g}" for sigma in by_sigma)
        raise InvalidValueError(f"levels are {', '.join(f'{sigma:g}' for sigma in unknown)}; allowed are {allowed}")
    return [level for level in levels if wanted is None or level.sigma01 in wanted]
