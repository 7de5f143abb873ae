"""`pspc-rs heatmaps`: heat maps of any denoiser, for PSPC-Flex."""

from typing import Any

import click
import numpy as np

from pspc_rs.cli.models import build_model, check_options, checksums, network_of
from pspc_rs.cli.options import Options, shared_options
from pspc_rs.cli.progress import ticking
from pspc_rs.data import load
from pspc_rs.errors import ShapeError
from pspc_rs.experiments.noisy_levels import forward_levels
from pspc_rs.heatmaps import save_heatmaps
from pspc_rs.provenance import Clock, provenance


def _pixels(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[list[int]] | None:
    try:
        pixels = [[int(word) for word in value.split(",")] for value in values]
    except ValueError as error:
        raise click.BadParameter(f"{values} are no pixels; write Y,X") from error
    if any(len(pixel) != 2 for pixel in pixels):
        raise click.BadParameter(f"{values} are no pixels; write Y,X")
    return pixels or None


@click.command()
@shared_options
@click.option(
    "--pixel", "pixels", multiple=True, metavar="Y,X", callback=_pixels, help="Output pixel; repeat.  [default: all]"
)
@click.option("--raw", is_flag=True, help="Do not raise each pixel's own entry above the others of its map.")
@click.option("--resume", is_flag=True, help="Go on with the rows that an interrupted run kept.")
def heatmaps(pixels: list[list[int]] | None, raw: bool, resume: bool, **shared: Any) -> None:
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
    with ticking("row", "heat maps") as tick:
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
            tick=tick,
        )
    click.echo(output)
