"""The demonstration: every denoiser on the embedded data sets, as labelled pictures with timings."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data import ImageSet, load
from pspc_rs.denoisers import Denoiser, Empirical, Gaussian, PSPCFlex, PSPCSquare
from pspc_rs.extras import import_extra
from pspc_rs.files import replacing
from pspc_rs.heatmaps import gaussian_heatmaps
from pspc_rs.images import image_grid
from pspc_rs.progress import ProgressBar, Steps
from pspc_rs.provenance import Clock, provenance, save_record
from pspc_rs.samplers import initial_noise, noise_source, sample_heun
from pspc_rs.schedules import resolve_patch_schedule, resolve_threshold_schedule
from pspc_rs.sigmas import edm_sigmas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIGMAS = (8.0, 3.0, 1.0, 0.5, 0.2, 0.06)
_HELD_OUT = 100
_QUERIES = 16
_STEPS = 18
# Gaussian maps have wider tails than those of networks: with the published thresholds their masks hold too many pixels
# around sigma 0.2. These leave about as many as the windows of PSPC-Square; they were picked on the very photographs
# that the picture shows, so the errors under PSPC-Flex prove nothing.
_THRESHOLDS = (1.0,) * 7 + (0.7, 0.7, 0.6, 0.5, 0.4) + (0.3,) * 6
_DPI = 100
_PIECES_OF_WORK = 2 + 4 * (len(_SIGMAS) + _STEPS)
_INK = "#222222"


@dataclass(frozen=True)
class Subject:
    """A data set of the demonstration.

    Attributes:
        name: name of an embedded data set.
        xflip: whether flips count.
        sides: window sides on the EDM grid of 18 levels; those published for CIFAR-10 if None.
        num_samples: how many samples are drawn, a square number.
        tile: side of a denoised image in the picture, in picture pixels.
        files: names of the two pictures, of denoised images and of samples.
    """

    name: str
    xflip: bool
    sides: tuple[int, ...] | None
    num_samples: int
    tile: int
    files: tuple[str, str]


_PHOTOS = Subject("photos", True, None, 16, 128, ("denoisers.png", "samples.png"))
_DIGITS = Subject("digits", False, (8,) * 9 + (7, 5, 3) + (3,) * 6, 36, 112, ("digits.png", "digits_samples.png"))


def make_demo(outdir: Path, *, quick: bool = False) -> list[Path]:
    """The files written: pictures of denoised images and of samples for every data set, and ``summary.json``.

    ``denoisers.png`` and ``samples.png`` show colour photographs, ``digits.png`` and ``digits_samples.png`` digits.

    Noisy images at several noise levels are denoised by the empirical, Gaussian, PSPC-Square and PSPC-Flex denoisers,
    and the four are sampled from with Heun's method from the same noise. Images denoised are not in the training set.
    PSPC-Flex has its masks from the Gaussian denoiser, see `gaussian_heatmaps`. Progress is shown on stderr.

    Args:
        outdir: folder for the files, made if need be.
        quick: only the digits.

    Raises:
        MissingDependencyError: matplotlib or scikit-learn is not installed, or cannot be imported.
        OutputError: a file cannot be written.
    """
    import_extra("matplotlib", "the demo", "demo,plot")
    clock, written, results = Clock(), [], {}
    subjects = [_DIGITS] if quick else [_PHOTOS, _DIGITS]
    with ProgressBar("step", "demo", total=len(subjects) * _PIECES_OF_WORK) as bar:
        steps = Steps(bar, len(subjects) * _PIECES_OF_WORK)
        for subject in subjects:
            results[subject.name] = _present(subject, outdir, steps)
            written += [outdir / name for name in subject.files]
    record = provenance("demo", {"quick": quick}, clock=clock, noise=f"{noise_source()} generator", results=results)
    save_record(outdir / "summary.json", record)
    return [*written, outdir / "summary.json"]


def _present(subject: Subject, outdir: Path, steps: Steps) -> dict[str, Any]:
    """Draws the pictures of a data set and returns its numbers."""
    everything = load(subject.name, xflip=subject.xflip, progress=False)
    data = everything.subset(range(everything.num_stored - _HELD_OUT))
    clean = _vivid(everything.batch(range(data.num_stored, everything.num_stored)))
    denoisers = _family(data, subject, steps)
    rows = [_denoised(denoisers, clean, index, num=len(data), steps=steps) for index in range(len(_SIGMAS))]
    samples = {name: _samples(denoiser, subject, name, steps) for name, denoiser in denoisers.items()}
    for name, figure in zip(subject.files, (_comparison(rows, subject), _gallery(samples, subject)), strict=True):
        with replacing(outdir / name) as temporary:
            figure.savefig(temporary, format="png", dpi=_DPI)
    return {"training_images": len(data), "shape": data.shape, "denoised": [row.numbers for row in rows]}


def _vivid(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The images with most detail, by mean step between neighbouring pixels: on them denoisers differ most visibly."""
    detail = sum(np.abs(np.diff(images, axis=axis)).mean(axis=(1, 2, 3)) for axis in (2, 3))
    return images[np.argsort(-detail, kind="stable")[:_QUERIES]]


