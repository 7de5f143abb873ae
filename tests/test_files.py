"""Atomic writing."""

from pathlib import Path

import pytest

from pspc_rs.errors import OutputError
from pspc_rs.files import replacing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.bin"
    with replacing(target) as temporary:
        temporary.write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert [path.name for path in target.parent.iterdir()] == ["a.bin"]
    assert target.read_bytes() == b"old"


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"), replacing(tmp_path / "file" / "a.bin") as temporary:
        temporary.write_bytes(b"x")
