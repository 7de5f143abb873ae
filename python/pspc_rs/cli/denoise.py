"""`pspc-rs denoise`: denoised images of one noise level."""

from pathlib import Path
from typing import Any

import click

from pspc_rs.cli.inputs import read_noisy
from pspc_rs.cli.options import (
    Options,
    build_model,
    check_options,
    checksums,
    input_file,
    network_of,
    schedule_of,
    shared_options,
)
from pspc_rs.data import load
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.evaluate import denoise as denoise_in_batches
from pspc_rs.experiments.noisy_sets import forward_noisy
from pspc_rs.outputs import save_array
from pspc_rs.progress import ProgressBar
from pspc_rs.provenance import Clock, provenance, save_record
from pspc_rs.samplers import noise_source


@click.command()
@shared_options
@click.option("--t-idx", type=int, required=True, help="Which noise level of the grid, 0 the largest.")
@click.option(
    "--z", type=input_file(), help="Noisy images, .npy [n_steps, N, C, H, W]; row t_idx is used.  [default: drawn]"
)
def denoise(t_idx: int, z: Path | None, **shared: Any) -> None:
    """Denoise images at one noise level.

    Writes {denoiser}_outputs_t_{t_idx}_of_{n_steps}.npy, float32 [N, C, H, W] in [-1, 1] units, not clipped, and a
    .json file with every setting beside it.
    """
    clock, options = Clock(), Options(**shared)
    check_options(options)
    sigma = _level(options, t_idx)
    data = load(options.data, xflip=options.xflip)
    if z is None:
        noisy = forward_noisy(data, options.n_samples, sigma, options.seed)
        drawn = {"indices": "numpy RandomState(seed).randint", "noise": f"{noise_source()} generator"}
    else:
        noisy = read_noisy(z, options.n_samples, data, row=t_idx, rows=options.n_steps)
        drawn = None
    model = build_model(options, data)
    with ProgressBar("img", options.denoiser, total=options.n_samples) as progress:
        denoised = denoise_in_batches(
            model, noisy, sigma, options.batch, name=f"--denoiser {options.denoiser}", progress=progress
        )
    output = options.outdir / f"{options.denoiser}_outputs_t_{t_idx:02d}_of_{options.n_steps:02d}.npy"
    save_array(output, denoised)
    schedule = schedule_of(model)
    record = provenance(
        "denoise",
        {**options.as_dict(), "t_idx": t_idx, "z": z},
        data=data,
        output=output,
        clock=clock,
        sigma=sigma,
        schedule=schedule,
        network=network_of(model),
        schedule_value=None if schedule is None else schedule.at(sigma),
        drawn_by=drawn,
        inputs_sha256=checksums(z=z, heatmaps=options.heatmaps, network_pkl=options.network_pkl),
    )
    save_record(output.with_suffix(".json"), record)
    click.echo(output)


def _level(options: Options, t_idx: int) -> float:
    if not 0 <= t_idx < options.n_steps:
        raise InvalidValueError(
            f"--t-idx is {t_idx}; allowed are 0 to {options.n_steps - 1} with --n-steps {options.n_steps}"
        )
    return float(options.sigmas()[t_idx])
