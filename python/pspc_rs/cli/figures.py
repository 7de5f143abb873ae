"""`pspc-rs figure`, `report` and `demo`: the paper's figures, a page that shows a run, and pictures to begin with.

Every figure is written as PNG and PDF, with the numbers behind it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from numpy.typing import NDArray

from pspc_rs.cli.commands import Command, Group
from pspc_rs.cli.front import KEPT, interruptible_bar
from pspc_rs.cli.inputs import noisy_options, read_noisy, read_samples, samples_option, split_options
from pspc_rs.cli.models import build_model, load_data, warn_of_program
from pspc_rs.cli.options import (
    NO_CACHE_OPTION,
    PROTOCOL,
    TRUST,
    Options,
    named_options,
    options_for_many,
    output_folder,
)
from pspc_rs.cli.values import comma_list, input_file, listed, read_pixel
from pspc_rs.errors import ShapeError
from pspc_rs.experiments import image_grids
from pspc_rs.experiments.figures import check_levels, save_figure, spread_evenly
from pspc_rs.experiments.heatmap_mass import (
    PAPER_SHARES,
    mass_figure,
    mass_sides,
    overlaid_mass_figure,
    pixel_map_figure,
)
from pspc_rs.experiments.noisy_sets import DETERMINISTIC_SAMPLERS
from pspc_rs.experiments.report import write_report
from pspc_rs.experiments.sample_metrics import sample_metrics, sample_metrics_figure
from pspc_rs.experiments.similarity import (
    gradient_descriptor,
    pixel_descriptor,
    similarity_figure,
    similarity_matrix,
    sscd_descriptor,
)
from pspc_rs.outputs import open_array
from pspc_rs.provenance import Clock, provenance, save_record, sha256
from pspc_rs.samplers import PROTOCOLS, initial_noise
from pspc_rs.sigmas import edm_sigmas

_DEFAULT_LEVELS = 5
_MAX_SAMPLES = 16
_SHOWN_METRICS = ("samples", "title", "value", "standard_error")


def _echo(paths: Iterable[Path]) -> None:
    for path in paths:
        click.echo(path)


def _pixel(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, int] | None:
    return None if value is None else read_pixel(value)


@click.group(cls=Group)
def figure() -> None:
    """Draw the paper's figures: PNG, PDF, and the numbers behind them as .npz and .csv."""


