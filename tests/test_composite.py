"""The engine's denoisers against the float64 oracle, and the properties every posterior composite must have.

Tolerance: energies are sums of float32 products, so a logit of size M = |z - x|^2 / (2 sigma^2) carries a rounding
error of a few M * 2^-24, and D moves by at most that times the spread of the images. `tolerance` states it as
1e-6 + 3e-7 * M * spread, M being the largest among the best images of all windows; for z = x + sigma * n that is a
few 1e-6.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
import reference

Array = npt.NDArray[Any]


@dataclass
class Problem:
    """A data set, queries and their noise levels."""

    images: Array
    xflip: bool
    z: Array
    sigma: Array

    @property
    def data(self) -> pspc.ImageSet:
        return pspc.ImageSet(self.images, xflip=self.xflip)

    @property
    def pixels(self) -> torch.Tensor:
        """The images the oracle sees: float64, flips appended."""
        x = torch.from_numpy(self.images.astype(np.float64))
        x = x / 127.5 - 1 if self.images.dtype == np.uint8 else x
        return reference.with_flips(x) if self.xflip else x

    def oracle(self, windows: torch.Tensor) -> Array:
        z = torch.from_numpy(self.z.astype(np.float64))
        return reference.composite(self.pixels, windows, z, torch.from_numpy(self.sigma)).numpy()

    def tolerance(self, windows: torch.Tensor) -> float:
        x, masks = self.pixels, windows.to(torch.float64)
        spread = float(x.max() - x.min())
        largest = 0.0
        for z, sigma in zip(self.z, self.sigma, strict=True):
            errors = (torch.from_numpy(z.astype(np.float64)) - x).square().sum(dim=1)
            best = torch.einsum("nyx,kyx->nk", errors, masks).min(dim=0).values
            largest = max(largest, float(best.max()) / (2 * sigma**2))
        return 1e-6 + 3e-7 * largest * spread


@st.composite
def problems(draw: st.DrawFn, sides: tuple[int, int] = (1, 9)) -> Problem:
    """Odd shapes on purpose: H != W, 1, 3 and 4 channels, one image, duplicates, more than one group of tiles."""
    channels = draw(st.sampled_from([1, 3, 4]))
    height, width = draw(st.integers(*sides)), draw(st.integers(*sides))
    n = draw(st.sampled_from([1, 2, 5, 16, 17, 40, 70, 130]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (n, channels, height, width)
    if draw(st.booleans()):
        images = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        images = rng.standard_normal(shape).astype(np.float32)
    if draw(st.booleans()):
        images = images[rng.integers(0, n, n) // 2]
    batch = draw(st.integers(1, 3))
    sigma = 10 ** np.array([draw(st.floats(-3, 2.3)) for _ in range(batch)])
    x = pspc.ImageSet(images).batch(rng.integers(0, n, batch)).astype(np.float64)
    z = x + sigma[:, None, None, None] * rng.standard_normal(x.shape)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return Problem(images, draw(st.booleans()), z.astype(dtype), sigma)


def close(problem: Problem, windows: torch.Tensor, denoised: Array) -> None:
    exact = problem.oracle(windows)
    assert denoised.dtype == problem.z.dtype
    np.testing.assert_allclose(denoised, exact, rtol=0, atol=problem.tolerance(windows))


@given(problems())
def test_empirical_is_the_oracle(problem: Problem) -> None:
    _, _, height, width = problem.images.shape
    close(problem, reference.full_window(height, width), pspc.Empirical(problem.data)(problem.z, problem.sigma))


@given(problems(), st.data())
def test_square_windows_are_the_oracle(problem: Problem, data: st.DataObject) -> None:
    _, _, height, width = problem.images.shape
    side = data.draw(st.integers(1, min(height, width)))
    denoised = pspc.PSPCSquare(problem.data, patch_sizes=side)(problem.z, problem.sigma)
    close(problem, reference.square_windows(height, width, side), denoised)


@given(problems((11, 22)), st.data())
def test_windows_that_slide_a_long_way_are_the_oracle(problem: Problem, data: st.DataObject) -> None:
    """Running sums add what enters a window and subtract what leaves it."""
    _, _, height, width = problem.images.shape
    if problem.images.dtype == np.float32 and data.draw(st.booleans()):
        # One bright spot, beside which all else is small.
        problem.images[0, 0, height // 2, width // 2] = 100.0
    side = data.draw(st.integers(4, min(height, width)))
    denoised = pspc.PSPCSquare(problem.data, patch_sizes=side)(problem.z, problem.sigma)
    close(problem, reference.square_windows(height, width, side), denoised)


@given(problems(), st.data())
def test_masks_are_the_oracle(problem: Problem, data: st.DataObject) -> None:
    _, _, height, width = problem.images.shape
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    masks = rng.random((data.draw(st.integers(1, 12)), height, width)) < data.draw(st.floats(0.1, 0.9))
    masks[0] |= ~masks.any(axis=0)
    masks = masks[masks.any(axis=(1, 2))]
    denoised = pspc.PSPCFlex(problem.data, masks=masks)(problem.z, problem.sigma)
    close(problem, torch.from_numpy(masks), denoised)


@given(problems(), st.data())
def test_heat_maps_give_the_oracle_masks(problem: Problem, data: st.DataObject) -> None:
    _, _, height, width = problem.images.shape
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    maps = rng.random((2, height, width, height, width)).astype(np.float32)
    thresholds = [1.0, data.draw(st.floats(0.3, 0.95))]
    flex = pspc.PSPCFlex(problem.data, heatmaps=maps, thresholds=thresholds, sigmas=[1e4, 1e-2], nearest="linear")
    flat = torch.from_numpy(maps[1].reshape(-1, height, width))
    masks = torch.stack([reference.mask_from_map(one, thresholds[1]) for one in flat])
    if bool(masks.any(dim=0).all()):
        close(problem, masks, flex(problem.z, problem.sigma))


@pytest.mark.parametrize("xflip", [False, True])
@pytest.mark.parametrize("side", [1, 3, 4, 5])
def test_small_sigma_far_from_all_images_is_the_oracle_and_independent(xflip: bool, side: int) -> None:
    """Queries whose distances do not fit sixteen bits, next to queries whose distances do."""
    rng = np.random.default_rng(side)
    images = rng.integers(0, 256, (40, 3, 8, 7), dtype=np.uint8)
    sigma = np.array([0.002, 0.01, 0.05, 0.05, 0.08])
    near = pspc.ImageSet(images).batch([0, 1, 2]) + sigma[:3, None, None, None] * rng.standard_normal((3, 3, 8, 7))
    inside = rng.uniform(-1, 1, (1, 3, 8, 7))
    outside = rng.uniform(-4, 4, (1, 3, 8, 7))
    z = np.concatenate([near, inside, outside])
    problem = Problem(images, xflip, z, sigma)
    windows = reference.square_windows(8, 7, side)
    D = pspc.PSPCSquare(problem.data, patch_sizes=side)
    together = D(z, sigma)
    close(problem, windows, together)
    for i in range(len(z)):
        np.testing.assert_array_equal(together[i : i + 1], D(z[i : i + 1], float(sigma[i])))


@pytest.mark.parametrize("xflip", [False, True])
@pytest.mark.parametrize("side", [2, 5, 8])
def test_small_sigma_with_too_many_near_images_is_the_oracle(xflip: bool, side: int) -> None:
    """Images one grey level apart: at small sigma all of them carry weight, and lists of candidates overflow."""
    rng = np.random.default_rng(0)
    base = rng.integers(50, 200, (1, 1, 8, 8))
    images = (base + rng.integers(0, 2, (400, 1, 8, 8))).astype(np.uint8)
    sigma = np.array([0.02, 0.05, 3.0])
    z = pspc.ImageSet(images).batch([0, 1, 2]) + sigma[:, None, None, None] * rng.standard_normal((3, 1, 8, 8))
    problem = Problem(images, xflip, z, sigma)
    windows = reference.square_windows(8, 8, side)
    close(problem, windows, pspc.PSPCSquare(problem.data, patch_sizes=side)(z, sigma))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e6])
@pytest.mark.parametrize("side", [3, 7, None])
def test_extreme_ranges_stay_finite(scale: float, side: int | None) -> None:
    """Images and queries as small and as large as is allowed: D lies among the images."""
    rng = np.random.default_rng(0)
    x = (rng.uniform(-1, 1, (40, 1, 9, 10)) * scale).astype(np.float32)
    z = rng.uniform(-1e9, 1e9, (1, 1, 9, 10))
    data = pspc.ImageSet(x)
    D = pspc.Empirical(data) if side is None else pspc.PSPCSquare(data, patch_sizes=side)
    for sigma in (1e-6, 1.0, 1e9):
        denoised = D(z, sigma)
        assert np.isfinite(denoised).all()
        assert np.abs(denoised).max() <= scale * (1 + 1e-5)


@pytest.fixture
def problem() -> Problem:
    """Smooth 12 x 10 images, enough for several shards, and noisy ones at four levels."""
    rng = np.random.default_rng(1)
    coarse = rng.standard_normal((300, 3, 4, 4))
    images = np.kron(coarse, np.ones((1, 1, 3, 3)))[..., :10] * 60 + 128 + rng.normal(0, 4, (300, 3, 12, 10))
    images = images.clip(0, 255).astype(np.uint8)
    sigma = np.array([8.0, 1.0, 0.2, 0.01])
    x = pspc.ImageSet(images).batch([3, 50, 120, 299])
    z = (x + sigma[:, None, None, None] * rng.standard_normal(x.shape)).astype(np.float32)
    return Problem(images, True, z, sigma)


def denoisers(problem: Problem) -> list[pspc.Denoiser]:
    masks = np.zeros((12, 12, 10), bool)
    for k in range(12):
        masks[k, max(0, k - 3) : k + 4, k % 5 : k % 5 + 6] = True
    masks[11, :, 5:] = True
    data = problem.data
    return [
        pspc.Empirical(data),
        pspc.PSPCSquare(data, patch_sizes=3),
        pspc.PSPCFlex(data, masks=masks),
        pspc.Gaussian(data, cache=False),
    ]


def test_mixed_sigmas_equal_one_by_one(problem: Problem) -> None:
    for D in denoisers(problem)[:3]:
        together = D(problem.z, problem.sigma)
        for i, sigma in enumerate(problem.sigma):
            np.testing.assert_array_equal(together[i : i + 1], D(problem.z[i : i + 1], float(sigma)))


def test_queries_beyond_one_batch_equal_one_by_one() -> None:
    """The engine computes at most 128 queries together."""
    rng = np.random.default_rng(0)
    data = pspc.ImageSet(rng.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8), xflip=True)
    z, sigma = rng.standard_normal((131, 1, 4, 4)), np.geomspace(0.01, 50, 131)
    for D in [pspc.Empirical(data), pspc.PSPCSquare(data, patch_sizes=2)]:
        together = D(z, sigma)
        for i in (0, 1, 127, 128, 130):
            np.testing.assert_array_equal(together[i : i + 1], D(z[i : i + 1], float(sigma[i])))


def test_each_sigma_of_a_batch_gets_its_own_windows(problem: Problem) -> None:
    D = pspc.PSPCSquare(problem.data, patch_sizes=["full", 5, 3, 1], sigmas=problem.sigma)
    together = D(problem.z, problem.sigma)
    for i, side in enumerate([None, 5, 3, 1]):
        alone = pspc.Empirical(problem.data) if side is None else pspc.PSPCSquare(problem.data, patch_sizes=side)
        np.testing.assert_array_equal(together[i], alone(problem.z, problem.sigma)[i])


def test_bits_do_not_depend_on_threads(problem: Problem) -> None:
    before = pspc.num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            pspc.set_num_threads(threads)
            results.append([D(problem.z, problem.sigma) for D in denoisers(problem)[:3]])
    finally:
        pspc.set_num_threads(before)
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_order_of_the_images_does_not_matter(problem: Problem) -> None:
    shuffled = Problem(problem.images[np.random.default_rng(0).permutation(300)], True, problem.z, problem.sigma)
    for ours, theirs in zip(denoisers(problem), denoisers(shuffled), strict=True):
        np.testing.assert_allclose(ours(problem.z, problem.sigma), theirs(problem.z, problem.sigma), rtol=0, atol=2e-6)


def test_flipped_input_gives_flipped_output(problem: Problem) -> None:
    flipped = np.ascontiguousarray(problem.z[..., ::-1])
    for D in [
        pspc.Empirical(problem.data),
        pspc.PSPCSquare(problem.data, patch_sizes=3),
        pspc.Gaussian(problem.data, cache=False),
    ]:
        np.testing.assert_allclose(D(flipped, problem.sigma), D(problem.z, problem.sigma)[..., ::-1], rtol=0, atol=2e-6)


def test_xflip_is_the_appended_data_set(problem: Problem) -> None:
    doubled = np.concatenate([problem.images, problem.images[..., ::-1]])
    plain = Problem(np.ascontiguousarray(doubled), False, problem.z, problem.sigma)
    for ours, theirs in zip(denoisers(problem), denoisers(plain), strict=True):
        np.testing.assert_allclose(ours(problem.z, problem.sigma), theirs(problem.z, problem.sigma), rtol=0, atol=2e-6)


def test_channels_may_be_permuted(problem: Problem) -> None:
    order = [2, 0, 1]
    permuted = Problem(np.ascontiguousarray(problem.images[:, order]), True, problem.z[:, order], problem.sigma)
    for ours, theirs in zip(denoisers(problem), denoisers(permuted), strict=True):
        np.testing.assert_allclose(
            ours(problem.z, problem.sigma)[:, order], theirs(permuted.z, problem.sigma), rtol=0, atol=2e-6
        )


def test_duplicates_only_add_weight(problem: Problem) -> None:
    twice = Problem(np.repeat(problem.images, 2, axis=0), True, problem.z, problem.sigma)
    for ours, theirs in zip(denoisers(problem), denoisers(twice), strict=True):
        np.testing.assert_allclose(ours(problem.z, problem.sigma), theirs(problem.z, problem.sigma), rtol=0, atol=2e-6)


def test_output_stays_within_the_data(problem: Problem) -> None:
    x = problem.data.batch(range(600))
    for D in denoisers(problem)[:3]:
        denoised = D(problem.z * 3, problem.sigma)
        assert (denoised >= x.min(axis=0) - 1e-6).all()
        assert (denoised <= x.max(axis=0) + 1e-6).all()


def test_sigma_to_zero_returns_the_image_and_to_infinity_the_mean(problem: Problem) -> None:
    x = problem.data.batch([7, 407])
    mean = problem.data.batch(range(600)).astype(np.float64).mean(axis=0)
    for D in denoisers(problem)[:3]:
        np.testing.assert_allclose(D(x, 1e-4), x, rtol=0, atol=1e-6)
        np.testing.assert_allclose(D(x, 1e6), np.broadcast_to(mean, x.shape), rtol=0, atol=1e-6)


def test_a_window_as_large_as_the_image_is_the_empirical_denoiser() -> None:
    rng = np.random.default_rng(0)
    data = pspc.ImageSet(rng.integers(0, 256, (40, 3, 6, 6), dtype=np.uint8), xflip=True)
    z = rng.standard_normal((2, 3, 6, 6))
    np.testing.assert_array_equal(pspc.PSPCSquare(data, patch_sizes=6)(z, 0.5), pspc.Empirical(data)(z, 0.5))


@pytest.mark.parametrize("layout", ["reversed", "strided", "read-only", "fortran", "byte-swapped", "float16"])
def test_memory_layout_of_z_does_not_matter(problem: Problem, layout: str) -> None:
    D = pspc.PSPCSquare(problem.data, patch_sizes=3)
    z = problem.z.astype(np.float16).astype(np.float32)
    layouts: dict[str, Callable[[], Array]] = {
        "reversed": lambda: np.ascontiguousarray(z[..., ::-1])[..., ::-1],
        "strided": lambda: np.repeat(z, 2, axis=3)[..., ::2],
        "read-only": z.copy,
        "fortran": lambda: np.asfortranarray(z),
        "byte-swapped": lambda: z.astype(z.dtype.newbyteorder()),
        "float16": lambda: z.astype(np.float16),
    }
    changed = layouts[layout]()
    changed.flags.writeable = False
    denoised = D(changed, problem.sigma)
    assert denoised.dtype == changed.dtype
    tolerance = 1e-3 if layout == "float16" else 0
    np.testing.assert_allclose(denoised.astype(np.float32), D(z, problem.sigma), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_in_torch_out(problem: Problem, dtype: torch.dtype) -> None:
    D = pspc.PSPCSquare(problem.data, patch_sizes=3)
    z = torch.from_numpy(problem.z).to(dtype).requires_grad_()
    with torch.no_grad():
        denoised = D(z, torch.from_numpy(problem.sigma))
    assert denoised.dtype == dtype and denoised.device == z.device and not denoised.requires_grad
    expected = D(z.detach().to(torch.float64).numpy(), problem.sigma)
    np.testing.assert_array_equal(denoised.double().numpy(), torch.from_numpy(expected).to(dtype).double().numpy())


def test_an_empty_batch_gives_an_empty_batch(problem: Problem) -> None:
    for D in denoisers(problem):
        assert D(problem.z[:0], 1.0).shape == (0, 3, 12, 10)


def test_progress_counts_up_to_the_whole(problem: Problem) -> None:
    calls: list[tuple[int, int]] = []
    D = pspc.PSPCSquare(problem.data, patch_sizes=["full", 3], sigmas=[5.0, 0.1])
    D(problem.z, problem.sigma, progress=lambda done, total: calls.append((done, total)))
    done = [one for one, _ in calls]
    assert done == sorted(done) and calls[-1][0] == calls[-1][1] and len({total for _, total in calls}) == 1


def test_an_error_in_progress_reaches_the_caller(problem: Problem) -> None:
    def stop(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        pspc.Empirical(problem.data)(problem.z, 1.0, progress=stop)


def test_images_that_turn_nan_under_the_engine_are_noticed() -> None:
    images = np.zeros((4, 1, 3, 3), np.float32)
    D = pspc.Empirical(pspc.ImageSet(images))
    images[2] = np.nan
    with pytest.raises(pspc.PspcError, match="image 2 was changed"):
        D(np.zeros((1, 1, 3, 3), np.float32), 1.0)
