"""Posteriors as values: the oracle, the identities between their parts, densities, kinds of arrays, and bad input.

Log evidence agrees with float64 to 1e-5 relative or 1e-6 absolute, everything else to 1e-5 (attribution: times the
number of components).
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from posterior_problems import Array, Problem, problems
from pspc_rs import errors


def some_data(n: int = 20, xflip: bool = False, **options: Any) -> pspc.ImageSet:
    images = np.random.default_rng(n).integers(0, 256, (n, 2, 4, 5), dtype=np.uint8)
    return pspc.ImageSet(images, np.arange(n) % 3, xflip, **options)


def some_z(batch: int = 3, dtype: Any = np.float64) -> Array:
    return np.random.default_rng(1).normal(size=(batch, 2, 4, 5)).astype(dtype)


@given(problems())
def test_posteriors_are_the_oracle(problem: Problem) -> None:
    P, exact = problem.denoiser().posterior(problem.z, problem.sigma, top=3), problem.oracle()
    K, n = len(problem.windows), problem.data.num_stored
    np.testing.assert_allclose(P.log_evidence, exact.log_evidence, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(P.entropy, exact.entropy, rtol=0, atol=1e-5)
    np.testing.assert_allclose(P.effective_images, exact.entropy.exp(), rtol=1e-4)
    np.testing.assert_allclose(P.variance, exact.variance, rtol=0, atol=1e-5)
    np.testing.assert_allclose(P.component_variance, exact.component_variance, rtol=0, atol=1e-5)
    weights = exact.weights.numpy()
    by_image = weights.sum(1).reshape(len(problem.z), -1, n).sum(1)
    np.testing.assert_allclose(P.attribution(), by_image, rtol=0, atol=1e-5 * K)
    np.testing.assert_allclose(P.denoised, exact.denoised, rtol=0, atol=1e-5)
    heaviest = -np.sort(-weights, axis=-1)[..., :3]
    np.testing.assert_allclose(P.top_weight[..., : heaviest.shape[-1]], heaviest, rtol=0, atol=1e-5)
    found = P.top_index >= 0
    atoms = np.where(found, P.top_index + n * P.top_view, 0)
    of_atoms = np.take_along_axis(weights, atoms, axis=-1)
    np.testing.assert_allclose(np.where(found, of_atoms, 0), P.top_weight, rtol=0, atol=1e-5)
    assert np.all(P.top_weight[~found] == 0) and np.all(P.top_view[~found] == 0)
    assert P.top_index.max() < n and P.top_view.max(initial=0) <= problem.data.xflip


@given(problems())
def test_identities(problem: Problem) -> None:
    D, K = problem.denoiser(), len(problem.windows)
    P = D.posterior(problem.z, problem.sigma, top=len(problem.data))
    assert np.all(P.entropy >= 0) and np.all(P.entropy <= math.log(len(problem.data)) + 1e-6)
    np.testing.assert_allclose(P.top_weight.sum(-1), 1, rtol=0, atol=1e-5)
    assert np.all(np.diff(P.top_weight, axis=-1) <= 1e-6)
    np.testing.assert_allclose(P.attribution().sum(-1), K, rtol=0, atol=1e-5 * K)
    np.testing.assert_allclose(P.denoised, D(problem.z, problem.sigma), rtol=0, atol=1e-5)


@given(problems(kinds=("empirical",), temperatures=(1.0,)))
def test_densities_are_those_of_a_mixture_of_normals(problem: Problem) -> None:
    logsumexp = pytest.importorskip("scipy.special").logsumexp
    data, dim = problem.data, int(np.prod(problem.data.shape))
    x = data.batch(range(len(data))).astype(np.float64).reshape(len(data), -1)
    distances = ((problem.z.reshape(len(problem.z), 1, -1) - x) ** 2).sum(-1)
    prior = np.tile(np.zeros(data.num_stored) if data.log_prior is None else data.log_prior, 1 + data.xflip)
    exact = logsumexp(prior - distances / (2 * problem.sigma[:, None] ** 2), axis=1) - logsumexp(prior)
    exact -= dim / 2 * np.log(2 * np.pi * problem.sigma**2)
    D = pspc.Empirical(data)
    np.testing.assert_allclose(D.log_prob(problem.z, problem.sigma), exact, rtol=1e-5, atol=1e-5)
    half = data.subset(np.flatnonzero(np.arange(data.num_stored) % 2 == 1))
    np.testing.assert_allclose(
        D.log_prob(problem.z, problem.sigma, class_labels=np.ones(len(problem.z), int)),
        pspc.Empirical(half).log_prob(problem.z, problem.sigma),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("prior", [None, [0.3, -1.0, 2.0]])
def test_the_density_of_two_pixels_has_the_integral_1(prior: Any) -> None:
    images = np.array([[0.5, -0.5], [-0.2, 0.1], [0.9, 0.8]], np.float32).reshape(3, 1, 1, 2)
    D, at = pspc.Empirical(pspc.ImageSet(images, xflip=True, log_prior=prior)), np.linspace(-4, 4, 161)
    grid = np.stack(np.meshgrid(at, at), -1).reshape(-1, 1, 1, 2)
    for sigma in (0.2, 0.6):
        density = np.exp(D.log_prob(grid, sigma)).reshape(161, 161)
        assert abs(density.sum() * (at[1] - at[0]) ** 2 - 1) < 1e-5


def test_the_score_is_the_slope_of_the_density() -> None:
    D, z, step = pspc.Empirical(some_data()), some_z(2), 1e-2
    v = np.random.default_rng(3).normal(size=z.shape)
    slope = (D.log_prob(z + step * v, 1.0) - D.log_prob(z - step * v, 1.0)) / (2 * step)
    # The logarithms are right to a millionth, which the step divides.
    np.testing.assert_allclose(slope, ((D(z, 1.0) - z) * v).sum((1, 2, 3)), rtol=1e-3, atol=1e-3)


def test_a_tempered_density_is_refused() -> None:
    with pytest.raises(errors.InvalidValueError, match=r"temperature is 2, and the tempered density is not normalised"):
        pspc.Empirical(some_data(), temperature=2).log_prob(some_z(), 1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_give_tensors(dtype: Any) -> None:
    z = torch.from_numpy(some_z()).to(dtype)
    D = pspc.PSPCSquare(some_data(), patch_sizes=3)
    P, numbers = D.posterior(z, 0.5), D.posterior(z.to(torch.float64).numpy(), 0.5)
    for name in ("log_evidence", "entropy", "effective_images", "top_weight", "component_variance"):
        assert getattr(P, name).dtype == torch.float64, name
        np.testing.assert_allclose(getattr(P, name), getattr(numbers, name), rtol=1e-6, atol=1e-9, err_msg=name)
    assert P.top_index.dtype == P.top_view.dtype == torch.int64
    assert P.variance.dtype == P.denoised.dtype == dtype and P.attribution().dtype == torch.float64
    assert P.denoised.shape == P.variance.shape == z.shape
    assert numbers.top_index.dtype == numbers.top_view.dtype == np.int64
    E = pspc.Empirical(some_data())
    assert E.log_prob(z, 0.5).dtype == torch.float64


def test_narrow_arrays_stay_narrow_and_statistics_wide() -> None:
    P = pspc.Empirical(some_data()).posterior(some_z(dtype=np.float32), 0.5)
    assert P.variance.dtype == P.denoised.dtype == np.float32
    assert P.log_evidence.dtype == P.component_variance.dtype == P.attribution().dtype == np.float64


def test_what_a_posterior_computes_it_keeps() -> None:
    P = pspc.PSPCSquare(some_data(), patch_sizes=3).posterior(some_z(), 0.5, top=2)
    assert repr(P) == "Posterior(3 queries, 6 components, top 2 of 20 images)"
    assert P.attribution() is P.attribution() and P.variance is P.variance
    assert P.component_variance is P.component_variance and P.denoised is P.denoised
    assert (P.log_evidence.shape, P.top_index.shape, P.attribution().shape) == ((3, 6), (3, 6, 2), (3, 20))
    assert (P.variance.shape, P.component_variance.shape) == ((3, 2, 4, 5), (3, 6, 2))
    assert isinstance(P, pspc.Posterior)


def test_images_beyond_the_last_are_none() -> None:
    P = pspc.Empirical(some_data(2)).posterior(some_z(1), 1e6, top=5)
    assert P.top_index.shape == (1, 1, 5)
    assert sorted(P.top_index[0, 0, :2]) == [0, 1]
    assert P.top_index[0, 0, 2:].tolist() == [-1] * 3 and P.top_weight[0, 0, 2:].tolist() == [0] * 3
    near = some_data(2).batch([1]).astype(np.float64)
    one = pspc.Empirical(some_data(2)).posterior(near, 1e-3, top=2)
    assert one.top_index.tolist() == [[[1, -1]]]


def test_levels_of_one_number_of_components_share_a_batch() -> None:
    halves = np.zeros((2, 4, 5, 4, 5))
    halves[0, ..., :3], halves[1, ..., 2:] = 1, 1
    halves[:, np.arange(4)[:, None], np.arange(5), np.arange(4)[:, None], np.arange(5)] = 1
    F = pspc.PSPCFlex(some_data(), heatmaps=halves, thresholds=[0.999, 0.999], sigmas=[1.0, 0.1])
    z, sigmas = some_z(4), [1.0, 0.1, 0.09, 1.1]
    P = F.posterior(z, sigmas)
    for query, sigma in enumerate(sigmas):
        alone = F.posterior(z[query : query + 1], sigma)
        for name in ("log_evidence", "top_index", "top_weight", "variance", "component_variance", "denoised"):
            np.testing.assert_array_equal(getattr(P, name)[query], getattr(alone, name)[0], err_msg=name)
        np.testing.assert_array_equal(P.attribution()[query], alone.attribution()[0])


def test_levels_of_other_numbers_of_components_are_refused_by_name() -> None:
    D = pspc.PSPCSquare(some_data(), patch_sizes=["full", 2], sigmas=[1.0, 0.1])
    with pytest.raises(errors.InvalidValueError, match=r"different numbers of components, \[1, 12\].*posterior"):
        D.posterior(some_z(2), [1.0, 0.1])
    assert D(some_z(2), [1.0, 0.1]).shape == (2, 2, 4, 5)


def test_an_empty_batch_has_an_empty_posterior() -> None:
    P = pspc.Empirical(some_data()).posterior(some_z(0), 1.0)
    assert P.variance.shape == (0, 2, 4, 5) and P.attribution().shape == (0, 20) and len(P.log_evidence) == 0
    assert pspc.Empirical(some_data()).log_prob(some_z(0), 1.0).shape == (0,)
    for D in (pspc.Empirical(some_data()), pspc.Gaussian(some_data(), cache=False), pspc.CFDM(some_data())):
        assert D(some_z(0), 1.0).shape == D.jvp(some_z(0), 1.0, some_z(0))[1].shape == (0, 2, 4, 5)
        assert D.divergence(some_z(0), 1.0)[1].shape == (0,)


def everything(D: Any, z: Array, sigma: Any, exclude: Array) -> list[Array]:
    P = D.posterior(z, sigma, exclude=exclude)
    kept = [P.log_evidence, P.entropy, P.top_index, P.top_view, P.top_weight, P.variance, P.component_variance]
    products = [*D.jvp(z, sigma, np.sin(z), exclude=exclude), D.vjp(z, sigma, np.cos(z), exclude=exclude)[1]]
    return [*kept, P.attribution(), *products, D.divergence(z, sigma, exclude=exclude)[1]]


@pytest.mark.parametrize("kind", ["empirical", "square", "masks"])
def test_numbers_depend_on_neither_threads_nor_batch(kind: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 2, 8, 8), dtype=np.uint8)
    problem = Problem(pspc.ImageSet(images, xflip=True), kind, 1.0, np.zeros((1, 2, 8, 8)), np.ones(1))
    D, sigma = problem.denoiser(), np.array([0.1, 0.6, 4.0, 20.0])
    noise = np.random.default_rng(1).normal(size=(4, 2, 8, 8)) * sigma[:, None, None, None]
    z, exclude, before = D.data.batch([3, 400, 5, 6]) + noise, np.array([3, 100, -1, 299]), pspc.num_threads()
    results = []
    try:
        for threads in (1, 2):
            pspc.set_num_threads(threads)
            results.append(everything(D, z, sigma, exclude))
    finally:
        pspc.set_num_threads(before)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
    for query in range(4):
        one = slice(query, query + 1)
        for alone, together in zip(everything(D, z[one], sigma[one], exclude[one]), results[0], strict=True):
            np.testing.assert_array_equal(alone[0], together[query])


@pytest.mark.parametrize("top", [0, -1, 65537, 1.5, True, None])
def test_odd_numbers_of_images_are_refused(top: Any) -> None:
    with pytest.raises((errors.InvalidValueError, errors.DTypeError), match="top is"):
        pspc.Empirical(some_data()).posterior(some_z(), 1.0, top=top)


def test_a_graph_is_not_dropped_in_silence() -> None:
    z = torch.from_numpy(some_z()).requires_grad_()
    D = pspc.Empirical(some_data())
    for call in (D.posterior, D.log_prob):
        with pytest.raises(errors.GradientError, match=rf"z requires gradients, but Empirical\.{call.__name__} has no"):
            call(z, 1.0)


def test_progress_counts_up_to_the_whole() -> None:
    D = pspc.PSPCSquare(some_data(), patch_sizes=[3, 2], sigmas=[1.0, 0.1])
    for work in (
        lambda report: D.posterior(some_z(), 1.0, progress=report),
        lambda report: D.jvp(some_z(), [1.0, 0.1, 1.0], some_z(), progress=report),
        lambda report: D.divergence(some_z(), [1.0, 0.1, 1.0], progress=report),
        lambda report: pspc.CFDM(some_data()).vjp(some_z(), 1.0, some_z(), progress=report),
        lambda report: D.posterior(some_z(), 1.0).attribution(progress=report),
        lambda report: D.posterior(some_z(), 1.0).find_variance(progress=report),
    ):
        calls: list[tuple[int, int]] = []
        work(lambda done, total, calls=calls: calls.append((done, total)))
        shares = [done / total for done, total in calls]
        assert shares == sorted(shares) and shares[-1] == 1


# Temperature


@given(problems(temperatures=(0.6, 1.7)))
def test_a_temperature_is_a_larger_sigma_at_the_same_level(problem: Problem) -> None:
    hot, levels = problem.denoiser(), problem.sigma * math.sqrt(problem.temperature)
    plain = problem.denoiser(temperature=1.0)
    np.testing.assert_array_equal(hot(problem.z, problem.sigma), plain(problem.z, levels))


def test_temperature_is_a_setting_that_decides_numbers() -> None:
    data = some_data()
    for make in (
        lambda **options: pspc.Empirical(data, **options),
        lambda **options: pspc.PSPCSquare(data, patch_sizes=3, **options),
        lambda **options: pspc.PSPCFlex(data, masks=np.ones((1, 4, 5), bool), **options),
    ):
        assert "temperature" not in make(temperature=1).settings and "temperature" not in repr(make())
        assert make().settings == make(temperature=1.0).settings
        hot = make(temperature=1.7)
        assert hot.settings["temperature"] == 1.7 and "temperature=1.7" in repr(hot)


@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan, "hot", None, [1.0, 2.0]])
def test_odd_temperatures_are_refused(temperature: Any) -> None:
    with pytest.raises(errors.PspcError, match="temperature"):
        pspc.Empirical(some_data(), temperature=temperature)


def test_an_effective_sigma_out_of_range_is_refused_by_both_names() -> None:
    D = pspc.Empirical(some_data(), temperature=4.0)
    message = r"sigma is 1e\+09 and temperature is 4, so that sigma \* sqrt\(temperature\) is 2e\+09; allowed are"
    for call in (D, D.posterior):
        with pytest.raises(errors.InvalidValueError, match=message):
            call(some_z(1), 1e9)


# Which images count


@given(problems(), st.data())
def test_left_out_images_are_as_if_absent(problem: Problem, draw: st.DataObject) -> None:
    data, D = problem.data, problem.denoiser()
    n, batch = data.num_stored, len(problem.z)
    left = [
        draw.draw(st.sets(st.integers(0, n - 1), max_size=min(n - 1, draw.draw(st.sampled_from([1, 1, 30])))))
        for _ in range(batch)
    ]
    flags = np.array([[image in one for image in range(n)] for one in left])
    most = max(1, *map(len, left))
    rows = np.array([[*one, *[-1] * (most - len(one))] for one in left])
    # The index of a flip means the image.
    flipped = np.where((rows >= 0) & (problem.rng.random(rows.shape) < 0.5), rows + n, rows) if data.xflip else rows
    exact = problem.oracle(counts=~flags)
    for exclude in (flags, rows, flipped, torch.from_numpy(rows)):
        found = D(problem.z, problem.sigma, exclude=exclude)
        np.testing.assert_allclose(found, exact.denoised, rtol=0, atol=1e-5)
        P = D.posterior(problem.z, problem.sigma, exclude=exclude)
        np.testing.assert_allclose(P.log_evidence, exact.log_evidence, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(P.variance, exact.variance, rtol=0, atol=1e-5)
        assert np.all(P.attribution()[flags] == 0)
        assert not any(set(images) & one for images, one in zip(P.top_index.reshape(batch, -1), left, strict=True))
    for query, one in enumerate(left):
        rebuilt = problem.denoiser(data.subset(sorted(set(range(n)) - one)))
        alone = rebuilt(problem.z[query : query + 1], problem.sigma[query : query + 1])
        np.testing.assert_allclose(found[query], alone[0], rtol=0, atol=1e-5)


@given(problems())
def test_labels_choose_a_subset(problem: Problem) -> None:
    D, batch = problem.denoiser(), len(problem.z)
    labels = np.arange(batch) % 2
    for label in (0, 1):
        subset = problem.denoiser(problem.data.select(classes={label}))
        expected = subset(problem.z, problem.sigma)
        found = D(problem.z, problem.sigma, np.full(batch, label))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        mixed = D(problem.z, problem.sigma, class_labels=labels)
        np.testing.assert_allclose(mixed[labels == label], expected[labels == label], rtol=0, atol=1e-5)
    one_hot = np.eye(2, dtype=np.float32)[labels]
    np.testing.assert_array_equal(D(problem.z, problem.sigma, class_labels=one_hot), mixed)
    one_hot[0] = 0
    all_for_first = D(problem.z, problem.sigma, class_labels=torch.from_numpy(one_hot))
    np.testing.assert_array_equal(all_for_first[0], D(problem.z, problem.sigma)[0])
    np.testing.assert_array_equal(all_for_first[1:], mixed[1:])


@given(problems(temperatures=(1.0,)), st.sampled_from(["cfdm", "snis"]))
def test_the_baselines_choose_too(problem: Problem, kind: str) -> None:
    def made(data: pspc.ImageSet) -> Any:
        return pspc.CFDM(data, 0.2, 3) if kind == "cfdm" else pspc.SNIS(data, num_neighbors=3, num_draws=50)

    data, batch = problem.data, len(problem.z)
    kept = [np.flatnonzero(np.arange(data.num_stored) % 2 == 1), np.arange(1, data.num_stored)]
    choices = ({"class_labels": [1] * batch}, {"exclude": [0] * batch})
    for images, choice in zip(kept, choices, strict=True):
        found = made(data)(problem.z, problem.sigma, **choice)
        np.testing.assert_allclose(found, made(data.subset(images))(problem.z, problem.sigma), rtol=0, atol=1e-5)


def test_prior_weights_count_in_every_denoiser_like_copies_of_images() -> None:
    data = some_data(12)
    copies = np.arange(12) % 3 + 1
    repeated = data.subset(np.repeat(np.arange(12), copies))
    weighted = pspc.ImageSet(data.images, log_prior=np.log(copies) - 7)
    z = some_z(2)
    for make in (
        pspc.Empirical,
        lambda data: pspc.PSPCSquare(data, patch_sizes=2),
        lambda data: pspc.CFDM(data, 0.2, 3),
        lambda data: pspc.Gaussian(data, cache=False),
        lambda data: pspc.SNIS(data, num_neighbors=200, num_draws=20_000),
    ):
        atol = 0.05 if isinstance(make(data), pspc.SNIS) else 1e-5
        for sigma in (0.7, 3.0):
            np.testing.assert_allclose(make(weighted)(z, sigma), make(repeated)(z, sigma), rtol=0, atol=atol)
    flipped = [pspc.ImageSet(d.images, xflip=True, log_prior=d.log_prior) for d in (weighted, repeated)]
    first, second = (pspc.Gaussian(one, cache=False)(z, 0.7) for one in flipped)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-8)
