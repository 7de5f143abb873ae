"""Records: complete, of JSON types, and true."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pspc_rs import _core
from pspc_rs.data import ImageSet
from pspc_rs.errors import DTypeError
from pspc_rs.provenance import Clock, installed_version, peak_memory, plain, provenance, save_record
from pspc_rs.schedules import PatchSchedule


def test_a_record_says_what_came_from_what(tmp_path: Path) -> None:
    data = ImageSet(np.zeros((3, 1, 4, 6), np.uint8), xflip=True, name="blank")
    output = tmp_path / "out.npy"
    output.write_bytes(b"numbers")
    record = provenance(
        "denoise",
        {"seed": 3, "data": Path("blank.zip")},
        data=data,
        output=output,
        clock=Clock(),
        sigma=np.float32(0.5),
    )
    assert json.loads(json.dumps(record)) == record
    assert record["command"] == "denoise"
    assert record["options"] == {"seed": 3, "data": "blank.zip"}
    assert record["sigma"] == 0.5
    assert record["data"]["fingerprint"] == data.fingerprint
    assert (record["data"]["num_stored"], record["data"]["num_images"]) == (3, 6)
    assert record["data"]["shape"] == [1, 4, 6]
    assert record["output"] == {"file": "out.npy", "sha256": hashlib.sha256(b"numbers").hexdigest()}
    assert record["build"] == {**dict(_core.build_info()), "num_threads": _core.num_threads()}
    assert record["versions"]["numpy"] == np.__version__
    assert record["started"].endswith("+00:00")
    assert record["wall_seconds"] >= 0


def test_a_distribution_that_is_not_there_has_no_version() -> None:
    assert installed_version("no-such-distribution-of-ours") is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no resource module")
def test_peak_memory_is_in_bytes() -> None:
    peak = peak_memory()
    assert peak is not None
    assert 10e6 < peak < 1e13


def test_schedules_are_recorded_by_their_fields() -> None:
    schedule = PatchSchedule((4, 3), sigmas=(1.0, 0.1), image_size=(4, 4), provenance={"by": "hand"})
    recorded = plain(schedule)
    assert recorded["patch_sizes"] == ["full", 3]
    assert recorded["sigmas"] == [1.0, 0.1]
    assert recorded["provenance"] == {"by": "hand"}


def test_what_json_has_no_number_for_becomes_a_word() -> None:
    assert plain([float("inf"), np.float32("-inf"), float("nan")]) == ["inf", "-inf", "nan"]


def test_what_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(DTypeError, match="a set cannot be recorded"):
        plain({"classes": {1, 2}})


def test_records_are_written_whole(tmp_path: Path) -> None:
    save_record(tmp_path / "new" / "a.json", {"seed": 1})
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"seed": 1}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
