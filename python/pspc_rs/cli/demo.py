"""`pspc-rs demo`: pictures of every denoiser on data that need no download."""

from pathlib import Path

import click


@click.command()
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

    for path in make_demo(outdir, quick=quick):
        click.echo(path)
