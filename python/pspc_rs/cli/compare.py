"""`pspc-rs compare`: how far denoisers are from networks, over noise levels."""

from collections.abc import Sequence
from typing import Any, cast

import click

from pspc_rs.cli.front import Interrupted
from pspc_rs.cli.models import build_model, named_options
from pspc_rs.cli.options import Options, listed, options_for_many
from pspc_rs.cli.progress import progress_bar
from pspc_rs.data import load
from pspc_rs.errors import MissingDependencyError
from pspc_rs.experiments import mse_curves
from pspc_rs.experiments.mse_figure import mse_figure
from pspc_rs.experiments.noisy import DETERMINISTIC, Start
from pspc_rs.experiments.table import Row
from pspc_rs.files import replacing
from pspc_rs.provenance import Clock, provenance, save_record


def _processes(context: click.Context, option: click.Parameter, value: str) -> list[str]:
    words = listed(context, option, value)
    if not words or not set(words) <= set(mse_curves.PROCESSES):
        raise click.BadParameter(f"{value!r}; allowed are {', '.join(mse_curves.PROCESSES)}")
    return list(dict.fromkeys(words))


@click.command()
@options_for_many
@click.option(
    "--target",
    multiple=True,
    required=True,
    callback=listed,
    metavar="[NAME=]NETWORK",
    help="Network to compare with, module:callable of the form D(z, sigma); may be given several times.",
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
@click.option("--n-samples", "--n", type=click.IntRange(min=2), default=256, help="Noisy images a noise level.")
@click.option("--sampler", type=click.Choice(DETERMINISTIC), default="heun", help="Solver of the reverse trajectories.")
@click.option(
    "--start",
    type=click.Choice(["noise", "data"]),
    default="noise",
    help="Where trajectories start: at noise at t_max, or at noisy data at the highest level compared.",
)
@click.option("--sigma-from", type=float, default=0.0, help="Lowest noise level to compare at.")
@click.option("--sigma-to", type=float, help="Highest noise level to compare at.  [default: no limit]")
def compare(
    *,
    target: list[str],
    denoisers: list[str],
    process: list[str],
    sampler: str,
    start: str,
    sigma_from: float,
    sigma_to: float | None,
    **others: Any,
) -> None:
    """Compare denoisers with networks by MSE, over noise levels.

    Forward: noisy images of the data. Reverse: images on the network's own sampling trajectories. Writes mse.csv (mean
    over pixels and images in [-1, 1] units, standard error over images), and mse.png and mse.pdf with its curves, next
    to settings.json, times.csv and the trajectories. After an interruption the same command goes on; with other
    denoisers, networks or settings it adds rows.
    """
    clock = Clock()
    options = Options(**others)
    wanted = named_options(target, options), named_options(denoisers, options)
    data = load(options.data, xflip=options.xflip)
    targets, models = ({name: build_model(own, data) for name, own in chosen.items()} for chosen in wanted)
    try:
        with progress_bar(0, "img", "comparing") as bar:
            bar.smoothing = 0  # denoisers differ a lot in speed: the time left is reckoned from the mean

            def report(done: float, total: float, what: str) -> None:
                bar.total = total
                bar.set_description(what, refresh=False)
                bar.update(round(done) - bar.n)

            rows = mse_curves.compare(
                data,
                targets,
                models,
                options.outdir,
                sigmas=options.sigmas(),
                processes=process,
                n=options.n_samples,
                seed=options.seed,
                batch=options.batch,
                sampler=sampler,
                start=cast(Start, start),
                sigma_range=(sigma_from, float("inf") if sigma_to is None else sigma_to),
                report=report,
            )
    except KeyboardInterrupt as error:
        raise Interrupted("Interrupted; finished levels are kept, the same command goes on") from error
    own = {"target": target, "denoisers": denoisers, "process": process, "sampler": sampler, "start": start}
    limits = {"sigma_from": sigma_from, "sigma_to": sigma_to}
    record = provenance("compare", {**options.as_dict(), **own, **limits}, data=data, clock=clock)
    save_record(options.outdir / "compare.json", record)
    click.echo(_summary(rows))
    click.echo(options.outdir / "mse.csv")
    _draw(rows, options)


def _draw(rows: Sequence[Row], options: Options) -> None:
    try:
        figure = mse_figure(rows)
    except MissingDependencyError as error:
        click.echo(f"No figure is drawn: {error}", err=True)
        return
    for suffix in ("png", "pdf"):
        path = options.outdir / f"mse.{suffix}"
        with replacing(path) as temporary:
            figure.savefig(temporary, format=suffix, metadata={"CreationDate": None} if suffix == "pdf" else None)
        click.echo(path)


def _summary(rows: Sequence[Row]) -> str:
    """The MSE as text, one block a process and target, one line a level, one column a denoiser."""
    blocks = []
    for process, target in dict.fromkeys((row["process"], row["target"]) for row in rows):
        chosen = [row for row in rows if (row["process"], row["target"]) == (process, target)]
        names = list(dict.fromkeys(str(row["denoiser"]) for row in chosen))
        width = max(10, *(len(name) + 2 for name in names))
        lines = [f"{process}, against {target}", "sigma".rjust(9) + "".join(name.rjust(width) for name in names)]
        cells = {(row["level"], row["denoiser"]): f"{row['mse']:.3g}" for row in chosen}
        for level, sigma in sorted({(int(row["level"]), float(row["sigma"])) for row in chosen}):
            lines.append(f"{sigma:9.4g}" + "".join(cells[level, name].rjust(width) for name in names))
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
