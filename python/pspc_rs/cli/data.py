"""`pspc-rs data`: look at data sets, and convert them to EDM archives."""

from pathlib import Path

import click
import numpy as np

from pspc_rs.data import ImageSet, load, save_edm_zip


@click.group()
def data() -> None:
    """Look at data sets, and convert them to EDM archives."""


def _classes(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | None:
    if value is None:
        return None
    try:
        return [int(word) for word in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no comma list of whole numbers, such as 0,3,5") from error


_SPLIT = click.option("--split", type=click.Choice(["train", "test"]), default="train", help="Which part of the data.")
_SRC = click.argument("src", metavar="PATH|NAME")


@data.command()
@_SRC
@click.argument("dst", type=click.Path(dir_okay=False, path_type=Path), metavar="DST.zip")
@click.option("--max-size", type=click.IntRange(min=1), help="At most so many images, counted after --classes.")
@click.option("--classes", metavar="LIST", callback=_classes, help="Comma list of the labels to keep.")
@_SPLIT
def convert(src: str, dst: Path, max_size: int | None, classes: list[int] | None, split: str) -> None:
    """Convert a data set to an archive in EDM's layout: stored PNGs and dataset.json."""
    images = load(src, max_size=max_size, classes=classes, split=split)
    save_edm_zip(images, dst)
    click.echo(f"{dst}: {_counted(images)}")


@data.command()
@_SRC
@_SPLIT
def info(src: str, split: str) -> None:
    """Show size, shape, type, labels, fingerprint and memory of a data set."""
    images = load(src, split=split)
    lines = {
        "name": images.name,
        "images": images.num_stored,
        "shape": f"{list(images.shape)} [channels, height, width]",
        "dtype": images.dtype.name,
        "labels": _histogram(images),
        "fingerprint": images.fingerprint,
        "memory": f"{images.images.nbytes / 2**20:.1f} MiB",
    }
    for name, value in lines.items():
        click.echo(f"{name:<12}{value}")


def _counted(images: ImageSet) -> str:
    return f"{images.num_stored} image{'s' * (images.num_stored != 1)} of {list(images.shape)}"


def _histogram(images: ImageSet) -> str:
    if images.labels is None:
        return "none"
    labels, counts = np.unique(images.labels, return_counts=True)
    return ", ".join(f"{label}: {count}" for label, count in zip(labels.tolist(), counts.tolist(), strict=True))
