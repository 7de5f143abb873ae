"""The public table's command, on made-up images and numbers: what it computes, keeps, compares and refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from public_cells import Cell, Scored
from public_members import MEMBERS
from public_numbers import PublishedLevel, chosen_levels, read_published
from public_report import agree, draw_distances, rows_of
from public_table import main

import pspc_rs as pspc
from pspc_rs.errors import DataError, InvalidValueError
from pspc_rs.experiments.metrics import MeanError, mean_squared_error

COLUMNS = (
    "sigma_pixel01,gaussian_mse,gaussian_se,ls_mse,ls_se,ls_k,pca_locality_mse,pca_locality_se,pca_locality_tau,"
    "global_heldout_mse,global_heldout_se,n_test"
)
CSV = f"{COLUMNS}\n0.05,1,0.1,2,0.1,3,2,0.1,0.3,4,0.2,6\n0.5,9,0.3,9,0.3,5,9,0.3,0.1,9,0.3,6\n"


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of the command: 30 images of which 20 are the pool, 6 test images and two levels."""
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    np.save(tmp_path / "data.npy", rng.integers(0, 256, (30, 3, 6, 6), dtype=np.uint8))
    np.save(tmp_path / "test.npy", rng.integers(0, 256, (6, 3, 6, 6), dtype=np.uint8))
    (tmp_path / "numbers.csv").write_text(CSV)
    files = {"--data": "data.npy", "--test": "test.npy", "--published": "numbers.csv", "--out": "out"}
    options = {"--pool": 20, "--fit-pool": 20, "--fit-images": 4, "--els-images": 2, "--els-levels": 0.5}
    paths = [text for name, file in files.items() for text in (name, str(tmp_path / file))]
    return paths + [str(text) for pair in options.items() for text in pair]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "public_table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_members_make_a_table_and_a_figure(tmp_path: Path, inputs: list[str]) -> None:
    main(inputs)
    rows = table(tmp_path)
    assert [(row["member"], row["sigma_pixel01"]) for row in rows] == [
        (name, sigma) for name in MEMBERS for sigma in ("0.05", "0.5") if (name, sigma) != ("els", "0.05")
    ]
    assert {row["member"]: row["images"] for row in rows} == {name: "2" if name == "els" else "6" for name in MEMBERS}
    assert [row["setting"] for row in rows if row["member"] in ("ls", "els")] == ["3.0", "5.0", "5.0"]
    text = (tmp_path / "out" / "public_table.md").read_text()
    assert "| sigma | Gaussian | LS | PCA-locality | empirical | PSPC-Square | PSPC-Flex | soft windows | ELS |" in text
    assert (tmp_path / "out" / "public_table.png").exists() and (tmp_path / "out" / "public_table.pdf").exists()
    record = json.loads((tmp_path / "out" / "public_table.json").read_text())
    assert record["data"]["num_stored"] == 20 and record["test"]["num_stored"] == 6


def test_errors_are_those_of_the_library(tmp_path: Path, inputs: list[str]) -> None:
    main([*inputs, "--members", "gaussian,ls", "--levels", "0.5", "--seeds", "3"])
    pool, tests = pspc.load(tmp_path / "data.npy", max_size=20), Scored(pspc.load(tmp_path / "test.npy"))
    z = tests.noisy(1.0, 3)
    denoised = {
        name: np.asarray(D(z, 1.0))
        for name, D in {"gaussian": pspc.Gaussian(pool), "ls": pspc.LS(pool, window_sizes=5)}.items()
    }
    for row in table(tmp_path):
        expected = mean_squared_error(denoised[row["member"]], tests.clean, pixels="[0, 1]", per="image")
        np.testing.assert_allclose(float(row["error"]), expected.mean, rtol=1e-5)
        np.testing.assert_allclose(float(row["standard_error"]), expected.standard_error, rtol=1e-5)
    with np.load(tmp_path / "out" / "public_table.npz") as errors:
        paired = errors["ls_0.5_3"] - errors["gaussian_0.5_3"]
    np.testing.assert_allclose(float(table(tmp_path)[1]["less_gaussian"]), paired.mean(), rtol=1e-12)
    np.testing.assert_allclose(
        float(table(tmp_path)[1]["less_gaussian_error"]), paired.std(ddof=1) / np.sqrt(6), rtol=1e-12
    )


def test_settings_are_those_of_least_error_on_held_out_images(tmp_path: Path, inputs: list[str]) -> None:
    main([*inputs, "--members", "pspc_sq", "--levels", "0.5", "--pool", "all"])
    data = pspc.load(tmp_path / "data.npy")
    held_out = Scored(data.subset(slice(20, 24)))
    z = held_out.noisy(1.0, 1_000_000)
    fitted = {
        side: mean_squared_error(pspc.PSPCSquare(data.subset(slice(20)), patch_sizes=side)(z, 1.0), held_out.clean).mean
        for side in (1, 3, 5, 6)
    }
    assert float(table(tmp_path)[0]["setting"]) == min(fitted, key=lambda side: fitted[side])
    assert json.loads((tmp_path / "out" / "public_table.json").read_text())["data"]["num_stored"] == 30


