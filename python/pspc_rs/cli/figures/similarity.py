"""`pspc-rs figure similarity`: how alike samples of the same noise are (Figure 9)."""

from collections.abc import Sequence
from pathlib import Path

import click

from pspc_rs.cli.figures.sample_files import read_samples, samples_option
from pspc_rs.cli.options import input_file
from pspc_rs.experiments.descriptors import gradient_descriptor, pixel_descriptor, sscd_descriptor
from pspc_rs.experiments.figure_files import save_figure
from pspc_rs.experiments.similarity import similarity_figure, similarity_matrix
from pspc_rs.provenance import Clock, provenance, save_record, sha256


@click.command()
@samples_option
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the files.")
@click.option("--n-samples", "--n", type=click.IntRange(min=1), help="Images of each.  [default: all]")
@click.option(
    "--descriptor",
    type=click.Choice(["sscd", "pixels", "gradients"]),
    default="gradients",
    help="What is compared: SSCD's vectors, pixels, or histograms of edge directions.",
)
@click.option("--sscd", type=input_file(), help="SSCD's network, a TorchScript file that you have downloaded.")
def similarity(specs: Sequence[str], outdir: Path, n_samples: int | None, descriptor: str, sscd: Path | None) -> None:
    """Compare samples of several denoisers that started from the same noise: the matrix of mean cosines.

    Writes similarity_DESCRIPTOR.png, .pdf, .npz and .csv; "unrelated" is the mean cosine of images of different noise.
    """
    clock = Clock()
    if (descriptor == "sscd") != (sscd is not None):
        raise click.UsageError("--descriptor sscd and --sscd FILE belong together")
    samples = read_samples(specs, n_samples)
    known = {"pixels": pixel_descriptor, "gradients": gradient_descriptor}
    matrix = similarity_matrix(samples, sscd_descriptor(sscd) if sscd is not None else known[descriptor])
    number = len(next(iter(samples.values())))
    figure = similarity_figure(matrix, f"mean cosine, {descriptor}, {number} images")
    numbers = {name: getattr(matrix, name) for name in ("names", "mean", "standard_error", "unrelated")}
    written = save_figure(outdir / f"similarity_{descriptor}", figure, numbers, matrix.table())
    used = {"samples": list(specs), "n_samples": number, "descriptor": descriptor, "sscd": sscd}
    checked = {} if sscd is None else {"sscd": sha256(sscd)}
    record = provenance("figure similarity", used, clock=clock, inputs_sha256=checked)
    save_record(outdir / f"similarity_{descriptor}_run.json", record)
    for path in written:
        click.echo(path)
