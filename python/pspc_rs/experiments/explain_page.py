"""The page of `pspc-rs explain`, and the numbers beside it.

What is on the page is decided here; how it looks, in ``templates/explain.html``.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs import __version__
from pspc_rs.data import ImageSet
from pspc_rs.experiments.explained import Explained, Subject, count, percent
from pspc_rs.experiments.explaining import Explanation, Floats, Way
from pspc_rs.experiments.mask_paths import bounding_box, outline, veil
from pspc_rs.experiments.nearest import NearestImages
from pspc_rs.experiments.pages import Record, Table, import_templates, png_source, write_page
from pspc_rs.extras import import_pillow
from pspc_rs.files import replacing
from pspc_rs.images import image_grid
from pspc_rs.outputs import output_lock
from pspc_rs.provenance import Clock, provenance, save_record

STEM = "explain"
"""What the page, the numbers and the record are called in their folder."""

_TEMPLATE = "explain.html"
_SHARES = 8
# Sixteen colours of matplotlib's viridis, from dark to light.
_COLOURS = (
    *((68, 1, 84), (72, 26, 108), (71, 47, 125), (65, 68, 135), (57, 86, 140), (49, 104, 142), (42, 120, 142)),
    *((35, 136, 142), (31, 152, 139), (34, 168, 132), (53, 183, 121), (84, 197, 104), (122, 209, 81)),
    *((165, 219, 54), (210, 226, 27), (253, 231, 37)),
)
_DECADES = 6


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
        _Page(data, found, title, shown).write(page)
    return [page, numbers, record]


@dataclass
class _Page:
    """The page: pictures and masks are embedded once, and shown by reference."""

    data: ImageSet
    found: Explained
    title: str
    record: Mapping[str, Any]
    pictures: dict[str, str] = field(default_factory=dict)
    masks: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        images = [self._image(number) for number in range(len(self.found.subjects))]
        sections = [
            {"id": "overview", "title": "Overview"},
            *({"id": one["id"], "title": one["title"]} for one in images),
            {"id": "settings", "title": "Settings"},
        ]
        number, (_, height, width) = len(images), self.data.shape
        write_page(
            path,
            _TEMPLATE,
            title=self.title,
            summary=f"{number} image{'s' * (number != 1)}, {self.data!r}. Written by pspc-rs {__version__}.",
            sections=sections,
            overview=self._overview(),
            images=images,
            pictures=self.pictures,
            masks=self.masks,
            height=height,
            width=width,
            gradient=", ".join(f"rgb{colour}" for colour in _COLOURS),
            settings=Record("explain.json", self.record),
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
        return Table("One row per image and noise level", header, [_shown_row(row) for row in self.found.rows()])

    def _image(self, number: int) -> dict[str, Any]:
        """What is shown of one image."""
        subject = self.found.subjects[number]
        clean = (
            None if subject.clean is None else self._cell(self._picture(f"c{number}", subject.clean), "before noise")
        )
        return {
            "id": f"image-{number}",
            "title": f"Image {number}",
            "name": subject.name,
            "clean": clean,
            "nearest": None if self.found.nearest is None else self._nearest(self.found.nearest, number),
            "way": None if self.found.way is None else self._way(self.found.way, number),
            "levels": [self._level(index, number) for index in range(len(self.found.levels))],
        }

    def _way(self, way: Way, number: int) -> dict[str, Any]:
        steps = [
            self._cell(
                self._picture(f"w{step}-{number}", way.denoised[step, number]),
                f"\N{GREEK SMALL LETTER SIGMA} {sigma:.3g}",
                f"image {way.leading[step, number]}",
                percent(way.leading_share[step, number]),
            )
            for step, sigma in enumerate(way.sigmas.tolist())
        ]
        sample = self._cell(self._picture(f"s{number}", way.samples[number]), "the sample")
        shares = way.attribution[number] / len(way.sigmas)
        return {
            "steps": [*steps, sample],
            "shares": self._shares(shares),
            "nearest": self._nearest(way.nearest, number),
            "num": len(way.sigmas),
        }

    def _level(self, index: int, number: int) -> dict[str, Any]:
        """What is shown of one image at one noise level."""
        level = self.found.levels[index]
        effective = [one.effective_images for one in self.found.levels]
        variance = [one.variance.mean(axis=1) for one in self.found.levels]
        # z keeps its scale: at large sigma it would be all black and white.
        state = level.z[number] / math.sqrt(1 + level.sigma**2)
        z = self._picture(f"z{index}-{number}", state)
        denoised = self._picture(f"d{index}-{number}", level.denoised[number])
        return {
            "sigma": f"{level.sigma:.4g}",
            "windows": _windows(level),
            "z": self._cell(z, "noisy image"),
            "denoised": self._cell(denoised, "denoised image"),
            "maps": [
                self._map(f"e{index}-{number}", "effective images", effective[index], number, count),
                self._map(f"v{index}-{number}", "variance", variance[index], number, "{:.2g}".format),
            ],
            "nearest": self._nearest(level.nearest, number),
            "shares": self._shares(level.attribution[number]),
            "positions": self._positions(index, number, z, denoised),
        }

    def _positions(self, index: int, number: int, z: str, denoised: str) -> list[dict[str, Any]]:
        """The patches at each position; a component that is that of several positions is shown once."""
        level, found = self.found.levels[index], {}
        for place, component in enumerate(level.components.tolist()):
            if component in found:
                continue
            mask = self._mask(f"m{index}-{component}", level.masks[place])
            atoms = zip(
                level.top_index[number, place].tolist(),
                level.top_view[number, place].tolist(),
                level.top_weight[number, place].tolist(),
                strict=True,
            )
            cells = [
                self._training(image, view, percent(weight), mask=mask) for image, view, weight in atoms if image >= 0
            ]
            y, x = level.positions[place].tolist()
            found[component] = {
                "title": "The whole image" if level.num_components == 1 else f"y {y}, x {x}",
                "effective": count(level.position_images[number, place]),
                "cells": [self._cell(z, "noisy", mask=mask), self._cell(denoised, "denoised", mask=mask), *cells],
            }
        return list(found.values())

    def _shares(self, shares: NDArray[np.float64]) -> list[dict[str, Any]]:
        """The training images with the largest shares."""
        largest = np.argsort(-shares, kind="stable")[:_SHARES]
        return [self._training(image, 0, percent(shares[image])) for image in largest.tolist() if shares[image] > 0]

    def _nearest(self, nearest: NearestImages, number: int) -> dict[str, Any]:
        ratio = float(nearest.ratio[number])
        pairs = zip(nearest.index[number].tolist(), nearest.view[number].tolist(), ("d1", "d2"), strict=True)
        cells = [
            self._training(image, view, f"{name} {nearest.distance[number, place]:.3g}")
            for place, (image, view, name) in enumerate(pairs)
            if image >= 0
        ]
        copies = bool(nearest.is_copy[number])
        rule = f"d1/d2 = {ratio:.3g}, {'below' if copies else 'not below'} 1/3" if math.isfinite(ratio) else ""
        return {"cells": cells, "is_copy": copies, "rule": rule}

    def _training(self, image: int, view: int, first: str, *, mask: str = "") -> dict[str, Any]:
        """A cell with a training image."""
        name = f"t{image}"
        if name not in self.pictures:
            self._picture(name, self.data.batch([image])[0])
        label = [] if self.data.labels is None else [f"class {self.data.labels[image]}"]
        further = ", ".join([*label, *(["mirrored"] if view else [])])
        return self._cell(name, first, f"image {image}", further, mask=mask, mirrored=bool(view))

    def _cell(self, picture: str, first: str, *further: str, mask: str = "", mirrored: bool = False) -> dict[str, Any]:
        """A picture with lines of text, and the window that is shown of it."""
        lines = [line for line in further if line]
        spoken = ", ".join([first, *lines])
        named = {"picture": picture, "first": first, "further": lines, "spoken": spoken}
        return {**named, "mask": mask, "mirrored": mirrored}

    def _picture(self, name: str, image: Floats) -> str:
        """Embeds an image in [-1, 1] units; the name by which it is shown."""
        channels = image.shape[0]
        # Other numbers of channels have no colours: their mean is shown.
        drawn = image if channels in (1, 3, 4) else image.mean(axis=0, keepdims=True)
        self.pictures[name] = _png(image_grid(np.asarray(drawn, np.float32)[None], padding=0))
        return name

    def _mask(self, name: str, mask: NDArray[np.bool_]) -> str:
        if name not in self.masks:
            top, left, height, width = bounding_box(mask)
            self.masks[name] = {
                "box": f"{left} {top} {width} {height}",
                "outline": outline(mask),
                "veil": veil(mask),
                "is_whole": bool(mask.all()),
            }
        return name

    def _map(
        self, name: str, title: str, maps: NDArray[np.float64], number: int, text: Callable[[float], str]
    ) -> dict[str, Any]:
        """A map in colours, on one logarithmic scale for all images of the level."""
        least = max(float(maps.min()), float(maps.max()) * 10.0**-_DECADES)
        most = float(maps.max())
        shares = np.zeros(maps.shape[1:])
        if most > least:
            logs = np.log(np.clip(maps[number], least, most) / least)
            shares = logs / math.log(most / least)
        self.pictures[name] = _png(_coloured(shares))
        return {**self._cell(name, title), "low": text(least), "high": text(most)}


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


def _windows(level: Explanation) -> str:
    """The components of a level in words."""
    if level.num_components == 1:
        return "the whole image" if level.masks[0].all() else "one mask"
    boxes = {bounding_box(mask)[2:] for mask in level.masks}
    square = len(boxes) == 1 and all(mask.sum() == math.prod(bounding_box(mask)[2:]) for mask in level.masks)
    if square:
        height, width = boxes.pop()
        return f"{level.num_components} windows of {height} x {width} pixels"
    return f"{level.num_components} masks"


def _coloured(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Numbers from 0 to 1, [H, W], as colours [H, W, 3]."""
    colours = np.array(_COLOURS, np.float64)
    places = np.linspace(0, 1, len(colours))
    channels = [np.interp(shares, places, colours[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def _png(picture: NDArray[np.uint8]) -> str:
    """A picture as an embedded PNG file."""
    stream = io.BytesIO()
    import_pillow().fromarray(picture).save(stream, "PNG", optimize=True)
    return png_source(stream.getvalue())
