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
from pspc_rs.experiments.metric_figures import metric_figure, mse_figure
from pspc_rs.experiments.metrics import (
    METRICS,
    MeanError,
    Metric,
    copy_ratio,
    copy_share,
    flow_distance,
    mean_over_images,
    mean_squared_error,
    pearson_r,
    pixel_r2,
    r2,
    squared_errors,
    trajectory_r2,
)
from pspc_rs.experiments.mse_curves import compare
from pspc_rs.experiments.nearest import NearestImages, nearest_images
from pspc_rs.experiments.noisy_sets import forward_noisy, reverse_noisy, save_forward, save_reverse
from pspc_rs.experiments.patches import PatchErrors, PatchStudy, patch_errors, patch_study, patch_study_figure
from pspc_rs.experiments.planning import LevelCost, Plan, Workload, level_cost, plan
from pspc_rs.experiments.report import write_report
from pspc_rs.experiments.sample_metrics import SampleMetrics, sample_metrics, sample_metrics_figure
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
    "METRICS",
    "CFDMErrors",
    "Explanation",
    "Fit",
    "LevelCost",
    "MassSides",
    "MeanError",
    "Metric",
    "NearestImages",
    "PatchErrors",
    "PatchStudy",
    "Plan",
    "SampleMetrics",
    "Sides",
    "SimilarityMatrix",
    "Subject",
    "Thresholds",
    "Trajectory",
    "Way",
    "Workload",
    "cfdm_mse",
    "compare",
    "copy_ratio",
    "copy_share",
    "denoised_figure",
    "denoised_grid",
    "explain",
    "explain_trajectory",
    "fit_figure",
    "fit_schedule",
    "flow_distance",
    "forward_noisy",
    "gradient_descriptor",
    "level_cost",
    "mass_figure",
    "mass_sides",
    "mean_over_images",
    "mean_squared_error",
    "metric_figure",
    "mse_figure",
    "nearest_images",
    "odd_sides",
    "patch_errors",
    "patch_study",
    "patch_study_figure",
    "pearson_r",
    "pixel_descriptor",
    "pixel_map_figure",
    "pixel_r2",
    "plan",
    "r2",
    "reverse_noisy",
    "sample_figure",
    "sample_metrics",
    "sample_metrics_figure",
    "save_explanations",
    "save_forward",
    "save_reverse",
    "similarity_figure",
    "similarity_matrix",
    "squared_errors",
    "sscd_descriptor",
    "trajectories",
    "trajectory_figure",
    "trajectory_r2",
    "write_report",
]
