"""The paper's experiments: functions that return numbers and figures; `pspc_rs.cli` makes them commands."""

from pspc_rs.experiments.explain_page import save_explanations
from pspc_rs.experiments.explained import Subject
from pspc_rs.experiments.explaining import Explanation, Way, explain, explain_trajectory
from pspc_rs.experiments.fit_families import Sides, Thresholds, odd_sides
from pspc_rs.experiments.fitting import Fit, fit_figure, fit_schedule
from pspc_rs.experiments.heatmap_mass import MassSides, mass_figure, mass_sides, pixel_map_figure
from pspc_rs.experiments.image_grids import (
    Trajectory,
    denoised_figure,
    denoised_grid,
    sample_figure,
    trajectories,
    trajectory_figure,
)
from pspc_rs.experiments.mse_curves import compare, mse_figure
from pspc_rs.experiments.nearest import NearestImages, nearest_images
from pspc_rs.experiments.noisy_sets import forward_noisy, reverse_noisy, save_forward, save_reverse
from pspc_rs.experiments.patches import PatchErrors, PatchStudy, patch_errors, patch_study, patch_study_figure
from pspc_rs.experiments.report import write_report
from pspc_rs.experiments.similarity import (
    SimilarityMatrix,
    gradient_descriptor,
    pixel_descriptor,
    similarity_figure,
    similarity_matrix,
    sscd_descriptor,
)
from pspc_rs.experiments.tuning import CFDMErrors, cfdm_mse

__all__ = [
    "CFDMErrors",
    "Explanation",
    "Fit",
    "MassSides",
    "NearestImages",
    "PatchErrors",
    "PatchStudy",
    "Sides",
    "SimilarityMatrix",
    "Subject",
    "Thresholds",
    "Trajectory",
    "Way",
    "cfdm_mse",
    "compare",
    "denoised_figure",
    "denoised_grid",
    "explain",
    "explain_trajectory",
    "fit_figure",
    "fit_schedule",
    "forward_noisy",
    "gradient_descriptor",
    "mass_figure",
    "mass_sides",
    "mse_figure",
    "nearest_images",
    "odd_sides",
    "patch_errors",
    "patch_study",
    "patch_study_figure",
    "pixel_descriptor",
    "pixel_map_figure",
    "reverse_noisy",
    "sample_figure",
    "save_explanations",
    "save_forward",
    "save_reverse",
    "similarity_figure",
    "similarity_matrix",
    "sscd_descriptor",
    "trajectories",
    "trajectory_figure",
    "write_report",
]
