"""`pspc-rs figure trajectories`: several denoisers' ways from the same noise (Figure 8)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from pspc_rs.cli.arrays import read_noisy
from pspc_rs.cli.models import build_model, named_options
from pspc_rs.cli.options import Options, input_file, listed, options_for_many
from pspc_rs.cli.progress import ticking
from pspc_rs.data import load
from pspc_rs.experiments import trajectory as experiment
from pspc_rs.experiments.figure_files import save_figure
from pspc_rs.experiments.noisy import DETERMINISTIC
from pspc_rs.provenance import Clock, provenance, save_record
from pspc_rs.samplers import initial_noise


@click.command()
@options_for_many
@click.option(
    "--denoisers", multiple=True, required=True, callback=listed, metavar="LIST", help="Comma list, one row each."
)
@click.option("--n-samples", "--n", type=click.IntRange(min=1), default=3, help="How many trajectories of each.")
@click.option("--sampler", type=click.Choice(DETERMINISTIC), default="heun", help="Solver of the ODE.")
@click.option("--z-init", type=input_file(), help="Initial states, .npy [N, C, H, W], scaled by t_max.")
@click.option(
    "--show", type=click.Choice(["denoised", "state"]), default="denoised", help="D(z, sigma), or z to its own scale."
)
def trajectories(denoisers: Sequence[str], sampler: str, z_init: Path | None, show: str, **others: Any) -> None:
    """Show the trajectories of several denoisers from the same noise, side by side.

    Writes trajectories.png, .pdf and .npz: states [steps + 1, N, C, H, W] and denoised images [steps, N, C, H, W].
    """
    clock, options = Clock(), Options(**others)
    named = named_options(denoisers, options)
    data = load(options.data, xflip=options.xflip)
    models = {name: build_model(own, data) for name, own in named.items()}
    if z_init is None:
        start = initial_noise(options.n_samples, data.shape, options.t_max, options.seed)
    else:
        start = read_noisy(z_init, options.n_samples, data)
    sigmas, done = options.sigmas(include_zero=True), 0
    with ticking("step", "sampling") as tick:

        def step(what: str) -> None:
            nonlocal done
            done += 1
            tick(done, len(models) * options.n_steps, what)

        ways = experiment.trajectories(models, start, sigmas, sampler=sampler, tick=step)
    figure = experiment.trajectory_figure(ways, sigmas, show=cast(experiment.Shown, show))
    numbers: dict[str, Any] = {"sigmas": sigmas}
    for name, way in ways.items():
        numbers |= {f"{name}_states": way.states, f"{name}_denoised": way.denoised}
    written = save_figure(options.outdir / "trajectories", figure, numbers)
    used = {**options.as_dict(), "denoisers": list(denoisers), "sampler": sampler, "z_init": z_init, "show": show}
    save_record(
        options.outdir / "trajectories_run.json", provenance("figure trajectories", used, data=data, clock=clock)
    )
    for path in written:
        click.echo(path)
