"""Stopping and resuming: checkpoints, and Ctrl-C at a moment when the state of a run is whole.

A checkpoint is a folder of two files, written under another name and renamed when complete.
"""

import json
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from pspc_rs.arrays import import_safetensors
from pspc_rs.errors import DataError, OutputError
from pspc_rs.signals import STOP_SIGNALS, Stopped
from pspc_rs.training.evaluation import LossSums
from pspc_rs.writing import flush, temporary_path

FORMAT = 1
"""Version of the layout."""

_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_NUM_KEPT = 2


@dataclass
class TrainState:
    """Everything that changes in a run.

    There are no random generators in it: everything random is a function of the seed and the number of the image.

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
    optimizer: torch.optim.Adam | torch.optim.AdamW
    sums: LossSums
    images: int = 0
    seconds: float = 0.0

    def __repr__(self) -> str:
        return f"TrainState({self.images} images in {self.seconds:.1f} s)"

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name, not copied."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for moment in _MOMENTS:
                tensors[f"adam.{moment}.{name}"] = self._moments(parameter)[moment]
        return tensors | {"log.sums": self.sums.sums, "log.nonfinite": self.sums.nonfinite}

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Adam's state for a parameter; Adam itself makes it only with the first step."""
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
        current = self.tensors()
        if current.keys() != tensors.keys() or any(current[name].shape != tensors[name].shape for name in current):
            raise DataError(f"{what} holds the state of another network")
        with torch.no_grad():
            for name, tensor in current.items():
                tensor.copy_(tensors[name])
            for parameter in self.network.parameters():
                self._moments(parameter)["step"].fill_(record["steps"])
        self.images, self.seconds = record["images"], record["seconds"]


def save_checkpoint(folder: Path, state: TrainState, record: Mapping[str, object]) -> Path:
    """Writes the state of a run, and removes all but the last two checkpoints.

    Args:
        folder: of the checkpoints; made if it is not there.
        state: the run.
        record: further facts to write down, of types that JSON holds.

    Returns:
        The folder of the new checkpoint.

    Raises:
        OutputError: it cannot be written.
        MissingDependencyError: safetensors is not installed.
    """
    target = folder / f"{state.images:012d}"
    temporary = temporary_path(target)
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
            flush(temporary / name)
        if target.exists():
            shutil.rmtree(target)
        temporary.replace(target)
        flush(folder)
        for old in checkpoints(folder)[:-_NUM_KEPT]:
            shutil.rmtree(old)
    except (OSError, import_safetensors("a checkpoint").SafetensorError) as error:
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


class Interruptions:
    """Turns SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt, but not while a step is being taken.

    A SIGHUP that is ignored, as under nohup, stays ignored.

    Signals are handled by Python's main thread alone; in another thread nothing is changed.

    Attributes:
        received: the signal that came, None before it does.

    Example:
        >>> interruptions = Interruptions()
        >>> with interruptions.handled(), interruptions.deferred():
        ...     pass
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferring = False

    def __repr__(self) -> str:
        return f"Interruptions(received={self.received})"

    @contextmanager
    def handled(self) -> Iterator[None]:
        """In this context, the signals are handled here."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [one for one in STOP_SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
        earlier = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, *numbers)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """In this context, a signal takes effect only at the end."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.received is not None:
            raise _interrupt(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if not self._deferring:
            raise _interrupt(number)


def _interrupt(number: int) -> KeyboardInterrupt:
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)
