"""The page of `pspc-rs explain`, and the numbers beside it.

What is on the page is decided here; how it looks, in ``templates/explain.html``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pspc_rs import __version__
from pspc_rs.data import ImageSet
from pspc_rs.experiments.explain_cells import GRADIENT, Cells, describe_windows
from pspc_rs.experiments.explained import Explained, Subject, count, percent
from pspc_rs.experiments.explaining import Explanation, Way
from pspc_rs.experiments.nearest import NearestImages
from pspc_rs.experiments.pages import Record, Table, import_templates, render_page, write_page
from pspc_rs.files import replacing
from pspc_rs.outputs import output_lock
from pspc_rs.provenance import Clock, provenance, save_record

STEM = "explain"
"""What the page, the numbers and the record are called in their folder."""

_TEMPLATE = "explain.html"


def save_explanations(
    outdir: str | Path,
    data: ImageSet,
    levels: Sequence[Explanation],
    *,
    way: Way | None = None,
    subjects: Sequence[Subject] | None = None,
    nearest: NearestImages | None = None,
    title: str = "What the denoised images are made of",
    options: Mapping[str, object] | None = None,
    clock: Clock | None = None,
    **facts: object,
) -> list[Path]:
    """Writes explanations as a page to look at, ``explain.html``, and as numbers, ``explain.npz`` and ``explain.json``.

    The page is one file that needs no network. It shows, image by image: the noisy and the denoised image; maps of
    effective images and of variance; the nearest training images, and whether the image is a copy of one; the training
    images with the largest shares; and the training patches at the positions. The `.npz` file holds all numbers under
    the names of `Explanation`, stacked over the levels.

    Args:
        outdir: the folder; made if need be. Earlier files of these names are replaced.
        data: the training images.
        levels: from `explain`, of the same images and positions at different levels.
        way: from `explain_trajectory`, with its ``levels`` as the levels.
        subjects: what the images are; numbered if not given.
        nearest: from `nearest_images`, of the subjects' clean images, such as samples.
        title: of the page.
        options: settings for the record.
        clock: started with the work.
        facts: further entries of the record.

    Returns:
        The files written.

    Raises:
        InvalidValueError: there are no levels, or not one subject per image.
        ShapeError: the levels are of other images or positions, or other training images.
        MissingDependencyError: jinja2 is not installed.
        OutputError: a file cannot be written, or another run is writing it.

    Example:
        >>> import tempfile, pspc_rs as pspc
        >>> from pspc_rs.experiments import explain
        >>> data = pspc.load("digits", progress=False)
        >>> z = data.batch([3]) + 0.5 * np.random.default_rng(0).standard_normal((1, 1, 8, 8))
        >>> found = explain(pspc.PSPCSquare(data, patch_sizes=5), z, 0.5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = save_explanations(folder, data, [found], subjects=[Subject("digit 3", data[3])])
        ...     [path.name for path in files], "digit 3" in files[0].read_text(encoding="utf-8")
        (['explain.html', 'explain.npz', 'explain.json'], True)
    """
    found = Explained(levels, way, subjects, nearest)
    found.check_data(data)
    import_templates()  # before anything is written
    page, numbers, record = (Path(outdir) / f"{STEM}.{suffix}" for suffix in ("html", "npz", "json"))
    rows = {"explained": found.rows()}
    with output_lock(page):
        with replacing(numbers) as temporary, temporary.open("wb") as file:
            np.savez(file, **found.arrays())
        made = provenance("explain", options or {}, data=data, output=numbers, clock=clock, **facts, **rows)
        save_record(record, made)
        shown = {name: value for name, value in made.items() if name not in rows}
        write_page(page, ExplainPage(data, found, title, shown).render())
    return [page, numbers, record]


class ExplainPage:
    """The page of explanations.

    Args:
        data: the training images.
        found: the explanations.
        title: of the page.
        record: the settings that it shows.

    Example:
        >>> import pspc_rs as pspc
        >>> from pspc_rs.experiments import explain
        >>> from pspc_rs.testing import tiny_images
        >>> data = tiny_images()
        >>> found = explain(pspc.PSPCSquare(data, patch_sizes=5), data.batch([3]), 0.5)
        >>> ExplainPage(data, Explained([found]), "A page", {}).render()[:15]
        '<!DOCTYPE html>'
    """

    def __init__(self, data: ImageSet, found: Explained, title: str, record: Mapping[str, Any]) -> None:
        self._found, self._title, self._record = found, title, record
        self._cells = Cells(data)

    def __repr__(self) -> str:
        return f"ExplainPage({self._title!r}, {self._found!r})"

    def render(self) -> str:
        """The page as HTML, one file that needs no network.

        Raises:
            MissingDependencyError: jinja2 is not installed.
        """
        images = [self._image(number) for number in range(len(self._found.subjects))]
        sections = [
            {"id": "overview", "title": "Overview"},
            *({"id": one["id"], "title": one["title"]} for one in images),
            {"id": "settings", "title": "Settings"},
        ]
        number = len(images)
        return render_page(
            _TEMPLATE,
            title=self._title,
            summary=f"{number} image{'s' * (number != 1)}, {self._cells.data!r}. Written by pspc-rs {__version__}.",
            sections=sections,
            overview=self._overview(),
            images=images,
            gradient=GRADIENT,
            settings=Record("explain.json", self._record),
            **self._cells.context,
        )

    def _overview(self) -> Table:
        header = [
            "image",
            "sigma",
            "effective images, median",
            "largest share",
            "of image",
            "d1",
            "d2",
            "d1/d2",
            "copy",
        ]
        return Table("One row per image and noise level", header, [_shown_row(row) for row in self._found.rows()])

    def _image(self, number: int) -> dict[str, Any]:
        """What is shown of one image."""
        subject, cells = self._found.subjects[number], self._cells
        clean = (
            None if subject.clean is None else cells.cell(cells.picture(f"c{number}", subject.clean), "before noise")
        )
        return {
            "id": f"image-{number}",
            "title": f"Image {number}",
            "name": subject.name,
            "clean": clean,
            "nearest": None if self._found.nearest is None else cells.nearest(self._found.nearest, number),
            "way": None if self._found.way is None else self._way(self._found.way, number),
            "levels": [self._level(index, number) for index in range(len(self._found.levels))],
        }

    def _way(self, way: Way, number: int) -> dict[str, Any]:
        cells = self._cells
        steps = [
            cells.cell(
                cells.picture(f"w{step}-{number}", way.denoised[step, number]),
                f"\N{GREEK SMALL LETTER SIGMA} {sigma:.3g}",
                f"image {way.leading[step, number]}",
                percent(way.leading_share[step, number]),
            )
            for step, sigma in enumerate(way.sigmas.tolist())
        ]
        sample = cells.cell(cells.picture(f"s{number}", way.samples[number]), "the sample")
        shares = way.attribution[number] / len(way.sigmas)
        return {
            "steps": [*steps, sample],
            "shares": cells.shares(shares),
            "nearest": cells.nearest(way.nearest, number),
            "num": len(way.sigmas),
        }

    def _level(self, index: int, number: int) -> dict[str, Any]:
        """What is shown of one image at one noise level."""
        level, levels, cells = self._found.levels[index], self._found.levels, self._cells
        z = cells.state(f"z{index}-{number}", level.z[number], level.sigma)
        denoised = cells.picture(f"d{index}-{number}", level.denoised[number])
        return {
            "sigma": f"{level.sigma:.4g}",
            "windows": describe_windows(level.masks, level.num_components),
            "z": cells.cell(z, "noisy image"),
            "denoised": cells.cell(denoised, "denoised image"),
            "maps": [
                cells.effective_map(f"e{index}-{number}", levels[index].effective_images, number),
                cells.variance_map(f"v{index}-{number}", levels[index].variance, number),
            ],
            "nearest": cells.nearest(level.nearest, number),
            "shares": cells.shares(level.attribution[number]),
            "positions": self._positions(index, number, z, denoised),
        }

    def _positions(self, index: int, number: int, z: str, denoised: str) -> list[dict[str, Any]]:
        """The patches at each position; a component that is that of several positions is shown once."""
        level, found = self._found.levels[index], {}
        for place, component in enumerate(level.components.tolist()):
            if component in found:
                continue
            atoms = zip(
                level.top_index[number, place].tolist(),
                level.top_view[number, place].tolist(),
                level.top_weight[number, place].tolist(),
                strict=True,
            )
            y, x = level.positions[place].tolist()
            title = "The whole image" if level.num_components == 1 else f"y {y}, x {x}"
            mask = self._cells.mask(f"m{index}-{component}", level.masks[place])
            effective = float(level.position_images[number, place])
            found[component] = self._cells.patches(title, effective, atoms, mask=mask, z=z, denoised=denoised)
        return list(found.values())


def _shown_row(row: Mapping[str, Any]) -> list[str]:
    """A row of `Explained.rows` as text."""
    median, share = row.get("median_effective_images"), row.get("largest_share")
    return [
        str(row["image"]),
        f"{row['sigma']:.4g}" if row["sigma"] else row["kind"],
        "" if median is None else count(median),
        "" if share is None else percent(share),
        str(row.get("of_training_image", "")),
        *("none" if row[name] is None else f"{row[name]:.3g}" for name in ("d1", "d2", "ratio")),
        "copy" if row["is_copy"] else "",
    ]
