"""`pspc-rs figure masks`, `schedules` and `fid`: masks over heat maps, schedules side by side, samples against data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from pspc_rs.cli.commands import Command, option_group
from pspc_rs.cli.front import interruptible_bar
from pspc_rs.cli.inputs import read_samples, samples_option
from pspc_rs.cli.models import load_data, warn_of_program
from pspc_rs.cli.options import (
    TRUST,
    output_folder,
)
from pspc_rs.cli.values import input_file, listed, read_pixel
from pspc_rs.denoisers.masks import covering_masks
from pspc_rs.errors import MissingFileError, ScheduleError, ShapeError
from pspc_rs.experiments.figures import save_figure, spread_evenly
from pspc_rs.experiments.frechet import (
    Features,
    data_features,
    feature_moments,
    frechet_distance,
    read_moments,
    sample_features,
    torchscript_features,
)
from pspc_rs.experiments.heatmap_mass import mask_figure
from pspc_rs.experiments.schedule_figures import schedule_figure, schedule_table
from pspc_rs.outputs import open_array, save_table
from pspc_rs.provenance import Clock, provenance, save_record, sha256
from pspc_rs.schedules import PatchSchedule, Schedule, ThresholdSchedule, patch_schedule, threshold_schedule

_MAX_LEVELS = 6


def _pixels(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]]:
    return [read_pixel(value) for value in values]


@click.command(cls=Command)
@click.option("--heatmaps", "path", type=input_file(), required=True, help="Heat maps, .npy [levels, H, W, H, W].")
@click.option(
    "--thresholds", default="cifar10", metavar="NAME|FILE", help="Schedule of thresholds, with a level for every map."
)
@click.option("--pixel", "pixels", multiple=True, metavar="Y,X", callback=_pixels, help="Output pixel; repeat.")
@output_folder()
def masks(path: Path, thresholds: str, pixels: list[tuple[int, int]], outdir: Path) -> None:
    """Show the masks of PSPC-Flex over the heat maps that they are cut from, at levels whose masks are not the image.

    Writes masks.png, .pdf and .npz, and masks.csv with the sizes of all masks.
    """
    clock, maps = Clock(), open_array(path)
    schedule: ThresholdSchedule = _read(thresholds, ThresholdSchedule)
    height, width = maps.shape[-2:]
    if maps.shape != (len(schedule.sigmas), height, width, height, width):
        raise ShapeError(
            f"{path} has shape {list(maps.shape)}; {schedule!r} needs [{len(schedule.sigmas)}, H, W, H, W]"
        )
    levels = [level for level, threshold in enumerate(schedule.thresholds) if threshold < 1]
    if not levels:
        raise ScheduleError(f"{schedule!r} has no threshold below 1, so there are no masks to show")
    chosen = [levels[index] for index in spread_evenly(len(levels), _MAX_LEVELS)]
    places = _checked_pixels(pixels, height, width)
    shown, cut = [], []
    table: dict[str, list[Any]] = {"sigma": [], "threshold": [], "smallest": [], "mean": [], "largest": []}
    for level in levels:
        own = covering_masks(np.asarray(maps[level]), schedule.thresholds[level], schedule.sizes)
        sizes = own.sum(axis=(1, 2))
        row = (schedule.sigmas[level], schedule.thresholds[level], int(sizes.min()), sizes.mean(), int(sizes.max()))
        for column, value in zip(table.values(), row, strict=True):
            column.append(value)
        if level in chosen:
            shown.append([maps[level, y, x] for y, x in places])
            cut.append([own[y * width + x] for y, x in places])
    sigmas = [schedule.sigmas[level] for level in chosen]
    drawn = mask_figure(np.array(shown), np.array(cut), sigmas, places)
    numbers = {"sigmas": sigmas, "pixels": places, "maps": np.array(shown), "masks": np.array(cut)}
    written = save_figure(outdir / "masks", drawn, numbers, table)
    used = {"heatmaps": path, "thresholds": thresholds, "pixels": places}
    record = provenance("figure masks", used, clock=clock, inputs_sha256={"heatmaps": sha256(path)})
    save_record(outdir / "masks_run.json", record)
    for one in written:
        click.echo(one)


def _checked_pixels(pixels: list[tuple[int, int]], height: int, width: int) -> list[tuple[int, int]]:
    """The pixels that were asked for, or one in the middle, one beside it and one in the corner."""
    for y, x in pixels:
        if not (0 <= y < height and 0 <= x < width):
            raise click.UsageError(f"--pixel is {y},{x}; allowed are 0,0 to {height - 1},{width - 1}")
    return pixels or [(height // 2, width // 2), (height // 4, width // 4), (0, 0)]


@click.command(cls=Command)
@click.option(
    "--patch-sizes",
    multiple=True,
    callback=listed,
    metavar="LIST",
    help="Comma list of schedules of window sides, names or files, each with a NAME= before it if need be.",
)
@click.option(
    "--thresholds", multiple=True, callback=listed, metavar="LIST", help="The same of schedules of thresholds."
)
@output_folder()
def schedules(patch_sizes: Sequence[str], thresholds: Sequence[str], outdir: Path) -> None:
    """Show schedules of several data sets or networks in one figure, sides in units of the image's.

    Writes schedule_sides and schedule_thresholds as .png, .pdf, .npz and .csv, as far as schedules are given.
    """
    clock = Clock()
    if not patch_sizes and not thresholds:
        raise click.UsageError("give --patch-sizes, --thresholds, or both")
    kinds: list[tuple[str, Sequence[str], type[Schedule[Any]]]] = [
        ("schedule_sides", patch_sizes, PatchSchedule),
        ("schedule_thresholds", thresholds, ThresholdSchedule),
    ]
    for stem, specs, kind in kinds:
        named: dict[str, Schedule[Any]] = {}
        for spec in specs:
            given, equals, rest = spec.partition("=")
            name = given if equals else Path(spec).stem
            if name in named:
                raise click.UsageError(
                    f"two schedules are called {name!r}; write NAME={rest or spec} with another name"
                )
            named[name] = _read(rest if equals else spec, kind)
        if named:
            table = schedule_table(named)
            for one in save_figure(outdir / stem, schedule_figure(named), table, table):
                click.echo(one)
    used = {"patch_sizes": list(patch_sizes), "thresholds": list(thresholds)}
    save_record(outdir / "schedules_run.json", provenance("figure schedules", used, clock=clock))


def _read(spec: str, kind: type[Any]) -> Any:
    """A schedule by name or file."""
    if spec.endswith(".json") or Path(spec).exists():
        return kind.load(spec)
    return patch_schedule(spec) if kind is PatchSchedule else threshold_schedule(spec)


@click.command(cls=Command)
@samples_option
@output_folder()
@option_group("Features")(
    "--features",
    type=input_file(),
    help="Network of the features, a TorchScript file called with uint8 images, such as NVIDIA's Inception network for "
    "FID, which you download. Not needed where --samples and --reference hold features, [N, features].",
)
@option_group("Features")(
    "--reference",
    type=input_file(),
    help="Moments of the data, .npz with mu and sigma, or features of it, .npy [N, features].",
)
@click.option("--data", metavar="PATH|NAME", help="Images to compare with, in place of --reference.")
@click.option("--xflip/--no-xflip", default=True, help="Count horizontal flips as further data; also --xflip=False.")
@TRUST
def fid(
    *,
    specs: Sequence[str],
    outdir: Path,
    features: Path | None,
    reference: Path | None,
    data: str | None,
    xflip: bool,
    trust: bool,
) -> None:
    """Measure the Frechet distance of samples' features to those of data: FID, with the network that FID is defined by.

    Writes fid.csv. FID is biased upwards where samples are few: published numbers are of 50,000. Copies are counted by
    pspc-rs figure metrics --data.
    """
    clock = Clock()
    if (reference is None) == (data is None):
        raise click.UsageError("give one of --reference and --data, which samples are compared with")
    samples = read_samples(specs, None)
    if features is not None and not trust:
        warn_of_program(f"{features} is TorchScript, a program that can read and write files")
    network: Features = _missing if features is None else torchscript_features(features)
    images = None if data is None else load_data(data, xflip=xflip)
    if images is not None:
        with interruptible_bar("img", "features of the data", "nothing is kept") as progress:
            target = feature_moments(data_features(images, network, progress=progress))
    else:
        target = read_moments(Path(str(reference)))
    table: dict[str, list[Any]] = {"samples": [], "n": [], "fid": []}
    for name, own in samples.items():
        moments = feature_moments(sample_features(own, network))
        table["samples"].append(name)
        table["n"].append(moments.n)
        table["fid"].append(frechet_distance(moments, target))
        click.echo(f"{name}  {table['fid'][-1]:.4g}  of {moments.n} samples")
    save_table(outdir / "fid.csv", table)
    checked = {key: sha256(path) for key, path in (("features", features), ("reference", reference)) if path}
    used = {"samples": list(specs), "features": features, "reference": reference, "data": data, "xflip": xflip}
    record = provenance("figure fid", used, data=images, clock=clock, inputs_sha256=checked)
    save_record(outdir / "fid_run.json", record)
    click.echo(outdir / "fid.csv")


def _missing(images: Any) -> Any:
    del images
    raise MissingFileError("images need a network of features: give --features, a TorchScript file")
