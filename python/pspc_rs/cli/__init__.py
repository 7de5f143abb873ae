"""The command line, `pspc-rs`: one file a command, each thin over the Python API."""

from pspc_rs.cli.data import data
from pspc_rs.cli.demo import demo
from pspc_rs.cli.denoise import denoise
from pspc_rs.cli.front import main
from pspc_rs.cli.info import info
from pspc_rs.cli.network import network
from pspc_rs.cli.sample import sample
from pspc_rs.cli.train import train

for command in (denoise, sample, demo, data, network, train, info):
    main.add_command(command)

__all__ = ["main"]
