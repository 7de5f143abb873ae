"""Processes that write to one table of results, for tests."""

from multiprocessing.synchronize import Barrier
from pathlib import Path

from pspc_rs.experiments.results import Kind, ResultTable, Row

COLUMNS: dict[str, Kind] = {"name": str, "level": int, "mse": float}
KEY = ("name", "level")


def open_table(folder: Path) -> ResultTable:
    """The table of a folder."""
    return ResultTable(folder / "table.csv", COLUMNS, KEY)


def row(name: str, level: int) -> Row:
    """The row that every writer has for a key, with a number of many digits."""
    return {"name": name, "level": level, "mse": 1 / (3 + level)}


def write(folder: Path, name: str, num: int, barrier: Barrier) -> None:
    """Adds rows of its own and rows that every writer adds, as soon as all writers are ready."""
    table = open_table(folder)
    barrier.wait()
    for level in range(num):
        table.add(row(name, level), row("shared", level))


def write_until_killed(folder: Path) -> None:
    """Adds rows that are not there yet."""
    table = open_table(folder)
    level = len(table)
    while True:
        table.add(row("endless", level))
        level += 1
