"""Named training runs: the DiT of the PSPC paper, and EDM's own networks."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pspc_rs.errors import InvalidValueError
from pspc_rs.training.settings import TrainSettings

_DITS = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16), "xl": (1152, 28, 16)}
_PATCHES = (2, 4, 8)

_DDPMPP: dict[str, Any] = {
    "embedding_type": "positional",
    "encoder_type": "standard",
    "channel_mult_noise": 1,
    "resample_filter": [1, 1],
}
_NCSNPP: dict[str, Any] = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
_CIFAR: dict[str, Any] = {"model_channels": 128, "channel_mult": [2, 2, 2], "dropout": 0.13}
_FFHQ: dict[str, Any] = {"model_channels": 128, "channel_mult": [1, 2, 2, 2], "dropout": 0.05}


def _dit(size: str, patch: int) -> TrainSettings:
    """Niedoba et al., "Towards a Mechanistic Explanation of Diffusion Model Generalization", 2025, table 2."""
    hidden, depth, heads = _DITS[size]
    kwargs = {"patch_size": patch, "hidden_size": hidden, "depth": depth, "num_heads": heads, "dropout": 0.12}
    return TrainSettings("DiT", kwargs, learning_rate=1e-4, batch=512, augment=0.12, images=200_000_000)


def _unet_64(wiring: Mapping[str, Any], dropout: float) -> TrainSettings:
    kwargs = {**wiring, **_FFHQ, "dropout": dropout}
    return TrainSettings("SongUNet", kwargs, batch=256, learning_rate=2e-4, augment=0.15)


PRESETS: Mapping[str, TrainSettings] = MappingProxyType(
    {
        **{f"dit-{size}{patch}": _dit(size, patch) for size in _DITS for patch in _PATCHES},
        "ddpmpp": TrainSettings("SongUNet", {**_DDPMPP, **_CIFAR}),
        "ncsnpp": TrainSettings("SongUNet", {**_NCSNPP, **_CIFAR}),
        "ddpmpp-ffhq": _unet_64(_DDPMPP, 0.05),
        "ncsnpp-ffhq": _unet_64(_NCSNPP, 0.05),
        "ddpmpp-afhq": _unet_64(_DDPMPP, 0.25),
        "ncsnpp-afhq": _unet_64(_NCSNPP, 0.25),
        "adm": TrainSettings(
            "DhariwalUNet",
            {"model_channels": 192, "channel_mult": [1, 2, 3, 4], "dropout": 0.10},
            conditional=True,
            images=2_500_000_000,
            batch=4096,
            learning_rate=1e-4,
            ema_half_life=50_000_000,
            augment=0.0,
        ),
    }
)
"""The runs by name. ``dit-b4`` is the PSPC paper's DiT; ``ddpmpp``, ``ncsnpp`` (CIFAR-10), their ``-ffhq`` and
``-afhq`` forms and ``adm`` (ImageNet-64) are EDM's."""


def preset(name: str) -> TrainSettings:
    """The settings of a named run.

    Raises:
        InvalidValueError: there is none of that name.

    Example:
        >>> preset("dit-b4").architecture_kwargs["hidden_size"]
        768
    """
    if name not in PRESETS:
        raise InvalidValueError(f"preset is {name!r:.80}; allowed are {', '.join(PRESETS)}")
    return PRESETS[name]
