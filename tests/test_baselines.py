"""CFDM and SNIS: the oracle, limits, independence of batches, bad input."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
import reference
from pspc_rs import errors
from pspc_rs.denoisers.cfdm import smoothing_noises


def some_data(shape: tuple[int, int, int], n: int, xflip: bool, seed: int) -> pspc.ImageSet:
    return pspc.ImageSet(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8), xflip=xflip)


def exact_images(data: pspc.ImageSet) -> torch.Tensor:
    return torch.from_numpy(data.batch(range(len(data))).astype(np.float64))


def noisy(data: pspc.ImageSet, n: int, sigma: float, seed: int = 5) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return data.batch(rng.integers(0, len(data), n)) + sigma * rng.standard_normal((n, *data.shape))


shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6))
sigmas = st.sampled_from([0.01, 0.3, 1.0, 5.0, 60.0])


@given(shapes, st.integers(1, 12), st.booleans(), sigmas, st.sampled_from([0.0, 0.05, 0.4]), st.integers(1, 5))
def test_cfdm_is_the_oracle(
    shape: tuple[int, int, int], n: int, xflip: bool, sigma: float, smoothing: float, num_noises: int
) -> None:
    data = some_data(shape, n, xflip, seed=n)
    D = pspc.CFDM(data, smoothing, num_noises, seed=3)
    z = noisy(data, 3, sigma)
    exact = reference.cfdm(exact_images(data), D.noises, smoothing, z, sigma)
    np.testing.assert_allclose(D(z, sigma), exact, rtol=0, atol=1e-5)


def test_cfdm_without_smoothing_is_the_empirical_denoiser() -> None:
    data = some_data((1, 6, 5), 30, True, seed=0)
    z = noisy(data, 4, 0.5).astype(np.float32)
    np.testing.assert_array_equal(pspc.CFDM(data, 0, 3)(z, 0.5), pspc.Empirical(data)(z, 0.5))


def test_the_noises_of_cfdm_are_fixed_by_the_seed_and_are_not_those_of_initial_states() -> None:
    first, again, other = (smoothing_noises((1, 4, 4), 5, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.allclose(first, other)
    start = pspc.samplers.initial_noise(5, (1, 4, 4), 1.0, seed=1, generator="numpy")
    assert not np.allclose(first, start)


@given(shapes, st.integers(1, 40), st.booleans(), sigmas, st.integers(1, 50), st.integers(1, 64), st.integers(0, 99))
def test_snis_is_the_oracle(
    shape: tuple[int, int, int], n: int, xflip: bool, sigma: float, neighbors: int, draws: int, seed: int
) -> None:
    data = some_data(shape, n, xflip, seed=seed)
    D = pspc.SNIS(data, neighbors, draws, seed)
    z = noisy(data, 3, sigma)
    uniforms = [D._uniforms(one) for one in z]
    # Flips that mirror onto themselves tie, and rounding decides ties: they are the same image.
    exact = reference.snis(exact_images(data), z, sigma, min(neighbors, len(data)), uniforms)
    np.testing.assert_allclose(D(z, sigma), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.3, 2.0, 40.0])
@pytest.mark.parametrize("neighbors", [5, 50, 1000])
def test_many_draws_of_snis_come_close_to_the_empirical_denoiser(sigma: float, neighbors: int) -> None:
    data = some_data((1, 3, 3), 100, True, seed=1)
    z = noisy(data, 4, sigma)
    D = pspc.SNIS(data, neighbors, num_draws=40_000)
    np.testing.assert_allclose(D(z, sigma), pspc.Empirical(data)(z, sigma), atol=0.03)


@pytest.mark.parametrize("neighbors", [3, 2048])
def test_a_query_of_snis_does_not_depend_on_its_batch(neighbors: int) -> None:
    data = some_data((3, 5, 4), 300, True, seed=2)
    z, levels = noisy(data, 70, 1.0), np.geomspace(0.1, 10, 70)
    D = pspc.SNIS(data, neighbors)
    together = D(z, levels)
    np.testing.assert_array_equal(np.concatenate([D(z[i : i + 1], levels[i]) for i in range(70)]), together)
    np.testing.assert_array_equal(D(z[::-1], levels[::-1])[::-1], together)
    np.testing.assert_array_equal(pspc.SNIS(data, neighbors)(z, levels), together)
    assert not np.allclose(pspc.SNIS(data, neighbors, seed=1)(z, levels), together)


def test_snis_with_one_neighbour_and_far_images_returns_no_nan() -> None:
    data = some_data((3, 8, 8), 4000, False, seed=3)
    z = noisy(data, 3, 0.01)
    assert np.isfinite(pspc.SNIS(data, 1, 4)(z, 0.01)).all()


def test_at_a_training_image_and_little_noise_both_return_it() -> None:
    data = some_data((3, 8, 8), 50, True, seed=4)
    x = data.batch([7, 60])
    for D in (pspc.CFDM(data, 0.01, 4), pspc.SNIS(data)):
        np.testing.assert_allclose(D(x, 0.002), x, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda data: pspc.CFDM(data, -0.1), "smoothing is -0.1"),
        (lambda data: pspc.CFDM(data, float("nan")), "smoothing is nan"),
        (lambda data: pspc.CFDM(data, 0.1, 0), "num_noises is 0"),
        (lambda data: pspc.CFDM(data, 0.1, 2, -1), "seed is -1"),
        (lambda data: pspc.SNIS(data, 0), "num_neighbors is 0"),
        (lambda data: pspc.SNIS(data, 5, 0), "num_draws is 0"),
        (lambda data: pspc.SNIS(data, 5, 5, -2), "seed is -2"),
    ],
)
def test_bad_parameters_are_refused(build: Any, message: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=message):
        build(some_data((1, 2, 2), 3, False, seed=0))


def test_settings_tell_denoisers_apart_and_go_into_records() -> None:
    from pspc_rs.provenance import plain

    data = some_data((1, 4, 4), 9, True, seed=0)
    maps = np.random.default_rng(0).random((1, 4, 4, 4, 4))
    family = [
        pspc.Empirical(data),
        pspc.Empirical(some_data((1, 4, 4), 9, True, seed=1)),
        pspc.Gaussian(data, cache=False),
        pspc.Gaussian(data, 2, cache=False),
        pspc.PSPCSquare(data, patch_sizes=3),
        pspc.PSPCSquare(data, patch_sizes=2),
        pspc.PSPCFlex(data, heatmaps=maps, thresholds=0.5),
        pspc.PSPCFlex(data, heatmaps=maps, thresholds=0.6),
        pspc.PSPCFlex(data, heatmaps=maps * np.arange(1, 5), thresholds=0.6),
        pspc.PSPCFlex(data, masks=np.ones((1, 4, 4), bool)),
        pspc.CFDM(data),
        pspc.CFDM(data, 0.2),
        pspc.SNIS(data),
        pspc.Network(torch.nn.Conv2d(1, 1, 3)),
        pspc.Network(torch.nn.Conv2d(1, 1, 3)),
        pspc.Network(max),
    ]
    settings = [plain(one.settings) for one in family]  # type: ignore[attr-defined]
    assert all(settings.count(one) == 1 for one in settings)
    assert settings[4] == plain(pspc.PSPCSquare(data, patch_sizes=3).settings)
