"""The cost model, the measurement of the rate, and `pspc-rs plan`."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from command_line import fail, random_data, succeed
from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.experiments import Workload, level_cost, planning
from pspc_rs.experiments import plan as plan_of

COUNTS = st.integers(1, 10**7)


def test_the_traffic_of_imagenet_64_at_side_7() -> None:
    work = Workload(1_281_167, 1, (3, 64, 64), 1, queries=64, ranks=2)
    cost = level_cost(work, 1.0, components=58 * 58, seconds_per_pair=1e-6)
    assert cost.evidence_bytes == 64 * 3364 * 8 and round(cost.evidence_bytes / 1e6, 1) == 1.7
    assert cost.sum_bytes == 64 * 12288 * 8 and round(cost.sum_bytes / 1e6, 1) == 6.3
    assert work.images_per_rank == 640_584 and work.image_bytes == 640_584 * 12288
    assert cost.seconds == pytest.approx(640_584 * 64 * 1e-6)


@given(
    images=COUNTS,
    views=st.integers(1, 8),
    queries=st.integers(1, 4096),
    ranks=st.integers(1, 64),
    rate=st.floats(1e-9, 1e-3),
)
def test_the_model_is_linear(images: int, views: int, queries: int, ranks: int, rate: float) -> None:
    def cost(**changes: int) -> planning.LevelCost:
        given = {"images": images, "views": views, "queries": queries, "ranks": ranks} | changes
        return level_cost(Workload(**given, shape=(3, 8, 8), itemsize=1), 1.0, 36, rate)

    assert cost(images=3 * images * ranks).seconds == pytest.approx(3 * cost(images=images * ranks).seconds)
    assert cost(queries=2 * queries).seconds == pytest.approx(2 * cost().seconds)
    assert cost(views=2 * views).seconds == pytest.approx(2 * cost().seconds)
    whole = cost(ranks=1)
    # The rank that has most has at most one image more than its share.
    assert whole.seconds / ranks <= cost().seconds * (1 + 1e-12)
    assert cost().seconds <= whole.seconds / ranks + rate * views * queries * (1 + 1e-12)
    assert whole.evidence_bytes == whole.sum_bytes == 0
    assert cost(ranks=2).evidence_bytes == 8 * queries * 36 and cost(ranks=2).sum_bytes == 8 * queries * 192
    assert cost().memory_bytes == queries * (16 * 36 + 8 * 192 + 8 * 192)


DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (5000, 1, 8, 8), dtype=np.uint8), xflip=True)


@pytest.mark.parametrize(("seconds", "sample"), [(1e-3, 512), (0.15, 2048), (10, 5000)])
def test_the_rate_is_that_of_a_sample_that_fills_the_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, sample: int
) -> None:
    clock = [0.0]

    class Model(pspc.PSPCSquare):
        def __call__(self, z: Any, sigma: Any, *further: Any, **options: Any) -> Any:
            clock[0] += 2e-7 * len(self.data) * len(z)
            return z

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    found = plan_of(lambda part: Model(part, patch_sizes=3), DATA, [1.0, 0.5], queries=100, ranks=3, seconds=seconds)
    assert found.sample_images == sample
    for level in found.levels:
        assert level.components == 36
        assert level.seconds_per_pair == pytest.approx(2e-7)
        assert level.seconds == pytest.approx(2e-7 * 2 * math.ceil(5000 / 3) * 100)
    assert found.seconds == pytest.approx(sum(level.seconds for level in found.levels))


@pytest.mark.parametrize(
    ("build", "components"),
    [
        (pspc.Empirical, 1),
        (lambda part: pspc.PSPCSquare(part, patch_sizes=5), 16),
        (lambda part: pspc.denoisers.LS(part, window_sizes=5), 64),
        (lambda part: pspc.denoisers.SoftPSPC(part, 2.0), 64),
    ],
)
def test_components_of_every_kind(build: Any, components: int) -> None:
    small = DATA.subset(slice(40))
    level = plan_of(build, small, [1.0], queries=2, ranks=2, seconds=0.001).levels[0]
    assert level.components == components and level.evidence_bytes == 8 * 2 * components
    assert level.seconds > 0


def test_what_a_plan_refuses() -> None:
    build = pspc.Empirical
    for options in ({"queries": 0}, {"ranks": 0}, {"seconds": 0}, {"sigmas": [0.0]}, {"sigmas": [float("nan")]}):
        given: dict[str, Any] = {"sigmas": [1.0], "queries": 1, **options}
        with pytest.raises(InvalidValueError, match=next(iter(options)).removesuffix("s")):
            plan_of(build, DATA, **given)
    with pytest.raises(DTypeError, match="queries"):
        plan_of(build, DATA, [1.0], queries=1.5)  # type: ignore[arg-type]


def test_the_command_prints_the_plan(tmp_path: Path) -> None:
    data = random_data(tmp_path / "a.npy", 60, 1, 8, 8)
    words = ["plan", "--data", data, "--denoiser", "pspc_sq", "--patch-sizes", 3, "--queries", 70, "--seconds", 0.01]
    text = succeed(*words, "--sigma", "0.5,2", "--ranks", 4)
    assert "60 images of [1, 8, 8], each seen 2 times" in text
    assert "70 queries, 2 passes over the images, 4 processes with 15 images each" in text
    rows = [line.split() for line in text.splitlines() if line.strip().startswith(("0.5 ", "2 "))]
    assert [row[:2] for row in rows] == [["0.5", "36"], ["2", "36"]]
    assert all(row[-4:] == ["20.2", "kB", "35.8", "kB"] for row in rows)
    found = json.loads(succeed(*words, "--json", "--n-steps", 3, "--no-xflip"))
    assert [round(level["sigma"], 3) for level in found["levels"]] == [80, 2.515, 0.002]
    assert found["work"] == {"images": 60, "views": 1, "shape": [1, 8, 8], "itemsize": 1, "queries": 70, "ranks": 1}
    assert found["seconds"] == pytest.approx(sum(level["seconds"] for level in found["levels"]))
    assert found["levels"][0]["sum_bytes"] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy"]


def test_what_the_command_refuses(tmp_path: Path) -> None:
    data = random_data(tmp_path / "a.npy", 6, 1, 8, 8)
    assert "gaussian" in fail(2, "plan", "--data", data, "--denoiser", "gaussian", "--queries", 1)
    assert "queries" in fail(2, "plan", "--data", data)
    assert "comma list of noise levels" in fail(2, "plan", "--data", data, "--queries", 1, "--sigma", "x")
    assert "each sigma is 0" in fail(1, "plan", "--data", data, "--queries", 1, "--sigma", "0")
