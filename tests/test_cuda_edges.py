"""The GPU engine at the edges of what it accepts: z and sigma of any size, long sums, outliers, images that change.

On a machine without a GPU these tests are skipped, and `test_cuda_emulated.py` runs them on an emulated device.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import pspc_rs as pspc
import reference
from test_cuda_engine import NO_GPU

Array = npt.NDArray[Any]

pytestmark = pytest.mark.skipif(NO_GPU is not None, reason=NO_GPU or "")

ROUTES = ["full", "square", "masks"]


def denoiser(images: Array, route: str, xflip: bool = False, side: int = 2) -> pspc.denoisers.PosteriorComposite:
    """A denoiser on the GPU; for masks, bands of rows that overlap."""
    data = pspc.ImageSet(images, xflip=xflip)
    if route == "full":
        return pspc.Empirical(data, device="cuda")
    if route == "square":
        return pspc.PSPCSquare(data, patch_sizes=min(side, *images.shape[2:]), device="cuda")
    return pspc.PSPCFlex(data, masks=bands(*images.shape[2:]).numpy(), device="cuda")


def windows_of(route: str, height: int, width: int, side: int = 2) -> torch.Tensor:
    """The windows of that denoiser."""
    if route == "full":
        return reference.full_window(height, width)
    return (
        reference.square_windows(height, width, min(side, height, width)) if route == "square" else bands(height, width)
    )


def bands(height: int, width: int) -> torch.Tensor:
    masks = torch.zeros(height, height, width, dtype=torch.bool)
    for row in range(height):
        masks[row, row : row + 2, row % width :] = True
        masks[row, row] = True
    return masks


def units(images: Array) -> Array:
    return images / 127.5 - 1 if images.dtype == np.uint8 else images.astype(np.float64)


def exact(images: Array, windows: torch.Tensor, z: Array, sigma: float, xflip: bool = False) -> Array:
    """The oracle for z anywhere: energies relative to that of the first image, in float64."""
    x = torch.from_numpy(units(images))
    x = reference.with_flips(x) if xflip else x
    out = torch.zeros(z.shape, dtype=torch.float64)
    for b, one in enumerate(torch.from_numpy(z)):
        above = ((x - x[0]) * ((x + x[0]) - 2 * one)).sum(1)
        logits = -torch.einsum("nyx,kyx->kn", above, windows.double()) / (2 * sigma**2)
        weights = torch.softmax(logits, 1)
        out[b] = torch.einsum("kn,kyx,ncyx->cyx", weights, windows.double(), x)
    return (out / windows.sum(0)).numpy()


@st.composite
def data_and_query(draw: st.DrawFn, counts: tuple[int, ...] = (1, 2, 5, 70)) -> tuple[Array, Array, float]:
    """Images, one z up to 1e9 and sigma, relative to images of any scale and centre."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, channels = draw(st.sampled_from(counts)), draw(st.sampled_from([1, 3]))
    shape = (count, channels, draw(st.integers(1, 6)), draw(st.integers(1, 6)))
    if draw(st.booleans()):
        images = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        offset, spread = draw(st.sampled_from([(0.0, 1.0), (1e3, 0.1), (-5e5, 1e3), (0.0, 1e-9)]))
        images = (offset + spread * rng.uniform(-1, 1, shape)).astype(np.float32)
    z = units(images)[:1] + 10 ** draw(st.floats(-6, 9)) * rng.uniform(-0.99, 0.99, shape)[:1]
    if draw(st.booleans()):
        z[0, 0, 0, 0] = 10 ** draw(st.floats(0, 9))
    return images, z.clip(-1e9, 1e9), 10 ** draw(st.floats(-6, 9))


