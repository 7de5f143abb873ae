"""The engine at the edges of what it accepts: z and sigma over their whole range, ties, outliers, long sums, far data.

The oracle is that of the other tests with one difference: energies are taken relative to the best image, in extended
precision, so that it keeps its digits where z is far from all images. The engine computes in float64 there, so a logit
may be off by a few 2^-53 of the terms of its sum; `Case.tolerance` states it per window, beside 1e-5 of the reach of
the data.
"""

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
from pspc_rs.errors import DataError

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


@dataclass
class Case:
    """A data set, its windows as masks, and a query."""

    images: Array
    masks: npt.NDArray[np.bool_]
    z: Array
    sigma: float

    @property
    def pixels(self) -> Float64:
        x = self.images.astype(np.float64)
        return x / 127.5 - 1 if self.images.dtype == np.uint8 else x

    @property
    def reach(self) -> float:
        """The largest distance of a pixel from zero, or from the middle of data that are far from zero; of bytes 1."""
        x = self.pixels
        if self.images.dtype == np.uint8:
            return 1.0
        half = float(x.max() - x.min()) / 2
        return half if half <= abs(float(x.max() + x.min())) / 4 else float(np.abs(x).max())

    def oracle(self) -> tuple[Float64, Float64]:
        """The composite and how far it may be off, [C, H, W] each."""
        x, z = self.pixels.astype(np.longdouble), self.z[0].astype(np.longdouble)
        out, off = np.zeros(z.shape, np.longdouble), np.zeros(z.shape)
        for mask in self.masks:
            a, inside = x[:, :, mask].reshape(len(x), -1), z[:, mask].reshape(-1)
            best = a[np.square(a - inside).sum(1).argmin()]
            logits = -((a - best) * (a + best - 2 * inside)).sum(1) / (2 * np.longdouble(self.sigma) ** 2)
            weights = np.exp(logits - logits.max())
            weights /= weights.sum()
            out[:, mask] += (weights @ a).reshape(len(z), -1)
            off[:, mask] += self.tolerance(a, inside)
        cover = self.masks.sum(0)
        return (out / cover).astype(np.float64), off / cover

    def tolerance(self, a: Any, z: Any) -> float:
        terms = float(np.square(np.abs(a).max(0) + np.abs(z)).sum())
        error = float(4 * 2.0**-53 * len(z) ** 0.5 * terms / (2 * self.sigma**2))
        grain = float(np.spacing(np.float32(np.abs(a).max())))
        return 1e-5 * self.reach + grain + min(1.0, error) * float((a.max(0) - a.min(0)).max())


def squares(height: int, width: int, side: int) -> npt.NDArray[np.bool_]:
    return reference.square_windows(height, width, side).numpy()


def denoiser(case: Case, side: int | None) -> pspc.Denoiser:
    data = pspc.ImageSet(case.images, xflip=False)
    if side is None:
        return pspc.PSPCFlex(data, masks=case.masks)
    return pspc.PSPCSquare(data, patch_sizes=side)


