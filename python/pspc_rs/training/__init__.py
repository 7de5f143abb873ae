"""Training of denoising networks: DiT, DDPM++, NCSN++ and ADM, as in EDM.

Torch is imported when the first name that needs it is used, not with this package: ``pip install "pspc-rs[torch]"``.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pspc_rs.arrays import import_torch
from pspc_rs.training.settings import PRESETS, RunOptions, TrainSettings, preset

if TYPE_CHECKING:
    from pspc_rs.training.augment import AugmentPipe
    from pspc_rs.training.evaluation import draw_samples, loss_per_sigma
    from pspc_rs.training.losses import EDMLoss, VELoss, VPLoss
    from pspc_rs.training.trainer import train

_MODULES = {
    "AugmentPipe": "augment",
    "EDMLoss": "losses",
    "VELoss": "losses",
    "VPLoss": "losses",
    "draw_samples": "evaluation",
    "loss_per_sigma": "evaluation",
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
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_torch("training")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
