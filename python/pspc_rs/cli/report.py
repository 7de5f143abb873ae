"""`pspc-rs report`: a page that shows a run."""

from pathlib import Path

import click

from pspc_rs.experiments.report import write_report


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="The page.  [default: report.html in RUN_DIR]"
)
def report(run_dir: Path, output: Path | None) -> None:
    """Write one self-contained HTML page with the figures, tables, schedules and settings in RUN_DIR.

    The page needs no network: open it from disk, or send it to somebody.
    """
    click.echo(write_report(run_dir, output))
