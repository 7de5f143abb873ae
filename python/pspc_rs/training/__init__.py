"""Training of denoising networks: DiT, DDPM++, NCSN++ and ADM, as in EDM.

It needs torch, which is imported when the first of these names is used: ``pip install "pspc-rs[torch]"``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pspc_rs.training.presets import PRESETS, preset
from pspc_rs.training.settings import RunOptions, TrainSettings

if TYPE_CHECKING:
    from pspc_rs.training.augment import AugmentPipe
    from pspc_rs.training.evaluate import draw_samples, loss_per_sigma
    from pspc_rs.training.losses import EDMLoss, VELoss, VPLoss
    from pspc_rs.training.trainer import train

_HOMES = {
    "AugmentPipe": "augment",
    "EDMLoss": "losses",
    "VELoss": "losses",
    "VPLoss": "losses",
    "draw_samples": "evaluate",
    "loss_per_sigma": "evaluate",
    "train": "trainer",
}

__all__ = [
    "PRESETS",
    "AugmentPipe",
    "EDMLoss",
    "RunOptions",
    "TrainSettings",
    "VELoss",
    "VPLoss",
    "draw_samples",
    "loss_per_sigma",
    "preset",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pspc_rs.arrays import import_torch

    import_torch("training")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