@figure.command()
@click.option(
    "--heatmaps",
    "specs",
    multiple=True,
    required=True,
    metavar="[NAME=]FILE",
    help="Heat maps, .npy [levels, H, W, H, W]; those of further networks are drawn over the first's.",
)
@output_folder()
@PROTOCOL
@click.option("--t-max", type=float, default=80.0, help="First noise level of the grid.")
@click.option("--t-min", type=float, default=0.002, help="Last noise level of the grid.")
@click.option("--rho", type=float, default=7.0, help="Curvature of the grid.")
@click.option(
    "--shares",
    default=",".join(map(str, PAPER_SHARES)),
    callback=comma_list(float, "numbers, such as 0.5,0.95"),
    metavar="LIST",
    help="Shares of a map's mass.",
)
@click.option("--pixel", metavar="Y,X", callback=_pixel, help="Output pixel whose maps are shown.  [default: centre]")
def heatmaps(
    *,
    specs: Sequence[str],
    outdir: Path,
    protocol: str | None,
    t_max: float,
    t_min: float,
    rho: float,
    shares: list[float],
    pixel: tuple[int, int] | None,
) -> None:
    """Show how local a network is, from its heat maps.

    Writes heatmap_sides: the side of the square around an output pixel that holds 50, 75 and 95 % of its heat map, by
    noise level; and heatmap_pixel: the maps of one pixel. With several networks also heatmap_networks: their mean
    sides in one figure.
    """
    clock, paths = Clock(), _named_files(specs)
    path = next(iter(paths.values()))
    maps = open_array(path)
    sigmas = _levels_of(maps, path, protocol) if protocol else edm_sigmas(len(maps), t_min, t_max, rho)[:-1]
    sides = mass_sides(maps, sigmas, shares)
    numbers = {"sigmas": sides.sigmas, "shares": sides.shares, "sides": sides.sides}
    y, x = pixel or (maps.shape[1] // 2, maps.shape[2] // 2)
    shown = {"sigmas": sides.sigmas, "pixel": (y, x)}
    written = save_figure(outdir / "heatmap_sides", mass_figure(sides), numbers, sides.table())
    maps_figure = pixel_map_figure(maps, sigmas, (y, x))
    written += save_figure(outdir / "heatmap_pixel", maps_figure, {**shown, "maps": maps[:, y, x]})
    if len(paths) > 1:
        every = {name: mass_sides(open_array(one), sigmas, shares) for name, one in paths.items()}
        means: dict[str, Any] = {name: one.mean for name, one in every.items()}
        written += save_figure(outdir / "heatmap_networks", overlaid_mass_figure(every), {**shown, **means})
    grid = {"protocol": PROTOCOLS[protocol].settings} if protocol else {"t_max": t_max, "t_min": t_min, "rho": rho}
    used = {"heatmaps": list(specs), **grid, "shares": shares, "pixel": [y, x]}
    record = provenance(
        "figure heatmaps", used, clock=clock, inputs_sha256={name: sha256(one) for name, one in paths.items()}
    )
    save_record(outdir / "heatmaps_run.json", record)
    _echo(written)


def _named_files(specs: Sequence[str]) -> dict[str, Path]:
    """The files of a list [NAME=]FILE by name."""
    paths: dict[str, Path] = {}
    for spec in specs:
        given, equals, rest = spec.partition("=")
        path = Path(rest if equals else spec)
        name = given if equals else path.stem.removesuffix("_heatmaps")
        if not path.is_file():
            raise click.UsageError(f"--heatmaps: there is no file {path}")
        if name in paths:
            raise click.UsageError(f"two heat maps are called {name!r}; write NAME={path} with another name")
        paths[name] = path
    return paths


def _levels_of(maps: NDArray[Any], path: Path, protocol: str) -> NDArray[np.float64]:
    """The noise levels of heat maps that were made under a protocol."""
    sigmas = PROTOCOLS[protocol].grid(include_zero=False)
    if len(maps) != len(sigmas):
        raise ShapeError(f"{path} has maps of {len(maps)} levels; --protocol {protocol} has {len(sigmas)}")
    return sigmas


@figure.command()
@click.option(
    "--denoisers",
    multiple=True,
    required=True,
    callback=listed,
    metavar="LIST",
    help="Comma list of denoisers and networks, one column each; the reverse process follows the first.",
)
@click.option(
    "--t-idx",
    callback=comma_list(int, "indices of noise levels, such as 6,8"),
    metavar="LIST",
    help="Noise levels of the grid.  [default: five in range]",
)
@noisy_options(least=1)
@options_for_many
def denoised(denoisers: Sequence[str], t_idx: list[int] | None, **others: Any) -> None:
    """Show what several denoisers make of the same noisy images, one column each.

    Writes denoised.png, .pdf and .npz, the images of every denoiser [levels, N, C, H, W].
    """
    clock, (options, source) = Clock(), split_options(others)
    named = named_options(denoisers, options)
    data = load_data(options.data, xflip=options.xflip)
    models = {name: build_model(own, data) for name, own in named.items()}
    sigmas = options.sigmas()
    inside = [level for level, _ in source.chosen_levels(options)]
    wanted = t_idx or [inside[index] for index in spread_evenly(len(inside), _DEFAULT_LEVELS)]
    chosen = sorted(set(check_levels("--t-idx", wanted, len(sigmas))))
    with interruptible_bar("step", "denoising", KEPT) as progress:
        noisy = source.levels(options, data, next(iter(models.values())), progress)
        z = np.stack([noisy[level] for level in chosen])
        outputs = image_grids.denoised_grid(models, z, sigmas[chosen], progress=progress)
    drawn = image_grids.denoised_figure(outputs, z, sigmas[chosen])
    written = save_figure(options.outdir / "denoised", drawn, {"sigmas": sigmas[chosen], "z": z, **outputs})
    used = {**options.as_dict(), **vars(source), "denoisers": list(denoisers), "t_idx": chosen}
    save_record(options.outdir / "denoised_run.json", provenance("figure denoised", used, data=data, clock=clock))
    _echo(written)


@figure.command()
@click.option(
    "--denoisers", multiple=True, required=True, callback=listed, metavar="LIST", help="Comma list, one row each."
)
@click.option("--n-samples", "--n", type=click.IntRange(min=1), default=3, help="How many trajectories of each.")
@click.option("--sampler", type=click.Choice(DETERMINISTIC_SAMPLERS), default="heun", help="Solver of the ODE.")
@click.option(
    "--z-init", type=input_file(), help="Initial states, .npy [N, C, H, W], scaled by t_max, or as --protocol has it."
)
@click.option(
    "--show", type=click.Choice(["denoised", "state"]), default="denoised", help="D(z, sigma), or z to its own scale."
)
@click.option(
    "--crossed", is_flag=True, help="Show every denoiser on the states of every trajectory, as in the paper's Figure 8."
)
@options_for_many
def trajectories(
    denoisers: Sequence[str], sampler: str, z_init: Path | None, show: str, crossed: bool, **others: Any
) -> None:
    """Show the trajectories of several denoisers from the same noise, side by side.

    Writes trajectories.png, .pdf and .npz: states [steps + 1, N, C, H, W] and denoised images [steps, N, C, H, W]; with
    --crossed also crossed.png, .pdf and .npz: what each denoiser makes of each trajectory.
    """
    clock, options = Clock(), Options(**others)
    named = named_options(denoisers, options)
    data = load_data(options.data, xflip=options.xflip)
    models = {name: build_model(own, data) for name, own in named.items()}
    if z_init is None:
        start = initial_noise(options.n_samples, data.shape, options.start_scale, options.seed)
    else:
        start = read_noisy(z_init, options.n_samples, data)
    sigmas = options.sigmas(include_zero=True)
    with interruptible_bar("step", "sampling", "nothing is kept") as progress:
        ways = image_grids.trajectories(models, start, sigmas, sampler=sampler, progress=progress)
    drawn = image_grids.trajectory_figure(ways, sigmas, show=cast(image_grids.Shown, show))
    numbers: dict[str, Any] = {"sigmas": sigmas}
    for name, way in ways.items():
        numbers |= {f"{name}_states": way.states, f"{name}_denoised": way.denoised}
    written = save_figure(options.outdir / "trajectories", drawn, numbers)
    if crossed:
        with interruptible_bar("step", "crossing", "nothing is kept") as progress:
            outputs = image_grids.crossed_outputs(models, ways, sigmas, progress=progress)
        drawn = image_grids.crossed_figure(outputs, ways, sigmas)
        by_pair = {f"{name}_on_{way}": own for way, inner in outputs.items() for name, own in inner.items()}
        written += save_figure(options.outdir / "crossed", drawn, {"sigmas": sigmas, **by_pair})
    used = {**options.as_dict(), "denoisers": list(denoisers), "sampler": sampler, "z_init": z_init, "show": show}
    used["crossed"] = crossed
    save_record(
        options.outdir / "trajectories_run.json", provenance("figure trajectories", used, data=data, clock=clock)
    )
    _echo(written)


@figure.command()
@samples_option
@output_folder()
@click.option("--n-samples", "--n", type=click.IntRange(min=1), help="Images of each.  [default: all, up to 16]")
@click.option("--columns", type=click.IntRange(min=1), help="Images in a row.  [default: about as many as rows]")
def samples(specs: Sequence[str], outdir: Path, n_samples: int | None, columns: int | None) -> None:
    """Show samples of several denoisers that started from the same noise, one grid each.

    Writes samples.png, .pdf and .npz. The files come from pspc-rs sample with one --seed.
    """
    images = {name: array[: n_samples or _MAX_SAMPLES] for name, array in read_samples(specs, n_samples).items()}
    _echo(save_figure(outdir / "samples", image_grids.sample_figure(images, columns=columns), images))


@figure.command()
@samples_option
@output_folder()
@click.option("--n-samples", "--n", type=click.IntRange(min=1), help="Images of each.  [default: all]")
@click.option(
    "--descriptor",
    type=click.Choice(["sscd", "pixels", "gradients"]),
    default="gradients",
    help="What is compared: SSCD's vectors, pixels, or histograms of edge directions.",
)
@click.option("--sscd", type=input_file(), help="SSCD's network, a TorchScript file that you have downloaded.")
@TRUST
def similarity(
    *, specs: Sequence[str], outdir: Path, n_samples: int | None, descriptor: str, sscd: Path | None, trust: bool
) -> None:
    """Compare samples of several denoisers that started from the same noise: the matrix of mean cosines.

    Writes similarity_DESCRIPTOR.png, .pdf, .npz and .csv; "unrelated" is the mean cosine of images of different noise.
    """
    clock = Clock()
    if (descriptor == "sscd") != (sscd is not None):
        raise click.UsageError("--descriptor sscd and --sscd FILE belong together")
    images = read_samples(specs, n_samples)
    if sscd is not None and not trust:
        warn_of_program(f"{sscd} is TorchScript, a program that can read and write files")
    known = {"pixels": pixel_descriptor, "gradients": gradient_descriptor}
    matrix = similarity_matrix(images, sscd_descriptor(sscd, trust=True) if sscd is not None else known[descriptor])
    number = len(next(iter(images.values())))
    drawn = similarity_figure(matrix, f"mean cosine, {descriptor}, {number} images")
    numbers = {name: getattr(matrix, name) for name in ("names", "mean", "standard_error", "unrelated")}
    written = save_figure(outdir / f"similarity_{descriptor}", drawn, numbers, matrix.table())
    used = {"samples": list(specs), "n_samples": number, "descriptor": descriptor, "sscd": sscd}
    checked = {} if sscd is None else {"sscd": sha256(sscd)}
    record = provenance("figure similarity", used, clock=clock, inputs_sha256=checked)
    save_record(outdir / f"similarity_{descriptor}_run.json", record)
    _echo(written)


@figure.command()
@samples_option
@output_folder()
@click.option("--n-samples", "--n", type=click.IntRange(min=2), help="Images of each.  [default: all]")
@click.option(
    "--reference", metavar="NAME", help="The samples that the others are compared with.  [default: the first]"
)
@click.option("--data", metavar="PATH|NAME", help="Training images, for the copy ratio.  [default: it is left out]")
@NO_CACHE_OPTION
@click.option("--xflip/--no-xflip", default=True, help="Count horizontal flips as further data; also --xflip=False.")
@click.option("--clip", is_flag=True, help="Clip samples to [-1, 1] before.")
def metrics(
    *,
    specs: Sequence[str],
    outdir: Path,
    n_samples: int | None,
    reference: str | None,
    data: str | None,
    xflip: bool,
    clip: bool,
) -> None:
    """Measure samples of several denoisers that started from the same noise against those of one of them.

    Writes sample_metrics.csv, .png, .pdf and .npz: mean squared errors in both pixel units, r2, R2, Pearson's r, the
    probability flow distance, and with --data the copy ratio d1/d2, each with its standard error over samples.
    """
    clock = Clock()
    images = read_samples(specs, n_samples)
    training = None if data is None else load_data(data, xflip=xflip)
    with interruptible_bar("img", "nearest images", "nothing is kept") as progress:
        found = sample_metrics(images, reference or next(iter(images)), training, clip=clip, progress=progress)
    table = found.table()
    drawn = sample_metrics_figure(found)
    written = save_figure(outdir / "sample_metrics", drawn, table, table)
    for name, title, value, error in zip(*(table[key] for key in _SHOWN_METRICS), strict=True):
        click.echo(f"{name}  {title}: {value:.4g} +- {error:.2g}")
    used = {"samples": list(specs), "n_samples": found.n, "reference": found.reference, "data": data, "xflip": xflip}
    record = provenance("figure metrics", {**used, "clip": clip}, data=training, clock=clock)
    save_record(outdir / "sample_metrics_run.json", record)
    _echo(written)


@click.command(cls=Command)
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="The page.  [default: report.html in RUN_DIR]"
)
@click.option(
    "--explorer",
    metavar="URL",
    help="Address of a running pspc-rs explore, such as http://127.0.0.1:8750/, to which noise levels then lead.",
)
def report(run_dir: Path, output: Path | None, explorer: str | None) -> None:
    """Write one self-contained HTML page with the figures, tables, schedules and settings in RUN_DIR.

    The page needs no network: open it from disk, or send it to somebody.
    """
    click.echo(write_report(run_dir, output, explorer=explorer))


@click.command(cls=Command)
@click.option(
    "--outdir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/demo"),
    help="Folder for the pictures; made if it is not there.",
)
@click.option("--quick", is_flag=True, help="Only the digits, in a few seconds.")
def demo(outdir: Path, quick: bool) -> None:
    """Draw pictures of the denoisers and their samples on embedded data sets.

    Writes denoisers.png and samples.png of photographs, digits.png and digits_samples.png, and timings in summary.json.
    """
    from pspc_rs.demo import make_demo

    _echo(make_demo(outdir, quick=quick))
