"""What torch does to functions where denoisers cannot follow: lost gradients, tracing, compilation, odd labels."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pspc_rs as pspc
from pspc_rs import errors

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8))
MASKS = np.ones((1, 4, 4), bool)
DENOISERS: list[Any] = [
    pspc.Empirical(DATA),
    pspc.PSPCSquare(DATA, patch_sizes=3),
    pspc.PSPCFlex(DATA, masks=MASKS),
    pspc.Gaussian(DATA, cache=False),
    pspc.CFDM(DATA, num_noises=2),
    pspc.SNIS(DATA),
]
EVERY = pytest.mark.parametrize("D", DENOISERS, ids=[type(D).__name__ for D in DENOISERS])


def images() -> Tensor:
    return torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_gradient_that_would_be_lost_is_refused() -> None:
    D, z, sigma = pspc.SNIS(DATA), images(), torch.tensor(0.5)
    expected = D(z, sigma)
    for given in ((z.clone().requires_grad_(), sigma), (z.clone().requires_grad_() * 1, sigma)):
        with pytest.raises(errors.GradientError, match="z requires gradients, but SNIS has no"):
            D(*given)
        with torch.no_grad():
            assert torch.equal(D(*given), expected)
        with torch.inference_mode():
            assert torch.equal(D(*given), expected)
        assert torch.equal(D(given[0].detach(), sigma), expected)
    with pytest.raises(errors.GradientError, match="sigma requires gradients"):
        D(z, sigma.clone().requires_grad_())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_forward_mode_and_transforms_are_refused_where_there_are_no_derivatives() -> None:
    forward: Any = torch.autograd.forward_ad
    D, z = pspc.SNIS(DATA), images()
    with forward.dual_level(), torch.no_grad():
        with pytest.raises(errors.GradientError, match="SNIS has no derivatives"):
            D(forward.make_dual(images(), images()), 0.5)
        assert D(images(), 0.5).shape == (2, 1, 4, 4)
    for transform in (
        lambda: torch.func.grad(lambda z: D(z, 0.5).sum())(z),
        lambda: torch.func.jvp(lambda z: D(z, 0.5), (z,), (z,)),
        lambda: torch.func.jacrev(lambda z: D(z, 0.5))(z),
        lambda: torch.func.vmap(lambda one: D(one[None], 0.5))(z),
        lambda: torch.func.vmap(lambda sigma: D(z, sigma))(torch.ones(3)),
    ):
        with pytest.raises(errors.GradientError, match=r"torch\.func or torch\.vmap"):
            transform()


@EVERY
def test_tensors_without_numbers_are_refused(D: Any) -> None:
    with pytest.raises(errors.DTypeError, match="a tensor's numbers cannot be read"):
        D(images().to("meta"), 0.5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tracing_would_keep_the_numbers() -> None:
    jit: Any = torch.jit
    with pytest.raises(errors.GradientError, match="cannot be traced"):
        jit.trace(lambda z: DENOISERS[0](z, 0.5), (images(),))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "error::UserWarning")
@pytest.mark.parametrize("D", [*DENOISERS, pspc.Network(lambda x, sigma: x * 0.5)])
def test_compiled_functions_call_denoisers_as_they_are(D: Any) -> None:
    z = images()

    def doubled(z: Tensor) -> Tensor:
        denoised: Tensor = 2 * D(z, 0.5)
        return denoised

    torch.compiler.reset()
    with pytest.raises(
        RuntimeError, match=r"denoisers of pspc_rs are not traced by torch\.compile: leave out fullgraph"
    ):
        torch.compile(doubled, fullgraph=True, backend="eager")(z)
    torch.compiler.reset()
    assert torch.equal(torch.compile(doubled, backend="eager")(z), doubled(z))


@EVERY
def test_labels_that_would_be_ignored_are_refused(D: Any) -> None:
    z = images()
    for labels in (torch.eye(2), np.array([1, 2]), [0, 1], 3):
        with pytest.raises(
            errors.InvalidValueError, match=f"class_labels were given, but {type(D).__name__} has no classes"
        ):
            D(z, 0.5, labels)
        with pytest.raises(errors.InvalidValueError, match="has no classes"):
            pspc.samplers.sample_euler(D, z, [1.0, 0.0], extra_args={"class_labels": labels})
    for none in (None, torch.zeros(2, 0), np.zeros((2, 0))):
        assert torch.equal(D(z, 0.5, class_labels=none), D(z, 0.5))


@EVERY
def test_conventions_of_modules(D: Any) -> None:
    assert D.to("cpu") is D and D.to(device=torch.device("cpu")).eval() is D
    assert torch.equal(D(images(), 0.5, force_fp32=True), D(images(), 0.5))
    for nowhere in ("nowhere", 3.5, None if torch.cuda.is_available() else "cuda"):
        with pytest.raises(errors.InvalidValueError, match=r"device is .* which cannot be used"):
            D.to(nowhere or "nowhere")
