"""Outputs on disk: JSON records, CSV tables, arrays, and arrays that long work computes batch by batch.

All are written whole, so that a reader never sees half of one.
"""

import csv
import hashlib
import json
import math
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DataError, DTypeError, InvalidValueError, OutputError
from pspc_rs.files import decode_errors, replacing

_SETTINGS_FILE = "settings.json"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: object) -> Any:
    """The value as JSON holds it: paths as strings, arrays and tuples as lists, schedules by their fields.

    Infinite numbers become "inf" and "-inf", NaN becomes "nan": JSON has no numbers for them.

    Raises:
        DTypeError: a value that JSON cannot hold.

    Example:
        >>> plain({"sigmas": np.array([1.5, 2.0]), "path": Path("a"), "limit": float("inf")})
        {'sigmas': [1.5, 2.0], 'path': 'a', 'limit': 'inf'}
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    raise DTypeError(f"a {type(value).__name__} cannot be recorded: {value!r:.80}")


def save_record(path: Path, record: Mapping[str, object]) -> None:
    """Writes a record as indented JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def save_table(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Writes a CSV file with one column per entry.

    Floats are written with the fewest digits that read back to the same bits.

    Args:
        path: the file.
        columns: values by the name of their column, all equally many.

    Raises:
        InvalidValueError: the columns are not equally long.
        OutputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_table(Path(folder, "a.csv"), {"sigma": [1.0, 0.5], "side": [5, 3]})
        ...     Path(folder, "a.csv").read_text().split()
        ['sigma,side', '1.0,5', '0.5,3']
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidValueError(f"the columns of {path.name} have {lengths} entries; the numbers must be equal")
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(map(_python_value, values) for values in columns.values()), strict=True))


def _python_value(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Writes a `.npy` file.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def open_array(path: Path) -> NDArray[Any]:
    """The array of a `.npy` file as a read-only memory map; Python objects in it are refused.

    Raises:
        DataError: it is not a `.npy` file of numbers, or cannot be read.
    """
    try:
        # Damaged headers raise errors of Python's parser besides, and numpy warns of those that Python 2 wrote.
        with decode_errors(path), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            stored: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except DataError as error:
        raise DataError(f"{path} cannot be read as a .npy file of numbers: {error.__cause__}") from error
    return stored


class ResumableArray:
    """An output `.npy` file that is computed batch by batch along one of its axes, and may be stopped at any moment.

    Every finished batch is kept in the hidden folder ``.{name}.parts`` beside the output, together with the settings.
    A later run with the same settings and `resume` takes the kept batches as they are, so that its output has the same
    bytes as that of a run that was never stopped. Beside the output lies a record, ``{name}.json``, with the settings
    and the checksum; parts are removed once both are written.

    Attributes:
        complete: whether the output is there already, with these settings, and is to be kept.

    Args:
        output: the `.npy` file.
        settings: everything that decides the numbers in it, of types that JSON holds.
        axis: the axis along which batches are joined.
        resume: continue with the batches that an earlier run kept; without it they are removed.

    Raises:
        OutputError: `resume`, but the earlier run had other settings (the message names them), or the folder cannot be
            written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     squares = ResumableArray(Path(folder, "squares.npy"), {"power": 2})
        ...     for index in squares.pending(2):
        ...         squares.keep(index, np.full(3, index**2))
        ...     squares.finish(2, {"command": "square"})
        ...     np.load(squares.output)
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

    def __repr__(self) -> str:
        return f"ResumableArray({str(self.output)!r}, {'complete' if self.complete else 'in parts'})"

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
        save_array(self._part(index), batch)

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
        """The settings of a finished output, empty if there is none or its checksum differs from the record's."""
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
    """Which settings have changed, in words; empty if none has.

    Example:
        >>> differences({"seed": 0, "rank": 3}, {"seed": 5, "rank": 3})
        'seed was 0, is 5'
    """
    differing = [name for name in {**earlier, **now} if earlier.get(name) != now.get(name)]
    return "; ".join(f"{name} was {_short(earlier, name)}, is {_short(now, name)}" for name in differing)


def _short(settings: Mapping[str, Any], name: str) -> str:
    text = json.dumps(settings.get(name))
    return text if len(text) <= 80 else f"{text[:77]}..."


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
    """Whether a batch can be read; one that a power cut left empty is computed again."""
    try:
        open_array(path)
    except DataError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
