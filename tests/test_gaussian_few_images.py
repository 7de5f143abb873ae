"""The Gaussian of few images: a floor under its variances, shrinkage, and what is refused."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import pspc_rs as pspc
from pspc_rs.denoisers.covariance import principal_axes
from pspc_rs.denoisers.shrinkage import ledoit_wolf
from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.samplers import log_likelihood

Float64 = NDArray[np.float64]
OPTIONS: list[dict[str, Any]] = [
    {"variance_floor": 0.3},
    {"shrinkage": 0.25},
    {"shrinkage": 1},
    {"shrinkage": "ledoit-wolf"},
]

shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))


def images(shape: tuple[int, int, int], n: int, xflip: bool, seed: int) -> pspc.ImageSet:
    return pspc.ImageSet(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8), xflip=xflip)


def pixels(data: pspc.ImageSet) -> Float64:
    """What the bytes stand for, in float64, all images and then their flips, as rows."""
    stored = data.images / 127.5 - 1
    return np.concatenate([stored, stored[..., ::-1]] if data.xflip else [stored]).reshape(len(data), -1)


def covariance(data: pspc.ImageSet) -> tuple[Float64, Float64]:
    rows = pixels(data)
    return rows.mean(axis=0), (rows - rows.mean(axis=0)).T @ (rows - rows.mean(axis=0)) / len(data)


def dense(data: pspc.ImageSet, rank: int | None, options: dict[str, Any]) -> Float64:
    """The covariance matrix that the options stand for."""
    _, sigma = covariance(data)
    values, vectors = np.linalg.eigh(sigma)
    if rank is not None:
        values[: len(values) - rank] = 0
    if "variance_floor" in options:
        values = np.maximum(values, options["variance_floor"])
    else:
        a = options["shrinkage"]
        a = brute_force_ledoit_wolf(data) if isinstance(a, str) else a
        values = (1 - a) * values + a * np.trace(sigma) / len(sigma)
    result: Float64 = (vectors * values) @ vectors.T
    return result


def brute_force_ledoit_wolf(data: pspc.ImageSet) -> float:
    mean, sigma = covariance(data)
    views = pixels(data).reshape(1 + data.xflip, data.num_stored, -1) - mean
    samples = np.einsum("vni,vnj->nij", views, views) / len(views)
    size, target = len(sigma), np.trace(sigma) / len(sigma) * np.eye(len(sigma))
    spread = ((samples - sigma) ** 2).sum() / data.num_stored**2 / size
    distance = ((sigma - target) ** 2).sum() / size
    return float(min(1.0, spread / distance)) if distance > 1e-12 else 0.0


@given(shapes, st.integers(2, 15), st.booleans(), st.sampled_from(OPTIONS), st.booleans(), st.integers(0, 999))
def test_the_options_stand_for_a_covariance_matrix(
    shape: tuple[int, int, int], n: int, xflip: bool, options: dict[str, Any], cut: bool, seed: int
) -> None:
    data = images(shape, n, xflip, seed)
    available = pspc.Gaussian(data, cache=False).rank
    rank = 1 + seed % available if cut else None
    G = pspc.Gaussian(data, rank, cache=False, **options)
    sigma, size = dense(data, rank, options), int(np.prod(shape))
    mean, _ = covariance(data)
    rng = np.random.default_rng(seed)
    z, v = rng.standard_normal((2, 3, *shape)) * 2
    for level in (0.01, 0.7, 20.0):
        wiener = sigma @ np.linalg.inv(sigma + level**2 * np.eye(size))
        expected = (mean + (z.reshape(3, -1) - mean) @ wiener.T).reshape(z.shape)
        denoised, Jv = G.jvp(z, level, v)
        np.testing.assert_allclose(denoised, expected, rtol=0, atol=1e-7)
        np.testing.assert_allclose(Jv.reshape(3, -1), v.reshape(3, -1) @ wiener.T, rtol=0, atol=1e-7)
        np.testing.assert_allclose(G.divergence(z, level)[1], np.trace(wiener), rtol=1e-7)
        blocks = np.abs(wiener.reshape(shape[0], -1, shape[0], size // shape[0]))
        maps = sum(blocks[c, :, c] for c in range(shape[0]))
        found = pspc.gaussian_heatmaps(G, [level]).reshape(-1, size // shape[0])
        np.testing.assert_allclose(found, maps, rtol=0, atol=1e-5)


@given(shapes, st.integers(2, 30), st.booleans(), st.integers(0, 999))
def test_ledoit_and_wolfs_shrinkage_is_that_of_the_definition(
    shape: tuple[int, int, int], n: int, xflip: bool, seed: int
) -> None:
    data = images(shape, n, xflip, seed)
    found = ledoit_wolf(data, principal_axes(data))
    np.testing.assert_allclose(found, brute_force_ledoit_wolf(data), rtol=1e-6, atol=1e-9)
    assert pspc.Gaussian(data, shrinkage="ledoit-wolf", cache=False).shrinkage == found


def test_ledoit_and_wolfs_shrinkage_is_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.covariance")
    data = images((1, 5, 6), 20, False, 0)
    rows = pixels(data)
    np.testing.assert_allclose(ledoit_wolf(data, principal_axes(data)), sklearn.ledoit_wolf_shrinkage(rows), rtol=1e-9)


def test_few_images_are_denoised_better_with_a_variance_everywhere() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((64, 64)) * np.linspace(0.02, 0.2, 64)[:, None]
    pool = (rng.standard_normal((330, 64)) @ mixing).reshape(-1, 1, 8, 8).astype(np.float32)
    few, held = pspc.ImageSet(pool[:30]), pool[30:].astype(np.float64)
    z = held + 0.3 * rng.standard_normal(held.shape)

    def error(**options: Any) -> float:
        return float(((pspc.Gaussian(few, cache=False, **options)(z, 0.3) - held) ** 2).mean())

    assert error(shrinkage="ledoit-wolf") < 0.8 * error()
    assert error(variance_floor=0.05) < 0.8 * error()


def test_no_shrinkage_is_the_plain_denoiser_to_the_bit() -> None:
    data, z = images((1, 4, 5), 9, True, 0), np.random.default_rng(1).standard_normal((2, 1, 4, 5))
    plain, same = pspc.Gaussian(data, cache=False), pspc.Gaussian(data, shrinkage=0, cache=False)
    np.testing.assert_array_equal(plain(z, 0.2), same(z, 0.2))
    assert plain.rest == same.rest == 0


def test_records_and_reprs_say_what_was_chosen() -> None:
    data = images((1, 4, 5), 9, True, 0)
    plain, floor = pspc.Gaussian(data, cache=False), pspc.Gaussian(data, variance_floor=0.1, cache=False)
    shrunk = pspc.Gaussian(data, shrinkage="ledoit-wolf", cache=False)
    assert plain.settings.keys() == {"denoiser", "data", "rank"}
    assert floor.settings == {**plain.settings, "variance_floor": 0.1}
    assert shrunk.settings == {**plain.settings, "shrinkage": shrunk.shrinkage}
    assert repr(floor).endswith(f"rank={floor.rank}, variance_floor=0.1)")
    assert repr(shrunk).endswith(f"shrinkage={shrunk.shrinkage!r})")


def test_likelihoods_count_every_direction() -> None:
    data, size = images((1, 3, 3), 5, False, 0), 9
    G = pspc.Gaussian(data, variance_floor=0.04, cache=False)
    x = data.batch([0, 1]).astype(np.float64)
    total = dense(data, None, {"variance_floor": 0.04}) + 0.002**2 * np.eye(size)
    offsets = x.reshape(2, -1) - G.mean
    quadratic = np.einsum("ni,ni->n", offsets @ np.linalg.inv(total), offsets)
    exact = -(quadratic + np.linalg.slogdet(2 * np.pi * total)[1]) / 2
    np.testing.assert_allclose(log_likelihood(G, x, pspc.edm_sigmas(512)).value, exact, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"variance_floor": 0}, InvalidValueError, "variance_floor is 0; allowed are numbers above 0"),
        ({"variance_floor": -1.0}, InvalidValueError, "variance_floor is -1"),
        ({"variance_floor": np.inf}, InvalidValueError, "variance_floor is inf"),
        ({"variance_floor": "small"}, DTypeError, "variance_floor is 'small'"),
        ({"shrinkage": 1.5}, InvalidValueError, "shrinkage is 1.5; allowed are numbers from 0 and up to 1"),
        ({"shrinkage": np.nan}, InvalidValueError, "shrinkage is nan"),
        ({"shrinkage": "oas"}, InvalidValueError, "shrinkage is 'oas'; allowed are numbers from 0 to 1 and 'ledoit"),
        ({"shrinkage": [0.5]}, DTypeError, "shrinkage is"),
        ({"shrinkage": 0.5, "variance_floor": 1}, InvalidValueError, "variance_floor is 1 and shrinkage 0.5"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pspc.Gaussian(images((1, 2, 2), 5, False, 0), cache=False, **options)


def test_the_formula_is_not_for_images_of_unequal_weight() -> None:
    data = pspc.ImageSet(np.zeros((3, 1, 2, 2), np.uint8), log_prior=np.arange(3.0))
    with pytest.raises(InvalidValueError, match="images of equal weight"):
        pspc.Gaussian(data, shrinkage="ledoit-wolf", cache=False)
    assert pspc.Gaussian(data, shrinkage=0.5, cache=False).shrinkage == 0.5
