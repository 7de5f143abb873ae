"""`pspc-rs compare` and `pspc-rs patch-study`: errors against networks and denoisers, over noise levels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import click

from pspc_rs.cli.commands import Command
from pspc_rs.cli.front import KEPT, interruptible_bar
from pspc_rs.cli.inputs import held_out_options, noise_images, noisy_options, split_options
from pspc_rs.cli.models import across_ranks, build_model, load_data
from pspc_rs.cli.options import (
    Options,
    n_option,
    named_options,
    options_for_many,
)
from pspc_rs.cli.values import comma_list, listed
from pspc_rs.errors import MissingDependencyError
from pspc_rs.experiments import mse_curves, patches
from pspc_rs.experiments.compare_plan import NOISY_PROCESSES, Clean
from pspc_rs.experiments.figures import save_figure, save_pictures
from pspc_rs.experiments.metric_figures import metric_figure
from pspc_rs.experiments.metrics import METRICS
from pspc_rs.experiments.noisy_sets import DETERMINISTIC_SAMPLERS, Start
from pspc_rs.experiments.patches import WEIGHINGS
from pspc_rs.experiments.results import Row
from pspc_rs.provenance import Clock, provenance, save_record

_CLEAN: Clean = "clean"


def _processes(context: click.Context, option: click.Parameter, value: str) -> list[str]:
    words = listed(context, option, value)
    if not words or not set(words) <= set(NOISY_PROCESSES):
        raise click.BadParameter(f"{value!r}; allowed are {', '.join(NOISY_PROCESSES)}")
    return list(dict.fromkeys(words))


def _metrics(context: click.Context, option: click.Parameter, value: str) -> list[str]:
    words = listed(context, option, value)
    if not set(words) <= set(METRICS):
        raise click.BadParameter(f"{value!r}; allowed are {', '.join(METRICS)}")
    return list(dict.fromkeys(["mse", *words]))


@click.command(cls=Command, ranks=True)
@click.option(
    "--target",
    multiple=True,
    required=True,
    callback=listed,
    metavar="[NAME=]NETWORK|clean",
    help="Network to compare with, or clean, the images behind forward z; may be given several times.",
)
@click.option(
    "--denoisers",
    multiple=True,
    default=["empirical,gaussian,pspc_sq"],
    callback=listed,
    metavar="LIST",
    help="Comma list of denoisers and networks, each with a NAME= before it if need be.",
)
@click.option(
    "--process", default="forward,reverse", callback=_processes, metavar="LIST", help="forward, reverse or both."
)
@click.option(
    "--sampler", type=click.Choice(DETERMINISTIC_SAMPLERS), default="heun", help="Solver of the reverse trajectories."
)
@click.option(
    "--start",
    type=click.Choice(["noise", "data"]),
    default="noise",
    help="Where trajectories start: at noise at t_max, or at noisy data at the highest level compared.",
)
@click.option(
    "--metrics",
    default="mse",
    callback=_metrics,
    metavar="LIST",
    help=f"Metrics beside the MSE: {', '.join(name for name in METRICS if name != 'mse')}.",
)
@click.option("--sigma-from", type=float, default=0.0, help="Lowest noise level to compare at.")
@click.option("--sigma-to", type=float, help="Highest noise level to compare at.  [default: no limit]")
@click.option(
    "--leave-one-out",
    is_flag=True,
    help="Denoise z made of an image as if it were not in the data; for --process forward.",
)
@held_out_options
@n_option("Noisy images per noise level.", least=2)
@options_for_many
@across_ranks
def compare(
    *,
    target: list[str],
    denoisers: list[str],
    process: list[str],
    sampler: str,
    start: str,
    metrics: list[str],
    sigma_from: float,
    sigma_to: float | None,
    leave_one_out: bool,
    noise_data: str | None,
    noise_split: str,
    z: Path | None,
    **others: Any,
) -> None:
    """Compare denoisers with networks by MSE and other metrics, over noise levels.

    Forward: noisy images of the data, or of --noise-data. Reverse: images on the network's own sampling trajectories.
    --z: images of a file instead. Writes mse.csv (mean over pixels and images in [-1, 1] units, standard error over
    images), paired.csv (differences to the best denoiser of the call, with the standard errors of the differences), and
    mse.png and mse.pdf with its curves, next to results.sqlite (every row), image_errors/, settings.json, times.csv and
    the trajectories; further metrics go to metrics.csv, with curves named after each. After an interruption the same
    command continues; with other denoisers, networks or settings it adds rows.
    """
    clock = Clock()
    options = Options(**others)
    clean = [one.rpartition("=")[0] or _CLEAN for one in target if one.rpartition("=")[2] == _CLEAN]
    networks = [one for one in target if one.rpartition("=")[2] != _CLEAN]
    wanted = named_options(networks, options), named_options(denoisers, options)
    if z is not None and noise_data is not None:
        raise click.UsageError("--z and --noise-data both say what z are; give one of them")
    data = load_data(options.data, xflip=options.xflip)
    targets, models = ({name: build_model(own, data) for name, own in chosen.items()} for chosen in wanted)
    # Denoisers differ a lot in speed: the time left is estimated from the mean speed.
    with interruptible_bar("img", "comparing", KEPT, smoothing=0) as progress:
        rows = mse_curves.compare(
            data,
            {**targets, **dict.fromkeys(clean, _CLEAN)},
            models,
            options.outdir,
            sigmas=options.sigmas(),
            processes=process,
            n=options.n_samples,
            seed=options.seed,
            batch=options.batch,
            sampler=sampler,
            start=cast(Start, start),
            start_scale=options.start_scale,
            sigma_range=(sigma_from, float("inf") if sigma_to is None else sigma_to),
            leave_one_out=leave_one_out,
            metrics=metrics,
            noise_data=noise_images(options.data, data, noise_data, noise_split),
            z=z,
            progress=progress,
        )
    own: dict[str, Any] = {
        "target": target,
        "denoisers": denoisers,
        "process": process,
        "sampler": sampler,
        "start": start,
    }
    own |= {"metrics": metrics, "noise_data": noise_data, "noise_split": noise_split, "z": z}
    limits = {"sigma_from": sigma_from, "sigma_to": sigma_to, "leave_one_out": leave_one_out}
    record = provenance("compare", {**options.as_dict(), **own, **limits}, data=data, clock=clock)
    save_record(options.outdir / "compare.json", record)
    click.echo("\n\n".join([*(_summary(rows, metric) for metric in metrics), *_differences(rows)]))
    click.echo(options.outdir / "mse.csv")
    if len(metrics) > 1:
        click.echo(options.outdir / "metrics.csv")
    _draw(rows, metrics, options)


def _draw(rows: Sequence[Row], metrics: Sequence[str], options: Options) -> None:
    try:
        figures = {metric: metric_figure(rows, metric) for metric in metrics}
    except MissingDependencyError as error:
        click.echo(f"No figure is drawn: {error}", err=True)
        return
    for metric, figure in figures.items():
        for path in save_pictures(options.outdir / metric, figure):
            click.echo(path)


def _summary(rows: Sequence[Row], metric: str) -> str:
    """A metric as text, one block per process and target, one line per level, one column per denoiser."""
    return _blocks(METRICS[metric].title, rows, lambda row: f"{row[metric]:.3g}")


def _differences(rows: Sequence[Row]) -> list[str]:
    """Each level's differences to its best denoiser as text, as far as errors of single images were kept."""
    if any("difference" not in row for row in rows):
        return []
    title = "MSE less that of the best denoiser of the level, +- the standard error of the difference"
    return [_blocks(title, rows, _difference)]