magnitudes = st.one_of(st.just(1.0), st.floats(0, 9).map(lambda power: 10.0**power))
noise_levels = st.floats(-6, 9).map(lambda power: float(10.0**power))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Case, int | None]:
    """z up to the bound, every sigma, one image or many, duplicates, an outlier, squares, masks, near and far data."""
    channels, height, width = draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(st.integers(1, 8))
    n = draw(st.sampled_from([1, 2, 3, 17, 40]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (n, channels, height, width)
    kind = draw(st.sampled_from(["bytes", "flat", "floats", "offset"]))
    images: Array = rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "flat":
        images = np.where(rng.random(shape) < 0.9, np.uint8(255), images)
    elif kind != "bytes":
        offset = draw(st.sampled_from([3.0, -1e3, 1e5])) if kind == "offset" else 0.0
        images = (offset + draw(st.sampled_from([1e-3, 1.0, 1e2])) * rng.uniform(-1, 1, shape)).astype(np.float32)
    if draw(st.booleans()):
        images = images[rng.integers(0, n, n)]
    sigma, centre = draw(noise_levels), float(images.mean()) if kind in ("floats", "offset") else 0.0
    z = centre + rng.uniform(-1, 1, (1, *shape[1:])) * draw(magnitudes)
    if draw(st.booleans()):
        z = pspc.ImageSet(images).batch([0]).astype(np.float64) + min(sigma, 1e6) * rng.standard_normal(z.shape)
    if draw(st.booleans()):
        z[0, 0, 0, 0] = draw(st.sampled_from([1e9, -1e9, 1e4]))
    z = np.clip(z, -1e9, 1e9).astype(draw(st.sampled_from([np.float32, np.float64])))
    side = draw(st.one_of(st.none(), st.integers(1, min(height, width))))
    masks = rng.random((draw(st.integers(1, 4)), height, width)) < 0.7
    masks[0], masks[:, 0, 0] = True, True
    return Case(images, masks if side is None else squares(height, width, side), z, sigma), side


@given(cases())
def test_the_whole_range_is_the_oracle(drawn: tuple[Case, int | None]) -> None:
    case, side = drawn
    denoised = denoiser(case, side)(case.z, case.sigma)[0].astype(np.float64)
    exact, off = case.oracle()
    assert np.all(np.abs(denoised - exact) <= off)
    # The posterior mean lies in the hull of the data, pixel by pixel; the result itself may be float32.
    x, slack = case.pixels, 1e-6 * case.reach + float(np.spacing(np.float32(np.abs(case.pixels).max())))
    assert np.all(denoised >= x.min(0) - slack)
    assert np.all(denoised <= x.max(0) + slack)
    if len(x) == 1:
        assert np.all(np.abs(denoised - x[0]) <= slack)


@given(
    st.sampled_from([1, 2, 40, 300]),
    st.sampled_from(["full", "square", "masks"]),
    noise_levels,
    magnitudes,
    st.integers(0, 2**32 - 1),
)
def test_weights_sum_to_one(n: int, kind: str, sigma: float, magnitude: float, seed: int) -> None:
    """A channel that is 1 in every image comes out as the sum of the weights; every pixel has a window of its own."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 2, 6, 6), dtype=np.uint8)
    images[:, 1] = 255
    data, z = pspc.ImageSet(images, xflip=True), magnitude * rng.uniform(-1, 1, (3, 2, 6, 6))
    columns = np.arange(6) // 2 == np.arange(3)[:, None, None] * np.ones((1, 6, 1))
    D: pspc.Denoiser = pspc.Empirical(data)
    if kind != "full":
        D = pspc.PSPCSquare(data, patch_sizes=1) if kind == "square" else pspc.PSPCFlex(data, masks=columns)
    assert np.abs(D(z, sigma)[:, 1] - 1).max() <= 1e-6


def test_the_weights_of_many_images_just_below_the_best_count() -> None:
    """Pass 1 may pass over no more than a negligible part: these images are 25.5 bits below the best of their shard."""
    images = np.full((262_144, 2, 1, 2), 255, np.uint8)
    images[::4096, 0] = 0
    z = np.ones((1, 2, 1, 2))
    z[0, 0] = -1
    denoised = pspc.PSPCSquare(pspc.ImageSet(images, xflip=False), patch_sizes=1)(z, 0.3364)
    assert np.abs(denoised[0, 1] - 1).max() <= 1e-6


@pytest.mark.parametrize("sigma", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("side", [2, 5])
def test_one_outlier_spoils_no_other_window(side: int, sigma: float) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 1, 32, 32), dtype=np.uint8)
    z = images[:1] / 127.5 - 1 + sigma * rng.normal(size=(1, 1, 32, 32))
    D = pspc.PSPCSquare(pspc.ImageSet(images, xflip=False), patch_sizes=side)
    before = D(z, sigma)
    z[0, 0, 0, 0] = 1e9
    np.testing.assert_allclose(D(z, sigma)[..., side:, side:], before[..., side:, side:], rtol=0, atol=2e-6)


@pytest.mark.parametrize("channels, side", [(4096, 1), (350, 3), (1, 90), (3, 128)])
@pytest.mark.parametrize("kind", ["square", "full", "masks"])
def test_long_sums_miss_no_image(channels: int, side: int, kind: str) -> None:
    """Two images at nearly the same distance whose energies round in opposite directions: the nearer one wins."""
    values, unit = channels * side * side, 2.0**-12
    near, far = (1 + 0.51 * unit) ** 0.5, (1 + 0.49 * unit) ** 0.5
    images = np.full((2, channels, side, side + (kind != "full")), near, np.float32)
    images[1] = -far
    # Just enough to make the second image the farther one.
    energies = np.square(images[:, :, :side, :side].astype(np.float64)).sum((1, 2, 3))
    images[1, 0, 0, :] = -((float(images[1, 0, 0, 0]) ** 2 + (energies[0] - energies[1]) + 0.02) ** 0.5)
    data, sigma = pspc.ImageSet(images, xflip=False), 0.01 if values < 20_000 else 0.02
    height, width = images.shape[2:]
    case = Case(images, squares(height, width, min(side, height, width)), np.zeros((1, *images.shape[1:])), sigma)
    D: pspc.Denoiser = pspc.PSPCSquare(data, patch_sizes=side)
    if kind == "masks":
        D = pspc.PSPCFlex(data, masks=case.masks)
    exact, _ = case.oracle()
    np.testing.assert_allclose(D(case.z, sigma)[0], exact, rtol=0, atol=1e-5)


def test_masks_of_many_pieces_are_the_oracle() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (60, 1, 40, 40), dtype=np.uint8)
    checkers = np.indices((40, 40)).sum(0) % 2 == 0
    masks = np.stack([checkers, ~checkers])
    for sigma in (0.03, 0.2, 0.6):
        z = rng.uniform(-1, 1, (1, 1, 40, 40)) + sigma * rng.standard_normal((1, 1, 40, 40))
        case = Case(images, masks, z, sigma)
        exact, off = case.oracle()
        assert np.all(np.abs(denoiser(case, None)(z, sigma)[0] - exact) <= off)


@given(st.integers(1, 32), st.floats(0.02, 0.7), st.sampled_from([np.uint8, np.float32]), st.integers(0, 2**32 - 1))
def test_held_out_images_are_denoised_to_a_part_in_a_hundred_thousand(
    side: int, sigma: float, dtype: Any, seed: int
) -> None:
    """Where z is far from every image, logits are large and near ties decide: smooth images, as photographs are."""
    rng = np.random.default_rng(seed)
    spectrum = 1 / (1 + np.add.outer(np.fft.fftfreq(32) ** 2, np.fft.fftfreq(32) ** 2) * 32**2) ** 0.7
    smooth = np.fft.ifft2(np.fft.fft2(rng.standard_normal((65, 1, 32, 32))) * spectrum).real
    x = np.clip(smooth / smooth.std() / 2, -1, 1)
    images = np.rint((x + 1) * 127.5).astype(np.uint8) if dtype == np.uint8 else x.astype(np.float32)
    z = x[-1:] + sigma * rng.standard_normal((1, 1, 32, 32))
    case = Case(images[:-1], squares(32, 32, side), z, sigma)
    denoised = denoiser(case, side)(z, sigma)[0]
    expected = reference.composite(
        torch.from_numpy(case.pixels), torch.from_numpy(case.masks), torch.from_numpy(z), sigma
    )[0].numpy()
    np.testing.assert_allclose(denoised, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("offset, spread", [(1.0, 1e-3), (10.0, 1e-3), (100.0, 1e-2), (-1e3, 1.0), (1e6 - 2, 1.0)])
def test_data_far_from_zero_keep_their_digits(offset: float, spread: float) -> None:
    rng = np.random.default_rng(5)
    images = (offset + spread * rng.uniform(-1, 1, (60, 2, 7, 8))).astype(np.float32)
    for sigma in (1e-3 * spread, 0.05 * spread, 0.3 * spread, spread, 30 * spread):
        for dtype in (np.float32, np.float64):
            z = (offset + (spread + sigma) * rng.uniform(-1, 1, (1, 2, 7, 8))).astype(dtype)
            case = Case(images, squares(7, 8, 3), z, max(sigma, 1e-6))
            exact, off = case.oracle()
            assert np.all(np.abs(denoiser(case, 3)(z, case.sigma)[0] - exact) <= off)


def test_ties_between_many_duplicates_share_the_weight() -> None:
    """Permuted pixels are at exactly the same distance from a flat z, however far away it is."""
    images = np.zeros((300, 1, 2, 2), np.uint8)
    images[::2, 0, 0, 0] = 255
    images[1::2, 0, 1, 1] = 255
    for far in (0.0, 3.0, 1e4, 1e9):
        for sigma in (1e-6, 0.01, 1.0):
            denoised = pspc.Empirical(pspc.ImageSet(images, xflip=False))(np.full((1, 1, 2, 2), far), sigma)
            np.testing.assert_allclose(denoised[0, 0], [[0, -1], [-1, 0]], rtol=0, atol=1e-6)


WINDOWS = ("full, alone", "full, many", "square", "long square", "masks", "small sigma")


@pytest.mark.parametrize("value", [np.nan, 1e3, -np.inf])
@pytest.mark.parametrize("windows", WINDOWS)
def test_images_that_change_after_their_check_are_named(windows: str, value: float) -> None:
    images = np.random.default_rng(0).random((40, 1, 9, 9), dtype=np.float32)
    data, queries, sigma = pspc.ImageSet(images, xflip=False), 9 if windows == "full, many" else 1, 1.0
    D: pspc.Denoiser = pspc.PSPCSquare(data, patch_sizes={"long square": 6, "square": 3}.get(windows, 3))
    if windows.startswith("full"):
        D = pspc.Empirical(data)
    elif windows == "masks":
        D = pspc.PSPCFlex(data, masks=np.ones((1, 9, 9), bool))
    elif windows == "small sigma":
        sigma = 0.01
    z = np.zeros((queries, 1, 9, 9))
    D(z, sigma)
    images[17, 0, 4, 4] = value
    with pytest.raises(DataError, match=r"image 17 was changed after the data set was made: it now holds"):
        D(z, sigma)


def test_bytes_of_masks_need_not_be_0_and_1() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
    mask = np.zeros((2, 4, 4), np.uint8)
    mask[0], mask[1, :2] = 2, 255
    z, data = np.zeros((1, 1, 4, 4)), pspc.ImageSet(images)
    expected = pspc.PSPCFlex(data, masks=mask != 0)(z, 0.5)
    np.testing.assert_array_equal(pspc.PSPCFlex(data, masks=mask.view(bool))(z, 0.5), expected)


def test_arrays_that_are_not_aligned_are_copied() -> None:
    rng = np.random.default_rng(0)
    images, z = rng.random((20, 1, 4, 4), dtype=np.float32), rng.random((2, 1, 4, 4), dtype=np.float32)

    def shifted(array: Array) -> Array:
        moved = np.frombuffer(b"0" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)
        assert not moved.flags.aligned
        return moved

    expected = pspc.PSPCSquare(pspc.ImageSet(images), patch_sizes=2)(z, 0.3)
    D = pspc.PSPCSquare(pspc.ImageSet(shifted(images)), patch_sizes=2)
    np.testing.assert_array_equal(D(shifted(z), 0.3), expected)
