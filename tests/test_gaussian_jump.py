"""The exact path of the Gaussian denoiser: against fine integration, as a start of samplers, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import pspc_rs as pspc
from pspc_rs.errors import DTypeError, GradientError, InvalidValueError, ShapeError
from pspc_rs.samplers import SAMPLERS, gaussian_start, initial_noise, sample_heun

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (12, 3, 4, 5), dtype=np.uint8), xflip=True)
G = pspc.Gaussian(DATA, cache=False)
Z = 80 * np.random.default_rng(1).standard_normal((3, 3, 4, 5))
KINDS: list[dict[str, Any]] = [{}, {"rank": 3}, {"variance_floor": 0.05}, {"shrinkage": "ledoit-wolf"}]


def integrated(D: Any, z: NDArray[Any], high: float, low: float, steps: int = 400) -> NDArray[Any]:
    """The path of dz / d log sigma = z - D(z, sigma) by the classical fourth-order method."""
    h = np.log(low / high) / steps
    for log_sigma in np.log(high) + h * np.arange(steps):
        slopes = [z - D(z, np.exp(log_sigma))]
        for part in (0.5, 0.5, 1.0):
            ahead = z + part * h * slopes[-1]
            slopes.append(ahead - D(ahead, np.exp(log_sigma + part * h)))
        z = z + h / 6 * (slopes[0] + 2 * slopes[1] + 2 * slopes[2] + slopes[3])
    return z


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("to", [5.0, 0.3, 0.002])
def test_the_jump_is_where_a_fine_integration_ends(options: dict[str, Any], to: float) -> None:
    D = pspc.Gaussian(DATA, cache=False, **options)
    np.testing.assert_allclose(D.jump(Z, 80.0, to), integrated(D, Z, 80.0, to), rtol=0, atol=2e-7)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0, 100), st.sampled_from(KINDS))
def test_jumps_add_up(first: float, second: float, last: float, options: dict[str, Any]) -> None:
    D = pspc.Gaussian(DATA, cache=False, **options)
    z = first * Z / 80
    direct, there = D.jump(z, first, last), D.jump(D.jump(z, first, second), second, last)
    np.testing.assert_allclose(there, direct, rtol=0, atol=1e-9 * (1 + last))
    np.testing.assert_allclose(D.jump(z, first, first), z, rtol=0, atol=1e-10 * (1 + first))


def test_levels_of_a_batch_and_kinds_of_arrays() -> None:
    levels = np.array([80.0, 20.0, 3.0])
    together = G.jump(Z, levels, 1.0)
    for one, level in enumerate(levels):
        np.testing.assert_allclose(together[one], G.jump(Z[one : one + 1], level, 1.0)[0], rtol=0, atol=1e-12)
    tensor = G.jump(torch.from_numpy(Z).float(), torch.from_numpy(levels), 1.0)
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor.numpy(), together, rtol=0, atol=1e-5)


def test_a_jump_to_no_noise_draws_from_the_normal_distribution() -> None:
    x = G.jump(80 * np.random.default_rng(2).standard_normal((20_000, 3, 4, 5)), 80.0, 0.0)
    rows = x.reshape(len(x), -1) - G.mean
    np.testing.assert_allclose(np.var(rows @ G.axes, axis=0), G.variances, rtol=0.06)
    np.testing.assert_allclose(rows, rows @ G.axes @ G.axes.T, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_sampler_starts_where_the_jump_ends(sampler: str) -> None:
    D = pspc.PSPCSquare(DATA, patch_sizes=3)
    levels: list[float] = []

    def told(step: dict[str, Any]) -> None:
        levels.append(step["sigma"])

    options: dict[str, Any] = {"seed": 5, "generator": "numpy"}
    found = pspc.sample(D, 2, sampler, 6, jump=G, jump_to=2.5, callback=told, **options)
    start = G.jump(initial_noise(2, DATA.shape, 80.0, 5, generator="numpy"), 80.0, 2.5)
    np.testing.assert_array_equal(start, gaussian_start(G, 2, 2.5, **options))
    more: dict[str, Any] = {"noise": 5} if sampler == "edm" else {}
    np.testing.assert_array_equal(found, SAMPLERS[sampler](D, start, pspc.edm_sigmas(6, 0.002, 2.5), **more))
    assert levels == pspc.edm_sigmas(6, 0.002, 2.5)[:-1].tolist()
    assert found.dtype == np.float32


def test_the_gaussians_own_samples_are_those_of_a_fine_grid() -> None:
    fine = pspc.sample(G, 2, num_steps=2000, generator="numpy", x_init=Z[:2])
    jumped = pspc.sample(G, 2, num_steps=2000, jump=G, jump_to=2.0, x_init=Z[:2])
    np.testing.assert_allclose(jumped, fine, rtol=0, atol=1e-4)


def test_a_denoiser_need_not_take_the_levels_above() -> None:
    N = pspc.Network(G, shape=DATA.shape, sigma_max=3.0)
    assert pspc.sample(N, 1, jump=G, jump_to=3.0, num_steps=3).shape == (1, 3, 4, 5)
    with pytest.raises(InvalidValueError, match="jump_to is 4; the denoiser takes noise levels up to 3"):
        pspc.sample(N, 1, jump=G, jump_to=4.0)


def test_tensors_stay_tensors() -> None:
    found = pspc.sample(G, 2, jump=G, jump_to=1.0, num_steps=3, as_torch=True)
    assert isinstance(found, torch.Tensor)
    given = pspc.sample(G, 3, jump=G, jump_to=1.0, num_steps=3, x_init=torch.from_numpy(Z))
    assert given.dtype == torch.float64


def test_what_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"jump is None and jump_to is 2\.0; allowed are both"):
        pspc.sample(G, 1, jump_to=2.0)
    with pytest.raises(InvalidValueError, match="jump_to is None; allowed are both"):
        pspc.sample(G, 1, jump=G)
    with pytest.raises(DTypeError, match="allowed are Gaussian denoisers"):
        pspc.sample(G, 1, jump=pspc.Empirical(DATA), jump_to=2.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="sigma_max is 80, below sigma, which is 90"):
        pspc.sample(G, 1, jump=G, jump_to=90.0)
    with pytest.raises(InvalidValueError, match="sigma is 0; allowed are numbers above 0"):
        gaussian_start(G, 1, 0.0)
    for to in (-1.0, np.inf, 1e10):
        with pytest.raises(InvalidValueError, match="sigma_to is"):
            G.jump(Z, 80.0, to)
    with pytest.raises(InvalidValueError, match="sigma is"):
        G.jump(Z, 0.0, 1.0)
    with pytest.raises(ShapeError, match="z has shape"):
        G.jump(Z[:, :1], 80.0, 1.0)
    with pytest.raises(GradientError, match=r"Gaussian\.jump"):
        G.jump(torch.from_numpy(Z).requires_grad_(), 80.0, 1.0)


def test_heun_on_a_fine_grid_meets_it_too() -> None:
    states: Any = sample_heun(G, Z, np.geomspace(80.0, 0.5, 3000))
    np.testing.assert_allclose(G.jump(Z, 80.0, 0.5), states, rtol=0, atol=1e-4)
