"""`pspc-rs figure heatmaps`: how local a network is (Figures 3 and 6)."""

from pathlib import Path

import click
import numpy as np

from pspc_rs.cli.options import input_file
from pspc_rs.errors import DataError
from pspc_rs.experiments.figure_files import save_figure
from pspc_rs.experiments.heatmap_mass import SHARES, mass_figure, mass_sides, pixel_map_figure
from pspc_rs.provenance import Clock, provenance, save_record, sha256
from pspc_rs.sigmas import edm_sigmas


def _floats(context: click.Context, option: click.Parameter, value: str) -> list[float]:
    try:
        return [float(word) for word in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no comma list of numbers, such as 0.5,0.95") from error


def _pixel(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        y, x = (int(word) for word in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no pixel; write Y,X") from error
    return y, x


@click.command()
@click.option("--heatmaps", "path", type=input_file(), required=True, help="Heat maps, .npy [levels, H, W, H, W].")
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the files.")
@click.option("--t-max", type=float, default=80.0, help="First noise level of the grid.")
@click.option("--t-min", type=float, default=0.002, help="Last noise level of the grid.")
@click.option("--rho", type=float, default=7.0, help="Curvature of the grid.")
@click.option(
    "--shares", default=",".join(map(str, SHARES)), callback=_floats, metavar="LIST", help="Shares of a map's mass."
)
@click.option("--pixel", metavar="Y,X", callback=_pixel, help="Output pixel whose maps are shown.  [default: centre]")
def heatmaps(
    *,
    path: Path,
    outdir: Path,
    t_max: float,
    t_min: float,
    rho: float,
    shares: list[float],
    pixel: tuple[int, int] | None,
) -> None:
    """Show how local a network is, from its heat maps.

    Writes heatmap_sides: the side of the square round an output pixel that holds 50, 75 and 95 % of its heat map, by
    noise level; and heatmap_pixel: the maps of one pixel.
    """
    clock = Clock()
    try:
        maps = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path} cannot be read as a .npy file of numbers: {error}") from error
    sigmas = edm_sigmas(len(maps), t_min, t_max, rho, include_zero=False)
    sides = mass_sides(maps, sigmas, shares)
    numbers = {"sigmas": sides.sigmas, "shares": sides.shares, "sides": sides.sides}
    y, x = pixel or (maps.shape[1] // 2, maps.shape[2] // 2)
    shown = {"sigmas": sides.sigmas, "pixel": (y, x)}
    written = save_figure(outdir / "heatmap_sides", mass_figure(sides), numbers, sides.table())
    maps_figure = pixel_map_figure(maps, sigmas, (y, x))
    written += save_figure(outdir / "heatmap_pixel", maps_figure, {**shown, "maps": maps[:, y, x]})
    used = {"heatmaps": path, "t_max": t_max, "t_min": t_min, "rho": rho, "shares": shares, "pixel": [y, x]}
    record = provenance("figure heatmaps", used, clock=clock, inputs_sha256={"heatmaps": sha256(path)})
    save_record(outdir / "heatmaps_run.json", record)
    for one in written:
        click.echo(one)
