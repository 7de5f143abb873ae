"""Results on disk: tables of rows in one database per folder, written safely by several processes, with CSV beside it.

The database, ``results.sqlite``, holds one table for every CSV file of the folder. Rows are added in transactions that
exclude every other writer, so that two runs in one folder lose nothing, and a killed run leaves a table that the next
run continues. The CSV files are for people: after every change they are written anew from the database. Run folders
lie on network disks, so the database keeps a rollback journal and no write-ahead log.
"""

import contextlib
import csv
import json
import math
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from pspc_rs.errors import DataError, DTypeError, InvalidValueError, OutputError
from pspc_rs.experiments.image_errors import ImageErrors
from pspc_rs.outputs import plain, save_record, save_table

Value: TypeAlias = str | int | float
Kind: TypeAlias = type[str] | type[int] | type[float]
Key: TypeAlias = tuple[Value, ...]
Row: TypeAlias = Mapping[str, Value]

DATABASE = "results.sqlite"
"""What the database of a folder is called."""

COMPARE_KEY = ("process", "target", "denoiser", "settings", "level")
"""The columns that identify a row of `compare`, in the order of sorting."""


PAIRED_KEY = (*COMPARE_KEY, "reference", "reference_settings")
"""The columns that identify a paired difference."""


def error_column(metric: str) -> str:
    """The name of the standard error beside a metric in rows of `compare`.

    Example:
        >>> error_column("mse"), error_column("r2")
        ('standard_error', 'r2_error')
    """
    return "standard_error" if metric == "mse" else f"{metric}_error"


_COMPARE_COLUMNS: dict[str, Kind] = {"process": str, "target": str, "denoiser": str, "settings": str, "level": int}
_BUSY_SECONDS = 60.0
# Errors of SQLite that do not mean a damaged file: it is locked, cannot be opened or written, or the disk is full.
_NOT_DAMAGED = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
)
_INTEGER_LIMIT = 2**63
# A column declared REAL would turn -0.0 into 0.0; one without a declaration keeps every bit of a float.
_DECLARATIONS: Mapping[Kind, str] = {str: " TEXT", int: " INTEGER", float: ""}


