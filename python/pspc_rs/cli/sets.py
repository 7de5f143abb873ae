"""`pspc-rs noise` and `pspc-rs heatmaps`: noisy sets and heat maps, which other commands read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from pspc_rs.cli.front import interruptible_bar
from pspc_rs.cli.options import (
    Options,
    build_model,
    check_options,
    checksums,
    data_options,
    network_of,
    network_options,
    read_pixel,
    shared_options,
)
from pspc_rs.data import load
from pspc_rs.errors import ShapeError
from pspc_rs.experiments.noisy_sets import DETERMINISTIC_SAMPLERS, forward_levels, save_forward, save_reverse
from pspc_rs.heatmaps import save_heatmaps
from pspc_rs.progress import Progress
from pspc_rs.provenance import Clock, provenance

_N_SAMPLES = click.option(
    "--n-samples", "--n", type=click.IntRange(min=1), default=1000, help="Images per noise level."
)
_RESUME = click.option("--resume", is_flag=True, help="Continue an earlier run that was stopped.")


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
    denoise draws at --t-idx t. After an interruption the same command with --resume continues.
    """
    options = Options(**shared)
    sigmas = options.sigmas()
    data = load(options.data, xflip=options.xflip)
    output = options.outdir / "forward_z.npy"

    def write(progress: Progress) -> bool:
        return save_forward(
            output,
            data,
            sigmas,
            options.n_samples,
            seed=options.seed,
            resume=resume,
            record=options.as_dict(),
            progress=progress,
        )

    _run(output, "level", write)


@noise.command()
@network_options
@_N_SAMPLES
@click.option("--sampler", type=click.Choice(DETERMINISTIC_SAMPLERS), default="heun", help="Solver of the ODE.")
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
    the shape of --data. After an interruption the same command with --resume continues.
    """
    options = Options(**shared, denoiser="network")
    check_options(options)
    data = load(options.data, xflip=options.xflip)
    network = build_model(options, data)
    output = options.outdir / "reverse_z.npy"

    def write(progress: Progress) -> bool:
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
            progress=progress,
        )

    _run(output, "batch", write)


def _run(output: Path, unit: str, write: Callable[[Progress], bool]) -> None:
    kept = "what is done is kept, run the same command with --resume to continue"
    with interruptible_bar(unit, output.stem, kept) as progress:
        written = write(progress)
    click.echo(f"{output}{'' if written else ' is complete already'}")


def _pixels(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]] | None:
    return [read_pixel(value) for value in values] or None


@click.command()
@shared_options
@click.option(
    "--pixel", "pixels", multiple=True, metavar="Y,X", callback=_pixels, help="Output pixel; repeat.  [default: all]"
)
@click.option("--raw", is_flag=True, help="Do not raise each pixel's own entry above the others of its map.")
@click.option("--resume", is_flag=True, help="Continue with the rows that an interrupted run kept.")
def heatmaps(pixels: list[tuple[int, int]] | None, raw: bool, resume: bool, **shared: Any) -> None:
    """Measure how much each input pixel decides each output pixel of a denoiser.

    Writes {denoiser}_heatmaps.npy, float32 [levels, H, W, H, W] ([levels, P, H, W] with --pixel), which --heatmaps of
    the other commands takes; the standard errors over noisy images in {denoiser}_heatmaps_error.npy; and a .json file
    beside each. --denoiser is the source: network, gaussian, empirical, pspc_sq or pspc_flex.
    """
    clock, options = Clock(), Options(**shared)
    check_options(options)
    data = load(options.data, xflip=options.xflip)
    model = build_model(options, data)
    if model.shape is not None and tuple(model.shape) != data.shape:
        raise ShapeError(f"the network is for images of shape {list(model.shape)}, the data have {list(data.shape)}")
    sigmas = options.sigmas().tolist()
    noisy = forward_levels(data, sigmas, options.n_samples, options.seed)
    output = options.outdir / f"{options.denoiser}_heatmaps.npy"
    record = provenance(
        "heatmaps",
        {**options.as_dict(), "pixels": pixels, "raw": raw},
        data=data,
        clock=clock,
        network=network_of(model),
        inputs_sha256=checksums(heatmaps=options.heatmaps, network_pkl=options.network_pkl),
    )
    kept = "what is done is kept, run the same command with --resume to continue"
    with interruptible_bar("row", "heat maps", kept) as progress:
        save_heatmaps(
            model,
            noisy,
            sigmas,
            output,
            pixels=None if pixels is None else np.array(pixels),
            raw=raw,
            batch=options.batch,
            settings=noisy.settings,
            record=record,
            resume=resume,
            progress=progress,
        )
    click.echo(output)
