"""The front door: help, start-up, exit codes, `info`, `data` and `demo`."""

import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import pspc_rs as pspc
from command_line import fail, invoke, names, random_data, succeed
from pspc_rs.cli import main
from pspc_rs.data import ImageSet
from pspc_rs.denoisers.masks import covering_masks


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics that commands keep between runs go to a folder of the test."""
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def test_help_of_every_command() -> None:
    assert {"denoise", "sample", "demo", "data", "info"} <= set(main.commands)
    for command in ([], ["denoise"], ["sample"], ["demo"], ["data"], ["data", "convert"], ["data", "info"], ["info"]):
        assert "Usage: pspc-rs" in succeed(*command, "--help")


def test_version() -> None:
    assert pspc.__version__ in succeed("--version")


def test_help_imports_neither_torch_nor_other_heavy_packages() -> None:
    code = """
import sys
from pspc_rs.cli import main
try:
    main(["sample", "--help"])
except SystemExit:
    pass
print(sorted({"torch", "PIL", "tqdm", "matplotlib", "sklearn", "scipy", "pooch", "platformdirs"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_unknown_commands_and_options_are_usage_errors() -> None:
    assert "No such command" in fail(2, "dream")
    assert "No such option" in fail(2, "info", "--colour")


def test_ctrl_c_anywhere_ends_with_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.commands["info"], "callback", interrupt)
    result = CliRunner().invoke(main, ["info"])
    assert result.exit_code == 130
    assert result.stderr.strip() == "Interrupted"


def test_info_tells_version_build_and_optional_packages() -> None:
    facts = json.loads(succeed("info", "--json"))
    assert facts["versions"]["pspc_rs"] == pspc.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["build"]["num_threads"] == pspc.num_threads()
    assert {"profile", "isa", "isa_available", "cuda"} <= facts["build"].keys()
    assert facts["extras"]["torch"]["version"] == facts["versions"]["torch"]
    text = succeed("info")
    assert facts["build"]["isa_available"] in text
    assert "matplotlib" in text
    rows = [line.split() for line in text.partition("optional dependencies\n")[2].splitlines()]
    assert [row[0] for row in rows] == [one["distribution"] for one in facts["extras"].values()]


def test_data_info_describes_a_data_set(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(96, dtype=np.uint8).reshape(2, 3, 4, 4), y=np.array([3, 1], np.int64))
    images = pspc.load(tmp_path / "a.npz")
    text = succeed("data", "info", tmp_path / "a.npz")
    assert images.fingerprint in text
    assert "[3, 4, 4]" in text
    assert "uint8" in text
    assert "1: 1, 3: 1" in text
    assert "none" in succeed("data", "info", random_data(tmp_path / "b.npy", 2, 1, 4, 4))
    assert "neither a path" in fail(1, "data", "info", tmp_path / "none")


def test_data_convert_writes_an_archive_with_the_chosen_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=images, y=np.array([0, 1, 2, 1, 1, 0]))
    printed = succeed("data", "convert", tmp_path / "a.npz", tmp_path / "b.zip", "--classes", "1", "--max_size", 2)
    assert "2 images of [3, 4, 4]" in printed
    assert zipfile.is_zipfile(tmp_path / "b.zip")
    converted = pspc.load(tmp_path / "b.zip")
    assert np.array_equal(converted.images, images[[1, 3]])
    assert converted.labels is not None
    assert converted.labels.tolist() == [1, 1]
    assert "comma list" in fail(2, "data", "convert", tmp_path / "a.npz", tmp_path / "c.zip", "--classes", "one")
    assert "classes are [7]" in fail(1, "data", "convert", tmp_path / "a.npz", tmp_path / "c.zip", "--classes", "7")
    assert not (tmp_path / "c.zip").exists()


def test_data_convert_takes_the_test_split(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x_train=x[:3], x_test=x[3:])
    succeed("data", "convert", tmp_path / "a.npz", tmp_path / "b.zip", "--split", "test")
    assert np.array_equal(pspc.load(tmp_path / "b.zip").images[:, 0], x[3:])


def test_the_quick_demo_draws_pictures_and_sums_up(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    printed = succeed("demo", "--quick", "--outdir", tmp_path / "demo")
    assert names(tmp_path / "demo") == ["digits.png", "digits_samples.png", "summary.json"]
    assert [Path(line).name for line in printed.splitlines()] == names(tmp_path / "demo")
    for name in ("digits.png", "digits_samples.png"):
        with Image.open(tmp_path / "demo" / name) as picture:
            assert min(picture.size) > 300
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    rows = json.loads((tmp_path / "demo" / "summary.json").read_text())["results"]["digits"]["denoised"]
    assert [row["sigma"] for row in rows] == [8.0, 3.0, 1.0, 0.5, 0.2, 0.06]
    for name in ("Empirical", "Gaussian", "PSPC-Square", "PSPC-Flex"):
        assert all(row[name]["microseconds_per_query_and_image"] > 0 for row in rows)
        assert rows[0][name]["mse"] < 64
    assert rows[-1]["PSPC-Square"]["mse"] < rows[-1]["Empirical"]["mse"]


def test_the_demo_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert 'pip install "pspc-rs[demo,plot]"' in fail(1, "demo", "--outdir", tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_masks_of_the_demo_cover_the_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 5, 6), dtype=np.uint8)
    images[:, :, 2, 3] = 17  # never varies
    schedule = pspc.ThresholdSchedule((1.0, 0.2), sigmas=(10.0, 0.3), image_size=(5, 6))
    maps = pspc.gaussian_heatmaps(pspc.Gaussian(ImageSet(images), cache=False), schedule)
    masks = covering_masks(maps[1], 0.2).reshape(30, 30)
    assert masks[15, 15]  # its map is 0
    assert masks.any(axis=0).all()
    assert (maps >= 0).all()


def test_errors_with_line_breaks_are_still_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def complain(**options: object) -> None:
        raise pspc.PspcError("first\n   second")

    monkeypatch.setattr(main.commands["info"], "callback", complain)
    assert invoke("info").stderr == "Error: first second\n"


def test_warnings_of_ours_are_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 9, 9, 3), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        lines = invoke("data", "info", tmp_path / "a.npy").stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Note: ")
    assert lines[0].endswith("False says [N, C, H, W]")
