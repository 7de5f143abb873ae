"""Metrics of samples from the same noise: the numbers, the table, the figure and the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import pspc_rs as pspc
from command_line import fail, names, normals, random_data, succeed
from pspc_rs import errors
from pspc_rs.experiments import (
    METRICS,
    copy_ratio,
    copy_share,
    flow_distance,
    nearest_images,
    r2,
    sample_metrics,
    sample_metrics_figure,
)

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (40, 1, 6, 6), dtype=np.uint8), xflip=True)
SAMPLES = {"net": normals(6, 1, 6, 6), "near": normals(6, 1, 6, 6) + 0.1 * normals(6, 1, 6, 6, seed=2)}
SAMPLES["copies"] = DATA.batch(np.arange(6))


def test_values_are_those_of_the_metrics() -> None:
    found = sample_metrics(SAMPLES, "net", DATA)
    for name in ("near", "copies"):
        for metric, one in METRICS.items():
            assert found.values[metric][name] == one.compute(SAMPLES[name], SAMPLES["net"])
        assert found.values["flow_distance"][name] == flow_distance(SAMPLES[name], SAMPLES["net"])
    for name, images in SAMPLES.items():
        near = nearest_images(DATA, images)
        assert found.values["copy_ratio"][name] == copy_ratio(near)
        assert found.values["copy_share"][name] == copy_share(near)
    assert found.values["copy_share"]["copies"] == (1.0, 0.0)
    assert "copy_ratio" not in sample_metrics(SAMPLES, "net").values
    assert "near, copies; 6 samples" in repr(sample_metrics(SAMPLES, "net"))


def test_clipped_samples_give_the_final_r2() -> None:
    found = sample_metrics(SAMPLES, "net", clip=True)
    a, b = (SAMPLES[name].clip(-1, 1) for name in ("near", "net"))
    expected = np.mean([1 - np.square(x - y).sum() / np.square(y - y.mean()).sum() for x, y in zip(a, b, strict=True)])
    assert found.values["image_r2"]["near"].mean == pytest.approx(expected, rel=1e-6)
    assert found.values["image_r2"]["near"] == r2(a, b, ddof=0)


def test_the_figure_names_every_metric() -> None:
    found = sample_metrics(SAMPLES, "net", DATA)
    titles = [axis.get_title() for axis in sample_metrics_figure(found).axes if axis.get_visible()]
    assert titles == list(dict.fromkeys(found.table()["title"])) and len(titles) == len(METRICS) + 3


def test_the_command_writes_table_and_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random_data(tmp_path / "data.npy", 40, 1, 6, 6)
    for name, images in SAMPLES.items():
        np.save(f"{name}_samples.npy", images)
    given = [word for name in SAMPLES for word in ("--samples", f"{name}_samples.npy")]
    text = succeed("figure", "metrics", *given, "--data", "data.npy", "--outdir", "run", "--reference", "near")
    assert "probability flow distance" in text and "Pearson's r" in text
    stem = [f"sample_metrics.{suffix}" for suffix in ("csv", "npz", "pdf", "png")]
    assert names(tmp_path / "run") == [*stem, "sample_metrics_run.json"]
    with Path("run/sample_metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["metric"] for row in rows} == {*METRICS, "flow_distance", "copy_ratio", "copy_share"}
    assert {row["reference"] for row in rows} == {"near"} and {row["n"] for row in rows} == {"6"}
    own = next(row for row in rows if (row["samples"], row["metric"]) == ("net", "r2"))
    assert float(own["value"]) == pytest.approx(r2(SAMPLES["net"], SAMPLES["near"]).mean, rel=1e-6)
    record = json.loads(Path("run/sample_metrics_run.json").read_text())
    assert record["options"]["reference"] == "near" and record["data"]["num_stored"] == 40
    assert "reference is 'far'; allowed are net, near, copies" in fail(
        1, "figure", "metrics", *given, "--outdir", "run", "--reference", "far"
    )


def test_samples_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(errors.ShapeError, match="needed is one shape"):
        sample_metrics({"a": SAMPLES["net"], "b": SAMPLES["net"][:3]}, "a")
    with pytest.raises(errors.InvalidValueError, match="reference is 'c'; allowed are a"):
        sample_metrics({"a": SAMPLES["net"]}, "c")
    with pytest.raises(errors.InvalidValueError, match="a are the only samples; give others, or the training images"):
        sample_metrics({"a": SAMPLES["net"]}, "a")
    assert list(sample_metrics({"a": SAMPLES["net"]}, "a", DATA).values["copy_share"]) == ["a"]
