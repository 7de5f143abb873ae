"""Outputs on disk: JSON records, CSV tables, arrays, and arrays that long work computes batch by batch.

All are written whole, so that a reader never sees half of one.
"""

import contextlib
import csv
import hashlib
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DataError, DTypeError, InvalidValueError, OutputError
from pspc_rs.files import decode_errors, replacing
from pspc_rs.locks import OutputLock
from pspc_rs.progress import Progress, describe

_KEY_DIGITS = 12
_LOCK = "lock"
_BATCH = "batch"
_KEYED = re.compile(rf"(?:{_BATCH}_\d+|settings)\.([0-9a-f]{{{_KEY_DIGITS}}})\.(?:npy|json)")
_WAYS_OUT = "replace it with --overwrite (in Python, overwrite=True), or choose another folder"


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
        write_header(file, array.dtype, array.shape)
        # Not by np.save, which says nothing if the disk is full when its buffer is written.
        file.write(np.ascontiguousarray(array).data)


def write_header(file: BinaryIO, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
    """Writes the header of a `.npy` file, of an array in C order; its length does not depend on the first axis."""
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": tuple(shape)})


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

    Every finished batch is kept in the hidden folder ``.{name}.parts`` beside the output, under a name with a key of
    the settings. A later run with the same settings takes the kept batches as they are, so that its output has the same
    bytes as that of a run that was never stopped. Beside the output lies a record, ``{name}.json``, with the settings
    and the checksum; parts are removed once both are written. From the beginning until `finish` or `close` no other run
    can write the output.

    Attributes:
        complete: whether the output is there already, with these settings, and is to be kept.

    Args:
        output: the `.npy` file.
        settings: everything that decides the numbers in it, of types that JSON holds.
        axis: the axis along which batches are joined.
        overwrite: replace an output that has other settings, and forget the batches of such a run.
        wait: for another run that is writing the output; without it, such a run is an error.
        progress: its `describe` is told of the waiting.

    Raises:
        OutputError: an earlier run had other settings (the message names them), another run is writing the output, or
            the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ResumableArray(Path(folder, "squares.npy"), {"power": 2}) as squares:
        ...         for index in squares.pending(2):
        ...             squares.keep(index, np.full(3, index**2))
        ...         squares.finish(2, {"command": "square"})
        ...     np.load(squares.output)
        array([0, 0, 0, 1, 1, 1])
    """

    def __init__(
        self,
        output: Path,
        settings: Mapping[str, object],
        *,
        axis: int = 0,
        overwrite: bool = False,
        wait: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.output = output
        self.axis = axis
        self.settings: dict[str, Any] = plain(settings)
        self.parts = parts_of(output)
        self.complete = False
        self._key = settings_key(self.settings)
        self._lock = output_lock(output)
        self._lock.acquire(wait=wait, waiting=lambda: describe(progress, f"waiting for a run that writes {output}"))
        try:
            self._begin(overwrite)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"ResumableArray({str(self.output)!r}, {'complete' if self.complete else 'in parts'})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets other runs write the output; what is kept stays."""
        if not self.complete and not any(self.parts.glob(f"{_BATCH}_*.{self._key}.npy")):
            with contextlib.suppress(OSError):
                self._settings_file(self._key).unlink()
        self._lock.release()

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
        _save_joined(self.output, [self._part(index) for index in range(num)], self.axis, shape)
        checked = {"output": {"file": self.output.name, "sha256": sha256(self.output)}}
        save_record(self.record_path, {**record, **checked, "settings": self.settings})
        self._remove_parts(lambda key: True)
        self.close()

    def _begin(self, overwrite: bool) -> None:
        """Finds out what is there, refuses what belongs to another run, and shows that the folder can be written."""
        record = load_record(self.record_path)
        intact = self._is_intact(record)
        self.complete = intact and record.get("settings") == self.settings
        begun = self._begun()
        if self.complete:
            self._remove_parts(lambda key: key not in begun or key == self._key)
            return
        if not overwrite:
            self._check_output(record, intact, begun)
            self._check_parts(begun)
        self._remove_parts(lambda key: key not in begun)
        save_record(self._settings_file(self._key), self.settings)

    def _is_intact(self, record: Mapping[str, Any]) -> bool:
        """Whether the output is the one of which the record has the checksum."""
        output = record.get("output")
        return isinstance(output, dict) and self.output.is_file() and output.get("sha256") == sha256(self.output)

    def _begun(self) -> dict[str, dict[str, Any]]:
        """The settings of all runs that kept a batch, by key."""
        keys = {_key_of(path) for path in self.parts.glob(f"{_BATCH}_*.npy")}
        settings = {key: load_record(self._settings_file(key)) for key in keys if key}
        return {key: found for key, found in settings.items() if found and settings_key(found) == key}

    def _check_output(self, record: Mapping[str, Any], intact: bool, begun: Mapping[str, object]) -> None:
        if self.output.is_dir():
            raise OutputError(f"{self.output} cannot be written: it is a folder")
        # A run that was killed before it wrote the record left an output of unknown settings, and its batches.
        if not self.output.exists() or (not intact and (self._key in begun or record.get("settings") == self.settings)):
            return
        earlier = record.get("settings") if intact else None
        if isinstance(earlier, dict):
            how = f"with other settings: {differences(earlier, self.settings)}"
        else:
            how = "and no record says with which settings"
        raise OutputError(f"{self.output} is there already, {how}; {_WAYS_OUT}")

    def _check_parts(self, begun: Mapping[str, Mapping[str, Any]]) -> None:
        for key, settings in begun.items():
            if key != self._key:
                changes = differences(settings, self.settings)
                raise OutputError(
                    f"{self.output} was begun with other settings: {changes}; continue that run, or {_WAYS_OUT}"
                )

    def _part(self, index: int) -> Path:
        return self.parts / f"{_BATCH}_{index:04d}.{self._key}.npy"

    def _settings_file(self, key: str) -> Path:
        return self.parts / f"settings.{key}.json"

    def _remove_parts(self, chosen: Callable[[str], bool]) -> None:
        """Removes what runs with the chosen keys left, and what has no key; the lock stays."""
        try:
            for path in self.parts.iterdir() if self.parts.is_dir() else ():
                if path.name != _LOCK and (not _key_of(path) or chosen(_key_of(path))):
                    path.unlink()
        except OSError as error:
            raise OutputError(f"{self.parts} cannot be removed: {error}") from error


def output_lock(output: Path) -> OutputLock:
    """The right to write an output; `ResumableArray` takes it, too, for as long as it writes.

    A command takes it first, so that it ends before long work if it could not write its result.
    """
    return OutputLock(parts_of(output) / _LOCK, output, own_folder=True)


def settings_key(settings: Mapping[str, object]) -> str:
    """Twelve hex digits of the SHA-256 of the settings, independent of their order.

    Example:
        >>> settings_key({"a": 1, "b": 2.5}) == settings_key({"b": 2.5, "a": 1})
        True
    """
    text = json.dumps(plain(settings), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


def parts_of(output: Path) -> Path:
    """The hidden folder beside an output that holds what is finished of it, and the lock of whoever writes it."""
    return output.with_name(f".{output.name}.parts")


def _key_of(path: Path) -> str:
    """The key in the name of a file of a run, empty if it has none, such as one that was never finished."""
    found = _KEYED.fullmatch(path.name)
    return "" if found is None else found[1]


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which settings have changed, in words; empty if none has.

    Example:
        >>> differences({"seed": 0, "data": {"name": "a", "xflip": True}}, {"seed": 5, "data": {"name": "a"}})
        'seed was 0, is 5; data.xflip was true, is null'
    """
    return "; ".join(_differences(earlier, now, ""))


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any], place: str) -> Iterator[str]:
    for name in {**earlier, **now}:
        before, after = earlier.get(name), now.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{place}{name}.")
        elif before != after:
            yield f"{place}{name} was {_short(earlier, name)}, is {_short(now, name)}"


def _short(settings: Mapping[str, Any], name: str) -> str:
    text = json.dumps(settings.get(name))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _save_joined(path: Path, files: Sequence[Path], axis: int, reshaped: Sequence[int] | None = None) -> None:
    """Writes what ``np.save`` would write of the concatenated arrays of some files, without holding it."""
    parts = [open_array(file) for file in files]
    lengths = [part.shape[axis] for part in parts]
    shape = (*parts[0].shape[:axis], sum(lengths), *parts[0].shape[axis + 1 :])
    with replacing(path) as temporary, temporary.open("wb") as file:
        write_header(file, parts[0].dtype, reshaped or shape)
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


def load_record(path: Path) -> dict[str, Any]:
    """The record in a JSON file, empty if there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
