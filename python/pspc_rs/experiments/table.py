"""Tables of results on disk: one row a key, written so that a killed run leaves a table to go on with."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pspc_rs.errors import DataError, DTypeError, InvalidValueError
from pspc_rs.files import replacing

Value: TypeAlias = str | int | float
Kind: TypeAlias = type[str] | type[int] | type[float]
Key: TypeAlias = tuple[Value, ...]
Row: TypeAlias = Mapping[str, Value]


class ResultTable:
    """Rows of results, each under a key of its own, and the CSV file that holds them.

    Every `add` replaces the file as a whole, with its rows in the order of their keys: whichever way the rows came
    about, and however often the run that makes them was killed, the same rows are the same bytes. Floats are written
    so that they are read back to the last bit.

    Args:
        path: the CSV file; rows in it are read, and kept.
        columns: the type of every column, str, int or float, by name.
        key: the columns that tell a row from every other; their order is that of the sorting.

    Raises:
        DataError: the file is no such table; it is left as it is.

    Example:
        >>> import tempfile
        >>> columns = {"denoiser": str, "level": int, "mse": float}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = ResultTable(Path(folder, "mse.csv"), columns, key=["denoiser", "level"])
        ...     table.add({"denoiser": "empirical", "level": 1, "mse": 0.25})
        ...     table.add({"denoiser": "empirical", "level": 0, "mse": 0.5})
        ...     again = ResultTable(table.path, columns, key=["denoiser", "level"])
        >>> ("empirical", 1) in again, [row["mse"] for row in again]
        (True, [0.5, 0.25])
    """

    def __init__(self, path: Path, columns: Mapping[str, Kind], key: Sequence[str]) -> None:
        self.path = path
        self.columns = dict(columns)
        self.key = tuple(key)
        self._rows: dict[Key, Row] = {}
        if path.exists():
            self._read()

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return (self._rows[key] for key in sorted(self._rows))

    def add(self, *rows: Row) -> None:
        """Adds rows, in place of those of the same keys, and replaces the file.

        Raises:
            DTypeError: a row with other columns, or a value of another type.
            InvalidValueError: a number that is not finite, or text with a line break.
            OutputError: the file cannot be written.
        """
        for row in rows:
            checked = self._checked(row)
            self._rows[self._key_of(checked)] = checked
        with replacing(self.path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([repr(one) if isinstance(one, float) else one for one in row.values()] for row in self)

    def columns_of(self, rows: Sequence[Row] | None = None) -> dict[str, list[Value]]:
        """The table, or some rows of it, as lists by column."""
        chosen = list(self) if rows is None else rows
        return {name: [row[name] for row in chosen] for name in self.columns}

    def _checked(self, row: Row) -> Row:
        if row.keys() != self.columns.keys():
            raise DTypeError(f"a row has the columns {sorted(row)}; allowed are {', '.join(self.columns)}")
        values = {name: _value(name, row[name], kind) for name, kind in self.columns.items()}
        return values

    def _key_of(self, row: Row) -> Key:
        return tuple(row[name] for name in self.key)

    def _read(self) -> None:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                header, *lines = csv.reader(file, strict=True)
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{self.path} cannot be read as a table: {error}") from error
        if header != list(self.columns):
            raise DataError(
                f"{self.path} has the columns {', '.join(header)}; needed are {', '.join(self.columns)}: "
                "give another folder"
            )
        for number, line in enumerate(lines, start=2):
            row = self._parsed(line, number)
            self._rows[self._key_of(row)] = row

    def _parsed(self, line: list[str], number: int) -> Row:
        try:
            values = {name: kind(text) for (name, kind), text in zip(self.columns.items(), line, strict=True)}
            return self._checked(values)
        except (ValueError, DTypeError) as error:
            raise DataError(f"{self.path}, line {number}, is no row of this table: {error}") from error


def _value(name: str, value: Any, kind: Kind) -> Value:
    """One value as its column has it."""
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise InvalidValueError(f"{name} is {value}; allowed are finite numbers")
        return float(value)
    if kind is float or not isinstance(value, kind) or isinstance(value, bool):
        raise DTypeError(f"{name} is {value!r:.80}; allowed is a {kind.__name__}")
    if isinstance(value, str) and not value.isprintable():
        raise InvalidValueError(f"{name} is {value!r:.80}; allowed is text without line breaks and control characters")
    checked: Value = value
    return checked
