"""Variances and derivatives across ranks against those of one process: every rank gets the same bits.

Either side may be off by 1e-5 of the largest entry, and by what weights that float32 does not show add to covariances,
as in the tests of one process.
"""

import queue
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch

import pspc_rs as pspc
import reference
from posterior_problems import Problem, problems
from pspc_rs.denoisers import PosteriorComposite
from pspc_rs.errors import InvalidValueError
from rank_threads import FAMILY, on_ranks

Array = npt.NDArray[Any]


def same_on_all(found: list[Any]) -> tuple[Array, ...]:
    """What every rank got, several arrays."""
    for one in found:
        if isinstance(one, Exception):
            raise one
        for array, first in zip(one, found[0], strict=True):
            np.testing.assert_array_equal(array, first)
    return tuple(map(np.asarray, found[0]))


def close(found: Array, expected: Array, floor: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * float(np.abs(expected).max()) + 2 * floor)


def variance(own: PosteriorComposite, *arguments: Any, **options: Any) -> list[Array]:
    """Variances of pixels and of middle pixels. Not by cached properties: see the test of posteriors."""
    parts = own.posterior(*arguments, **options)._parts
    order = np.argsort(np.concatenate([part.queries for part in parts]))
    found = [part.found.variance() for part in parts]
    return [np.concatenate([one[i] for one in found])[order] for i in range(2)]


@settings(settings.get_profile("few"))
@given(problem=problems(), count=st.integers(2, 5), leaves_out=st.booleans())
def test_derivatives_across_ranks_are_as_on_one(problem: Problem, count: int, leaves_out: bool) -> None:
    count, D = min(count, problem.data.num_stored), problem.denoiser()
    z, sigma, rng = problem.z, problem.sigma, problem.rng
    options: dict[str, Any] = {"exclude": np.arange(len(z)) % 2} if leaves_out else {}
    v, u = rng.normal(size=(2, *z.shape)), rng.normal(size=z.shape)
    expected = [*D.jvp(z, sigma, v, **options), D.vjp(z, sigma, u, **options)[1]]

    def ask(own: PosteriorComposite, _: int) -> list[Any]:
        return [own(z, sigma, **options), *own.jvp(z, sigma, v, **options), own.vjp(z, sigma, u, **options)[1]]

    alone, denoised, Jv, JTu = same_on_all(on_ranks(D, count, ask))
    for found in (alone, denoised):
        np.testing.assert_allclose(found, expected[0], rtol=0, atol=4e-6)
    floor = 1e-7 * z[0].size / (problem.temperature * sigma**2)
    for query in range(len(z)):
        close(Jv[:, query], np.asarray(expected[1])[:, query], floor[query])
        close(JTu[query], np.asarray(expected[2])[query], floor[query])


@settings(settings.get_profile("few"))
@given(problem=problems(), count=st.integers(2, 4))
def test_variances_and_divergences_across_ranks_are_as_on_one(problem: Problem, count: int) -> None:
    count, D = min(count, problem.data.num_stored), problem.denoiser()
    z, sigma = problem.z, problem.sigma

    def ask(own: PosteriorComposite, _: int) -> list[Any]:
        return [*variance(own, z, sigma), *own.divergence(z, sigma)]

    pixels, middles, denoised, divergence = same_on_all(on_ranks(D, count, ask))
    of_one, expected = D.divergence(z, sigma)
    np.testing.assert_allclose(denoised, of_one, rtol=0, atol=4e-6)
    np.testing.assert_allclose(divergence, expected, rtol=2e-4, atol=2e-4)
    P = D.posterior(z, sigma)
    np.testing.assert_allclose(pixels, P.variance, rtol=0, atol=2e-5)
    np.testing.assert_allclose(middles, P.component_variance, rtol=0, atol=2e-5)


@settings(settings.get_profile("few"))
@given(problem=problems(kinds=("empirical",)), member=st.sampled_from(sorted(FAMILY)), count=st.integers(2, 3))
def test_those_of_the_family_are_as_on_one(problem: Problem, member: str, count: int) -> None:
    count, z, sigma = min(count, problem.data.num_stored), problem.z, problem.sigma
    D = FAMILY[member](problem.data) if min(problem.data.shape[1:]) > 2 else pspc.ELS(problem.data, window_sizes=1)
    v = problem.rng.normal(size=z.shape)

    def ask(own: PosteriorComposite, _: int) -> list[Any]:
        return [*own.jvp(z, sigma, v), own.vjp(z, sigma, v)[1], *variance(own, z, sigma)]

    _, Jv, JTv, pixels, middles = same_on_all(on_ranks(D, count, ask))
    floor = 1e-7 * z[0].size / sigma**2
    for query in range(len(z)):
        close(Jv[query], np.asarray(D.jvp(z, sigma, v)[1])[query], floor[query])
        close(JTv[query], np.asarray(D.vjp(z, sigma, v)[1])[query], floor[query])
    of_one = variance(D, z, sigma)
    np.testing.assert_allclose(pixels, of_one[0], rtol=0, atol=2e-5)
    np.testing.assert_allclose(middles, of_one[1], rtol=0, atol=2e-5)


