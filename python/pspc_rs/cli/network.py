"""`pspc-rs network`: look at network files, and convert published ones."""

import json
from pathlib import Path
from typing import Any

import click

from pspc_rs.arrays import import_torch
from pspc_rs.cli.commands import Group
from pspc_rs.cli.values import input_file


@click.group(cls=Group)
def network() -> None:
    """Look at network files, and convert published ones."""


@network.command()
@click.argument("src", type=input_file(), metavar="SRC")
@click.argument("dst", type=click.Path(dir_okay=False, path_type=Path), metavar="DST.safetensors")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), default="float32", help="How weights are stored."
)
def convert(src: Path, dst: Path, dtype: str) -> None:
    """Convert a pickle of EDM, or a safetensors file of ours, to a safetensors file.

    Nothing in the pickle is executed; a pickle with anything but a network of EDM in it is refused. What a safetensors
    file records of its network is kept.
    """
    import_torch("pspc-rs network")
    from pspc_rs.networks import convert_edm_pickle, is_safetensors, read_metadata, read_network, save_network

    net: Any
    if is_safetensors(src):
        net = read_network(src)
        save_network(net, dst, read_metadata(src)["metadata"], dtype=dtype)
    else:
        net = convert_edm_pickle(src, dst, dtype=dtype)
    click.echo(f"{dst}: {type(net).__name__} of {type(net.model).__name__}, {_parameters(net)} parameters")


@network.command()
@click.argument("file", type=input_file(), metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(file: Path, as_json: bool) -> None:
    """Show what a network file holds: a safetensors file of ours, or a pickle of EDM, which is not executed."""
    facts = _facts(file)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        entries = value if isinstance(value, dict) else None
        click.echo(f"{name:<24}{'' if entries else value}".rstrip())
        for entry, inner in (entries or {}).items():
            click.echo(f"  {entry:<22}{inner}")


def _facts(file: Path) -> dict[str, Any]:
    import_torch("pspc-rs network")
    from pspc_rs.networks import describe_network, is_safetensors, read_metadata, read_network
    from pspc_rs.networks.edm_pickle.read import read_edm_snapshot
    from pspc_rs.provenance import plain

    net: Any
    if is_safetensors(file):
        net, metadata = read_network(file), read_metadata(file)["metadata"]
    else:
        snapshot = read_edm_snapshot(file)
        net, metadata = snapshot.network, {"dataset_kwargs": snapshot.dataset_kwargs}
    facts = {
        **describe_network(net),
        "parameters": _parameters(net),
        "sigma_min": net.sigma_min,
        "sigma_max": net.sigma_max,
        "metadata": metadata,
    }
    shown: dict[str, Any] = plain(facts)
    return shown


def _parameters(net: Any) -> int:
    return sum(parameter.numel() for parameter in net.parameters())
