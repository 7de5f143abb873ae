"""`pspc-rs patch-study`: the errors of single patches' posterior means."""

from typing import Any

import click

from pspc_rs.cli.models import build_model, named_options
from pspc_rs.cli.noisy_source import noisy_options, split_options
from pspc_rs.cli.options import options_for_many
from pspc_rs.cli.progress import ticking
from pspc_rs.data import load
from pspc_rs.experiments import patch_curves as experiment
from pspc_rs.experiments.figure_files import save_figure
from pspc_rs.provenance import Clock, provenance, save_record


def _sides(context: click.Context, option: click.Parameter, value: str) -> list[int]:
    try:
        return [int(word) for word in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no comma list of sides, such as 3,5,7") from error


@click.command("patch-study")
@options_for_many
@noisy_options
@click.option(
    "--target",
    default="empirical",
    metavar="NETWORK|DENOISER",
    help="What patch means are compared with: the optimal denoiser, or a network as module:callable.",
)
@click.option(
    "--sides",
    default=",".join(str(side) for side in experiment.SIDES),
    callback=_sides,
    metavar="LIST",
    help="Sides of patches, those of the paper for 32 x 32 images.",
)
@click.option(
    "--max-windows", type=click.IntRange(min=1), help="Look at no more positions a side, drawn once.  [default: all]"
)
def patch_study(target: str, sides: list[int], max_windows: int | None, **others: Any) -> None:
    """Study how good patch posterior means of each side are at each noise level.

    Writes patch_study.csv, mean squared errors with standard errors over images, and patch_study.png, .pdf and .npz
    with the curves. After an interruption the same command goes on; with other settings it adds rows.
    """
    clock, (options, source) = Clock(), split_options(others)
    ((name, chosen),) = named_options([target], options).items()
    data = load(options.data, xflip=options.xflip)
    model = build_model(chosen, data)
    low, high = source.limits
    with ticking("step", "patch study") as tick:
        noisy = source.levels(options, data, model, lambda done, total: tick(done, total, "trajectories"))
        levels = [(level, sigma) for level, sigma in enumerate(options.sigmas().tolist()) if low <= sigma <= high]
        study = experiment.patch_study(
            data,
            model,
            [noisy[level] for level, _ in levels],
            [sigma for _, sigma in levels],
            options.outdir / "patch_study.csv",
            sides=sides,
            max_windows=max_windows,
            seed=options.seed,
            batch=options.batch,
            record={"noisy": noisy.settings},
            tick=tick,
        )
    used = {**options.as_dict(), **vars(source), "target": target, "sides": sides, "max_windows": max_windows}
    save_record(options.outdir / "patch_study_run.json", provenance("patch-study", used, data=data, clock=clock))
    figure = experiment.patch_study_figure(study, f"{source.process} z, against {name}")
    numbers = {name: getattr(study, name) for name in ("sides", "sigmas", "mse", "standard_error")}
    for path in [options.outdir / "patch_study.csv", *save_figure(options.outdir / "patch_study", figure, numbers)]:
        click.echo(path)
