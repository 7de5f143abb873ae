"""The cache of the Gaussian denoiser: used when it can be, never needed, never trusted blindly."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from bad_files import random_images
from pspc_rs.denoisers import gaussian
from pspc_rs.errors import PspcWarning

DATA = pspc.ImageSet(random_images(20, 1, 4, 4))
Z = np.random.default_rng(0).normal(size=(2, 1, 4, 4))


@pytest.fixture
def expected() -> Any:
    return pspc.Gaussian(DATA, cache=False)(Z, 0.5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(gaussian, "_warned", [])
    return tmp_path / "cache" / "gaussian"


def test_statistics_are_computed_once(expected: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_array_equal(pspc.Gaussian(DATA)(Z, 0.5), expected)
    assert [path.name for path in cache.iterdir()] == [f"{DATA.fingerprint}.npz"]
    monkeypatch.setattr(gaussian, "principal_axes", None)
    np.testing.assert_array_equal(pspc.Gaussian(DATA)(Z, 0.5), expected)


def test_a_cache_that_cannot_be_written_is_told_once(
    expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(PspcWarning, match=r"not kept for the next time: .*cache=False"):
        first = pspc.Gaussian(DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = pspc.Gaussian(DATA)
    for denoiser in (first, second):
        np.testing.assert_array_equal(denoiser(Z, 0.5), expected)


def test_an_unknown_home_needs_no_cache(expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSPC_CACHE_DIR", "~nobody-of-this-name/cache")
    with pytest.warns(PspcWarning, match="no such home folder"):
        denoiser = pspc.Gaussian(DATA)
    np.testing.assert_array_equal(denoiser(Z, 0.5), expected)


def damaged(kind: str, path: Path) -> None:
    with np.load(path) as stored:
        arrays = dict(stored)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "no archive":
        path.write_bytes(b"\x80\x04.")
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        arrays |= {
            "other data": {"mean": arrays["mean"][:-1]},
            "fewer axes": {"axes": arrays["axes"][:, :-1]},
            "NaN": {"mean": arrays["mean"] * np.nan},
            "single": {"axes": arrays["axes"].astype(np.float32)},
            "no numbers": {"variances": np.array(["a"])},
        }[kind]
        np.savez(path, **arrays)


KINDS = ["truncated", "no archive", "empty", "other data", "fewer axes", "NaN", "single", "no numbers"]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_statistics_are_computed_again(expected: Any, cache: Path, kind: str) -> None:
    pspc.Gaussian(DATA)
    path = cache / f"{DATA.fingerprint}.npz"
    whole = path.read_bytes()
    damaged(kind, path)
    np.testing.assert_array_equal(pspc.Gaussian(DATA)(Z, 0.5), expected)
    assert path.stat().st_size == len(whole)
