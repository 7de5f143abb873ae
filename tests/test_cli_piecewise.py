"""`--denoiser piecewise` and `--parts`: numbers, records, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from command_line import fail, random_data, succeed

NETS = "def shrink(z, sigma):\n    return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)\n"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and the current folder, where a network's module lies, are the test's own."""
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    return random_data(tmp_path / "grey.npy", 40, 1, 8, 8)


def hybrid(data: pspc.ImageSet) -> pspc.Piecewise:
    def shrink(z: Any, sigma: Any) -> Any:
        return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    gaussian = pspc.Gaussian(data, variance_floor=0.01, cache=False)
    return pspc.Piecewise([(0.5, 5, pspc.PSPCSquare(data, patch_sizes=3)), (5, 80, gaussian), (None, 0.5, shrink)])


PARTS = ["--denoiser", "piecewise", "--parts", "nets:shrink=:0.5,pspc_sq=0.5:5,gaussian=5:80"]
OPTIONS = ["--patch-sizes", 3, "--variance-floor", 0.01, "--n-steps", 6, "--n-samples", 3]


def test_samples_are_those_of_the_library(tmp_path: Path, grey: Path) -> None:
    out = tmp_path / "out"
    succeed("sample", "--outdir", out, "--data", grey, *PARTS, *OPTIONS, "--sampler", "heun")
    expected = pspc.sample(hybrid(pspc.load(grey, xflip=True)), 3, num_steps=6)
    np.testing.assert_array_equal(np.load(out / "piecewise_samples.npy"), expected)
    record = json.loads((out / "piecewise_samples.json").read_text())
    parts = record["network"]["parts"]
    assert [one["denoiser"] for one in parts] == ["Network", "PSPCSquare", "Gaussian"]
    assert [(one["sigma_min"], one["sigma_max"]) for one in parts] == [(0, 0.5), (0.5, 5), (5, 80)]
    other = [*PARTS[:-1], PARTS[-1].replace("5:80", "6:80").replace("0.5:5", "0.5:6")]
    message = fail(1, "sample", "--outdir", out, "--data", grey, *other, *OPTIONS, "--sampler", "heun")
    assert "is there already, with" in message


def test_levels_are_denoised_by_their_part(tmp_path: Path, grey: Path) -> None:
    z = np.random.default_rng(0).standard_normal((6, 3, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "z.npy", z)
    D = hybrid(pspc.load(grey, xflip=True))
    for level in (0, 3, 5):
        words = ["--z", tmp_path / "z.npy", "--t-idx", level]
        succeed("denoise", "--outdir", tmp_path / "out", "--data", grey, *PARTS, *OPTIONS, *words)
        found = np.load(tmp_path / "out" / f"piecewise_outputs_t_{level:02d}_of_06.npy")
        np.testing.assert_array_equal(found, D(z[level], np.full(3, pspc.edm_sigmas(6)[level])))


def test_compare_takes_it_by_name(tmp_path: Path, grey: Path) -> None:
    words = ["--denoisers", "hybrid=piecewise,pspc_sq,gaussian", *PARTS[2:], *OPTIONS, "--process", "forward"]
    printed = succeed("compare", "--outdir", tmp_path / "out", "--data", grey, "--target", "nets:shrink", *words)
    errors, differences = printed.split("MSE less that of the best denoiser")
    rows = [line.split() for line in errors.splitlines() if line[:9].strip().replace(".", "").isdigit()]
    assert len(rows) == 6
    assert "best" in differences
    for sigma, gaussian, mixed, square in rows:  # by name
        assert mixed == (gaussian if float(sigma) >= 5 else square if float(sigma) >= 0.5 else "0")


@pytest.mark.parametrize(
    ("parts", "code", "message"),
    [
        (None, 2, "needs --parts"),
        ("pspc_sq", 2, "'pspc_sq' is not a part; write WHAT=LOW:HIGH"),
        ("pspc_sq=2", 2, "'pspc_sq=2' is not a part"),
        ("=1:2", 2, "'=1:2' is not a part"),
        ("pspc_sq=a:2", 2, "'pspc_sq=a:2' has ends that are no numbers"),
        ("nothing=1:2", 2, "'nothing' is not a denoiser"),
        ("piecewise=1:2", 2, "--parts holds piecewise"),
        ("pspc_flex=1:2", 2, "--denoiser pspc_flex needs --heatmaps"),
        ("pspc_sq=:1,gaussian=2:80", 1, "leave a gap"),
        ("pspc_sq=:3,gaussian=2:80", 1, "overlap"),
        ("pspc_sq=0.002:80,gaussian=80:", 0, ""),
        ("pspc_sq=:1,gaussian=1:70", 1, "sigma is 80; the parts of this Piecewise are for"),
    ],
)
def test_bad_parts(tmp_path: Path, grey: Path, parts: str | None, code: int, message: str) -> None:
    words = ["sample", "--outdir", tmp_path / "out", "--data", grey, "--denoiser", "piecewise", *OPTIONS]
    words += [] if parts is None else ["--parts", parts]
    if code:
        assert message in fail(code, *words)
    else:
        succeed(*words)


def test_options_that_parts_do_not_take(tmp_path: Path, grey: Path) -> None:
    words = ["sample", "--outdir", tmp_path / "out", "--data", grey, *PARTS, *OPTIONS]
    assert "--class is not for --denoiser piecewise" in fail(2, *words, "--class", 1)
    assert "--temperature is for" in fail(2, *words, "--temperature", 2)
