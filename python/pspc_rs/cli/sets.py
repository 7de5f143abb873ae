"""`pspc-rs noise` and `pspc-rs heatmaps`: noisy sets and heat maps, which other commands read."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from pspc_rs.cli.commands import Command, Group, ignored_options, option_group
from pspc_rs.cli.front import KEPT, interruptible_bar
from pspc_rs.cli.inputs import held_out_options, noise_image_options, noise_images
from pspc_rs.cli.models import (
    across_ranks,
    build_map_source,
    build_model,
    checksums,
    load_data,
    network_of,
    ranks_fact,
)
from pspc_rs.cli.options import (
    Options,
    check_options,
    data_options,
    network_options,
    source_options,
)
from pspc_rs.cli.values import read_pixel
from pspc_rs.errors import ShapeError
from pspc_rs.experiments.noisy_sets import (
    DETERMINISTIC_SAMPLERS,
    file_levels,
    forward_levels,
    save_forward,
    save_reverse,
)
from pspc_rs.heatmaps import save_heatmaps
from pspc_rs.outputs import output_lock
from pspc_rs.provenance import Clock, provenance

_trajectories = option_group("Trajectories")


@click.group(cls=Group)
def noise() -> None:
    """Make noisy sets: z at every noise level, as --z of denoise reads them."""


@noise.command()
@noise_image_options
@data_options
def forward(noise_data: str | None, noise_split: str, overwrite: bool, **shared: Any) -> None:
    """Draw noisy images of the data, or of --noise-data.

    Writes forward_z.npy, float32 [n_steps, N, C, H, W], and a .json file with every setting beside it. Row t is what
    denoise draws at --t-idx t. After an interruption the same command continues.
    """
    options = Options(**shared)
    sigmas = options.sigmas()
    output = options.outdir / "forward_z.npy"
    with output_lock(output):
        data = load_data(options.data, xflip=options.xflip)
        images = noise_images(options.data, data, noise_data, noise_split)
        with interruptible_bar("level", output.stem, KEPT) as progress:
            written = save_forward(
                output,
                images,
                sigmas,
                options.n_samples,
                seed=options.seed,
                overwrite=overwrite,
                record={**options.as_dict(), "noise_data": noise_data, "noise_split": noise_split},
                progress=progress,
            )
    _tell(output, written)


@noise.command()
@_trajectories("--sampler", type=click.Choice(DETERMINISTIC_SAMPLERS), default="heun", help="Solver of the ODE.")
@_trajectories(
    "--start",
    type=click.Choice(["noise", "data"]),
    default="noise",
    help="Where trajectories start: at noise alone, or at noisy images of the data.",
)
@noise_image_options
@network_options
def reverse(sampler: str, start: str, noise_data: str | None, noise_split: str, overwrite: bool, **shared: Any) -> None:
    """Follow a network's deterministic sampling trajectories.

    Writes reverse_z.npy, float32 [n_steps, N, C, H, W], and a .json file with every setting beside it. The images have
    the shape of --data. With --start data they start at noisy images of it, or of --noise-data. After an interruption
    the same command continues.
    """
    options = Options(**shared, denoiser="network")
    check_options(options)
    output = options.outdir / "reverse_z.npy"
    with output_lock(output):
        data = load_data(options.data, xflip=options.xflip)
        network = build_model(options, data)
        with interruptible_bar("batch", output.stem, KEPT) as progress:
            written = save_reverse(
                output,
                network,
                data.shape,
                options.sigmas(),
                options.n_samples,
                seed=options.seed,
                sampler=sampler,
                batch=options.batch,
                start_scale=options.start_scale,
                start_data=noise_images(options.data, data, noise_data, noise_split) if start == "data" else None,
                overwrite=overwrite,
                record={**options.as_dict(), "sampler": sampler, "start": start, "noise_data": noise_data},
                progress=progress,
            )
    _tell(output, written)


def _tell(output: Path, written: bool) -> None:
    click.echo(f"{output}{'' if written else ' is complete already'}")


def _pixels(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]] | None:
    return [read_pixel(value) for value in values] or None


@click.command(cls=Command, ranks=True)
@click.option(
    "--pixel", "pixels", multiple=True, metavar="Y,X", callback=_pixels, help="Output pixel; repeat.  [default: all]"
)
@ignored_options("--raw", reason="files hold the maps as they are, and PSPC-Flex raises what it must; leave it out")
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", help="Of the maps in the file.")
@held_out_options
@source_options
@across_ranks
def heatmaps(
    *,
    pixels: list[tuple[int, int]] | None,
    dtype: str,
    noise_data: str | None,
    noise_split: str,
    z: Path | None,
    overwrite: bool,
    **shared: Any,
) -> None:
    """Measure how much each input pixel decides each output pixel of a denoiser.

    Writes {denoiser}_heatmaps.npy, float32 [levels, H, W, H, W] ([levels, P, H, W] with --pixel), which --heatmaps of
    the other commands takes; the standard errors over noisy images in {denoiser}_heatmaps_error.npy; and a .json file
    beside each. --denoiser is the source. After an interruption the same command continues.
    """
    clock, options = Clock(), Options(**shared)
    check_options(options)
    output = options.outdir / f"{options.denoiser}_heatmaps.npy"
    with output_lock(output):
        data = load_data(options.data, xflip=options.xflip)
        model, moments = build_map_source(options, data)
        if model.shape is not None and tuple(model.shape) != data.shape:
            raise ShapeError(
                f"the network is for images of shape {list(model.shape)}, the data have {list(data.shape)}"
            )
        sigmas = options.sigmas().tolist()
        if z is None:
            images = noise_images(options.data, data, noise_data, noise_split)
            noisy = forward_levels(images, sigmas, options.n_samples, options.seed)
        else:
            noisy = file_levels(z, data.shape, len(sigmas), options.n_samples)
        record = provenance(
            "heatmaps",
            {
                **options.as_dict(),
                "pixels": pixels,
                "noise_data": noise_data,
                "noise_split": noise_split,
                "z": z,
                "dtype": dtype,
            },
            data=data,
            clock=clock,
            network=network_of(model),
            **ranks_fact(),
            inputs_sha256=checksums(heatmaps=options.heatmaps, network_pkl=options.network_pkl),
        )
        with interruptible_bar("row", "heat maps", KEPT) as progress:
            written = save_heatmaps(
                model,
                noisy,
                sigmas,
                output,
                pixels=None if pixels is None else np.array(pixels),
                batch=options.batch,
                dtype=dtype,
                settings={**noisy.settings, **ranks_fact()},
                record=record,
                overwrite=overwrite,
                moments=moments,
                progress=progress,
            )
    _tell(output, written)