def _family(data: ImageSet, subject: Subject, steps: Steps) -> dict[str, Denoiser]:
    steps.finish(f"{subject.name}: Gaussian")
    size = (data.height, data.width)
    gaussian = Gaussian(data)
    steps.finish(f"{subject.name}: masks")
    thresholds = resolve_threshold_schedule(_THRESHOLDS, size)
    return {
        "Empirical": Empirical(data),
        "Gaussian": gaussian,
        "PSPC-Square": PSPCSquare(data, resolve_patch_schedule(subject.sides or "cifar10", size)),
        "PSPC-Flex": PSPCFlex(data, heatmaps=gaussian_heatmaps(gaussian, thresholds), thresholds=thresholds),
    }


def _samples(denoiser: Denoiser, subject: Subject, name: str, steps: Steps) -> NDArray[np.float32]:
    noise = initial_noise(subject.num_samples, denoiser.shape, seed=0)
    return sample_heun(
        denoiser, noise, edm_sigmas(_STEPS), callback=lambda step: steps.finish(f"{subject.name}: samples, {name}")
    )


@dataclass(frozen=True)
class _Row:
    """What is shown of one noise level: a clean image, the noisy one, and what each denoiser makes of it."""

    sigma: float
    clean: NDArray[np.float32]
    noisy: NDArray[np.float32]
    denoised: Mapping[str, NDArray[np.float32]]
    numbers: Mapping[str, Any]


def _denoised(
    denoisers: Mapping[str, Denoiser], clean: NDArray[np.float32], index: int, *, num: int, steps: Steps
) -> _Row:
    """Row ``index`` of the comparison; errors and timings are means over all clean images."""
    sigma = _SIGMAS[index]
    noisy = clean + initial_noise(len(clean), clean.shape[1:], sigma, seed=index)
    outputs, numbers = {}, {}
    for name, denoiser in denoisers.items():
        denoiser(noisy[:1], sigma)  # builds the windows, which is not to be timed
        start = time.perf_counter()
        denoised = denoiser(noisy, sigma)
        seconds = time.perf_counter() - start
        outputs[name] = denoised[index]
        numbers[name] = {
            "mse": float(np.square(denoised - clean, dtype=np.float64).mean()),
            "microseconds_per_query_and_image": 1e6 * seconds / (len(clean) * num),
        }
        steps.finish(f"denoising, {name}, sigma {sigma:g}")
    return _Row(sigma, clean[index], noisy[index], outputs, {"sigma": sigma, **numbers})


def _comparison(rows: list[_Row], subject: Subject) -> "Figure":
    """One row per noise level, one column per denoiser; the MSE below every picture."""
    tile, gap, caption, left, top = subject.tile, 10, 22, 96, 78
    titles = ["clean", "noisy z", *rows[0].denoised]
    sheet = _Sheet(left + len(titles) * (tile + gap) + gap, top + len(rows) * (tile + caption) + gap)
    title = f"Held-out {subject.name} denoised, with mean square error (shown clipped to [-1, 1])"
    sheet.text(gap, 22, title, size=13, bold=True)
    for column, title in enumerate(titles):
        sheet.text(left + column * (tile + gap) + tile / 2, top - 16, title, align="center", size=12)
    for index, row in enumerate(rows):
        y = top + index * (tile + caption)
        sheet.text(left / 2, y + tile / 2, f"$\\sigma$ = {row.sigma:g}", align="center", size=12)
        for column, image in enumerate((row.clean, row.noisy, *row.denoised.values())):
            x = left + column * (tile + gap)
            sheet.picture(image_grid(image[None], padding=0), x, y, tile // image.shape[-1])
            if column > 0:
                error = float(np.square(image - row.clean, dtype=np.float64).mean())
                sheet.text(
                    x + tile / 2, y + tile + 9, f"{error:.2g}" if error < 1 else f"{error:.1f}", align="center", size=8
                )
    return sheet.figure


def _gallery(samples: Mapping[str, NDArray[np.float32]], subject: Subject) -> "Figure":
    """A square of samples for every denoiser, side by side."""
    columns, gap, top = math.isqrt(subject.num_samples), 24, 78
    grids = {name: image_grid(images, columns=columns, padding=1) for name, images in samples.items()}
    height, width = next(iter(grids.values())).shape[:2]
    zoom = max(1, round(340 / width))
    sheet = _Sheet(len(grids) * (zoom * width + gap) + gap, top + zoom * height + gap)
    sheet.text(
        gap,
        22,
        f"Samples of the {subject.name} denoisers: Heun, {_STEPS} steps, from the same noise",
        size=13,
        bold=True,
    )
    for index, (name, grid) in enumerate(grids.items()):
        x = gap + index * (zoom * width + gap)
        sheet.text(x + zoom * width / 2, top - 16, name, align="center", size=12)
        sheet.picture(grid, x, top, zoom)
    return sheet.figure


class _Sheet:
    """A white figure on which pictures and text are placed in pixels from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        self._width, self._height = width, height

    def picture(self, image: NDArray[np.uint8], x: int, y: int, zoom: int) -> None:
        """Places a picture with every pixel as a square of zoom x zoom, colours as they are."""
        coloured = image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
        large = coloured.repeat(zoom, axis=0).repeat(zoom, axis=1)
        self.figure.figimage(large, x, self._height - y - len(large), origin="upper")

    def text(self, x: float, y: float, text: str, *, align: str = "left", size: int, bold: bool = False) -> None:
        """Writes a line that is centred on y."""
        weight = "bold" if bold else "normal"
        style: dict[str, Any] = {"ha": align, "va": "center", "fontsize": size, "weight": weight, "color": _INK}
        self.figure.text(x / self._width, 1 - y / self._height, text, **style)
