"""Closed-form heat maps of the Gaussian denoiser."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.heatmaps import own_pixel_first

RNG = np.random.default_rng(0)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5), st.booleans(), st.integers(0, 10**6))
def test_maps_are_the_derivative_of_the_denoiser(c: int, h: int, w: int, xflip: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = pspc.ImageSet(rng.integers(0, 256, (30, c, h, w), dtype=np.uint8), xflip=xflip)
    G = pspc.Gaussian(data, cache=False)
    maps = pspc.gaussian_heatmaps(G, [2.0, 0.1], raw=True)
    for level, sigma in enumerate((2.0, 0.1)):
        # The denoiser is affine: its values at unit vectors, less the one at 0, are the columns of its matrix.
        units = np.eye(c * h * w).reshape(-1, c, h, w)
        columns = G(units, sigma) - G(np.zeros_like(units), sigma)
        expected = np.zeros((h, w, h, w))
        for channel in range(c):
            block = columns.reshape(c, h, w, c, h, w)[channel, :, :, channel]
            expected += np.abs(block).transpose(2, 3, 0, 1)
        np.testing.assert_allclose(maps[level], expected, rtol=0, atol=1e-6)


def test_a_schedule_leaves_out_what_it_does_not_need() -> None:
    data = pspc.ImageSet(RNG.integers(0, 256, (30, 1, 4, 5), dtype=np.uint8))
    G = pspc.Gaussian(data, cache=False)
    schedule = pspc.ThresholdSchedule((1.0, 0.5), sigmas=(3.0, 0.3), image_size=(4, 5))
    maps = pspc.gaussian_heatmaps(G, schedule)
    assert not maps[0].any()
    np.testing.assert_array_equal(maps, [np.zeros_like(maps[0]), pspc.gaussian_heatmaps(G, [3.0, 0.3, 0.0])[1]])


def test_every_pixel_is_covered_even_where_nothing_varies() -> None:
    images = RNG.integers(0, 256, (30, 1, 6, 6), dtype=np.uint8)
    images[:, :, :2] = 0
    images[:, :, 2] //= 200  # hardly varies, and much less than its neighbours
    data = pspc.ImageSet(images)
    maps = pspc.gaussian_heatmaps(pspc.Gaussian(data, cache=False), [0.5])
    F = pspc.PSPCFlex(data, heatmaps=maps, thresholds=[0.01], sigmas=[0.5])
    assert np.isfinite(F(np.zeros((1, 1, 6, 6)), 0.5)).all()


def test_own_pixels_are_raised_only_where_another_is_larger_or_equal() -> None:
    maps = RNG.random((2, 3, 2, 3, 2)).astype(np.float32)
    first = own_pixel_first(maps).reshape(2, 6, 6)
    own = np.eye(6, dtype=bool)
    for before, after in zip(maps.reshape(2, 6, 6), first, strict=True):
        np.testing.assert_array_equal(before[~own], after[~own])
        assert (after.argmax(axis=1) == np.arange(6)).all()
        assert ((after == before)[own] == (before.argmax(axis=1) == np.arange(6))).all()


def test_shapes_that_are_no_heat_maps_are_refused() -> None:
    with pytest.raises(errors.ShapeError, match=r"\[2, 3, 2, 2\]"):
        own_pixel_first(np.ones((2, 3, 2, 2)))
