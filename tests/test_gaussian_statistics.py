"""Mean and principal axes of a data set: those of the definition whatever the images are, the same bits every time."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import pspc_rs as pspc
from pspc_rs import _core
from pspc_rs.denoisers.covariance import principal_axes
from pspc_rs.errors import ShapeError

Float64 = NDArray[np.float64]

shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5))


def data_of(
    shape: tuple[int, int, int], n: int, seed: int, *, xflip: bool, as_bytes: bool, prior: bool
) -> pspc.ImageSet:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    # A pixel that does not vary, whose variance is exactly 0.
    images[:, 0, 0, 0] = 255
    log_prior = rng.standard_normal(n) if prior else None
    return pspc.ImageSet(images if as_bytes else images / np.float32(50), xflip=xflip, log_prior=log_prior)


def covariance(data: pspc.ImageSet) -> tuple[Float64, Float64]:
    stored = data.images / 127.5 - 1 if data.images.dtype == np.uint8 else data.images.astype(np.float64)
    rows = np.concatenate([stored, stored[..., ::-1]] if data.xflip else [stored]).reshape(len(data), -1)
    weights = np.ones(len(data)) if data.log_prior is None else np.tile(np.exp(data.log_prior), 1 + data.xflip)
    weights /= weights.sum()
    mean = weights @ rows
    return mean, (rows - mean).T @ (weights[:, None] * (rows - mean))


@given(shapes, st.sampled_from([1, 7, 60, 130]), st.integers(0, 999), st.booleans(), st.booleans(), st.booleans())
def test_axes_are_those_of_the_covariance(
    shape: tuple[int, int, int], n: int, seed: int, xflip: bool, as_bytes: bool, prior: bool
) -> None:
    data = data_of(shape, n, seed, xflip=xflip, as_bytes=as_bytes, prior=prior)
    found, (mean, exact) = principal_axes(data), covariance(data)
    np.testing.assert_allclose(found.mean, mean, rtol=0, atol=1e-12)
    rank = len(found.variances)
    np.testing.assert_allclose(found.axes.T @ found.axes, np.eye(rank), rtol=0, atol=1e-10)
    np.testing.assert_allclose((found.axes * found.variances) @ found.axes.T, exact, rtol=0, atol=1e-12)
    assert (np.diff(found.variances) <= 0).all()
    assert (found.variances >= 0).all()


def test_axes_of_flips_are_symmetric_or_antisymmetric() -> None:
    data = data_of((2, 3, 5), 200, 0, xflip=True, as_bytes=True, prior=False)
    found = principal_axes(data)
    flipped = found.axes.reshape(*data.shape, -1)[:, :, ::-1].reshape(found.axes.shape)
    signs = (flipped * found.axes).sum(axis=0)
    np.testing.assert_allclose(np.abs(signs), 1, rtol=0, atol=1e-10)
    assert {-1, 1} == set(signs.round())


def test_pixels_that_do_not_vary_have_the_variance_zero() -> None:
    images = np.full((100, 1, 2, 3), 201, np.uint8)
    images[:, 0, 1, 1] = np.arange(100)
    for xflip in (False, True):
        found = principal_axes(pspc.ImageSet(images, xflip=xflip))
        assert found.variances.shape == (1,)
        np.testing.assert_allclose(found.variances, np.arange(100).var() / 127.5**2, rtol=1e-12)


def test_bits_depend_on_neither_the_instruction_set_nor_the_threads() -> None:
    code = (
        "import hashlib, numpy as np; from pspc_rs import _core; rng = np.random.default_rng(0);"
        "images = rng.integers(0, 256, (9001, 1, 13, 11), dtype=np.uint8);"
        "left, right = (rng.integers(0, 143, 150).astype(np.uint32) for _ in range(2));"
        "found = [_core.covariance_of_bytes(images, left, right, kind) for kind in (False, True)];"
        "print(hashlib.sha256(b''.join(one.tobytes() for both in found for one in both)).hexdigest())"
    )
    available = dict(_core.build_info())["isa_available"].split(", ")
    choices = [*(({"PSPC_ISA": isa}) for isa in available), {"PSPC_NUM_THREADS": "1"}, {"PSPC_NUM_THREADS": "3"}]
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, **choice}, capture_output=True, text=True, check=True
        )
        for choice in choices
    ]
    assert len({one.stdout for one in runs}) == 1


def test_progress_may_stop_it_and_positions_are_checked() -> None:
    images, pixel = np.zeros((9000, 1, 1, 2), np.uint8), np.array([1], np.uint32)

    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == 9000
        if done:
            raise StoppedError

    with pytest.raises(StoppedError):
        _core.covariance_of_bytes(images, pixel, pixel, False, stop)
    with pytest.raises(ShapeError, match="positions below 2"):
        _core.covariance_of_bytes(images, pixel, pixel + 1, False)
