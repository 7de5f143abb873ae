"""Tables of results: the same bytes whatever the order, floats to the last bit, files that are no such table."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pspc_rs.errors import DataError, DTypeError, InvalidValueError
from pspc_rs.experiments.results import Kind, ResultTable, Row

COLUMNS: dict[str, Kind] = {"name": str, "level": int, "mse": float}
KEY = ("name", "level")


def table(path: Path) -> ResultTable:
    return ResultTable(path / "table.csv", COLUMNS, KEY)


texts = st.text(max_size=8).filter(str.isprintable)
floats = st.floats(allow_nan=False, allow_infinity=False)
some_rows = st.dictionaries(st.tuples(texts, st.integers(-5, 40)), floats, max_size=8)


@given(some_rows, st.randoms(use_true_random=False))
def test_rows_come_back_to_the_last_bit_and_their_order_plays_no_part(
    tmp_path_factory: pytest.TempPathFactory, values: dict[tuple[str, int], float], shuffler: object
) -> None:
    folder = tmp_path_factory.mktemp("table")
    rows: list[Row] = [{"name": name, "level": level, "mse": mse} for (name, level), mse in values.items()]
    first = table(folder)
    first.add(*rows)
    written = first.path.read_bytes()
    again = table(folder)
    assert list(again) == list(first) and len(again) == len(rows)
    first.path.unlink()
    shuffler.shuffle(rows)  # type: ignore[attr-defined]
    for row in rows:  # as a run does that is killed after every row
        table(folder).add(row)
    if rows:
        assert first.path.read_bytes() == written
    assert all(key in again for key in values) and ("absent", 99) not in again


def test_a_row_takes_the_place_of_one_with_its_key(tmp_path: Path) -> None:
    one = table(tmp_path)
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
    ],
)
def test_bad_rows_are_refused_and_the_file_stays(tmp_path: Path, row: Row, error: type[Exception]) -> None:
    one = table(tmp_path)
    one.add({"name": "a", "level": 1, "mse": 2.0})
    with pytest.raises(error):
        one.add(row)
    assert one.path.read_text() == "name,level,mse\na,1,2.0\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"name,mse\na,1\n", "has the columns name, mse; needed are name, level, mse"),
        (b"name,level,mse\na,1\n", "line 2, is no row"),
        (b"name,level,mse\na,1,0.5\nb,x,0.5\n", "line 3, is no row"),
        (b"name,level,mse\na,1,nan\n", "line 2, is no row"),
        (b'name,level,mse\n"a,1,0.5\n', "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_files_that_are_no_such_table_are_refused_and_left_alone(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        table(tmp_path)
    assert (tmp_path / "table.csv").read_bytes() == content
