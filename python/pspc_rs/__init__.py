"""Exact, fast training-free diffusion denoisers, to sample with and to compare with networks.

>>> import numpy as np, pspc_rs as pspc
>>> data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (200, 3, 8, 8), dtype=np.uint8), xflip=True)
>>> D = pspc.PSPCSquare(data, patch_sizes=[8, 5, 3], sigmas=[10.0, 1.0, 0.1])
>>> x = pspc.sample(D, 4, sampler="heun", num_steps=6, seed=0, generator="numpy")
>>> x.shape
(4, 3, 8, 8)
"""

import importlib
from typing import TYPE_CHECKING, Any

from pspc_rs import data, denoisers, errors, heatmaps, samplers, schedules, sigmas
from pspc_rs._core import build_info as _build_info
from pspc_rs.data import ImageSet, load, save_edm_zip
from pspc_rs.denoisers import (
    BBELS,
    CFDM,
    ELS,
    LS,
    SNIS,
    Denoiser,
    Empirical,
    FilteredPosteriorMean,
    Gaussian,
    Network,
    Orbit,
    PCALocality,
    Piecewise,
    PSPCFlex,
    PSPCSquare,
    SoftPSPC,
)
from pspc_rs.errors import PspcError
from pspc_rs.heatmaps import gaussian_heatmaps
from pspc_rs.posterior import Posterior
from pspc_rs.samplers import sample
from pspc_rs.schedules import PatchSchedule, ThresholdSchedule, patch_schedule, threshold_schedule
from pspc_rs.sigmas import edm_sigmas, log_sigmas
from pspc_rs.threads import num_threads, set_num_threads

if TYPE_CHECKING:
    from pspc_rs import experiments, images, networks, testing, training

__version__ = dict(_build_info())["version"]

__all__ = [
    "BBELS",
    "CFDM",
    "ELS",
    "LS",
    "SNIS",
    "Denoiser",
    "Empirical",
    "FilteredPosteriorMean",
    "Gaussian",
    "ImageSet",
    "Network",
    "Orbit",
    "PCALocality",
    "PSPCFlex",
    "PSPCSquare",
    "PatchSchedule",
    "Piecewise",
    "Posterior",
    "PspcError",
    "SoftPSPC",
    "ThresholdSchedule",
    "data",
    "denoisers",
    "edm_sigmas",
    "errors",
    "experiments",
    "gaussian_heatmaps",
    "heatmaps",
    "images",
    "load",
    "log_sigmas",
    "networks",
    "num_threads",
    "patch_schedule",
    "sample",
    "samplers",
    "save_edm_zip",
    "schedules",
    "set_num_threads",
    "sigmas",
    "testing",
    "threshold_schedule",
    "training",
]

_LAZY = ("experiments", "images", "networks", "testing", "training")


if not TYPE_CHECKING:  # type checkers would take it for a promise of every name

    def __getattr__(name: str) -> Any:
        """The sub-modules that are imported on first use, so that ``import pspc_rs`` stays fast (PEP 562)."""
        if name in _LAZY:
            return importlib.import_module(f"pspc_rs.{name}")
        raise AttributeError(f"module 'pspc_rs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
