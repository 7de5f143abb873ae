"""The command line, `pspc-rs`: commands by subject, each thin over the Python API."""

from pspc_rs.cli.compare import compare, patch_study
from pspc_rs.cli.denoise import denoise
from pspc_rs.cli.explain import explain
from pspc_rs.cli.explore import explore
from pspc_rs.cli.figures import demo, figure, report
from pspc_rs.cli.fit_schedule import fit_schedule
from pspc_rs.cli.front import main
from pspc_rs.cli.info import data, info
from pspc_rs.cli.locality_figures import fid, masks, schedules
from pspc_rs.cli.network import network
from pspc_rs.cli.plan import plan
from pspc_rs.cli.sample import sample
from pspc_rs.cli.sets import heatmaps, noise
from pspc_rs.cli.train import train

for shown in (masks, schedules, fid):
    figure.add_command(shown)
_EXPERIMENTS = (noise, heatmaps, compare, patch_study, fit_schedule, explain, explore, figure, report)
for command in (denoise, sample, *_EXPERIMENTS, network, train, demo, data, plan, info):
    main.add_command(command)

__all__ = ["main"]
