"""Closed-form heat maps of the Gaussian denoiser."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.denoisers.masks import covering_masks, equal_size, masks_from_maps
from pspc_rs.heatmaps import own_pixel_first

RNG = np.random.default_rng(0)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5), st.booleans(), st.integers(0, 10**6))
def test_maps_are_the_derivative_of_the_denoiser(c: int, h: int, w: int, xflip: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = pspc.ImageSet(rng.integers(0, 256, (30, c, h, w), dtype=np.uint8), xflip=xflip)
    G = pspc.Gaussian(data, cache=False)
    maps = pspc.gaussian_heatmaps(G, [2.0, 0.1])
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


@given(
    st.integers(2, 4), st.integers(2, 4), st.integers(0, 999), st.floats(0.05, 0.95), st.sampled_from(["mass", "equal"])
)
def test_masks_cover_the_image_and_change_only_where_they_must(
    height: int, width: int, seed: int, threshold: float, sizes: str
) -> None:
    random, pixels = np.random.default_rng(seed), height * width
    maps = random.random((pixels, pixels)) * (random.random((pixels, pixels)) < 0.5)
    maps[0, 0] += 0.1  # not all of them are 0
    zero = np.flatnonzero(~maps.any(axis=1))
    masks = covering_masks(maps.reshape(height, width, height, width), threshold, sizes).reshape(pixels, pixels)
    assert masks.any(axis=0).all()
    assert all(masks[pixel, pixel] for pixel in zero)
    others = np.setdiff1d(np.arange(pixels), zero)
    cut = masks_from_maps(maps[others].reshape(-1, height, width), threshold, sizes).reshape(-1, pixels)
    changed = others[(cut != masks[others]).any(axis=1)]
    assert all(masks[pixel, pixel] for pixel in changed)
    if not len(zero) and cut.any(axis=0).all():
        assert not len(changed)
    if sizes == "equal":
        assert (masks.sum(axis=1) == equal_size(threshold, pixels)).all()


def test_levels_without_any_map_are_refused() -> None:
    with pytest.raises(errors.InvalidValueError, match="all heat maps of a level are 0"):
        covering_masks(np.zeros((2, 2, 2, 2)), 0.5)
    with pytest.warns(DeprecationWarning, match="raw=False"):
        raised = pspc.gaussian_heatmaps(
            pspc.Gaussian(pspc.ImageSet(RNG.random((9, 1, 2, 2))), cache=False), [1.0], raw=False
        )
    assert (raised.reshape(4, 4).argmax(axis=1) == np.arange(4)).all()


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
