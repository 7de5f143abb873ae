"""Explanations: maps, shares and training patches against the oracle, the nearest images, trajectories, bad input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from posterior_problems import Problem, problems
from pspc_rs.errors import InvalidValueError, ShapeError
from pspc_rs.experiments import explain, explain_trajectory, nearest_images
from pspc_rs.experiments.explaining import Explanation
from pspc_rs.samplers import initial_noise, sample_heun

DATA = pspc.ImageSet(
    np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8), dtype=np.uint8), labels=np.arange(30) % 3, xflip=True
)
SQUARE = pspc.PSPCSquare(DATA, patch_sizes=3)
Z = DATA.batch([3, 40]) + 0.3 * np.random.default_rng(1).standard_normal((2, 1, 8, 8)).astype(np.float32)


@given(problems(), st.data())
def test_maps_shares_and_patches_are_the_oracle(problem: Problem, draw: st.DataObject) -> None:
    sigma = float(problem.sigma[0])
    alone = Problem(problem.data, problem.kind, problem.temperature, problem.z, np.full(len(problem.z), sigma))
    exact, windows = alone.oracle(), problem.windows.numpy()
    _, height, width = problem.data.shape
    pixels = draw.draw(
        st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), min_size=1, max_size=4)
    )
    found = explain(alone.denoiser(), problem.z, sigma, at=pixels, top=2)
    K, n = len(windows), problem.data.num_stored
    effective = np.exp(exact.entropy.numpy())
    maps = np.einsum("bk,khw->bhw", effective, windows) / windows.sum(0)
    np.testing.assert_allclose(found.effective_images, maps, rtol=1e-4)
    np.testing.assert_allclose(found.variance, exact.variance, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.denoised, exact.denoised, rtol=0, atol=1e-5)
    weights = exact.weights.numpy()
    shares = weights.sum(1).reshape(len(problem.z), -1, n).sum(1) / K
    np.testing.assert_allclose(found.attribution, shares, rtol=0, atol=1e-5)
    assert found.num_components == K
    for place, (y, x) in enumerate(pixels):
        component = found.components[place]
        assert np.array_equal(found.masks[place], windows[component]) and windows[component, y, x]
        np.testing.assert_allclose(found.position_images[:, place], effective[:, component], rtol=1e-4)
        heaviest = -np.sort(-weights[:, component], axis=-1)[:, :2]
        np.testing.assert_allclose(found.top_weight[:, place], heaviest, rtol=0, atol=1e-5)
        atoms = found.top_index[:, place] + n * found.top_view[:, place]
        there = np.where(atoms < 0, 0, np.take_along_axis(weights[:, component], np.maximum(atoms, 0), axis=-1))
        np.testing.assert_allclose(there, found.top_weight[:, place], rtol=0, atol=1e-5)


def test_the_component_at_a_pixel_is_the_one_around_it() -> None:
    found = explain(SQUARE, Z, 0.3, at=[(4, 5), (0, 0), (7, 3), (1, 1)])
    corners = [tuple(np.argwhere(mask)[0].tolist()) for mask in found.masks]
    assert corners == [(3, 4), (0, 0), (5, 2), (0, 0)]
    assert found.components.tolist() == [3 * 6 + 4, 0, 5 * 6 + 2, 0]
    even = explain(pspc.PSPCSquare(DATA, patch_sizes=4), Z, 0.3, at=[(4, 4)])
    assert np.argwhere(even.masks[0])[0].tolist() == [2, 2]


def test_positions_are_a_grid_if_none_are_given() -> None:
    assert explain(SQUARE, Z, 0.3).positions.tolist() == [[y, x] for y in (1, 4, 6) for x in (1, 4, 6)]
    tiny = pspc.ImageSet(np.zeros((2, 1, 2, 1), np.uint8))
    found = explain(pspc.Empirical(tiny), np.zeros((1, 1, 2, 1)), 1.0)
    assert found.positions.tolist() == [[0, 0], [1, 0]]


def test_the_images_behind_z_can_be_left_out() -> None:
    left = explain(SQUARE, Z, 0.3, exclude=[3, 40])
    for one, index in enumerate((3, 10)):
        without = DATA.subset(np.delete(np.arange(30), index))
        alone = explain(pspc.PSPCSquare(without, patch_sizes=3), Z[one : one + 1], 0.3)
        assert left.attribution[one, index] == 0
        np.testing.assert_allclose(np.delete(left.attribution[one], index), alone.attribution[0], atol=1e-6)
        np.testing.assert_allclose(left.effective_images[one], alone.effective_images[0], rtol=1e-4)
        np.testing.assert_allclose(left.variance[one], alone.variance[0], atol=1e-6)
        assert index not in left.nearest.index[one]
        np.testing.assert_allclose(left.nearest.distance[one], alone.nearest.distance[0], rtol=1e-5)
    of_class = explain(SQUARE, Z, 0.3, class_labels=[1, 1])
    assert not of_class.attribution[:, DATA.labels != 1].any()
    assert set(DATA.labels[of_class.nearest.index].ravel()) == {1}  # type: ignore[index]


def brute_force(data: pspc.ImageSet, images: Any) -> list[list[tuple[float, int]]]:
    """Distance and index of all training images, nearest first, for each image."""
    views = data.batch(range(len(data))).astype(np.float64)
    distances = np.sqrt(np.square(images[:, None] - views).sum(axis=(2, 3, 4)))
    nearest = distances.reshape(len(images), -1, data.num_stored).min(axis=1)
    return [sorted(zip(row.tolist(), range(data.num_stored), strict=True)) for row in nearest]


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3, 50]), st.booleans(), st.booleans(), st.sampled_from([1, 1e5])
)
def test_nearest_images_are_those_of_brute_force(seed: int, n: int, xflip: bool, as_bytes: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    stored: Any = rng.integers(0, 256, (n, 2, 3, 4), dtype=np.uint8)
    if not as_bytes:
        stored = (scale * (1 + 1e-6 * rng.standard_normal((n, 2, 3, 4)))).astype(np.float32)
    data = pspc.ImageSet(stored, xflip=xflip, channels_last=False)
    base = data.batch(rng.integers(0, len(data), 4)).astype(np.float64)
    images = base + rng.choice([0, 1e-3, 1]) * rng.standard_normal(base.shape)
    near = nearest_images(data, images)
    for one, exact in enumerate(brute_force(data, images)):
        for place in range(min(2, n)):
            distance, index = exact[place]
            assert near.distance[one, place] == pytest.approx(distance, rel=1e-12)
            assert near.index[one, place] == index
            there = data.batch([index + n * near.view[one, place]])[0]
            assert np.sqrt(np.square(images[one] - there).sum()) == pytest.approx(distance, rel=1e-12)
    if n == 1:
        assert near.index[:, 1].tolist() == [-1] * 4 and np.isnan(near.ratio).all() and not near.is_copy.any()
    else:
        with np.errstate(invalid="ignore"):
            ratio = near.distance[:, 0] / near.distance[:, 1]
        assert np.array_equal(near.ratio, np.where(near.distance[:, 0] == 0, 0, ratio))
        assert np.array_equal(near.is_copy, near.ratio < 1 / 3)


def test_images_twice_in_the_data_are_copies_of_both() -> None:
    twice = DATA.subset([0, 1, 1, 2])
    near = nearest_images(twice, DATA.batch([1, 1 + 30]))
    assert near.index.tolist() == [[1, 2]] * 2 and near.view.tolist() == [[0, 0], [1, 1]]
    assert near.distance.tolist() == [[0, 0]] * 2 and near.ratio.tolist() == [0, 0] and near.is_copy.all()


def test_progress_of_nearest_images_ends() -> None:
    seen: list[tuple[int, int]] = []
    nearest_images(DATA, Z, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (30, 30)
    with pytest.raises(ShapeError):
        nearest_images(DATA, Z[:, :, :4])
    with pytest.raises(InvalidValueError, match="leaves no image"):
        nearest_images(DATA, Z[:1], exclude=[list(range(30))])


def test_a_trajectory_is_that_of_the_sampler_and_its_shares_are_summed() -> None:
    sigmas, start = [6.0, 2.0, 0.7, 0.2, 0.0], initial_noise(2, DATA.shape, 6.0)
    done: list[tuple[int, int]] = []
    way = explain_trajectory(SQUARE, start, sigmas, shown=[1, 3], progress=lambda *of: done.append(of))
    states: Any = sample_heun(SQUARE, start, sigmas, trajectory=True)
    assert np.array_equal(way.samples, states[-1])
    total = np.zeros((2, 30))
    for step, sigma in enumerate(sigmas[:-1]):
        P = SQUARE.posterior(states[step], sigma)
        shares = P.attribution() / P.num_components
        total += shares
        np.testing.assert_allclose(way.denoised[step], SQUARE(states[step], sigma), atol=1e-6)
        assert np.array_equal(way.leading[step], shares.argmax(axis=1))
        np.testing.assert_allclose(way.leading_share[step], shares.max(axis=1))
    np.testing.assert_allclose(way.attribution, total, rtol=1e-12)
    assert [level.sigma for level in way.levels] == [2.0, 0.2] and way.shown == (1, 3)
    assert np.array_equal(way.levels[1].z, states[3])
    assert way.nearest.distance[0, 0] == pytest.approx(brute_force(DATA, way.samples)[0][0][0])
    assert done[-1][0] == done[-1][1] == 4 + 6 + 1
    of_class = explain_trajectory(SQUARE, start, sigmas, shown=[0], class_labels=[0, 2])
    assert not of_class.attribution[0, DATA.labels != 0].any() and of_class.attribution[1, DATA.labels == 2].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": [(8, 0)]}, r"pixel \(8, 0\); allowed are y from 0 to 7 and x from 0 to 7"),
        ({"at": [(0, -1)]}, r"pixel \(0, -1\)"),
        ({"top": 65}, "top is 65; allowed are integers from 1 to 64"),
        ({"sigma": 0.0}, "sigma"),
        ({"exclude": [99, 0]}, "exclude holds 99"),
        ({"class_labels": [7, 0]}, "class_labels hold 7"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        explain(SQUARE, Z, **{"sigma": 0.3, **arguments})


def test_who_cannot_be_explained_is_named() -> None:
    for other in (pspc.Gaussian(DATA, cache=False), pspc.CFDM(DATA), pspc.SNIS(DATA), pspc.Network(lambda z, s: z)):
        with pytest.raises(InvalidValueError, match=f"a {type(other).__name__} has no posteriors"):
            explain(other, Z, 0.3)  # type: ignore[arg-type]
    for at in ([], [1, 2], [(1, 2, 3)]):
        with pytest.raises(ShapeError, match="allowed are pixels"):
            explain(SQUARE, Z, 0.3, at=at)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="do not end in 0"):
        explain_trajectory(SQUARE, Z, [1.0, 0.5])
    with pytest.raises(InvalidValueError, match="shown are"):
        explain_trajectory(SQUARE, Z, [1.0, 0.5, 0.0], shown=[2])
    with pytest.raises(InvalidValueError, match="sampler"):
        explain_trajectory(SQUARE, Z, [1.0, 0.0], sampler="edm")


def test_explanations_say_what_they_are() -> None:
    found = explain(SQUARE, Z, 0.3)
    assert isinstance(found, Explanation)
    assert repr(found) == "Explanation(sigma 0.3, 2 images, 36 components)"
    assert repr(found.nearest).startswith("NearestImages(2 images, ")
