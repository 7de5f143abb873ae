"""`pspc-rs explore`: a local page on which images, denoisers and the training images behind them are looked at."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import Any

import click

from pspc_rs.cli.commands import Command, is_given, option_group
from pspc_rs.cli.inputs import image_options, shown_images
from pspc_rs.cli.models import build_model, load_data
from pspc_rs.cli.options import DENOISERS, Options, explorer_options, named_options
from pspc_rs.cli.values import listed
from pspc_rs.explorer import ExplorerServer, Scene, Views
from pspc_rs.extras import import_extra
from pspc_rs.samplers import PROTOCOLS
from pspc_rs.signals import Stopped

_PORT = 8750

_page = option_group("Page")


@click.command(cls=Command)
@click.option(
    "--denoiser",
    "--denoisers",
    "denoisers",
    multiple=True,
    default=["pspc_sq,empirical"],
    callback=listed,
    metavar="LIST",
    help=f"Comma list of denoisers ({', '.join(name for name in DENOISERS if name != 'network')}) and networks, each "
    "with a NAME= before it if need be; the page offers them all.",
)
@image_options
@_page("--port", type=click.IntRange(0, 65535), default=_PORT, help="Where the page is; 0 for any port that is free.")
@_page("--no-browser", is_flag=True, help="Print the address alone, and open no browser.")
@explorer_options
@click.pass_context
def explore(
    context: click.Context,
    /,
    *,
    denoisers: list[str],
    images: str | None,
    images_split: str,
    port: int,
    no_browser: bool,
    **shared: Any,
) -> None:
    """Open a local page to look at noisy images, denoisers, and the training images behind them.

    Pick an image, a noise level and a denoiser; see the denoised image with its maps of effective images and of
    variance; click a pixel for the training patches behind it; put a second denoiser or a network beside it; go along a
    sampling run step by step. The page is for this machine alone (127.0.0.1) and loads nothing from elsewhere. Nothing
    is written. Ctrl-C ends it.
    """
    if images is None and is_given(context, "images_split"):
        raise click.UsageError("--images-split is for --images")
    import_extra("jinja2", "the explorer", "explore")  # before the work
    options = Options(**shared, outdir=Path(), n_samples=1)
    named = named_options(denoisers, options)
    data = load_data(options.data, xflip=options.xflip)
    protocol = None if options.protocol is None else PROTOCOLS[options.protocol]
    scene = Scene(
        data,
        {name: build_model(own, data) for name, own in named.items()},
        options.sigmas().tolist(),
        images=None if images is None else shown_images(images, images_split, data),
        start_scale=options.start_scale,
        sampler="heun" if protocol is None else protocol.sampler,
    )
    with ExplorerServer(Views(scene), port, lambda line: click.echo(line, err=True)) as server:
        click.echo(f"{server.address}  (Ctrl-C ends it)")
        if not no_browser and _has_screen():
            webbrowser.open(server.address)
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt as stop:
            if isinstance(stop, Stopped):
                raise
            click.echo("Ended.", err=True)


def _has_screen() -> bool:
    """Whether a browser would open in a window: without one, a browser of the terminal would take the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(one) for one in ("DISPLAY", "WAYLAND_DISPLAY"))
