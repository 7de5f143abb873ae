"""Derivatives: products with Jacobians, divergences, and denoisers in torch's autograd and torch.func.

Products agree with autograd of the float64 oracle to 1e-5 of their largest entry.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

import pspc_rs as pspc
import reference
from posterior_problems import DEVICE, Array, Problem, problems
from pspc_rs import errors

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
DATA = pspc.ImageSet(IMAGES, np.arange(20) % 3)
ATOMS = reference.pixels(IMAGES)
HALVES = torch.zeros(2, 4, 4, dtype=torch.bool)
HALVES[0, :, :3] = HALVES[1, :, 1:] = True
SIGMA = 0.6

Function = Callable[[Tensor], Tensor]


def composite(windows: Tensor) -> Callable[..., Tensor]:
    return lambda z, sigma=SIGMA: reference.posterior(ATOMS, windows, z, sigma).denoised


CFDM = pspc.CFDM(DATA, 0.2, 3)


def cfdm(z: Tensor, sigma: float = SIGMA) -> Tensor:
    return reference.cfdm_mean(composite(reference.full_window(4, 4)), CFDM.noises, 0.2, z, sigma)


CASES: dict[str, tuple[Any, Callable[..., Tensor]]] = {
    "Empirical": (pspc.Empirical(DATA, device=DEVICE), composite(reference.full_window(4, 4))),
    "PSPCSquare": (pspc.PSPCSquare(DATA, patch_sizes=3, device=DEVICE), composite(reference.square_windows(4, 4, 3))),
    "PSPCFlex": (pspc.PSPCFlex(DATA, masks=HALVES.numpy(), device=DEVICE), composite(HALVES)),
    "Gaussian": (pspc.Gaussian(DATA, cache=False), lambda z, sigma=SIGMA: reference.gaussian(ATOMS, z, sigma)),
    "CFDM": (CFDM, cfdm),
}
EVERY = pytest.mark.parametrize("name", CASES)
# What torch.func loads in forward mode gives this warning.
FORWARD = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


def images(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Any, exact: Any, relative: float = 1e-5, floor: float = 1e-9) -> None:
    exact = torch.as_tensor(exact)
    np.testing.assert_allclose(found, exact, rtol=0, atol=relative * float(exact.abs().max()) + floor)


# Products with the Jacobian


@given(problems())
def test_products_are_the_oracle(problem: Problem) -> None:
    D, z, sigma, rng = problem.denoiser(), problem.z, problem.sigma, problem.rng

    def denoise(z: Tensor) -> Tensor:
        return problem.oracle(z).denoised

    v, u = rng.normal(size=(2, *z.shape)), rng.normal(size=z.shape)
    denoised, Jv = D.jvp(z, sigma, v)
    np.testing.assert_allclose(denoised, problem.oracle().denoised, rtol=0, atol=1e-5)
    again, JTu = D.vjp(z, sigma, u)
    np.testing.assert_array_equal(again, denoised)
    exact_Jv, exact_JTu = reference.jvp(denoise, z, v), reference.vjp(denoise, z, u)
    # Of covariances, weights that float32 would not show are left out.
    floor = 1e-7 * z[0].size / (problem.temperature * sigma**2)
    for query in range(len(z)):
        close(Jv[:, query], exact_Jv[:, query], floor=floor[query])
        close(JTu[query], exact_JTu[query], floor=floor[query])
    assert Jv.shape == v.shape and JTu.shape == u.shape
    left, right = (u * Jv[0]).sum((1, 2, 3)), (v[0] * JTu).sum((1, 2, 3))
    sizes = np.sqrt((u**2).sum((1, 2, 3)) * (Jv[0] ** 2).sum((1, 2, 3)))
    assert np.all(np.abs(left - right) <= 2e-5 * sizes + z[0].size * floor)


@given(problems())
def test_the_variance_is_the_diagonal_of_the_jacobian(problem: Problem) -> None:
    D, z, sigma = problem.denoiser(), problem.z, problem.sigma
    size = z[0].size
    units = np.repeat(np.eye(size).reshape(size, 1, *z.shape[1:]), len(z), axis=1)
    _, columns = D.jvp(z, sigma, units)
    diagonal = np.einsum("dbd->bd", columns.reshape(size, len(z), size))
    variance = D.posterior(z, sigma).variance.reshape(len(z), -1)
    scale = problem.temperature * sigma[:, None] ** 2
    np.testing.assert_allclose(variance, scale * diagonal, rtol=0, atol=1e-5)
    denoised, divergence = D.divergence(z, sigma)
    np.testing.assert_allclose(divergence, diagonal.sum(1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(denoised, D(z, sigma), rtol=0, atol=1e-5)


@EVERY
def test_every_denoiser_has_products_and_a_divergence(name: str) -> None:
    D, oracle = CASES[name]
    functional: Any = torch.autograd.functional
    z, v = images(), images(3, seed=1)[:, None].expand(3, 2, 1, 4, 4)
    denoised, Jv = D.jvp(z, SIGMA, v)
    close(denoised, oracle(z))
    close(Jv, reference.jvp(oracle, z, v))
    close(D.vjp(z, SIGMA, v[1])[1], reference.vjp(oracle, z, v[1]))
    jacobian = functional.jacobian(oracle, z).reshape(2, 16, 2, 16)
    traces = torch.stack([jacobian[b, :, b].trace() for b in range(2)])
    close(D.divergence(z, SIGMA)[1], traces)


@EVERY
def test_products_of_every_kind_of_numbers(name: str) -> None:
    D, _ = CASES[name]
    z, v = images(), images(2, seed=1)
    exact = D.jvp(z, SIGMA, v)[1]
    for dtype, relative in ((torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 3e-2)):
        denoised, Jv = D.jvp(z.to(dtype), SIGMA, v.to(dtype))
        assert denoised.dtype == Jv.dtype == dtype
        close(Jv.double(), exact, relative)
    denoised, Jv = D.jvp(z.numpy(), SIGMA, v.numpy())
    assert isinstance(Jv, np.ndarray) and Jv.dtype == denoised.dtype == np.float64
    np.testing.assert_array_equal(Jv, exact)
    for empty in (D.jvp(z[:0], SIGMA, v[:0]), D.vjp(z, SIGMA, v[None][:0])):
        assert empty[1].numel() == 0


@EVERY
def test_products_are_linear_over_the_whole_range_of_floats(name: str) -> None:
    D, _ = CASES[name]
    z, v = images(), images(2, seed=1)
    once = D.jvp(z, SIGMA, v)[1]
    for exponent in (-900, -130, 60, 200):
        np.testing.assert_array_equal(D.jvp(z, SIGMA, torch.ldexp(v, torch.tensor(exponent)))[1], once * 2.0**exponent)
    assert bool((D.vjp(z, SIGMA, torch.zeros_like(v))[1] == 0).all())
    with pytest.raises(errors.InvalidValueError, match="does not fit into float16"):
        D.jvp(z.half(), SIGMA, 1e9 * v)


@EVERY
def test_bad_directions_are_refused(name: str) -> None:
    D, _ = CASES[name]
    z = images()
    for v in (images(3), images()[0], images()[None, None]):
        with pytest.raises(errors.ShapeError, match=r"v has shape .* allowed are \[2, 1, 4, 4\], as z, and \[m, 2, 1"):
            D.jvp(z, SIGMA, v)
    with pytest.raises(errors.DTypeError, match="u has dtype int64"):
        D.vjp(z, SIGMA, torch.ones(2, 1, 4, 4, dtype=torch.int64))
    with pytest.raises(errors.InvalidValueError, match=r"u holds nan at \[1, 0, 2, 3\]"):
        spoilt = images()
        spoilt[1, 0, 2, 3] = torch.nan
        D.vjp(z, SIGMA, spoilt)
    with pytest.raises(errors.GradientError, match="v requires gradients"):
        D.jvp(z, SIGMA, images().requires_grad_())


def test_products_choose_images_as_calls_do() -> None:
    z, v = images(), images(2, seed=1)
    makers: tuple[Callable[[pspc.ImageSet], Any], ...] = (
        pspc.Empirical,
        lambda data: pspc.PSPCSquare(data, patch_sizes=3),
        lambda data: pspc.CFDM(data, 0.2, 3),
    )
    choices: tuple[dict[str, Any], ...] = ({"class_labels": [1, 1]}, {"exclude": [0, 0]}, {"exclude": [[1, 2, 3]] * 2})
    kept = (np.flatnonzero(np.arange(20) % 3 == 1), np.arange(1, 20), np.r_[0, 4:20])
    for make in makers:
        for choice, images_kept in zip(choices, kept, strict=True):
            D, other = make(DATA), make(DATA.subset(images_kept))
            for method in ("jvp", "vjp"):
                found = getattr(D, method)(z, SIGMA, v, **choice)
                for one, exact in zip(found, getattr(other, method)(z, SIGMA, v), strict=True):
                    close(one, exact)
            close(D.divergence(z, SIGMA, **choice)[1], other.divergence(z, SIGMA)[1])


def test_what_has_no_derivatives_says_so() -> None:
    D, z = pspc.SNIS(DATA), images()
    calls: list[Callable[[], Any]] = [
        lambda: D.jvp(z, SIGMA, z),
        lambda: D.vjp(z, SIGMA, z),
        lambda: D.divergence(z, SIGMA),
    ]
    for call in calls:
        with pytest.raises(errors.GradientError, match="SNIS has no derivatives"):
            call()


# Autograd


def loss(denoise: Function) -> Callable[[Tensor], Tensor]:
    weights = images(2, seed=9)
    return lambda z: (weights * denoise(z)).sum() + (denoise(z) ** 2).sum()


@EVERY
def test_backward_is_the_oracle(name: str) -> None:
    D, oracle = CASES[name]
    z = images().requires_grad_()
    denoised = D(z, SIGMA)
    assert torch.equal(denoised.detach(), D(z.detach(), SIGMA))
    cast(Any, loss(lambda z: D(z, SIGMA))(z)).backward()
    assert z.grad is not None
    close(z.grad, torch.autograd.grad(loss(oracle)(q := images().requires_grad_()), q)[0])


@EVERY
@FORWARD
def test_torch_func(name: str) -> None:
    D, oracle = CASES[name]
    z, v = images(), images(2, seed=1)
    func: Any = torch.func

    def ours(z: Tensor) -> Tensor:
        denoised: Tensor = D(z, SIGMA)
        return denoised

    def one(z: Tensor) -> Tensor:
        denoised: Tensor = D(z[None], SIGMA)[0]
        return denoised

    jacobian = func.jacrev(oracle)(z)
    close(func.grad(loss(ours))(z), func.grad(loss(oracle))(z))
    close(func.vjp(ours, z)[1](v)[0], reference.vjp(oracle, z, v))
    close(func.jvp(ours, (z,), (v,))[1], reference.jvp(oracle, z, v))
    close(func.jacrev(ours)(z), jacobian)
    close(func.jacfwd(ours)(z), jacobian)
    close(func.vmap(one)(z), oracle(z))
    own = torch.stack([jacobian[b, ..., b, :, :, :] for b in range(2)])
    close(func.vmap(func.jacrev(one))(z), own)
    close(func.vmap(func.jacfwd(one))(z), own)


@EVERY
@FORWARD
def test_noise_levels_may_come_from_inside_a_transform(name: str) -> None:
    D, oracle = CASES[name]
    z, func = images(), torch.func
    expected = func.grad(loss(oracle))(z)
    close(func.grad(loss(lambda z: D(z, SIGMA * z.new_ones(2))))(z), expected)
    levels = torch.tensor([0.5, 0.7], dtype=torch.float64)
    each = torch.cat([oracle(z[b : b + 1], float(levels[b])) for b in range(2)])
    close(func.vmap(lambda one, sigma: D(one[None], sigma)[0])(z, levels), each)


@EVERY
@FORWARD
def test_forward_mode_is_the_oracle(name: str) -> None:
    D, oracle = CASES[name]
    forward: Any = torch.autograd.forward_ad
    z, v = images(), images(2, seed=1)
    for recording in (torch.enable_grad(), torch.no_grad()):
        with forward.dual_level(), recording:
            denoised, tangent = forward.unpack_dual(D(forward.make_dual(z, v), SIGMA))
            assert torch.equal(denoised, D(z, SIGMA))
        close(tangent, reference.jvp(oracle, z, v))


def test_labels_and_left_out_images_have_gradients_too() -> None:
    windows, z = reference.square_windows(4, 4, 3), images()
    counts = (torch.arange(20) % 3 == torch.tensor([[0], [2]])) & (torch.arange(20) != torch.tensor([[3], [5]]))

    def oracle(z: Tensor) -> Tensor:
        return reference.posterior(ATOMS, windows, z, SIGMA, counts=counts).denoised

    def ours(z: Tensor) -> Tensor:
        denoised: Tensor = CASES["PSPCSquare"][0](z, SIGMA, class_labels=[0, 2], exclude=[3, 5])
        return denoised

    close(torch.func.grad(loss(ours))(z), torch.func.grad(loss(oracle))(z))
    close(torch.func.jacrev(ours)(z), torch.func.jacrev(oracle)(z))


@EVERY
def test_gradients_are_like_z_and_wanted_once(name: str) -> None:
    D, _ = CASES[name]
    for dtype in (torch.float32, torch.bfloat16):
        z = images().to(dtype).requires_grad_()
        D(z, SIGMA).sum().backward()
        assert z.grad is not None and z.grad.dtype == dtype
    with torch.no_grad():
        assert not D(z, SIGMA).requires_grad
    assert not D(z.detach(), SIGMA).requires_grad


@EVERY
@FORWARD
def test_second_derivatives_are_refused_by_name(name: str) -> None:
    D, _ = CASES[name]
    z, func = images(), torch.func
    total = loss(lambda z: D(z, SIGMA))
    first = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(first), first, create_graph=True)
    for work in (
        lambda: torch.autograd.grad(gradient.sum(), first),
        lambda: func.hessian(total)(z),
        lambda: func.grad(lambda z: func.grad(total)(z).sum())(z),
        lambda: func.jvp(func.grad(total), (z,), (z,)),
    ):
        with pytest.raises(errors.GradientError, match=f"a second derivative is wanted, but {name} has first"):
            work()


@EVERY
@FORWARD
def test_derivatives_with_respect_to_sigma_are_refused_by_name(name: str) -> None:
    D, _ = CASES[name]
    z, sigma, func = images(), torch.tensor(SIGMA), torch.func
    for work in (
        lambda: D(z, sigma.clone().requires_grad_()),
        lambda: D(z.clone().requires_grad_(), sigma.clone().requires_grad_()),
        lambda: D(z.numpy(), sigma.clone().requires_grad_()),
        lambda: func.grad(lambda sigma: D(z, sigma).sum())(sigma),
        lambda: func.grad(lambda sigma: D(z, sigma).sum())(sigma.expand(2).clone()),
        lambda: func.jvp(lambda sigma: D(z, sigma), (sigma,), (sigma,)),
    ):
        with pytest.raises(errors.GradientError, match=f"sigma.*{name} has no derivatives with respect to it"):
            work()
    with pytest.raises(errors.ShapeError, match=r"sigma has shape \[3\]"):
        func.grad(lambda z: D(z, SIGMA * z.new_ones(3)).sum())(z)


@EVERY
def test_bad_numbers_are_refused_under_gradients_too(name: str) -> None:
    D, _ = CASES[name]
    z = images()
    z[0, 0, 1, 2] = torch.nan
    with pytest.raises(errors.InvalidValueError, match=r"z holds (nan|NaN) at \[0, 0, 1, 2\]"):
        D(z.requires_grad_(), SIGMA)
    with pytest.raises(errors.InvalidValueError, match="sigma is -1"):
        D(images().requires_grad_(), -1.0)
    with pytest.raises(errors.InvalidValueError, match="the gradient holds inf"):
        (D(images().requires_grad_(), SIGMA) * torch.inf).sum().backward()


@EVERY
def test_old_batches_of_gradients_are_refused_by_name(name: str) -> None:
    z = images().requires_grad_()
    denoised = CASES[name][0](z, SIGMA)
    with pytest.raises(
        errors.GradientError, match=rf"{name} has no .* \(is_grads_batched, vectorize\); torch.func.jacrev"
    ):
        torch.autograd.grad(denoised, z, images(3)[:, None].expand(3, 2, 1, 4, 4), is_grads_batched=True)


def test_an_image_that_changed_before_backward_is_noticed() -> None:
    z = images().requires_grad_()
    moved = z * 1
    total = CASES["Empirical"][0](moved, SIGMA).sum()
    moved.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_guidance_steps_through_a_sampler() -> None:
    """A gradient through two Heun steps, the use that guidance makes of it."""
    D, oracle = CASES["PSPCSquare"]

    def solve(denoise: Callable[..., Any], z: Tensor) -> Tensor:
        for sigma, following in ((1.0, 0.5), (0.5, 0.2)):
            slope = (z - denoise(z, sigma)) / sigma
            ahead = z + (following - sigma) * slope
            z = z + (following - sigma) * (slope + (ahead - denoise(ahead, following)) / following) / 2
        return z

    def gradient(denoise: Callable[..., Any]) -> Array:
        z = images().requires_grad_()
        return np.asarray(torch.autograd.grad((solve(denoise, z) ** 2).sum(), z)[0])

    close(gradient(D), gradient(oracle), 1e-4)
