"""`pspc-rs info`: what is installed and what it runs on."""

import json
from typing import Any

import click

from pspc_rs import cuda
from pspc_rs.provenance import build, installed_version, versions

_OPTIONAL = {
    "torch": "torch",
    "download": "pooch",
    "demo": "scikit-learn",
    "plot": "matplotlib",
    "cuda": "nvidia-cuda-nvrtc",
}


@click.command()
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
        click.echo(f"  {one['distribution']:<14}{found}")


def _facts() -> dict[str, Any]:
    extras = {extra: {"distribution": name, "version": installed_version(name)} for extra, name in _OPTIONAL.items()}
    return {"build": {**build(), "cuda": cuda.state()}, "versions": versions(), "extras": extras}
