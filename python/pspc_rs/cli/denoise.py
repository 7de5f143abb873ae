"""`pspc-rs denoise`: denoised images of one noise level."""

from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs.cli.arrays import read_noisy
from pspc_rs.cli.models import Model, build_model, check_options, checksums, network_of, schedule_of
from pspc_rs.cli.options import Options, input_file, shared_options
from pspc_rs.cli.progress import progress_bar
from pspc_rs.data import load
from pspc_rs.denoisers import Denoiser
from pspc_rs.denoisers.base import Progress
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments.noisy import forward_noisy
from pspc_rs.files import replacing
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
    denoised = _denoise(model, noisy, sigma, options)
    output = options.outdir / f"{options.denoiser}_outputs_t_{t_idx:02d}_of_{options.n_steps:02d}.npy"
    with replacing(output) as temporary, temporary.open("wb") as file:
        np.save(file, denoised)
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


def _denoise(model: Model, noisy: NDArray[Any], sigma: float, options: Options) -> NDArray[np.float32]:
    denoised = np.empty(noisy.shape, np.float32)
    with progress_bar(options.n_samples, "img", options.denoiser) as bar:
        for batch in options.batches():
            if isinstance(model, Denoiser):
                denoised[batch] = model(noisy[batch], sigma, progress=_within(batch, bar))
            else:
                denoised[batch] = model(noisy[batch], sigma)
            bar.update(batch.stop - bar.n)
    return denoised


def _within(batch: slice, bar: Any) -> Progress:
    """Progress within a batch as progress of the bar."""
    size = batch.stop - batch.start
    return lambda done, total: bar.update(batch.start + size * done // total - bar.n)
