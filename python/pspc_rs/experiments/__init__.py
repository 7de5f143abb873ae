"""The paper's experiments: functions that return numbers and figures; `pspc_rs.cli` makes them commands."""

from pspc_rs.experiments.cfdm_grid import CFDMErrors, cfdm_mse
from pspc_rs.experiments.descriptors import gradient_descriptor, pixel_descriptor, sscd_descriptor
from pspc_rs.experiments.fit_families import Sides, Thresholds
from pspc_rs.experiments.fitting import Fit, fit_figure, fit_schedule
from pspc_rs.experiments.grids import denoised_figure, denoised_grid, sample_figure
from pspc_rs.experiments.heatmap_mass import MassSides, mass_figure, mass_sides, pixel_map_figure
from pspc_rs.experiments.mse_curves import compare
from pspc_rs.experiments.mse_figure import mse_figure
from pspc_rs.experiments.noisy import forward_noisy, reverse_noisy, save_forward, save_reverse
from pspc_rs.experiments.patch_curves import PatchStudy, patch_study, patch_study_figure
from pspc_rs.experiments.patch_means import PatchErrors, patch_errors
from pspc_rs.experiments.report import write_report
from pspc_rs.experiments.similarity import SimilarityMatrix, similarity_figure, similarity_matrix
from pspc_rs.experiments.trajectory import Trajectory, trajectories, trajectory_figure

__all__ = [
    "CFDMErrors",
    "Fit",
    "MassSides",
    "PatchErrors",
    "PatchStudy",
    "Sides",
    "SimilarityMatrix",
    "Thresholds",
    "Trajectory",
    "cfdm_mse",
    "compare",
    "denoised_figure",
    "denoised_grid",
    "fit_figure",
    "fit_schedule",
    "forward_noisy",
    "gradient_descriptor",
    "mass_figure",
    "mass_sides",
    "mse_figure",
    "patch_errors",
    "patch_study",
    "patch_study_figure",
    "pixel_descriptor",
    "pixel_map_figure",
    "reverse_noisy",
    "sample_figure",
    "save_forward",
    "save_reverse",
    "similarity_figure",
    "similarity_matrix",
    "sscd_descriptor",
    "trajectories",
    "trajectory_figure",
    "write_report",
]
