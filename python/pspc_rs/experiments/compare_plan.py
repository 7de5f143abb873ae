"""What `compare` compares: models, noise levels and where noisy images come from, as one checked object."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import one_of
from pspc_rs.data import ImageSet
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments.evaluate import Model
from pspc_rs.experiments.leaving_out import Sources, left_out
from pspc_rs.experiments.noisy_sets import (
    Start,
    drawn_images,
    drawn_indices,
    file_levels,
    first_level,
    scale_settings,
)
from pspc_rs.provenance import (
    data_settings,
    describe_data,
    model_settings,
    sha256,
)
from pspc_rs.samplers import noise_source

NoisyProcess: TypeAlias = Literal["forward", "reverse", "file"]
"""Where z comes from: noisy images, the target's own trajectories, or a file."""

Clean: TypeAlias = Literal["clean"]
"""In place of a target network: the clean images behind forward z."""

NOISY_PROCESSES: tuple[NoisyProcess, ...] = ("forward", "reverse")
"""Those that are computed."""


@dataclass(frozen=True)
class Plan:
    """What `compare` compares; the arguments of `compare` are described there."""

    data: ImageSet
    targets: Mapping[str, Model | Clean]
    denoisers: Mapping[str, Model]
    sigmas: tuple[float, ...]
    processes: tuple[NoisyProcess, ...]
    n: int
    seed: int
    batch: int
    sampler: str
    start: Start
    start_scale: float | None
    sigma_range: tuple[float, float]
    leave_one_out: bool = False
    metrics: tuple[str, ...] = ()
    noise_data: ImageSet | None = None
    z: Path | None = None

    def __repr__(self) -> str:
        return f"Plan({', '.join(self.denoisers)} against {', '.join(self.targets)}, {len(self.levels)} levels)"

    @cached_property
    def levels(self) -> list[int]:
        """Indices of the levels of the grid that lie in the range."""
        low, high = self.sigma_range
        return [index for index, sigma in enumerate(self.sigmas) if low <= sigma <= high]

    @property
    def first(self) -> int:
        """The level at which trajectories begin: that of the grid if they start at noise alone."""
        return first_level(self.start, self.levels)

    @property
    def noisy_images(self) -> ImageSet:
        """The images that noise is added to."""
        return self.data if self.noise_data is None else self.noise_data

    def settings(self, process: NoisyProcess, target: str) -> dict[str, Any]:
        """Everything that decides the numbers against a target, besides the denoiser."""
        settings: dict[str, Any] = {"process": process, "sigmas": self.sigmas, "n": self.n}
        if self.z is None:
            settings |= {"seed": self.seed, "batch": self.batch, "noise": f"{noise_source()} generator"}
        else:
            settings |= {"batch": self.batch, "z_sha256": self._z_sha256}
        settings |= {**data_settings(self.data), "target": self._models[target]}
        if self.noise_data is not None:
            settings["noise_data"] = describe_data(self.noise_data)
        if self.leave_one_out:
            settings["leave_one_out"] = True
        if process == "reverse":
            settings |= {"sampler": self.sampler, "start": self.start, "first_level": self.first}
            settings |= scale_settings(self.start_scale, self.sigmas[0]) if self.start == "noise" else {}
        return settings

    def row_settings(self, process: NoisyProcess, target: str, denoiser: str) -> dict[str, Any]:
        """Everything that decides the numbers of a row, besides its level."""
        return {**self.settings(process, target), "denoiser": self._models[denoiser]}

    def same(self, name: str) -> bool:
        """Whether a name of both a target and a denoiser stands for one model."""
        target = self.targets[name]
        return not isinstance(target, str) and model_settings(target) == model_settings(self.denoisers[name])

    def is_target(self, denoiser: str, target: str) -> bool:
        """Whether a denoiser is the target itself, which no other can be better than."""
        return self._models[denoiser] == self._models[target]

    @cached_property
    def left_out(self) -> dict[str, NDArray[np.int64] | None]:
        """The images that every model leaves out, one per noisy image; None for none."""
        models: dict[str, Model | Clean] = {**self.targets, **self.denoisers}
        if not self.leave_one_out:
            return dict.fromkeys(models)
        sources = Sources(self.data.fingerprint, drawn_indices(self.data, self.n, self.seed))
        return {name: left_out(name, model, sources) for name, model in models.items()}

    @cached_property
    def clean(self) -> NDArray[np.float32]:
        """The clean images behind forward z, the same at every level."""
        return drawn_images(self.noisy_images, self.n, self.seed)

    @cached_property
    def _z_sha256(self) -> str:
        return sha256(Path(str(self.z)))

    @cached_property
    def _models(self) -> dict[str, dict[str, Any]]:
        named: dict[str, Model | Clean] = {**self.targets, **self.denoisers}
        return {
            name: {"denoiser": "clean images"} if isinstance(model, str) else model_settings(model)
            for name, model in named.items()
        }


def other_images(data: ImageSet, images: ImageSet | None) -> ImageSet | None:
    """The images that noise is added to, None for the data themselves."""
    if images is None or images.fingerprint == data.fingerprint:
        return None
    if images.shape != data.shape:
        raise ShapeError(f"noise_data has images of shape {list(images.shape)}; those of data are {list(data.shape)}")
    return images


def of_file(plan: Plan) -> Plan:
    """The plan with z from a file, which leaves nothing else to say where z come from."""
    if plan.processes != NOISY_PROCESSES or plan.noise_data is not None or plan.leave_one_out:
        raise InvalidValueError(
            "z is a file, and processes, noise_data or leave_one_out say where z come from; give one of them"
        )
    file_levels(Path(str(plan.z)), plan.data.shape, len(plan.sigmas), plan.n)  # refuses it before anything is written
    return replace(plan, processes=("file",))


def check_clean(plan: Plan) -> None:
    """Refuses clean images as a target of z that are made of none."""
    for name, target in plan.targets.items():
        if isinstance(target, str):
            one_of(f"the target {name}", target, get_args(Clean))
            if plan.processes != ("forward",):
                raise InvalidValueError(
                    f"the target {name} is clean images, and processes are {', '.join(plan.processes)}; allowed is "
                    "forward alone, as other z are made of no images"
                )