@pytest.mark.parametrize("route", ROUTES)
@given(data_and_query(), st.booleans())
# What counts as near the least energy is less than its last digit.
@example((np.full((1, 1, 1, 1), 255, np.uint8), np.full((1, 1, 1, 1), 1e6), 1e-6), False)
def test_denoised_images_lie_among_the_images_for_any_z_and_sigma(
    route: str, problem: tuple[Array, Array, float], xflip: bool
) -> None:
    images, z, sigma = problem
    denoised = denoiser(images, route, xflip)(z, sigma)
    x = units(images)
    x = np.concatenate([x, x[..., ::-1]]) if xflip else x
    reach = np.abs(x - (x.max() + x.min()) / 2).max() if images.dtype == np.float32 else 1.0
    # To the units of the images it is rounded once.
    grain = np.spacing(np.abs(x).max().astype(np.float32))
    assert np.isfinite(denoised).all()
    assert (denoised - x.max(0)).max() <= 1e-6 * reach + grain
    assert (x.min(0) - denoised).max() <= 1e-6 * reach + grain


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
@pytest.mark.parametrize("far", [10.0, 1e4, 1e6])
def test_a_distance_that_all_images_share_takes_no_digits(route: str, sigma: float, far: float) -> None:
    """All images are equal where z is far from them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 3, 6, 6), dtype=np.uint8)
    images[..., ::2] = images[0, ..., ::2]
    z = images[:2] / 127.5 - 1 + sigma * rng.standard_normal((2, 3, 6, 6))
    z[..., ::2] = far * rng.uniform(-1, 1, (2, 3, 6, 3))
    for xflip in (False, True):
        denoised = denoiser(images, route, xflip)(z, sigma)
        right = exact(images, windows_of(route, 6, 6), z, sigma, xflip)
        np.testing.assert_allclose(denoised, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sigma", [0.02, 0.09, 0.12, 0.3, 0.49, 0.6, 2.0])
def test_held_out_images_on_large_windows_are_the_oracle(route: str, sigma: float) -> None:
    """Images at nearly the same distance from z share the weight, by the last digits of long sums."""
    rng = np.random.default_rng(7)
    x = rng.uniform(-0.5, 0.5, (1, 3, 24, 20))
    z = x + sigma * rng.standard_normal(x.shape)
    # Some pixels are as far beyond z as those of x are before it.
    reflected = 2 * z - x
    takes = (rng.random((60, 3, 24, 20)) < 0.5) & (np.abs(reflected) < 1)
    images = np.rint((np.where(takes, reflected, x) + 1) * 127.5).astype(np.uint8)
    denoised = denoiser(images, route, xflip=True, side=17)(z, sigma)
    windows = windows_of(route, 24, 20, side=17)
    np.testing.assert_allclose(denoised, exact(images, windows, z, sigma, xflip=True), rtol=0, atol=2e-6)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sigma", [1e-6, 0.001, 0.05, 0.3, 2.0])
@pytest.mark.parametrize("far", [1e4, 1e9, -1e9])
def test_images_that_are_equal_at_a_value_far_from_all_are_told_apart(route: str, sigma: float, far: float) -> None:
    """Neither float32 nor a reference that is another image there knows which of them is nearer elsewhere."""
    rng = np.random.default_rng(3)
    images = rng.integers(2, 254, (90, 2, 5, 5), dtype=np.uint8)
    # The last images are the nearest to z, and equal there; so are mirror images in the middle column.
    images[-40:, 0, 2, 2] = 255 if far > 0 else 0
    z = images[-2:] / 127.5 - 1 + min(sigma, 0.3) * rng.standard_normal((2, 2, 5, 5))
    z[:, 0, 2, 2] = far
    for xflip in (False, True):
        D = denoiser(images, route, xflip, side=5)
        # The oracle counts from its first image.
        right = exact(images[::-1], windows_of(route, 5, 5, side=5), z, sigma, xflip)
        np.testing.assert_allclose(D(z, sigma), right, rtol=0, atol=1e-5)
        np.testing.assert_allclose(D.posterior(z, sigma).denoised, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("route", ["square", "masks"])
@pytest.mark.parametrize("sigma", [0.03, 0.2, 1.0])
def test_one_pixel_of_any_size_does_not_touch_windows_without_it(route: str, sigma: float) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 1, 12, 12), dtype=np.uint8)
    z = images[:1] / 127.5 - 1 + sigma * rng.standard_normal((1, 1, 12, 12))
    D = denoiser(images, route, side=5)
    before = D(z, sigma)
    for outlier in (1e3, 1e9):
        z[0, 0, 0, 0] = outlier
        denoised = D(z, sigma)
        np.testing.assert_allclose(denoised[..., 5:, :], before[..., 5:, :], rtol=0, atol=2e-6)
        right = exact(images, windows_of(route, 12, 12, side=5), z, sigma)
        np.testing.assert_allclose(denoised, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sigma", [0.0005, 0.003, 0.05])
def test_float_images_far_from_zero_lose_no_digits(route: str, sigma: float) -> None:
    rng = np.random.default_rng(0)
    images = (100 + 0.01 * rng.standard_normal((80, 1, 8, 7))).astype(np.float32)
    z = images[:2].astype(np.float64) + sigma * rng.standard_normal((2, 1, 8, 7))
    denoised = denoiser(images, route, side=3)(z, sigma)
    right = exact(images, windows_of(route, 8, 7, side=3), z, sigma)
    np.testing.assert_allclose(denoised, right, rtol=0, atol=1e-5 * 0.1 + np.spacing(np.float32(100)))


@pytest.mark.parametrize("route", ROUTES)
def test_weights_that_are_small_each_are_not_lost_together(route: str) -> None:
    """Many images lie just below the best ones, so that all of them together count."""
    # The full window has 32 threads for every four pixels, which takes an emulated GPU long.
    images = np.full((40_000 if route == "full" else 262_144, 2, 1, 2), 255, np.uint8)
    images[::4096, 0] = 0
    z = np.ones((1, 2, 1, 2))
    z[0, 0] = -1
    denoised = denoiser(images, route, side=1)(z, 0.3364)
    np.testing.assert_allclose(denoised[0, 1], 1.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("route", ROUTES)
def test_long_sums_at_small_sigma_miss_no_image(route: str) -> None:
    """The better of two images is behind in float32, whose 4,096 additions drift."""
    channels, unit = 4096, 2.0**-12
    a, b = (
        np.full((1, channels, 1, 2), (1 + 0.51 * unit) ** 0.5),
        -np.full((1, channels, 1, 2), (1 + 0.49 * unit) ** 0.5),
    )
    b[0, 0] = -((1.05 + 0.49 * unit) ** 0.5)
    images = np.concatenate([a, b]).astype(np.float32)
    denoised = denoiser(images, route, side=1)(np.zeros((1, channels, 1, 2)), 0.01)
    np.testing.assert_allclose(denoised[0], images[0], rtol=0, atol=1e-5)


def test_bits_do_not_depend_on_queries_in_the_other_precision() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (150, 3, 9, 8), dtype=np.uint8)
    sigma = np.array([3.0, 3.0, 0.3, 0.3, 0.02, 0.02])
    z = images[:6] / 127.5 - 1 + sigma[:, None, None, None] * rng.standard_normal((6, 3, 9, 8))
    z[1::2] *= 300
    for route in ROUTES:
        D = denoiser(images, route, xflip=True, side=3)
        together = D(z, sigma)
        for i, level in enumerate(sigma):
            np.testing.assert_array_equal(together[i : i + 1], D(z[i : i + 1], float(level)))


@pytest.mark.parametrize("change", [np.nan, np.inf, 2.0])
def test_images_that_change_after_their_check_are_named(change: float) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (40, 1, 6, 5)).astype(np.float32)
    D = denoiser(images, "square")
    images[17, 0, 2, 3] = change
    with pytest.raises(pspc.errors.DataError, match="17"):
        D(np.zeros((1, 1, 6, 5)), 1.0)
