"""The public table as rows, as Markdown and as a figure."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from public_cells import Cell
from public_members import MEMBERS
from public_numbers import PublishedLevel

from pspc_rs.experiments.figures import axes_of, label_curves
from pspc_rs.experiments.metrics import MeanError, mean_over_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What float32 outputs may add to an error, and to an error of 1: at low noise some denoisers return the image itself,
# or one training image under every draw.
_ROUNDING = 1e-9
_SHARE = 1e-6
_STANDARD_ERRORS = 2
_HIGHEST_RATIO = 2.5


class Row(NamedTuple):
    """A cell with its means, beside the published number.

    Attributes:
        cell: the cell.
        ours: mean error over images.
        against_gaussian: of the paired differences to the Gaussian's errors; None if it is not there.
        published: the published mean; None if there is none.
    """

    cell: Cell
    ours: MeanError
    against_gaussian: MeanError | None
    published: MeanError | None

    @property
    def agrees(self) -> bool | None:
        """Whether ours and the published mean differ by at most two standard errors of their difference."""
        return None if self.published is None else agree(self.ours, self.published)

    @property
    def columns(self) -> dict[str, Any]:
        """The entries of the CSV file; empty text where there is nothing to say."""
        paired, published = self.against_gaussian or ("", ""), self.published or ("", "")
        answer = {None: "", True: "yes", False: "no"}[self.agrees]
        return {
            "sigma_pixel01": self.cell.sigma01,
            "sigma": 2 * self.cell.sigma01,
            "member": self.cell.member,
            "setting": "" if self.cell.setting is None else self.cell.setting,
            "seed": self.cell.seed,
            "images": len(self.cell.errors),
            "error": self.ours.mean,
            "standard_error": self.ours.standard_error,
            "less_gaussian": paired[0],
            "less_gaussian_error": paired[1],
            "published": published[0],
            "published_error": published[1],
            "agrees": answer,
            "seconds": round(self.cell.seconds, 2),
        }


def agree(ours: MeanError, published: MeanError) -> bool:
    """Whether two means differ by at most two standard errors of their difference, as if of different images."""
    error = np.hypot(ours.standard_error, published.standard_error)
    return bool(abs(ours.mean - published.mean) <= _STANDARD_ERRORS * error + _rounding(published.mean))


def _rounding(error: float) -> float:
    return _ROUNDING + _SHARE * error


def rows_of(cells: Sequence[Cell], levels: Sequence[PublishedLevel]) -> list[Row]:
    """The rows of the table, one per cell."""
    by_sigma = {level.sigma01: level for level in levels}
    gaussian = {(cell.sigma01, cell.seed): cell.errors for cell in cells if cell.member == "gaussian"}
    rows = []
    for cell in cells:
        column = MEMBERS[cell.member].published
        published = None if column is None else by_sigma[cell.sigma01].errors[column]
        base = gaussian.get((cell.sigma01, cell.seed))
        paired = None if base is None else mean_over_images(cell.errors - base[: len(cell.errors)])
        rows.append(Row(cell, mean_over_images(cell.errors), paired, published))
    return rows


def draw_distances(cells: Sequence[Cell], levels: Sequence[PublishedLevel]) -> dict[tuple[str, float], float]:
    """How far the means over several seeds are from the published ones, by member and sigma, in errors of the draw.

    On the same images as the published ones, means differ by the noise alone, much less than by their standard errors,
    in which images differ. The error of the draw is that of the difference of the mean over S draws to one draw: the
    root of v (1 + 1 / S) / N, v being the variance over draws of the error of an image, mean over N images.
    """
    found = {}
    for level in levels:
        for name in dict.fromkeys(cell.member for cell in cells):
            errors = np.array([one.errors for one in cells if (one.member, one.sigma01) == (name, level.sigma01)])
            column = MEMBERS[name].published
            if column is None or len(errors) < 2 or errors.shape[1] != level.images:
                continue
            variance = float(errors.var(axis=0, ddof=1).mean())
            published = level.errors[column].mean
            error = np.sqrt(variance * (1 + 1 / len(errors)) / level.images) + _rounding(published)
            found[name, level.sigma01] = float((errors.mean() - published) / error)
    return found


def markdown(title: str, rows: Sequence[Row], distances: Mapping[tuple[str, float], float]) -> str:
    """The tables of every seed: errors, then differences to the Gaussian; and the distances in errors of the draw."""
    parts = [f"# {title}"]
    for seed in dict.fromkeys(row.cell.seed for row in rows):
        of_seed = [row for row in rows if row.cell.seed == seed]
        parts.append(
            f"## Seed {seed}\n\nSquared error to the clean image, summed over the image in [0, 1] pixels, mean over "
            "images ± one standard error; in brackets the published number, and whether they agree within two standard "
            "errors."
        )
        parts.append(_grid(of_seed, _error_text))
        others = [row for row in of_seed if row.against_gaussian and row.cell.member != "gaussian"]
        if others:
            parts.append("Less the error of the Gaussian for the same noisy images, ± one standard error:")
            parts.append(_grid(others, _paired_text))
    if distances:
        parts.append("## Means over the seeds less the published ones, in errors of the draw of noise")
        parts.append(_table({key: f"{value:+.1f}" for key, value in distances.items()}))
    return "\n\n".join(parts) + "\n"


def _error_text(row: Row) -> str:
    setting = "" if row.cell.setting is None else f", {MEMBERS[row.cell.member].setting} {row.cell.setting:g}"
    text = f"{row.ours.mean:.5g} ± {row.ours.standard_error:.2g}{setting}"
    if row.published is None:
        return text
    return f"{text} ({row.published.mean:.5g}, {'yes' if row.agrees else 'no'})"


def _paired_text(row: Row) -> str:
    paired = row.against_gaussian
    return "" if paired is None else f"{paired.mean:+.4g} ± {paired.standard_error:.2g}"


def _grid(rows: Sequence[Row], text: Callable[[Row], str]) -> str:
    return _table({(row.cell.member, row.cell.sigma01): text(row) for row in rows})


def _table(cells: Mapping[tuple[str, float], str]) -> str:
    """Markdown with a line per level and a column per member, of texts by member and sigma."""
    names = [name for name in MEMBERS if any(name == member for member, _ in cells)]
    lines = [" | ".join(["| sigma", *(MEMBERS[name].title for name in names)]) + " |", "|---" * (len(names) + 1) + "|"]
    for sigma in sorted({sigma for _, sigma in cells}):
        lines.append(" | ".join([f"| {sigma:g}", *(cells.get((name, sigma), "") for name in names)]) + " |")
    return "\n".join(lines)


def ratio_figure(rows: Sequence[Row], levels: Sequence[PublishedLevel]) -> "Figure":
    """Errors relative to the Gaussian's for the same noisy images, one curve per seed; published ratios as crosses.

    Bars are one standard error of the paired difference. Ratios above 2.5 are outside of the figure.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure, axis = axes_of(None, 7.5, 4.2)
    label_curves(axis, "squared error / that of the Gaussian", logarithmic_y=False)
    axis.set_xlabel("noise level \N{GREEK SMALL LETTER SIGMA}, [0, 1] pixels")
    sigmas = [level.sigma01 for level in levels]
    for index, name in enumerate(dict.fromkeys(row.cell.member for row in rows)):
        member, colour = MEMBERS[name], f"C{index}"
        axis.plot([], [], color=colour, marker=".", label=member.title)
        for seed in dict.fromkeys(row.cell.seed for row in rows):
            _draw_ratios(axis, [row for row in rows if (row.cell.member, row.cell.seed) == (name, seed)], colour)
        if member.published is not None:
            ratios = [level.errors[member.published].mean / level.errors["gaussian"].mean for level in levels]
            axis.plot(sigmas, ratios, color=colour, marker="x", linestyle="none")
    axis.set_ylim(0, _HIGHEST_RATIO)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _draw_ratios(axis: Any, rows: Sequence[Row], colour: str) -> None:
    """A curve with bars; the Gaussian's errors are those for the images that the member was tried on."""
    pairs = [(row, row.against_gaussian) for row in rows if row.against_gaussian is not None]
    base = np.array([row.ours.mean - paired.mean for row, paired in pairs])
    ratio = np.array([row.ours.mean for row, _ in pairs]) / base
    bars = np.array([paired.standard_error for _, paired in pairs]) / base
    axis.errorbar([row.cell.sigma01 for row, _ in pairs], ratio, bars, color=colour, marker=".", linewidth=1)
