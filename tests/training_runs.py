"""Small training runs for tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pspc_rs.data import ImageSet
from pspc_rs.training import TrainSettings

DIT: dict[str, Any] = {"patch_size": 2, "hidden_size": 32, "depth": 2, "num_heads": 2}
DDPMPP: dict[str, Any] = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
WALL_TIMES = ("images_per_second", "seconds")


def stripes(num: int = 256, channels: int = 1, side: int = 8, classes: int = 4) -> ImageSet:
    """Images with structure to be learnt: a dark and a bright half, at one of a few places; labels say which."""
    random = np.random.default_rng(3)
    labels = random.integers(classes, size=num)
    images = random.integers(0, 40, (num, channels, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, : (label + 1) * side // (classes + 1)] += 200
    return ImageSet(images, labels, name="stripes")


def settings(architecture: str = "DiT", kwargs: dict[str, Any] = DIT, **changes: Any) -> TrainSettings:
    """A run of a few steps, with dropout and augmentation."""
    usual = {"images": 96, "batch": 8, "learning_rate": 2e-3, "learning_rate_ramp": 16, "ema_half_life": 100}
    return TrainSettings(architecture, {"dropout": 0.1, **kwargs}, **{**usual, **changes})


def log(folder: Path, name: str = "log.jsonl") -> list[dict[str, Any]]:
    """The lines of a log, but for what depends on the clock."""
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in WALL_TIMES} for line in lines]


def losses(folder: Path) -> list[float]:
    """The losses of the log."""
    return [line["loss"] for line in log(folder)]
