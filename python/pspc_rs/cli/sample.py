"""`pspc-rs sample`: samples of the probability flow ODE, batch by batch, which can be resumed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource
from numpy.typing import NDArray

from pspc_rs.cli.commands import Command, option_group
from pspc_rs.cli.front import KEPT, interruptible_bar
from pspc_rs.cli.inputs import read_noisy
from pspc_rs.cli.models import (
    BuiltModel,
    across_ranks,
    build_gaussian,
    build_model,
    checksums,
    class_labels,
    load_data,
    network_of,
    ranks_fact,
    run_settings,
    schedule_of,
)
from pspc_rs.cli.options import (
    Options,
    check_options,
    shared_options,
)
from pspc_rs.cli.values import input_file
from pspc_rs.data import ImageSet
from pspc_rs.images import image_grid, save_png
from pspc_rs.outputs import ResumableArray, output_lock
from pspc_rs.progress import Steps
from pspc_rs.provenance import Clock, provenance
from pspc_rs.samplers import SAMPLERS, ImageSeeds, gaussian_start, initial_noise, noise_source
from pspc_rs.samplers.solvers import rounded_levels

_HISTORICAL = {"huen": "heun"}
_CHURN = ("S_churn", "S_min", "S_max", "S_noise")

_sampling = option_group("Sampling")


def _seed_list(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | None:
    """Seeds of a comma list of numbers and ranges."""
    if value is None:
        return None
    seeds: list[int] = []
    try:
        for word in value.split(","):
            first, dash, last = word.strip().partition("-")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a list of seeds, such as 0-63 or 1,2,5-10") from error
    if not seeds:
        raise click.BadParameter(f"{value!r} holds no seeds; a range goes upwards")
    return seeds


@click.command(cls=Command, ranks=True)
@_sampling(
    "--sampler",
    type=click.Choice([*SAMPLERS, *_HISTORICAL]),
    metavar="|".join([*SAMPLERS, *_HISTORICAL]),
    default="euler",
    help="Solver of the ODE; huen is the historical spelling of heun.",
)
@_sampling(
    "--z-init",
    type=input_file(),
    help="Initial states, .npy [N, C, H, W], scaled by t_max, or as --protocol has it.  [default: drawn]",
)
@_sampling(
    "--jump-to",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SIGMA",
    help="Start at SIGMA, where the exact path of the Gaussian denoiser from t_max ends; the steps are those of a grid "
    "from SIGMA down.  [default: no jump]",
)
@_sampling(
    "--seeds",
    callback=_seed_list,
    metavar="LIST",
    help="A seed for every image in place of --seed and --n-samples, such as 0-63 or 1,2,5-10: noise as EDM's program "
    "draws it.",
)
@_sampling(
    "--round-sigma",
    is_flag=True,
    help="Take the levels that the network knows nearest to the grid's, as EDM's program.",
)
@_sampling("--s-churn", type=float, help="edm: how much noise is added in all.  [default: 0]")
@_sampling("--s-min", type=float, help="edm: lowest noise level at which noise is added.  [default: 0]")
@_sampling("--s-max", type=float, help="edm: highest noise level at which noise is added.  [default: no limit]")
@_sampling("--s-noise", type=float, help="edm: standard deviation of the added noise.  [default: 1]")
@shared_options
@option_group("Run")("--save-images", is_flag=True, help="Also write a grid of the samples as a PNG file.")
@across_ranks
def sample(
    *,
    sampler: str,
    z_init: Path | None,
    jump_to: float | None,
    seeds: list[int] | None,
    round_sigma: bool,
    save_images: bool,
    overwrite: bool,
    **others: Any,
) -> None:
    """Draw samples with a denoiser.

    Writes {denoiser}_samples.npy, float32 [N, C, H, W] in [-1, 1] units, not clipped, and a .json file with every
    setting beside it. Every finished batch is kept: after an interruption the same command continues, and ends with the
    same bytes as if nothing had happened.
    """
    clock = Clock()
    solver = _solver(sampler, {name: others.pop(name.lower()) for name in _CHURN})
    options = _for_seeds(Options(**others), seeds)
    check_options(options)
    if seeds is not None and z_init is not None:
        raise click.UsageError("--seeds and --z-init both say what sampling starts from; give one of them")
    if jump_to is not None and options.protocol is not None:
        raise click.UsageError(f"--jump-to is not for --protocol {options.protocol}, which decides the noise levels")
    output = options.outdir / f"{options.denoiser}_samples.npy"
    with output_lock(output):
        data = load_data(options.data, xflip=options.xflip)
        start = _start(options, data, z_init, seeds)
        model = build_model(options, data)
        jump = None if jump_to is None else build_gaussian(options, data)
        if jump is not None and jump_to is not None:
            start = gaussian_start(jump, len(start), jump_to, sigma_max=options.t_max, x_init=start)
        facts: dict[str, Any] = {
            "schedule": schedule_of(model),
            "network": network_of(model),
            **ranks_fact(),
            "inputs_sha256": checksums(z_init=z_init, heatmaps=options.heatmaps, network_pkl=options.network_pkl),
            "initial_noise": f"{noise_source()} generator" if z_init is None else "file",
            "solver": solver,
            **({} if seeds is None else {"seeds": seeds}),
            **({} if not round_sigma else {"round_sigma": True}),
            **({} if jump is None else {"jump": {"to": jump_to, **jump.settings}}),
        }
        with ResumableArray(output, run_settings(options, data, **facts), overwrite=overwrite) as samples:
            if not samples.complete:
                labels = class_labels(options, model, data, len(start))
                sigmas = _levels(options, jump_to)
                if round_sigma:
                    sigmas = rounded_levels(model, sigmas)
                kept = _sample_batches(
                    samples, model, start, options, solver, sigmas=sigmas, labels=labels, seeds=seeds
                )
                used = {**options.as_dict(), "sampler": sampler, "z_init": z_init, "seeds": seeds}
                used["round_sigma"] = round_sigma
                record = provenance("sample", used, data=data, clock=clock, **facts, batches_kept_from_earlier_run=kept)
                samples.finish(len(options.batches()), record)
        click.echo(f"{output}{' is complete already' if samples.complete else ''}")
        if save_images:
            picture = output.with_suffix(".png")
            save_png(picture, image_grid(np.load(output)))
            click.echo(picture)


def _for_seeds(options: Options, seeds: list[int] | None) -> Options:
    """The options with as many samples as there are seeds."""
    if seeds is None:
        return options
    given = click.get_current_context().get_parameter_source("n_samples") != ParameterSource.DEFAULT
    if given and options.n_samples != len(seeds):
        raise click.UsageError(f"--seeds are {len(seeds)}, and --n-samples is {options.n_samples}; leave one out")
    return replace(options, n_samples=len(seeds))


def _solver(sampler: str, churn: dict[str, float | None]) -> dict[str, Any]:
    """The sampler's name and the options it was given."""
    given = {name: value for name, value in churn.items() if value is not None}
    if given and sampler != "edm":
        raise click.UsageError(f"--{next(iter(given))} is for --sampler edm, not for {sampler}")
    return {"name": _HISTORICAL.get(sampler, sampler), **given}


