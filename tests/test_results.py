"""Tables of results: several writers, kills, floats to the last bit, earlier folders, files that are no such table."""

import multiprocessing
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_line import names
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, OutputError
from pspc_rs.experiments import results
from pspc_rs.experiments.results import DATABASE, ResultTable, Row, RunFolder, SettingsTable
from table_writers import open_table, row, write, write_until_killed

SPAWN = multiprocessing.get_context("spawn")


texts = st.text(max_size=8).filter(str.isprintable)
floats = st.floats(allow_nan=False, allow_infinity=False)


def bits(table: ResultTable) -> list[tuple[object, ...]]:
    """The rows with every bit of their floats."""
    return [(one["name"], one["level"], float(one["mse"]).hex()) for one in table]


some_rows = st.dictionaries(st.tuples(texts, st.integers(-5, 40)), floats, max_size=8)


@given(some_rows, st.randoms(use_true_random=False))
def test_rows_come_back_to_the_last_bit_and_their_order_plays_no_part(
    tmp_path_factory: pytest.TempPathFactory, values: dict[tuple[str, int], float], shuffler: object
) -> None:
    folder = tmp_path_factory.mktemp("table")
    rows: list[Row] = [{"name": name, "level": level, "mse": mse} for (name, level), mse in values.items()]
    first = open_table(folder)
    first.add(*rows)
    written = first.path.read_bytes()
    again = open_table(folder)
    assert bits(again) == bits(first) == sorted((*key, mse.hex()) for key, mse in values.items())
    first.path.unlink()
    first.database.unlink()
    shuffler.shuffle(rows)  # type: ignore[attr-defined]
    for one in rows:  # as a run does that is killed after every row
        open_table(folder).add(one)
    if rows:
        assert first.path.read_bytes() == written
        first.database.unlink()
        assert bits(open_table(folder)) == bits(again)  # from the CSV file alone
    assert all(key in again for key in values) and ("absent", 99) not in again


