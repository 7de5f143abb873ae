"""pspc_rs.testing: the tiny data set, the reference denoiser, and the check of how a denoiser is called."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from pspc_rs.errors import InvalidValueError
from pspc_rs.testing import ReferenceComposite, assert_denoises, tiny_images


@given(
    num=st.integers(1, 12),
    channels=st.integers(1, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    xflip=st.booleans(),
    prior=st.booleans(),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_the_reference_is_the_composite(
    num: int, channels: int, height: int, width: int, xflip: bool, prior: bool, seed: int, data: st.DataObject
) -> None:
    images = tiny_images(num, (channels, height, width), xflip=xflip, seed=seed)
    if prior:
        images = pspc.ImageSet(images.images, xflip=xflip, log_prior=np.linspace(-2, 2, num))
    side = data.draw(st.integers(1, min(height, width)))
    sigma = data.draw(st.sampled_from([0.05, 0.5, 5.0]))
    z = images.batch([0]) + sigma * np.random.default_rng(seed).standard_normal((1, channels, height, width))
    expected = pspc.PSPCSquare(images, patch_sizes=side)(z, sigma)
    np.testing.assert_allclose(ReferenceComposite(images, side)(z, sigma), expected, rtol=0, atol=1e-5)


def test_the_data_are_the_same_bytes_every_time_and_have_their_labels() -> None:
    data = tiny_images(5, num_classes=3)
    assert np.array_equal(data.images, tiny_images(5, num_classes=3).images)
    assert not np.array_equal(data.images, tiny_images(5, num_classes=3, seed=1).images)
    assert data.labels is not None and data.labels.tolist() == [0, 1, 2, 0, 1]
    assert tiny_images(num_classes=0).labels is None
    with pytest.raises(InvalidValueError, match="num is 0"):
        tiny_images(0)
    with pytest.raises(InvalidValueError, match="patch_size is 9"):
        ReferenceComposite(data, 9)


@pytest.mark.parametrize("kind", [pspc.Empirical, pspc.Gaussian, pspc.LS])
def test_the_denoisers_here_pass(kind: Any) -> None:
    data = tiny_images()
    assert_denoises(kind(data, window_sizes=3) if kind is pspc.LS else kind(data), data)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda z, sigma: z[:, :1], r"shape \(3, 1, 8, 8\)"),
        (lambda z, sigma: z.astype(np.float64), "dtype float64"),
        (lambda z, sigma: z * np.float32(np.nan), "not finite"),
        (lambda z, sigma: np.multiply(z, 2, out=z), "z was changed"),
        (lambda z, sigma: z - z.mean(axis=0), "at sigma 0.1 an image in a batch differs"),
        (lambda z, sigma: z * np.float32(np.max(sigma)), "at sigma 0.1 an image in a batch differs"),
    ],
)
def test_what_is_called_otherwise_is_found(wrong: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_denoises(wrong, tiny_images())
