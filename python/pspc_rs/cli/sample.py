"""`pspc-rs sample`: samples of the probability flow ODE, batch by batch, which can be resumed."""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs.cli.arrays import read_noisy
from pspc_rs.cli.front import Interrupted
from pspc_rs.cli.models import Model, build_model, check_options, checksums, network_of, schedule_of
from pspc_rs.cli.options import Options, input_file, shared_options
from pspc_rs.cli.progress import progress_bar
from pspc_rs.data import ImageSet, load
from pspc_rs.images import image_grid, save_png
from pspc_rs.provenance import Clock, build, describe_data, provenance, versions
from pspc_rs.runs import BatchRun
from pspc_rs.samplers import SAMPLERS, initial_noise, noise_source

_HISTORICAL = {"huen": "heun"}
_CHURN = ("S_churn", "S_min", "S_max", "S_noise")
# Where files lie decides no number, and schedules, heat maps and data count by what is in them.
_NOT_SETTINGS = ("outdir", "device", "data", "heatmaps", "patch_sizes", "thresholds", "scale_to", "network_pkl")


@click.command()
@shared_options
@click.option(
    "--sampler",
    type=click.Choice([*SAMPLERS, *_HISTORICAL]),
    metavar="|".join([*SAMPLERS, *_HISTORICAL]),
    default="euler",
    help="Solver of the ODE; huen is the historical spelling of heun.",
)
@click.option(
    "--z-init", type=input_file(), help="Initial states, .npy [N, C, H, W], scaled by t_max.  [default: drawn]"
)
@click.option("--s-churn", type=float, help="edm: how much noise is added in all.  [default: 0]")
@click.option("--s-min", type=float, help="edm: lowest noise level at which noise is added.  [default: 0]")
@click.option("--s-max", type=float, help="edm: highest noise level at which noise is added.  [default: no limit]")
@click.option("--s-noise", type=float, help="edm: standard deviation of the added noise.  [default: 1]")
@click.option("--save-images", is_flag=True, help="Also write a grid of the samples as a PNG file.")
@click.option("--resume", is_flag=True, help="Go on with an earlier run that was stopped.")
def sample(sampler: str, z_init: Path | None, save_images: bool, resume: bool, **others: Any) -> None:
    """Draw samples with a denoiser.

    Writes {denoiser}_samples.npy, float32 [N, C, H, W] in [-1, 1] units, not clipped, and a .json file with every
    setting beside it. Every finished batch is kept: after an interruption the same command with --resume goes on, and
    ends with the same bytes as if nothing had happened.
    """
    clock = Clock()
    solver = _solver(sampler, {name: others.pop(name.lower()) for name in _CHURN})
    options = Options(**others)
    check_options(options)
    data = load(options.data, xflip=options.xflip)
    start = _start(options, data, z_init)
    model = build_model(options, data)
    facts: dict[str, Any] = {
        "schedule": schedule_of(model),
        "network": network_of(model),
        "inputs_sha256": checksums(z_init=z_init, heatmaps=options.heatmaps, network_pkl=options.network_pkl),
        "initial_noise": f"{noise_source()} generator" if z_init is None else "file",
        "solver": solver,
    }
    run = BatchRun(options.outdir / f"{options.denoiser}_samples.npy", _settings(options, data, facts), resume=resume)
    if not run.complete:
        kept = len(options.batches()) - len(run.pending(len(options.batches())))
        _sample_batches(run, model, start, options, solver)
        used = {**options.as_dict(), "sampler": sampler, "z_init": z_init, "resume": resume}
        record = provenance("sample", used, data=data, clock=clock, **facts, batches_kept_from_earlier_run=kept)
        run.finish(len(options.batches()), record)
    click.echo(f"{run.output}{' is complete already' if run.complete else ''}")
    if save_images:
        picture = run.output.with_suffix(".png")
        save_png(picture, image_grid(np.load(run.output)))
        click.echo(picture)


def _solver(sampler: str, churn: dict[str, float | None]) -> dict[str, Any]:
    """The sampler's name and the options it was given."""
    given = {name: value for name, value in churn.items() if value is not None}
    if given and sampler != "edm":
        raise click.UsageError(f"--{next(iter(given))} is for --sampler edm, not for {sampler}")
    return {"name": _HISTORICAL.get(sampler, sampler), **given}


def _start(options: Options, data: ImageSet, z_init: Path | None) -> NDArray[Any]:
    if z_init is not None:
        return read_noisy(z_init, options.n_samples, data)
    return initial_noise(options.n_samples, data.shape, options.t_max, options.seed)


def _settings(options: Options, data: ImageSet, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides the bytes of the output."""
    chosen = {name: value for name, value in options.as_dict().items() if name not in _NOT_SETTINGS}
    return {**chosen, "data": describe_data(data), **facts, "versions": versions(), "isa": build()["isa"]}


def _sample_batches(run: BatchRun, model: Model, start: NDArray[Any], options: Options, solver: dict[str, Any]) -> None:
    batches, sigmas = options.batches(), options.sigmas(include_zero=True)
    pending = run.pending(len(batches))
    steps, done = options.n_steps * len(batches), options.n_steps * (len(batches) - len(pending))
    try:
        with progress_bar(steps, "step", options.denoiser, done) as bar:
            for index in pending:
                bar.set_postfix_str(f"{batches[index].start}/{options.n_samples} samples")
                step = _sampler(solver, options.seed, index)
                samples = step(model, start[batches[index]], sigmas, callback=lambda told: bar.update())
                run.keep(index, samples.astype(np.float32))
            bar.set_postfix_str(f"{options.n_samples}/{options.n_samples} samples")
    except KeyboardInterrupt as error:
        raise Interrupted("Interrupted; finished batches are kept, the same command with --resume goes on") from error


def _sampler(solver: dict[str, Any], seed: int, index: int) -> Any:
    """The sampler for one batch; noise added on the way differs from batch to batch."""
    name, given = solver["name"], {key: value for key, value in solver.items() if key != "name"}
    if name == "edm":
        given["noise"] = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
    return lambda *args, **kwargs: SAMPLERS[name](*args, **given, **kwargs)
