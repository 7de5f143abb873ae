"""Patch posterior means against the formula, window by window."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments import patches
from pspc_rs.experiments.patches import patch_errors
from reference import pixels, square_windows, with_flips


def data_set(num: int, *shape: int, xflip: bool = False) -> pspc.ImageSet:
    return pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (num, *shape), dtype=np.uint8), xflip=xflip)


def expected(data: pspc.ImageSet, z: Any, sigma: float, target: Any, side: int) -> Any:
    import torch

    images = pixels(data.images.copy())
    images = with_flips(images) if data.xflip else images
    z, target = torch.as_tensor(z).double(), torch.as_tensor(target).double()
    windows = square_windows(data.height, data.width, side)
    errors = torch.zeros(len(z), dtype=torch.float64)
    for b in range(len(z)):
        for window in windows:
            inside = images[:, :, window].flatten(1)
            distances = ((z[b][:, window].flatten() - inside) ** 2).sum(1)
            mean = torch.softmax(-distances / (2 * sigma**2), 0) @ inside
            errors[b] += ((mean - target[b][:, window].flatten()) ** 2).mean() / len(windows)
    return errors.numpy()


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([0.02, 0.3, 1.0, 5.0, 80.0]),
    st.integers(0, 99),
)
def test_errors_are_those_of_the_formula(
    shape: tuple[int, int, int], num: int, xflip: bool, sigma: float, seed: int
) -> None:
    data, random = data_set(num, *shape, xflip=xflip), np.random.default_rng(seed)
    z = data.batch(random.integers(len(data), size=2)) + np.float32(sigma) * random.normal(size=(2, *shape))
    target: Any = random.normal(size=z.shape)
    sides = list(range(1, min(shape[1:]) + 1))
    for found in patch_errors(data, z, sigma, target, sides):
        assert np.allclose(found.errors, expected(data, z, sigma, target, found.side), rtol=1e-5, atol=1e-7)
        assert found.windows == found.of == (shape[1] - found.side + 1) * (shape[2] - found.side + 1)


def test_chunks_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_set(50, 3, 7, 6, xflip=True)
    z = data.batch(range(4)) + np.random.default_rng(1).normal(size=(4, 3, 7, 6)) / 2
    whole = patch_errors(data, z, 0.5, z, [2, 4])
    monkeypatch.setattr(patches, "_IMAGES_AT_ONCE", 7)
    monkeypatch.setattr(patches, "_STATE_BYTES", 5000)
    told: list[tuple[int, int]] = []
    parts = patch_errors(data, z, 0.5, z, [2, 4], progress=lambda done, total: told.append((done, total)))
    for one, other in zip(whole, parts, strict=True):
        assert np.allclose(one.errors, other.errors, rtol=1e-6)
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))


def test_the_full_window_is_the_empirical_denoiser() -> None:
    data = data_set(40, 1, 5, 5)
    z = data.batch(range(3)) + np.random.default_rng(1).normal(size=(3, 1, 5, 5))
    target = np.random.default_rng(2).normal(size=z.shape)
    (found,) = patch_errors(data, z, 1.0, target, [5])
    assert found.mean == pytest.approx(np.square(pspc.Empirical(data)(z, 1.0) - target).mean(), rel=1e-5)
    assert found.standard_error == pytest.approx(found.errors.std(ddof=1) / np.sqrt(3))


def test_some_windows_stand_for_all() -> None:
    data = data_set(30, 1, 8, 8)
    z = data.batch(range(6)) + np.random.default_rng(1).normal(size=(6, 1, 8, 8))
    (all_of_them,) = patch_errors(data, z, 1.0, np.zeros_like(z), [3])
    (some,) = patch_errors(data, z, 1.0, np.zeros_like(z), [3], max_windows=12)
    (again,) = patch_errors(data, z, 1.0, np.zeros_like(z), [3], max_windows=12)
    assert (some.windows, some.of) == (12, 36)
    assert some.mean == again.mean
    assert some.mean == pytest.approx(all_of_them.mean, rel=0.3)


def test_weights_by_pixel_count_every_pixel_the_same() -> None:
    data = data_set(20, 2, 5, 6)
    z = data.batch(range(2)) + np.random.default_rng(1).normal(size=(2, 2, 5, 6))
    images = data.batch(range(20)).astype(np.float64)
    total, covers = np.zeros((2, 5, 6)), np.zeros((5, 6))
    for y in range(3):
        for x in range(4):
            at = np.s_[..., y : y + 3, x : x + 3]
            distances = np.square(z[at][:, None] - images[at][None]).sum(axis=(2, 3, 4))
            weights = np.exp(distances.min(axis=1, keepdims=True) / 2 - distances / 2)
            means = np.einsum("bn,ncyx->bcyx", weights / weights.sum(axis=1, keepdims=True), images[at])
            total[at] += np.square(means - z[at]).mean(axis=1)
            covers[at] += 1
    (found,) = patch_errors(data, z, 1.0, z, [3], weigh="pixels")
    np.testing.assert_allclose(found.errors, (total / covers).mean(axis=(1, 2)), rtol=1e-5)
    (usual,) = patch_errors(data, z, 1.0, z, [3])
    np.testing.assert_allclose(usual.errors, total.sum(axis=(1, 2)) / covers.sum(), rtol=1e-5)
    for side in (1, 5):  # every pixel is in one window, and in as many as its column has
        one, other = (patch_errors(data, z, 1.0, z, [side], weigh=how)[0] for how in ("windows", "pixels"))
        assert (side == 1) == bool(np.allclose(one.errors, other.errors, rtol=1e-9))
    (some,) = patch_errors(data, z, 1.0, z, [3], max_windows=2, weigh="pixels")
    assert some.mean > 0
    with pytest.raises(InvalidValueError, match="weigh is 'area'"):
        patch_errors(data, z, 1.0, z, [3], weigh="area")


def test_bad_input_is_refused() -> None:
    data, z = data_set(3, 1, 4, 5), np.zeros((2, 1, 4, 5))
    with pytest.raises(InvalidValueError, match="side is 5; allowed are 1 to the shorter side of 4 x 5"):
        patch_errors(data, z, 1.0, z, [5])
    with pytest.raises(ShapeError, match="target has shape"):
        patch_errors(data, z, 1.0, z[:1], [3])
    with pytest.raises(InvalidValueError, match="sigma is 0"):
        patch_errors(data, z, 0, z, [3])
