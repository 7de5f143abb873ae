"""Checkpoints: the whole state of a run in a folder of two files, written beside and renamed when complete."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pspc_rs.arrays import import_safetensors
from pspc_rs.errors import DataError, OutputError
from pspc_rs.training.losslog import LossSums

FORMAT = 1
"""Version of the layout."""

_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_KEPT = 2


@dataclass
class TrainState:
    """All that changes in a run.

    There are no generators in it: whatever is random is a function of the seed and the number of the image.

    Attributes:
        network: the network in training.
        average: its averaged weights, in evaluation mode.
        optimizer: Adam over the network's parameters.
        sums: losses since the last line of the log.
        images: images seen.
        seconds: time spent on them.
    """

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Adam
    sums: LossSums
    images: int = 0
    seconds: float = 0.0

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name, not copied."""
        found = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        found |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for moment in _MOMENTS:
                found[f"adam.{moment}.{name}"] = self._moments(parameter)[moment]
        return found | {"log.sums": self.sums.sums, "log.nonfinite": self.sums.nonfinite}

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Adam's memory of a parameter, which it begins with the first step."""
        state: dict[str, Tensor] = self.optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for moment in _MOMENTS:
                state[moment] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state

    @property
    def steps(self) -> int:
        """Steps that the optimiser has taken."""
        return int(self._moments(next(self.network.parameters()))["step"])

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any], what: object) -> None:
        """Takes over the tensors and counts of a checkpoint.

        Raises:
            DataError: the tensors are not those of this network.
        """
        own = self.tensors()
        if own.keys() != tensors.keys() or any(own[name].shape != tensors[name].shape for name in own):
            raise DataError(f"{what} holds the state of another network")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
            for parameter in self.network.parameters():
                self._moments(parameter)["step"].fill_(record["steps"])
        self.images, self.seconds = record["images"], record["seconds"]


def save_checkpoint(folder: Path, state: TrainState, record: Mapping[str, object]) -> Path:
    """Writes the state of a run, and removes all but the last two checkpoints.

    Args:
        folder: of the checkpoints; made if it is not there.
        state: the run.
        record: what else is to be known about it, of types that JSON holds.

    Returns:
        The folder of the new checkpoint.

    Raises:
        OutputError: it cannot be written.
        MissingDependencyError: safetensors is not installed.
    """
    target = folder / f"{state.images:012d}"
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    save_file = import_safetensors("a checkpoint", "torch").save_file
    # Tensors of one network never share memory here, but safetensors refuses those that are not contiguous.
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.tensors().items()}
    counts = {"format": FORMAT, "images": state.images, "steps": state.steps, "seconds": state.seconds}
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary / _TENSORS)
        text = json.dumps({**counts, **record}, indent=2, allow_nan=False)
        (temporary / _STATE).write_text(text + "\n", encoding="utf-8")
        for name in (_TENSORS, _STATE):
            _flush(temporary / name)
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
        for old in checkpoints(folder)[:-_KEPT]:
            shutil.rmtree(old)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def remove_unfinished(folder: Path) -> None:
    """Removes what a run that was killed while it wrote a checkpoint left behind."""
    for left in folder.glob(".*.tmp"):
        shutil.rmtree(left, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, the latest last."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.isdecimal() and (path / _STATE).is_file())


def read_record(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says about itself.

    Raises:
        DataError: it is damaged or of another version.
    """
    try:
        record = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{checkpoint / _STATE} cannot be read: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"{checkpoint / _STATE} is no checkpoint of format {FORMAT}")
    return record


def load_checkpoint(checkpoint: Path, state: TrainState) -> None:
    """Brings a run to where it was when the checkpoint was written.

    Raises:
        DataError: it is damaged, or belongs to another network.
        MissingDependencyError: safetensors is not installed.
    """
    record = read_record(checkpoint)
    error_class = import_safetensors("a checkpoint").SafetensorError
    try:
        tensors = import_safetensors("a checkpoint", "torch").load_file(checkpoint / _TENSORS)
    except (OSError, error_class) as error:
        raise DataError(
            f"{checkpoint / _TENSORS} cannot be read, remove the folder to go on from an earlier one: {error}"
        ) from error
    state.restore(tensors, record, checkpoint)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