def _difference(row: Row) -> str:
    if row["reference"] == row["denoiser"]:
        return "best"
    return f"{row['difference']:+.2g} +- {row['difference_error']:.1g}"


def _blocks(title: str, rows: Sequence[Row], cell: Callable[[Row], str]) -> str:
    blocks = [title]
    for process, target in dict.fromkeys((row["process"], row["target"]) for row in rows):
        chosen = [row for row in rows if (row["process"], row["target"]) == (process, target)]
        names = list(dict.fromkeys(str(row["denoiser"]) for row in chosen))
        cells = {(row["level"], row["denoiser"]): cell(row) for row in chosen}
        width = 2 + max(8, *map(len, (*names, *cells.values())))
        lines = [f"{process}, against {target}", "sigma".rjust(9) + "".join(name.rjust(width) for name in names)]
        for level, sigma in sorted({(int(row["level"]), float(row["sigma"])) for row in chosen}):
            lines.append(f"{sigma:9.4g}" + "".join(cells[level, name].rjust(width) for name in names))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


@click.command("patch-study", cls=Command)
@click.option(
    "--target",
    default="empirical",
    metavar="NETWORK|DENOISER",
    help="What patch means are compared with: the optimal denoiser, or a network as module:callable.",
)
@click.option(
    "--sides",
    default=",".join(str(side) for side in patches.PAPER_SIDES),
    callback=comma_list(int, "sides, such as 3,5,7"),
    metavar="LIST",
    help="Sides of patches, those of the paper for 32 x 32 images.",
)
@click.option(
    "--max-windows", type=click.IntRange(min=1), help="Look at no more positions per side, drawn once.  [default: all]"
)
@click.option(
    "--weigh",
    type=click.Choice(WEIGHINGS),
    default="windows",
    help="windows: the mean over windows, in which central pixels count more often. pixels: every pixel of the image "
    "counts the same, which makes sides comparable.",
)
@noisy_options()
@options_for_many
def patch_study(target: str, sides: list[int], max_windows: int | None, weigh: str, **others: Any) -> None:
    """Study how good patch posterior means of each side are at each noise level.

    Writes patch_study.csv, mean squared errors with standard errors over images, and patch_study.png, .pdf and .npz
    with the curves. After an interruption the same command continues; with other settings it adds rows.
    """
    clock, (options, source) = Clock(), split_options(others)
    ((name, chosen),) = named_options([target], options).items()
    data = load_data(options.data, xflip=options.xflip)
    model = build_model(chosen, data)
    levels = source.chosen_levels(options)
    with interruptible_bar("step", "patch study", KEPT) as progress:
        noisy = source.levels(options, data, model, progress)
        study = patches.patch_study(
            data,
            model,
            [noisy[level] for level, _ in levels],
            [sigma for _, sigma in levels],
            options.outdir / "patch_study.csv",
            sides=sides,
            max_windows=max_windows,
            weigh=weigh,
            seed=options.seed,
            batch=options.batch,
            record={"noisy": noisy.settings},
            progress=progress,
        )
    used = {**options.as_dict(), **vars(source), "target": target, "sides": sides, "max_windows": max_windows}
    used["weigh"] = weigh
    save_record(options.outdir / "patch_study_run.json", provenance("patch-study", used, data=data, clock=clock))
    figure = patches.patch_study_figure(study, f"{source.process} z, against {name}")
    numbers = {name: getattr(study, name) for name in ("sides", "sigmas", "mse", "standard_error")}
    for path in [options.outdir / "patch_study.csv", *save_figure(options.outdir / "patch_study", figure, numbers)]:
        click.echo(path)