def _start(options: Options, data: ImageSet, z_init: Path | None, seeds: list[int] | None) -> NDArray[Any]:
    if seeds is not None:
        return ImageSeeds(seeds).initial(data.shape, options.start_scale)
    if z_init is not None:
        return read_noisy(z_init, options.n_samples, data)
    return initial_noise(options.n_samples, data.shape, options.start_scale, options.seed)


def _levels(options: Options, jump_to: float | None) -> NDArray[np.float64]:
    """The levels of the steps: those of the run, or as many from the end of a jump down."""
    start = options if jump_to is None else replace(options, t_max=jump_to)
    return start.sigmas(include_zero=True)


def _sample_batches(
    samples: ResumableArray,
    model: BuiltModel,
    start: NDArray[Any],
    options: Options,
    solver: dict[str, Any],
    *,
    sigmas: NDArray[np.float64],
    labels: NDArray[Any] | None,
    seeds: list[int] | None,
) -> int:
    """Draws the batches that are not there yet, and returns how many were."""
    batches = options.batches()
    pending = samples.pending(len(batches))
    with interruptible_bar("step", options.denoiser, KEPT) as progress:
        steps = Steps(progress, options.n_steps * len(batches), options.n_steps * (len(batches) - len(pending)))
        for index in pending:
            progress.describe(f"{options.denoiser}, {batches[index].start}/{options.n_samples} samples")
            own = None if seeds is None else seeds[batches[index]]
            solve = _sampler(solver, options.seed, index, (own, start.shape[1:]))
            given = None if labels is None else {"class_labels": labels[batches[index]]}
            drawn = solve(model, start[batches[index]], sigmas, extra_args=given, callback=lambda step: steps.finish())
            samples.keep(index, drawn.astype(np.float32))
        progress.describe(f"{options.denoiser}, {options.n_samples}/{options.n_samples} samples")
    return len(batches) - len(pending)


def _sampler(solver: dict[str, Any], seed: int, index: int, by_image: tuple[list[int] | None, tuple[int, ...]]) -> Any:
    """The sampler for one batch; noise that it adds differs between batches, or goes on from each image's own seed."""
    seeds, shape = by_image
    name, given = solver["name"], {key: value for key, value in solver.items() if key != "name"}
    if name == "edm" and seeds is not None:
        given["noise"] = ImageSeeds(seeds)
        given["noise"].initial(shape)  # what sampling started from
    elif name == "edm":
        given["noise"] = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
    return lambda *args, **kwargs: SAMPLERS[name](*args, **given, **kwargs)