def test_what_is_finished_is_not_computed_again(
    tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    build = pspc.Empirical.__call__

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        asked.append("empirical")
        return build(self, *args, **options)

    monkeypatch.setattr(pspc.Empirical, "__call__", counted)
    main([*inputs, "--members", "empirical", "--levels", "0.05"])
    assert "empirical, sigma 0.05, seed 0: " in capsys.readouterr().out and len(asked) == 1
    first = table(tmp_path)
    main([*inputs, "--members", "empirical"])
    assert len(asked) == 2 and table(tmp_path)[:1] == first
    main([*inputs, "--members", "empirical", "--seeds", "0,1"])
    assert len(asked) == 4
    main([*inputs, "--members", "empirical", "--images", "5"])
    assert len(asked) == 6


def test_the_same_images_get_the_same_noise_however_many_there_are() -> None:
    data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), dtype=np.uint8))
    few, all_of_them = Scored(data.subset(slice(2))), Scored(data)
    assert np.array_equal(few.noisy(0.3, 1), all_of_them.noisy(0.3, 1)[:2])
    assert not np.array_equal(few.noisy(0.3, 1), few.noisy(0.3, 2))


def test_means_agree_within_two_standard_errors_of_their_difference() -> None:
    published = MeanError(10.0, 0.3)
    assert agree(MeanError(10.99, 0.4), published) and not agree(MeanError(11.01, 0.4), published)
    assert agree(MeanError(9.01, 0.4), published) and not agree(MeanError(8.99, 0.4), published)


def test_the_column_says_whether_they_agree() -> None:
    level = PublishedLevel(0.05, dict.fromkeys(("gaussian", "global_heldout"), MeanError(2.0, 0.1)), {}, 3)
    cells = [
        Cell("gaussian", 0.05, 0, None, np.array([1.9, 2.0, 2.1]), 1.0),
        Cell("empirical", 0.05, 0, None, np.array([3.9, 4.0, 4.1]), 1.0),
        Cell("pspc_sq", 0.05, 0, 3.0, np.array([1.4, 1.6]), 1.0),
    ]
    rows = [row.columns for row in rows_of(cells, [level])]
    assert [row["agrees"] for row in rows] == ["yes", "no", ""]
    assert [row["published"] for row in rows] == [2.0, 2.0, ""]
    np.testing.assert_allclose(rows[2]["less_gaussian"], -0.45)  # paired with the first two images


def test_draws_are_told_apart_by_the_noise_alone() -> None:
    level = PublishedLevel(0.05, {"gaussian": MeanError(100.0, 50.0)}, {}, 2)
    cells = [Cell("gaussian", 0.05, seed, None, np.array([51.0 + seed, 149.0 - seed]), 1.0) for seed in (0, 2)]
    # Each image varies by 2 over draws, and the mean over two draws is less certain than one draw by 1.5.
    assert draw_distances(cells, [level]) == {("gaussian", 0.05): 0.0}
    moved = [cell._replace(errors=cell.errors + 3) for cell in cells]
    np.testing.assert_allclose(draw_distances(moved, [level])["gaussian", 0.05], 3 / np.sqrt(2 * 1.5 / 2), rtol=1e-3)
    same = [cell._replace(errors=np.array([50.0, 150.00001])) for cell in cells]  # differs by float32's rounding
    assert abs(draw_distances(same, [level])["gaussian", 0.05]) < 0.1
    assert draw_distances(cells[:1], [level]) == {}


def test_published_numbers_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text(CSV)
    levels = read_published(path)
    assert [level.sigma01 for level in levels] == [0.05, 0.5]
    assert levels[0].errors["ls"] == (2.0, 0.1) and levels[0].settings == {"ls_k": 3.0, "pca_locality_tau": 0.3}
    assert chosen_levels(levels, [0.5]) == levels[1:]
    with pytest.raises(InvalidValueError, match=r"levels are 0\.4; allowed are 0\.05, 0\.5"):
        chosen_levels(levels, [0.4, 0.5])
    path.write_text(CSV.replace("ls_k", "k"))
    with pytest.raises(DataError, match="lacks the columns ls_k; needed are sigma_pixel01"):
        read_published(path)
    path.write_text(f"{COLUMNS}\n")
    with pytest.raises(DataError, match="lacks rows"):
        read_published(path)
    path.write_text(CSV.replace("0.5,9", "0.5,many"))
    with pytest.raises(DataError, match="line 3: gaussian_mse is 'many'; allowed are numbers from 0"):
        read_published(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_published(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pool", "31"], "images 0 to 31 are needed"),
        (["--fit-images", "11"], "images 20 to 31 are needed"),
        (["--images", "7"], "images 0 to 7 are needed"),
        (["--levels", "0.1"], r"levels are 0\.1; allowed are 0\.05, 0\.5"),
        (["--levels", "0.05", "--members", "els"], r"levels of ELS are \[0\.5\]; none is among \[0\.05\]"),
    ],
)
def test_bad_requests_end_with_a_message(options: list[str], message: str, inputs: list[str]) -> None:
    with pytest.raises(SystemExit, match=message):
        main([*inputs, *options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--members", "gauss"], "allowed are gaussian, ls"),
        (["--pool", "0"], "allowed are integers from 1"),
        (["--seeds", "a"], "is not a comma list"),
    ],
)
def test_bad_options_are_named(
    options: list[str], message: str, inputs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*inputs, *options])
    assert message in capsys.readouterr().err


def test_a_damaged_cell_is_named(tmp_path: Path, inputs: list[str]) -> None:
    chosen = [*inputs, "--members", "empirical", "--levels", "0.5"]
    main(chosen)
    (kept,) = (tmp_path / "out" / "cells").iterdir()
    kept.write_bytes(b"PK")
    with pytest.raises(SystemExit, match=r"empirical_0\.5_0_.*cannot be read"):
        main(chosen)


def test_test_images_have_the_shape_of_the_data(tmp_path: Path, inputs: list[str]) -> None:
    np.save(tmp_path / "test.npy", np.zeros((6, 1, 6, 6), np.uint8))
    with pytest.raises(
        SystemExit, match=r"test images have shape \[1, 6, 6\]; needed is that of the data, \[3, 6, 6\]"
    ):
        main(inputs)
