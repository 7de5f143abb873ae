"""`pspc-rs figure denoised`: several denoisers on the same noisy images (Figures 1, 16-23)."""

from collections.abc import Sequence
from typing import Any

import click
import numpy as np

from pspc_rs.cli.models import build_model, named_options
from pspc_rs.cli.noisy_source import noisy_options, split_options
from pspc_rs.cli.options import listed, options_for_many
from pspc_rs.cli.progress import ticking
from pspc_rs.data import load
from pspc_rs.experiments.drawing import check_levels, evenly
from pspc_rs.experiments.figure_files import save_figure
from pspc_rs.experiments.grids import denoised_figure, denoised_grid
from pspc_rs.provenance import Clock, provenance, save_record

_ROWS = 5


@click.command()
@options_for_many
@noisy_options
@click.option(
    "--denoisers",
    multiple=True,
    required=True,
    callback=listed,
    metavar="LIST",
    help="Comma list of denoisers and networks, one column each; the reverse process follows the first.",
)
@click.option("--t-idx", callback=listed, metavar="LIST", help="Noise levels of the grid.  [default: five in range]")
def denoised(denoisers: Sequence[str], t_idx: Sequence[str], **others: Any) -> None:
    """Show what several denoisers make of the same noisy images, one column each.

    Writes denoised.png, .pdf and .npz, the images of every denoiser [levels, N, C, H, W].
    """
    clock, (options, source) = Clock(), split_options(others)
    named = named_options(denoisers, options)
    data = load(options.data, xflip=options.xflip)
    models = {name: build_model(own, data) for name, own in named.items()}
    sigmas = options.sigmas()
    low, high = source.limits
    inside = np.flatnonzero((sigmas >= low) & (sigmas <= high)).tolist()
    chosen = [inside[index] for index in evenly(len(inside), _ROWS)] if not t_idx else [int(one) for one in t_idx]
    chosen = sorted(set(check_levels("--t-idx", chosen, len(sigmas))))
    with ticking("step", "denoising") as tick:
        first = next(iter(models.values()))
        noisy = source.levels(options, data, first, lambda done, total: tick(done, total, "trajectories"))
        z, done = np.stack([noisy[level] for level in chosen]), 0

        def step(what: str) -> None:
            nonlocal done
            done += 1
            tick(done, len(models) * len(chosen), what)

        outputs = denoised_grid(models, z, sigmas[chosen], tick=step)
    figure = denoised_figure(outputs, z, sigmas[chosen])
    written = save_figure(options.outdir / "denoised", figure, {"sigmas": sigmas[chosen], "z": z, **outputs})
    used = {**options.as_dict(), **vars(source), "denoisers": list(denoisers), "t_idx": chosen}
    save_record(options.outdir / "denoised_run.json", provenance("figure denoised", used, data=data, clock=clock))
    for path in written:
        click.echo(path)
