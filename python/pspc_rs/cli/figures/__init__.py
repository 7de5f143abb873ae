"""`pspc-rs figure`: the paper's figures, one file a kind; each writes PNG, PDF and the numbers behind them."""

import click

from pspc_rs.cli.figures.denoised import denoised
from pspc_rs.cli.figures.heatmaps import heatmaps
from pspc_rs.cli.figures.samples import samples
from pspc_rs.cli.figures.similarity import similarity
from pspc_rs.cli.figures.trajectories import trajectories


@click.group()
def figure() -> None:
    """Draw the paper's figures: PNG, PDF, and the numbers behind them as .npz and .csv."""


for command in (heatmaps, denoised, trajectories, samples, similarity):
    figure.add_command(command)
