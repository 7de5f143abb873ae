"""`pspc-rs plan`: what a run will cost, before it is started."""

import json
from pathlib import Path
from typing import Any, cast

import click

from pspc_rs.cli.commands import Command
from pspc_rs.cli.front import interruptible_bar
from pspc_rs.cli.models import build_model, load_data
from pspc_rs.cli.options import Options, check_options, plan_options
from pspc_rs.cli.values import comma_list
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.experiments.planning import PASSES, LevelCost, Plan
from pspc_rs.experiments.planning import plan as plan_of
from pspc_rs.provenance import plain

_COLUMNS = "{:>10}  {:>10}  {:>12}  {:>12}  {:>10}  {:>10}  {:>10}"


@click.command(cls=Command)
@click.option("--queries", type=click.IntRange(min=1), required=True, help="How many images are denoised at once.")
@click.option("--ranks", type=click.IntRange(min=1), default=1, help="How many processes share the training images.")
@click.option(
    "--sigma",
    "sigmas",
    metavar="LIST",
    callback=comma_list(float, "noise levels, such as 0.3,3"),
    help="Comma list of noise levels.  [default: the grid]",
)
@click.option("--seconds", type=click.FloatRange(min=0.01), default=6.0, help="About so long is measured.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plan_options
def plan(queries: int, ranks: int, sigmas: list[float] | None, seconds: float, as_json: bool, **shared: Any) -> None:
    """Print what a run will cost: time, memory and traffic per noise level.

    The rate of this machine is measured on a sample of the data; the rest is the cost model of docs/scale.md. One call
    denoises all queries at one noise level.
    """
    options = Options(**shared, outdir=Path(), n_samples=queries)
    check_options(options)
    data = load_data(options.data, xflip=options.xflip)
    with interruptible_bar("level", "measuring", "nothing is kept") as progress:
        found = plan_of(
            lambda part: cast(PosteriorComposite, build_model(options, part)),
            data,
            options.sigmas().tolist() if sigmas is None else sigmas,
            queries,
            ranks,
            seconds=seconds,
            seed=options.seed,
            progress=progress,
        )
    click.echo(
        json.dumps({**plain(found), "seconds": found.seconds}, indent=2) if as_json else _shown(found, data.name)
    )


def _shown(found: Plan, name: str) -> str:
    work = found.work
    several = f"{work.ranks} processes with {work.images_per_rank:,} images each" if work.ranks > 1 else "one process"
    program = "" if found.program_bytes is None else f", {_size(found.program_bytes)} of program and working space"
    lines = [
        f"data      {name}: {work.images:,} images of {list(work.shape)}, each seen {work.views} times",
        f"call      {work.queries} queries, {PASSES} passes over the images, {several}",
        f"memory    per process: {_size(work.image_bytes)} of images, mapped{program}, and what the table says",
        f"measured  on up to {found.sample_images:,} images, with the threads of this process",
        "",
        _COLUMNS.format("sigma", "components", "ns per pair", "seconds", "memory", "evidence", "sums"),
        *map(_row, found.levels),
        "",
        f"{found.seconds:,.3g} s for one call at each of these levels, without the network",
    ]
    return "\n".join(lines)


def _row(level: LevelCost) -> str:
    return _COLUMNS.format(
        f"{level.sigma:.4g}",
        f"{level.components:,}",
        f"{1e9 * level.seconds_per_pair:,.1f}",
        f"{level.seconds:,.3g}",
        _size(level.memory_bytes),
        _size(level.evidence_bytes),
        _size(level.sum_bytes),
    )


def _size(count: int) -> str:
    """Bytes in a unit of thousands.

    Example:
        >>> _size(0), _size(3_444_736), _size(15_742_979_297)
        ('0 B', '3.4 MB', '15.7 GB')
    """
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"