class ResultTable:
    """Rows of results, each under a key of its own: a table of the folder's database, and a CSV file.

    The CSV file has the rows in the order of their keys. The same rows give the same bytes, however many processes
    wrote them and however often a run was killed. Floats keep every bit. A folder that holds the CSV file alone, as
    earlier versions left it, is read too; its rows go to the database with the first row that is added. A CSV file that
    was removed is written again.

    Attributes:
        path: the CSV file.
        database: the file of the database.

    Args:
        path: the CSV file; its name without the suffix is that of the table in the database.
        columns: the type of every column, str, int or float, by name.
        key: the columns that identify a row, in the order of sorting.

    Raises:
        DataError: the database is damaged, or the folder holds another table of this name; both are left as they are.
        OutputError: the database stays locked by another process.

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
        self.database = path.with_name(DATABASE)
        self.columns = dict(columns)
        self.key = tuple(key)
        self._table = _quoted(path.stem)
        self._rows: dict[Key, Row] = {}
        stored = False
        if self.database.exists():
            with _connection(self.database) as connection:
                stored = self._exists(connection)
                if stored:
                    self._rows = self._select(connection)
        if not stored and path.exists():
            self._rows = {self._key_of(row): row for row in self._read_file()}
        if stored and not path.exists():
            self.add()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} rows)"

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __getitem__(self, key: Key) -> Row:
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return (self._rows[key] for key in sorted(self._rows))

    def add(self, *rows: Row) -> None:
        """Adds rows, replacing those of the same keys, and writes the CSV file anew.

        Afterwards the table also has the rows that other processes have added meanwhile.

        Raises:
            DTypeError: a row with other columns, or a value of another type.
            InvalidValueError: a number that is not finite or too large, or text with a line break.
            DataError: the database is damaged, or holds another table of this name.
            OutputError: a file cannot be written, or stays locked by another process.
        """
        checked = [self._checked(row) for row in rows]
        with _transaction(self.database) as connection:
            if not self._exists(connection):
                self._create(connection)
                self._insert(connection, "IGNORE", self._rows.values())
            self._insert(connection, "REPLACE", checked)
            found = self._select(connection)
            # Within the transaction: a slower writer cannot put back a file with fewer rows.
            self._write_file([found[key] for key in sorted(found)])
        self._rows = found

    def _exists(self, connection: sqlite3.Connection) -> bool:
        """Whether the database has the table."""
        found = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({self._table})")]
        if found:
            self._check_columns(found, self.database)
        return bool(found)

    def _create(self, connection: sqlite3.Connection) -> None:
        columns = [f"{_quoted(name)}{_DECLARATIONS[kind]} NOT NULL" for name, kind in self.columns.items()]
        key = ", ".join(_quoted(name) for name in self.key)
        connection.execute(f"CREATE TABLE {self._table} ({', '.join(columns)}, PRIMARY KEY ({key})) WITHOUT ROWID")

    def _insert(self, connection: sqlite3.Connection, conflict: str, rows: Iterable[Row]) -> None:
        """Inserts rows; ``conflict`` says what happens where a key is there already, IGNORE or REPLACE."""
        placeholders = ", ".join("?" * len(self.columns))
        values = [[row[name] for name in self.columns] for row in rows]
        connection.executemany(f"INSERT OR {conflict} INTO {self._table} VALUES ({placeholders})", values)

    def _select(self, connection: sqlite3.Connection) -> dict[Key, Row]:
        """The rows of the database by key."""
        rows = connection.execute(f"SELECT * FROM {self._table}").fetchall()
        parsed = [self._parsed(values, str(self.database)) for values in rows]
        return {self._key_of(row): row for row in parsed}

    def _check_columns(self, found: Sequence[str], where: Path) -> None:
        if list(found) != list(self.columns):
            raise DataError(
                f"{where} has the columns {', '.join(found)}; needed are {', '.join(self.columns)}: give another folder"
            )

    def _checked(self, row: Row) -> Row:
        if row.keys() != self.columns.keys():
            raise DTypeError(f"a row has the columns {sorted(row)}; allowed are {', '.join(self.columns)}")
        return {name: _checked_value(name, row[name], kind) for name, kind in self.columns.items()}

    def _key_of(self, row: Row) -> Key:
        return tuple(row[name] for name in self.key)

    def _parsed(self, values: Sequence[Any], where: str) -> Row:
        try:
            return self._checked(dict(zip(self.columns, values, strict=True)))
        except (ValueError, DTypeError) as error:
            raise DataError(f"{where} is not a row of this table: {error}") from error

    def _write_file(self, rows: Sequence[Row]) -> None:
        """Writes the file for people."""
        save_table(self.path, {name: [row[name] for row in rows] for name in self.columns})

    def _read_file(self) -> list[Row]:
        """The rows of the file for people, where an earlier version left no database."""
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                header, *lines = csv.reader(file, strict=True)
        except (OSError, ValueError, csv.Error) as error:
            raise DataError(f"{self.path} cannot be read as a table: {error}") from error
        self._check_columns(header, self.path)
        return [self._parsed_line(line, number) for number, line in enumerate(lines, start=2)]

    def _parsed_line(self, line: list[str], number: int) -> Row:
        where = f"{self.path}, line {number},"
        try:
            values = [kind(text) for kind, text in zip(self.columns.values(), line, strict=True)]
        except ValueError as error:
            raise DataError(f"{where} is not a row of this table: {error}") from error
        return self._parsed(values, where)


class SettingsTable(ResultTable):
    """The settings behind the keys of results; the file for people is JSON, an object by key.

    Args:
        path: the JSON file.

    Raises:
        DataError: the database is damaged, or the file holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = SettingsTable(Path(folder, "settings.json"))
        ...     table.remember("0f", {"n": 4})
        ...     SettingsTable(table.path).settings
        {'0f': {'n': 4}}
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, {"key": str, "settings": str}, ["key"])

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by key."""
        return _by_key(self)

    def remember(self, key: str, settings: Mapping[str, object]) -> None:
        """Keeps settings under a key, unless there are some.

        Raises:
            OutputError: a file cannot be written.
        """
        if (key,) not in self:
            self.add({"key": key, "settings": json.dumps(plain(settings), allow_nan=False)})

    def _write_file(self, rows: Sequence[Row]) -> None:
        save_record(self.path, _by_key(rows))

    def _read_file(self) -> list[Row]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise DataError(f"{self.path} holds a {type(content).__name__}; needed is an object")
        return [self._parsed([key, json.dumps(value)], str(self.path)) for key, value in content.items()]


def _by_key(rows: Iterable[Row]) -> dict[str, Any]:
    return {str(row["key"]): json.loads(str(row["settings"])) for row in rows}


class RunFolder:
    """The files of `compare`: its tables, the settings behind their keys, and the noisy sets.

    Attributes:
        mse: ``mse.csv``, the MSE of every process, target, denoiser, settings and level.
        metrics: ``metrics.csv``, further metrics of the same, one per row; it is there if some were asked for.
        paired: ``paired.csv``, the differences of the MSE to that of the best denoiser of a call, image by image.
        image_errors: ``image_errors/``, the errors of single images behind the rows of ``mse``.
        times: ``times.csv``, the seconds that its rows took.

    Args:
        path: the folder; made when something is written.

    Raises:
        DataError: the folder holds other files of these names, or they are damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as path:
        ...     folder = RunFolder(Path(path))
        ...     len(folder.mse), folder.settings
        (0, {})
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        numbers: dict[str, Kind] = {"sigma": float, "n": int, "mse": float, "standard_error": float}
        self.mse = ResultTable(path / "mse.csv", {**_COMPARE_COLUMNS, **numbers}, COMPARE_KEY)
        metric: dict[str, Kind] = {"metric": str, "sigma": float, "n": int, "value": float, "standard_error": float}
        self.metrics = ResultTable(path / "metrics.csv", {**_COMPARE_COLUMNS, **metric}, (*COMPARE_KEY, "metric"))
        paired: dict[str, Kind] = {"reference": str, "reference_settings": str, "sigma": float, "n": int}
        differences: dict[str, Kind] = {"difference": float, "standard_error": float}
        self.paired = ResultTable(path / "paired.csv", {**_COMPARE_COLUMNS, **paired, **differences}, PAIRED_KEY)
        self.times = ResultTable(path / "times.csv", {**_COMPARE_COLUMNS, "seconds": float}, COMPARE_KEY)
        self.image_errors = ImageErrors(path / "image_errors")
        self._settings = SettingsTable(path / "settings.json")

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r}, {len(self.mse)} rows)"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by key, as ``settings.json`` holds them."""
        return self._settings.settings

    def remember(self, key: str, settings: Mapping[str, object]) -> None:
        """Writes down the settings behind a key, unless there are some.

        Raises:
            OutputError: a file cannot be written.
        """
        self._settings.remember(key, settings)

    def noisy(self, target: str, key: str) -> Path:
        """The file of a target's reverse noisy set."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", target)
        return self.path / "noisy" / f"reverse_{safe}_{key}.npy"


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection whose errors are those of this package."""
    try:
        # Transactions are begun and ended by hand.
        with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
            yield connection
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_DAMAGED:
            raise OutputError(f"{path} cannot be opened or written: {error}") from error
        raise DataError(f"{path} cannot be read as a database of results: {error}") from error


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection while no other process may write; what was done is undone if anything goes wrong."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error
    with _connection(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN IMMEDIATE")
        # Closing the connection before the commit undoes the transaction.
        yield connection
        connection.execute("COMMIT")


def _quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"{}"'.format(name.replace('"', '""'))


def _checked_value(name: str, value: Any, kind: Kind) -> Value:
    """One value as its column has it."""
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise InvalidValueError(f"{name} is {value}; allowed are finite numbers")
        return float(value)
    if kind is float or not isinstance(value, kind) or isinstance(value, bool):
        raise DTypeError(f"{name} is {value!r:.80}; allowed is a {kind.__name__}")
    if isinstance(value, str) and not value.isprintable():
        raise InvalidValueError(f"{name} is {value!r:.80}; allowed is text without line breaks and control characters")
    if isinstance(value, int) and not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
        raise InvalidValueError(f"{name} is {value}; allowed are integers of 64 bits")
    checked: Value = value
    return checked