def test_they_are_the_oracle_where_classes_lie_on_single_ranks() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 2, 4, 5), dtype=np.uint8)
    data = pspc.ImageSet(images, [0] * 3 + [1] * 5, xflip=True)
    D, z, v = pspc.PSPCSquare(data, patch_sizes=3), rng.normal(size=(2, 2, 4, 5)), rng.normal(size=(2, 2, 4, 5))
    sigma = [0.7, 2.0]
    _, Jv = same_on_all(on_ranks(D, 4, lambda own, _: own.jvp(z, sigma, v, class_labels=[0, 1])))
    windows = reference.square_windows(4, 5, 3)
    for query, chosen in enumerate([images[:3], images[3:]]):
        atoms = reference.with_flips(reference.pixels(chosen))
        level, one = torch.tensor([sigma[query]], dtype=torch.float64), slice(query, query + 1)

        def denoise(z: torch.Tensor, atoms: torch.Tensor = atoms, level: torch.Tensor = level) -> torch.Tensor:
            return reference.posterior(atoms, windows, z, level).denoised

        exact = reference.jvp(denoise, z[one], v[one])
        np.testing.assert_allclose(Jv[one], exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_float_images_have_one_unit_on_all_ranks() -> None:
    """Images of the first rank lie near zero, those of the last far from it, where pixels are taken less a centre."""
    images = np.linspace(0, 50, 5 * 9, dtype=np.float32).reshape(5, 1, 3, 3)
    data = pspc.ImageSet(images, channels_last=False)
    z, v = data.batch([0, 4]).astype(np.float64), np.ones((2, 1, 3, 3))
    D = pspc.PSPCSquare(data, patch_sizes=2)
    expected = [np.asarray(one) for one in D.jvp(z, 7.0, v)]
    denoised, Jv = same_on_all(on_ranks(D, 5, lambda own, _: own.jvp(z, 7.0, v)))
    np.testing.assert_allclose(denoised, expected[0], rtol=0, atol=1e-4)
    np.testing.assert_allclose(Jv, expected[1], rtol=0, atol=1e-4 * np.abs(expected[1]).max())


def test_ranks_with_different_directions_are_refused() -> None:
    data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4), dtype=np.uint8))
    D, z = pspc.PSPCSquare(data, patch_sizes=2), np.zeros((1, 1, 4, 4))
    calls: list[Callable[[PosteriorComposite, int], Any]] = [
        lambda own, rank: own.jvp(z, 0.5, np.full(z.shape, 1.0 + rank)),
        lambda own, rank: own.vjp(z, 0.5, z + 1) if rank else own.jvp(z, 0.5, z + 1),
    ]
    for call in calls:
        found = on_ranks(D, 3, call)
        assert all(isinstance(error, InvalidValueError) and "same calls" in str(error) for error in found), found


@pytest.mark.parametrize("method", ["jvp", "divergence"])
def test_a_rank_that_fails_between_two_passes_ends_the_call_of_all(method: str) -> None:
    data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4), dtype=np.uint8))
    D, z = pspc.PSPCSquare(data, patch_sizes=2), np.zeros((1, 1, 4, 4))

    def stop(done: int, total: int) -> None:
        if 2 * done > total:
            raise RuntimeError("stopped")

    further = (z,) if method == "jvp" else ()
    found = on_ranks(
        D, 3, lambda own, rank: getattr(own, method)(z, 0.5, *further, progress=stop if rank == 2 else None)
    )
    assert isinstance(found[2], RuntimeError) and "stopped" in str(found[2])
    assert all(isinstance(error, pspc.PspcError) and "failed" in str(error) for error in found[:2])


def test_gradients_of_tensors_are_taken_across_ranks() -> None:
    data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4), dtype=np.uint8))
    D = pspc.Empirical(data)

    def ask(own: PosteriorComposite, _: int) -> list[Array]:
        z = torch.linspace(-1, 1, 16, dtype=torch.float64).reshape(1, 1, 4, 4).requires_grad_()
        return [torch.autograd.grad(own(z, 0.8).square().sum(), z)[0].numpy()]

    found = same_on_all(on_ranks(D, 2, ask))[0]
    np.testing.assert_allclose(found, ask(D, 0)[0], rtol=0, atol=1e-5 * np.abs(found).max())


def test_announced_derivatives_are_repeated_by_the_others() -> None:
    data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4), dtype=np.uint8))
    D, z = pspc.PSPCSquare(data, patch_sizes=2), np.full((1, 1, 4, 4), 0.1)
    announced: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def ask(own: PosteriorComposite, rank: int) -> Any:
        if rank > 0:
            own.repeat_call(*announced.get(timeout=30))
            own.repeat_call(*announced.get(timeout=30))
            return None
        own.announce_calls(lambda *call: announced.put(call))
        return [own.vjp(z, 0.5, z)[1], own.divergence(z, 0.5)[1]]

    found = on_ranks(D, 2, ask)[0]
    np.testing.assert_allclose(found[0], D.vjp(z, 0.5, z)[1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[1], D.divergence(z, 0.5)[1], rtol=1e-4)
