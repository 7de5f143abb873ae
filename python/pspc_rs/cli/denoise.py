"""`pspc-rs denoise`: denoised images of one noise level."""

from pathlib import Path
from typing import Any

import click
from numpy.typing import NDArray

from pspc_rs.cli.commands import Command
from pspc_rs.cli.front import KEPT, interruptible_bar
from pspc_rs.cli.inputs import read_noisy
from pspc_rs.cli.models import (
    BuiltModel,
    across_ranks,
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
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.evaluate import denoise as denoise_in_batches
from pspc_rs.experiments.noisy_sets import forward_noisy
from pspc_rs.outputs import ResumableArray, output_lock
from pspc_rs.progress import Progress
from pspc_rs.provenance import Clock, provenance
from pspc_rs.samplers import noise_source


@click.command(cls=Command, ranks=True)
@click.option("--t-idx", type=int, required=True, help="Which noise level of the grid, 0 the largest.")
@click.option(
    "--z", type=input_file(), help="Noisy images, .npy [n_steps, N, C, H, W]; row t_idx is used.  [default: drawn]"
)
@shared_options
@across_ranks
def denoise(t_idx: int, z: Path | None, overwrite: bool, **shared: Any) -> None:
    """Denoise images at one noise level.

    Writes {denoiser}_outputs_t_{t_idx}_of_{n_steps}.npy, float32 [N, C, H, W] in [-1, 1] units, not clipped, and a
    .json file with every setting beside it. Every finished batch is kept: after an interruption the same command
    continues, and ends with the same bytes as if nothing had happened.
    """
    clock, options = Clock(), Options(**shared)
    check_options(options)
    sigma = _level(options, t_idx)
    output = options.outdir / f"{options.denoiser}_outputs_t_{t_idx:02d}_of_{options.n_steps:02d}.npy"
    with output_lock(output):
        data = load_data(options.data, xflip=options.xflip)
        noisy, drawn_by = _noisy(options, data, z, t_idx, sigma)
        model = build_model(options, data)
        schedule = schedule_of(model)
        facts: dict[str, Any] = {
            "sigma": sigma,
            "schedule": schedule,
            "network": network_of(model),
            **ranks_fact(),
            "schedule_value": None if schedule is None else schedule.at(sigma),
            "drawn_by": drawn_by,
            "inputs_sha256": checksums(z=z, heatmaps=options.heatmaps, network_pkl=options.network_pkl),
        }
        with ResumableArray(output, run_settings(options, data, t_idx=t_idx, **facts), overwrite=overwrite) as stored:
            if not stored.complete:
                labels = class_labels(options, model, data, len(noisy))
                _denoise_batches(stored, model, noisy, sigma, options, labels=labels)
                used = {**options.as_dict(), "t_idx": t_idx, "z": z}
                stored.finish(len(options.batches()), provenance("denoise", used, data=data, clock=clock, **facts))
    click.echo(f"{output}{' is complete already' if stored.complete else ''}")


def _noisy(
    options: Options, data: ImageSet, z: Path | None, t_idx: int, sigma: float
) -> tuple[NDArray[Any], dict[str, str] | None]:
    """The noisy images, and how they were drawn, None for those of a file."""
    if z is not None:
        return read_noisy(z, options.n_samples, data, row=t_idx, rows=options.n_steps), None
    how = {"indices": "numpy RandomState(seed).randint", "noise": f"{noise_source()} generator"}
    return forward_noisy(data, options.n_samples, sigma, options.seed), how


def _denoise_batches(
    stored: ResumableArray,
    model: BuiltModel,
    noisy: NDArray[Any],
    sigma: float,
    options: Options,
    *,
    labels: NDArray[Any] | None,
) -> None:
    batches = options.batches()
    pending = stored.pending(len(batches))
    done = sum(batch.stop - batch.start for index, batch in enumerate(batches) if index not in set(pending))
    with interruptible_bar("img", options.denoiser, KEPT) as progress:
        for index in pending:
            part = noisy[batches[index]]
            name = f"--denoiser {options.denoiser}"
            within = _counted(progress, done, len(noisy))
            of_class = None if labels is None else labels[batches[index]]
            denoised = denoise_in_batches(
                model, part, sigma, options.batch, name=name, class_labels=of_class, progress=within
            )
            stored.keep(index, denoised)
            done += len(part)


def _counted(progress: Progress, before: int, total: int) -> Progress:
    """The progress of one batch as progress of all images."""
    return lambda done, of: progress(before + done, total)


def _level(options: Options, t_idx: int) -> float:
    if not 0 <= t_idx < options.n_steps:
        raise InvalidValueError(
            f"--t-idx is {t_idx}; allowed are 0 to {options.n_steps - 1} with --n-steps {options.n_steps}"
        )
    return float(options.sigmas()[t_idx])
