"""`pspc-rs noise`: noisy sets, z at every noise level, from the data or along a network's trajectories."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pspc_rs.cli.front import Interrupted
from pspc_rs.cli.models import build_model, check_options
from pspc_rs.cli.options import Options, data_options, network_options
from pspc_rs.cli.progress import progress_bar
from pspc_rs.data import load
from pspc_rs.experiments.noisy import DETERMINISTIC, Tick, save_forward, save_reverse

_N_SAMPLES = click.option("--n-samples", "--n", type=click.IntRange(min=1), default=1000, help="Images a noise level.")
_RESUME = click.option("--resume", is_flag=True, help="Go on with an earlier run that was stopped.")


@click.group()
def noise() -> None:
    """Make noisy sets: z at every noise level, as --z of denoise reads them."""


@noise.command()
@data_options
@_N_SAMPLES
@_RESUME
def forward(resume: bool, **shared: Any) -> None:
    """Draw noisy images of the data.

    Writes forward_z.npy, float32 [n_steps, N, C, H, W], and a .json file with every setting beside it. Row t is what
    denoise draws at --t-idx t. After an interruption the same command with --resume goes on.
    """
    options = Options(**shared)
    sigmas = options.sigmas()
    data = load(options.data, xflip=options.xflip)
    output = options.outdir / "forward_z.npy"

    def write(tick: Tick) -> bool:
        return save_forward(
            output,
            data,
            sigmas,
            options.n_samples,
            seed=options.seed,
            resume=resume,
            record=options.as_dict(),
            tick=tick,
        )

    _run(output, "level", write)


@noise.command()
@network_options
@_N_SAMPLES
@click.option("--sampler", type=click.Choice(DETERMINISTIC), default="heun", help="Solver of the ODE.")
@click.option(
    "--start",
    type=click.Choice(["noise", "data"]),
    default="noise",
    help="Where trajectories start: at noise alone, or at noisy images of the data.",
)
@_RESUME
def reverse(sampler: str, start: str, resume: bool, **shared: Any) -> None:
    """Follow a network's deterministic sampling trajectories.

    Writes reverse_z.npy, float32 [n_steps, N, C, H, W], and a .json file with every setting beside it. The images have
    the shape of --data. After an interruption the same command with --resume goes on.
    """
    options = Options(**shared, denoiser="network")
    check_options(options)
    data = load(options.data, xflip=options.xflip)
    network = build_model(options, data)
    output = options.outdir / "reverse_z.npy"

    def write(tick: Tick) -> bool:
        return save_reverse(
            output,
            network,
            data.shape,
            options.sigmas(),
            options.n_samples,
            seed=options.seed,
            sampler=sampler,
            batch=options.batch,
            start_data=data if start == "data" else None,
            resume=resume,
            record={**options.as_dict(), "sampler": sampler, "start": start},
            tick=tick,
        )

    _run(output, "batch", write)


def _run(output: Path, unit: str, write: Callable[[Tick], bool]) -> None:
    try:
        with progress_bar(0, unit, output.stem) as bar:

            def tick(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            written = write(tick)
    except KeyboardInterrupt as error:
        raise Interrupted("Interrupted; what is done is kept, the same command with --resume goes on") from error
    click.echo(f"{output}{'' if written else ' is complete already'}")
