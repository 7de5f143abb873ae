"""Long work in batches: stopped at any moment it leaves no half output, and it can go on where it was."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import OutputError
from pspc_rs.files import replacing
from pspc_rs.provenance import plain, save_record, sha256

_SETTINGS_FILE = "settings.json"


class BatchRun:
    """An output `.npy` file that is computed batch by batch along one of its axes.

    Every finished batch is kept in the hidden folder ``.{name}.parts`` beside the output, together with the settings.
    A later run with the same settings and `resume` takes the kept batches as they are, so that its output has the same
    bytes as that of a run that was never stopped. Beside the output lies a record, ``{name}.json``, with the settings
    and the checksum; parts are removed once both are written.

    Args:
        output: the `.npy` file.
        settings: everything that decides the numbers in it, of types that JSON holds.
        axis: the axis along which batches are joined.
        resume: go on with the batches that an earlier run kept; without it they are removed.

    Raises:
        OutputError: `resume`, but the earlier run had other settings (the message names them), or the folder cannot be
            written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = BatchRun(Path(folder, "squares.npy"), {"power": 2})
        ...     for index in run.pending(2):
        ...         run.keep(index, np.full(3, index**2))
        ...     run.finish(2, {"command": "square"})
        ...     np.load(run.output)
        array([0, 0, 0, 1, 1, 1])
    """

    def __init__(self, output: Path, settings: Mapping[str, object], *, axis: int = 0, resume: bool = False) -> None:
        self.output = output
        self.axis = axis
        self.settings: dict[str, Any] = plain(settings)
        self.parts = output.with_name(f".{output.name}.parts")
        begun = _read_json(self.parts / _SETTINGS_FILE)
        finished = self._settings_of_output()
        self.complete = resume and finished == self.settings
        if resume and not self.complete and (begun or finished):
            self._check_settings(begun or finished, self.parts if begun else self.output)
        if begun != self.settings or self.complete or not resume:
            self._remove_parts()
        if not self.complete:
            save_record(self.parts / _SETTINGS_FILE, self.settings)

    @property
    def record_path(self) -> Path:
        """The JSON file beside the output."""
        return self.output.with_suffix(".json")

    def pending(self, num: int) -> list[int]:
        """The indices below `num` whose batch has not been kept yet."""
        return [index for index in range(num) if not _is_array(self._part(index))]

    def keep(self, index: int, batch: NDArray[Any]) -> None:
        """Keeps a finished batch.

        Raises:
            OutputError: it cannot be written.
        """
        _save_array(self._part(index), batch)

    def finish(self, num: int, record: Mapping[str, object], shape: Sequence[int] | None = None) -> None:
        """Joins the kept batches 0 .. num - 1 to the output, writes the record beside it and removes the batches.

        Batches are read by memory map, so that the output may be larger than memory.

        Args:
            num: number of batches.
            record: what is to be recorded; the settings and the output's checksum are added.
            shape: of the output, if batches joined along the first axis are to get another one.

        Raises:
            OutputError: the output cannot be written.
        """
        parts = [np.load(self._part(index), mmap_mode="r") for index in range(num)]
        _save_joined(self.output, parts, self.axis, shape)
        checked = {"output": {"file": self.output.name, "sha256": sha256(self.output)}}
        save_record(self.record_path, {**record, **checked, "settings": self.settings})
        self._remove_parts()

    def _part(self, index: int) -> Path:
        return self.parts / f"batch_{index:04d}.npy"

    def _settings_of_output(self) -> dict[str, Any]:
        """The settings of a finished output, empty if there is none or it is not what the record says."""
        record = _read_json(self.record_path)
        settings, output = record.get("settings"), record.get("output")
        if not isinstance(settings, dict) or not isinstance(output, dict) or not self.output.is_file():
            return {}
        return settings if output.get("sha256") == sha256(self.output) else {}

    def _check_settings(self, earlier: Mapping[str, Any], where: Path) -> None:
        changes = differences(earlier, self.settings)
        if changes:
            raise OutputError(
                f"{where} cannot be resumed, it has other settings: {changes}. Without resuming, it is replaced"
            )

    def _remove_parts(self) -> None:
        try:
            if self.parts.exists():
                shutil.rmtree(self.parts)
        except OSError as error:
            raise OutputError(f"{self.parts} cannot be removed: {error}") from error


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, which settings are others than before; empty if none is.

    Example:
        >>> differences({"seed": 0, "rank": 3}, {"seed": 5, "rank": 3})
        'seed was 0, is 5'
    """
    differing = [name for name in {**earlier, **now} if earlier.get(name) != now.get(name)]
    return "; ".join(f"{name} was {_short(earlier, name)}, is {_short(now, name)}" for name in differing)


def _save_array(path: Path, array: NDArray[Any]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def _save_joined(path: Path, parts: Sequence[NDArray[Any]], axis: int, reshaped: Sequence[int] | None = None) -> None:
    """Writes what ``np.save`` would write of the concatenated parts, without holding it."""
    lengths = [part.shape[axis] for part in parts]
    shape = (*parts[0].shape[:axis], sum(lengths), *parts[0].shape[axis + 1 :])
    descr = np.lib.format.dtype_to_descr(parts[0].dtype)
    header = {"descr": descr, "fortran_order": False, "shape": tuple(reshaped or shape)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for leading in np.ndindex(shape[:axis]):
            for part in parts:
                file.write(np.ascontiguousarray(part[leading]).data)


def _is_array(path: Path) -> bool:
    """Whether a batch can be read; one that a power cut emptied is computed again."""
    try:
        np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError):
        return False
    return True


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _short(settings: Mapping[str, Any], name: str) -> str:
    text = json.dumps(settings.get(name))
    return text if len(text) <= 80 else f"{text[:77]}..."
