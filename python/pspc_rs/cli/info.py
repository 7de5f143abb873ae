"""`pspc-rs info` and `pspc-rs data`: what is installed, and what data sets hold."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from pspc_rs import cuda
from pspc_rs.cli.commands import Command, Group
from pspc_rs.cli.front import KEPT, Interrupted
from pspc_rs.cli.values import comma_list
from pspc_rs.data import ImageSet, Scaling, load, save_edm_zip, save_store
from pspc_rs.provenance import build, installed_version, versions

_OPTIONAL = {
    "torch": "torch",
    "download": "pooch",
    "demo": "scikit-learn",
    "plot": "matplotlib",
    "report": "jinja2",
    "tables": "pyarrow",
    "cuda": "nvidia-cuda-nvrtc",
}
_SPLIT = click.option("--split", type=click.Choice(["train", "test"]), default="train", help="Which part of the data.")
_SRC = click.argument("src", metavar="PATH|NAME")


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Show version, build, CPU features, threads, CUDA state and optional dependencies."""
    facts = _facts()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    shown = {name: facts["versions"][name] for name in ("pspc_rs", "python", "numpy")}
    for name, value in {**shown, **facts["build"]}.items():
        if name != "version":  # that of pspc_rs
            click.echo(f"{name:<16}{value}")
    click.echo("optional dependencies")
    for extra, one in facts["extras"].items():
        found = one["version"] or f'not installed: pip install "pspc-rs[{extra}]"'
        click.echo(f"  {one['distribution']:<20}{found}")


def _facts() -> dict[str, Any]:
    extras = {extra: {"distribution": name, "version": installed_version(name)} for extra, name in _OPTIONAL.items()}
    return {"build": {**build(), "cuda": cuda.state()}, "versions": versions(), "extras": extras}


@click.group(cls=Group)
def data() -> None:
    """Look at data sets, and convert them to stores and EDM archives."""


@data.command()
@_SRC
@click.argument("dst", type=click.Path(dir_okay=False, path_type=Path), metavar="DST.npy|DST.zip")
@click.option("--max-size", type=click.IntRange(min=1), help="At most so many images, counted after --classes.")
@click.option(
    "--classes",
    metavar="LIST",
    callback=comma_list(int, "integers, such as 0,3,5"),
    help="Comma list of the labels to keep.",
)
@_SPLIT
@click.option("--image", metavar="NAME", help="Column of the images in a table, or their suffix in a WebDataset.")
@click.option("--label", metavar="NAME", help="The same for the labels.")
@click.option("--scale", type=float, help="For latents: multiply them by this number, which the store keeps.")
@click.option("--shift", type=float, help="For latents: subtract this number first, which the store keeps.")
@click.option("--overwrite", is_flag=True, help="Replace a store that was made from something else.")
def convert(src: str, dst: Path, overwrite: bool, **options: Any) -> None:
    """Convert a data set to a store or to an archive in EDM's layout.

    A store, DST.npy, is an array that every command and process maps into memory at once, with labels and fingerprint
    beside it. The data are read once, and may be larger than memory; after an interruption the same command continues.
    An archive, any other name, holds stored PNGs and dataset.json.
    """
    chosen = {name: options.pop(name) for name in ("max_size", "classes", "split")}
    if dst.suffix == ".npy":
        scale, shift = options.pop("scale"), options.pop("shift")
        scaling = None if (scale, shift) == (None, None) else Scaling(1.0 if scale is None else scale, shift or 0.0)
        try:
            file = save_store(src, dst, scaling=scaling, overwrite=overwrite, progress=True, **chosen, **options)
        except KeyboardInterrupt as stop:
            raise Interrupted(stop, KEPT) from stop
        images = load(file)
    else:
        given = next((name for name, value in options.items() if value is not None), None)
        if given is not None:
            raise click.UsageError(f"--{given} is for stores, DST.npy")
        images = load(src, **chosen)
        save_edm_zip(images, dst)
    click.echo(f"{dst}: {_counted(images)}")


@data.command("info")
@_SRC
@_SPLIT
def data_info(src: str, split: str) -> None:
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
