"""`pspc-rs figure samples`: samples of the same noise, side by side (Figures 24 and 25)."""

from collections.abc import Sequence
from pathlib import Path

import click

from pspc_rs.cli.figures.sample_files import read_samples, samples_option
from pspc_rs.experiments.figure_files import save_figure
from pspc_rs.experiments.grids import sample_figure

_MOST = 16


@click.command()
@samples_option
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the files.")
@click.option("--n-samples", "--n", type=click.IntRange(min=1), help="Images of each.  [default: all, up to 16]")
@click.option("--columns", type=click.IntRange(min=1), help="Images in a row.  [default: about as many as rows]")
def samples(specs: Sequence[str], outdir: Path, n_samples: int | None, columns: int | None) -> None:
    """Show samples of several denoisers that started from the same noise, one grid each.

    Writes samples.png, .pdf and .npz. The files come from pspc-rs sample with one --seed.
    """
    images = {name: array[: n_samples or _MOST] for name, array in read_samples(specs, n_samples).items()}
    for path in save_figure(outdir / "samples", sample_figure(images, columns=columns), images):
        click.echo(path)
