"""The paper's experiments: functions that return numbers and figures; `pspc_rs.cli` makes them commands."""

from pspc_rs.experiments.cfdm_grid import CFDMErrors, cfdm_mse
from pspc_rs.experiments.mse_curves import compare
from pspc_rs.experiments.mse_figure import mse_figure
from pspc_rs.experiments.noisy import forward_noisy, reverse_noisy, save_forward, save_reverse

__all__ = [
    "CFDMErrors",
    "cfdm_mse",
    "compare",
    "forward_noisy",
    "mse_figure",
    "reverse_noisy",
    "save_forward",
    "save_reverse",
]
