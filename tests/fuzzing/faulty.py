"""Targets with known faults, by which the tests see that `fuzzing.run` finds them."""

import os
import random
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.targets import Arrays, Target
from pspc_rs.errors import DataError, warn


def _foreign(source: random.Random, folder: Path) -> Arrays:
    del source, folder
    raise KeyError("x")


def _nan(source: random.Random, folder: Path) -> Arrays:
    del source, folder
    return [np.array([1.0, np.nan])]


def _warning(source: random.Random, folder: Path) -> Arrays:
    del source, folder
    warnings.warn("old", DeprecationWarning, stacklevel=1)
    return []


def _clean(source: random.Random, folder: Path) -> Arrays:
    del folder
    if source.random() < 0.5:
        raise DataError("one of ours")
    warn("one of ours")
    return [np.ones(3), "no array", np.array(["text"])]


def _only_after_the_start(act: Any) -> Any:
    calls: list[int] = []

    def run(source: random.Random, folder: Path) -> Arrays:
        del source, folder
        # The first call is the one that warms up.
        if calls:
            act()
        calls.append(1)
        return []

    return run


def targets() -> list[Target]:
    """The faulty targets, and one without fault."""
    return [
        Target("clean", _clean),
        Target("foreign", _foreign),
        Target("nan", _nan),
        Target("warning", _warning),
        Target("memory", _only_after_the_start(lambda: np.ones(1 << 33))),
        Target("crash", _only_after_the_start(os.abort)),
        Target("hang", _only_after_the_start(lambda: time.sleep(3600))),
    ]