def test_a_row_takes_the_place_of_one_with_its_key(tmp_path: Path) -> None:
    one = open_table(tmp_path)
    one.add({"name": "a", "level": 1, "mse": 2.0}, {"name": "a", "level": 10, "mse": np.float64(0.1)})
    one.add({"name": "a", "level": 1, "mse": 3})
    assert one.path.read_text() == "name,level,mse\na,1,3.0\na,10,0.1\n"
    assert [row["mse"] for row in one] == [3.0, 0.1]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"name": "a", "level": 1}, DTypeError),
        ({"name": "a", "level": 1, "mse": 1.0, "more": 2}, DTypeError),
        ({"name": "a", "level": 1.5, "mse": 1.0}, DTypeError),
        ({"name": 3, "level": 1, "mse": 1.0}, DTypeError),
        ({"name": "a", "level": True, "mse": 1.0}, DTypeError),
        ({"name": "a\r", "level": 1, "mse": 1.0}, InvalidValueError),
        ({"name": "a", "level": 1, "mse": float("nan")}, InvalidValueError),
        ({"name": "a", "level": 1, "mse": float("inf")}, InvalidValueError),
        ({"name": "a", "level": 2**63, "mse": 1.0}, InvalidValueError),
    ],
)
def test_bad_rows_are_refused_and_the_file_stays(tmp_path: Path, row: Row, error: type[Exception]) -> None:
    one = open_table(tmp_path)
    one.add({"name": "a", "level": 1, "mse": 2.0})
    with pytest.raises(error):
        one.add(row)
    assert len(one) == len(open_table(tmp_path)) == 1
    assert one.path.read_text() == "name,level,mse\na,1,2.0\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"name,mse\na,1\n", "has the columns name, mse; needed are name, level, mse"),
        (b"name,level,mse\na,1\n", "line 2, is not a row"),
        (b"name,level,mse\na,1,0.5\nb,x,0.5\n", "line 3, is not a row"),
        (b"name,level,mse\na,1,nan\n", "line 2, is not a row"),
        (b'name,level,mse\n"a,1,0.5\n', "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_are_no_such_table_are_refused_and_left_alone(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_table(tmp_path)
    assert (tmp_path / "table.csv").read_bytes() == content


def test_two_processes_writing_at_once_lose_nothing(tmp_path: Path) -> None:
    num, barrier = 150, SPAWN.Barrier(2)
    writers = [SPAWN.Process(target=write, args=(tmp_path, name, num, barrier)) for name in ("one", "other")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    expected = [row(name, level) for name in ("one", "other", "shared") for level in range(num)]
    assert list(open_table(tmp_path)) == expected
    assert names(tmp_path) == [DATABASE, "table.csv"]
    alone = open_table(tmp_path / "alone")
    alone.add(*expected)
    assert (tmp_path / "table.csv").read_bytes() == alone.path.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_writer_leaves_a_table_to_go_on_with(tmp_path: Path) -> None:
    for _ in range(4):
        before = len(open_table(tmp_path))
        writer = SPAWN.Process(target=write_until_killed, args=(tmp_path,))
        writer.start()
        end = time.monotonic() + 60
        while len(open_table(tmp_path)) < before + 20:
            assert writer.is_alive() and time.monotonic() < end
        writer.kill()
        writer.join(60)
        left = open_table(tmp_path)
        assert list(left) == [row("endless", level) for level in range(len(left))]
    left.add(row("endless", len(left)))
    assert len(left.path.read_text().splitlines()) == 1 + len(left) == 1 + len(open_table(tmp_path))
    with closing(sqlite3.connect(left.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_rows_of_other_writers_are_there_after_adding(tmp_path: Path) -> None:
    first, second = open_table(tmp_path), open_table(tmp_path)
    first.add(row("a", 0))
    assert ("a", 0) not in second
    second.add(row("b", 0))
    assert ("a", 0) in second and ("b", 0) in second
    assert len(second.path.read_text().splitlines()) == 3


def test_folders_of_earlier_versions_are_read_and_go_to_the_database_with_the_next_row(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("name,level,mse\na,1,0.1\na,0,5e-324\n")
    table = open_table(tmp_path)
    assert bits(table) == [("a", 0, (5e-324).hex()), ("a", 1, (0.1).hex())]
    assert names(tmp_path) == ["table.csv"]
    table.add(row("b", 0))
    written = (tmp_path / "table.csv").read_bytes()
    (tmp_path / "table.csv").unlink()
    assert bits(open_table(tmp_path)) == bits(table)
    assert (tmp_path / "table.csv").read_bytes() == written
    (tmp_path / "settings.json").write_text('{"0f": {"n": 4}}')
    kept = SettingsTable(tmp_path / "settings.json")
    kept.remember("0f", {"n": 5})
    kept.remember("1f", {"n": float("inf")})
    assert SettingsTable(kept.path).settings == {"0f": {"n": 4}, "1f": {"n": "inf"}}
    assert '"n": 4' in kept.path.read_text()


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_database_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(DataError, match=rf"{DATABASE} cannot be read as a database of results"):
        open_table(tmp_path)
    with pytest.raises(DataError, match=DATABASE):
        RunFolder(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == content
    assert names(tmp_path) == [DATABASE]


def test_a_database_that_is_cut_off_is_named(tmp_path: Path) -> None:
    table = open_table(tmp_path)
    table.add(*(row("a", level) for level in range(2000)))
    whole = table.database.read_bytes()
    for size in (len(whole) // 2, 5000):
        table.database.write_bytes(whole[:size])
        with pytest.raises(DataError, match=DATABASE):
            open_table(tmp_path)


def test_a_database_with_another_table_of_the_name_is_refused(tmp_path: Path) -> None:
    ResultTable(tmp_path / "table.csv", {"name": str}, ["name"]).add({"name": "a"})
    with pytest.raises(DataError, match="has the columns name; needed are name, level, mse"):
        open_table(tmp_path)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("CREATE TABLE 'text' (name, level, mse)")
        connection.execute("INSERT INTO 'text' VALUES ('a', 'b', 'c')")
        connection.commit()
    with pytest.raises(DataError, match="is not a row of this table"):
        ResultTable(tmp_path / "text.csv", {"name": str, "level": int, "mse": float}, ["name"])


def test_a_database_that_stays_locked_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_BUSY_SECONDS", 0.05)
    table = open_table(tmp_path)
    table.add(row("a", 0))
    with closing(sqlite3.connect(table.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OutputError, match="locked"):
            table.add(row("a", 1))
        with pytest.raises(OutputError, match="locked"):
            open_table(tmp_path)
        other.execute("ROLLBACK")
    assert len(table) == 1
    table.add(row("a", 1))
    assert len(open_table(tmp_path)) == 2


def test_a_csv_file_that_cannot_be_written_undoes_the_row(tmp_path: Path) -> None:
    table = open_table(tmp_path)
    table.path.mkdir()
    with pytest.raises(OutputError, match=r"table\.csv cannot be written"):
        table.add(row("a", 0))
    assert len(table) == 0
    table.path.rmdir()
    assert len(open_table(tmp_path)) == 0
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        open_table(tmp_path / "file").add(row("a", 0))
