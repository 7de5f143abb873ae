"""`pspc-rs sample`: samples of the probability flow ODE, batch by batch, which can be resumed."""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs.cli.front import interruptible_bar
from pspc_rs.cli.inputs import read_noisy
from pspc_rs.cli.options import (
    BuiltModel,
    Options,
    build_model,
    check_options,
    checksums,
    input_file,
    network_of,
    schedule_of,
    shared_options,
)
from pspc_rs.data import ImageSet, load
from pspc_rs.images import image_grid, save_png
from pspc_rs.outputs import ResumableArray
from pspc_rs.progress import Steps
from pspc_rs.provenance import Clock, describe_data, machine_settings, provenance
from pspc_rs.samplers import SAMPLERS, initial_noise, noise_source

_HISTORICAL = {"huen": "heun"}
_CHURN = ("S_churn", "S_min", "S_max", "S_noise")
# The location of files does not decide the numbers; schedules, heat maps and data are compared by their content.
_NOT_SETTINGS = (
    *("outdir", "device", "data", "heatmaps", "patch_sizes", "thresholds", "scale_to", "network_pkl"),
    "trust",
)


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
@click.option("--resume", is_flag=True, help="Continue an earlier run that was stopped.")
def sample(sampler: str, z_init: Path | None, save_images: bool, resume: bool, **others: Any) -> None:
    """Draw samples with a denoiser.

    Writes {denoiser}_samples.npy, float32 [N, C, H, W] in [-1, 1] units, not clipped, and a .json file with every
    setting beside it. Every finished batch is kept: after an interruption the same command with --resume continues, and
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
    batches = options.batches()
    settings = _settings(options, data, facts)
    samples = ResumableArray(options.outdir / f"{options.denoiser}_samples.npy", settings, resume=resume)
    if not samples.complete:
        kept = len(batches) - len(samples.pending(len(batches)))
        _sample_batches(samples, model, start, options, solver)
        used = {**options.as_dict(), "sampler": sampler, "z_init": z_init, "resume": resume}
        record = provenance("sample", used, data=data, clock=clock, **facts, batches_kept_from_earlier_run=kept)
        samples.finish(len(batches), record)
    click.echo(f"{samples.output}{' is complete already' if samples.complete else ''}")
    if save_images:
        picture = samples.output.with_suffix(".png")
        save_png(picture, image_grid(np.load(samples.output)))
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
    return {**chosen, "data": describe_data(data), **facts, **machine_settings()}


def _sample_batches(
    samples: ResumableArray, model: BuiltModel, start: NDArray[Any], options: Options, solver: dict[str, Any]
) -> None:
    batches, sigmas = options.batches(), options.sigmas(include_zero=True)
    pending = samples.pending(len(batches))
    kept = "finished batches are kept, run the same command with --resume to continue"
    with interruptible_bar("step", options.denoiser, kept) as progress:
        steps = Steps(progress, options.n_steps * len(batches), options.n_steps * (len(batches) - len(pending)))
        for index in pending:
            progress.describe(f"{options.denoiser}, {batches[index].start}/{options.n_samples} samples")
            solve = _sampler(solver, options.seed, index)
            drawn = solve(model, start[batches[index]], sigmas, callback=lambda step: steps.finish())
            samples.keep(index, drawn.astype(np.float32))
        progress.describe(f"{options.denoiser}, {options.n_samples}/{options.n_samples} samples")


def _sampler(solver: dict[str, Any], seed: int, index: int) -> Any:
    """The sampler for one batch; noise that it adds differs between batches."""
    name, given = solver["name"], {key: value for key, value in solver.items() if key != "name"}
    if name == "edm":
        given["noise"] = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
    return lambda *args, **kwargs: SAMPLERS[name](*args, **given, **kwargs)
