"""Networks as guests: their gradients, the memory they are given, their mode, types and exceptions."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.experiments.evaluate import denoise
from pspc_rs.networks import Adapter, DiscreteVP, Edm, open_network

RNG = np.random.default_rng(0)


class Shrink(nn.Module):
    """x / (1 + sigma^2) times a weight; the first operation may write to x, sigma and the labels."""

    def __init__(self, *, in_place: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.in_place = in_place

    def to_large(self) -> "Shrink":
        nn.init.constant_(self.weight, 2e6)
        return self

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        shift: Any = 0 if class_labels is None else class_labels.reshape(-1, 1, 1, 1)
        y: Tensor = self.weight * x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2) + shift
        if self.in_place:
            for one in (x, sigma, class_labels):
                if one is not None:
                    one.mul_(-3)
        return y


def tensor(*shape: int) -> Tensor:
    return torch.from_numpy(RNG.standard_normal(shape).astype(np.float32))


# Gradients


def test_the_graph_goes_through_a_network() -> None:
    net = Shrink()
    D = pspc.Network(net, max_batch=2)
    z, sigma = tensor(5, 1, 2, 3).requires_grad_(), torch.tensor([0.1, 0.5, 1, 2, 3], requires_grad=True)
    out = D(z, sigma)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
    found = torch.autograd.grad((out * weights).sum(), [z, sigma, net.weight])
    exact = Shrink()(z, sigma)
    expected = torch.autograd.grad((exact * weights).sum(), [z, sigma], retain_graph=True)
    torch.testing.assert_close(found[:2], expected)
    assert float(found[2]) == pytest.approx(((exact.detach() / 0.5) * weights).sum().item(), rel=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_there_is_no_graph(mode: Any) -> None:
    z = tensor(2, 1, 2, 2).requires_grad_()
    with mode():
        assert not pspc.Network(Shrink())(z, 1.0).requires_grad
        assert not pspc.Empirical(grey())(tensor(2, 1, 4, 4).requires_grad_(), 1.0).requires_grad
    assert not pspc.Network(Shrink())(z.detach(), 1.0).requires_grad


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_of_torch_go_through_a_network() -> None:
    D, z = pspc.Network(Shrink()), tensor(2, 1, 2, 2)
    factor = 0.5 / 2
    gradient = torch.func.grad(lambda z: D(z, 1.0).sum())(z)
    torch.testing.assert_close(gradient, torch.full_like(z, factor))
    pushed = torch.func.jvp(lambda z: D(z, 1.0), (z,), (torch.ones_like(z),))
    torch.testing.assert_close(pushed[:2], (factor * z, torch.full_like(z, factor)))
    torch.testing.assert_close(torch.func.vmap(lambda one: D(one[None], 1.0)[0])(z), factor * z)
    forward: Any = torch.autograd.forward_ad
    with forward.dual_level():
        found = forward.unpack_dual(D(forward.make_dual(z, torch.ones_like(z)), 1.0)).tangent
    torch.testing.assert_close(found, torch.full_like(z, factor))


def test_guidance_inside_a_sampler_has_its_gradient() -> None:
    D = pspc.Network(Shrink())
    seen = []

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            denoised = D(x, sigma)
            seen.append(torch.autograd.grad(denoised.square().sum(), x)[0].abs().max().item())
        return denoised.detach()

    pspc.samplers.sample_euler(guided, tensor(1, 1, 2, 2) * 10, [10.0, 1.0, 0.0])
    assert min(seen) > 0


# Memory


@given(
    batch=st.integers(1, 5),
    max_batch=st.integers(1, 6),
    kind=st.sampled_from(["numpy", "torch", "read-only"]),
    dtype=st.sampled_from(["float32", "float64", "float16"]),
    wrapped=st.booleans(),
)
def test_a_network_that_works_in_place_changes_nothing_of_the_callers(
    batch: int, max_batch: int, kind: str, dtype: str, wrapped: bool
) -> None:
    values = np.random.default_rng(batch).standard_normal((batch, 1, 2, 3)).astype(dtype)
    levels, labels = np.linspace(0.1, 2, batch), np.arange(float(batch))
    nets = [Shrink(in_place=in_place) for in_place in (False, True)]
    plain, spoiling = (pspc.Network(Adapter(net, "x0", Edm()) if wrapped else net, max_batch=max_batch) for net in nets)
    kept: Any = torch.from_numpy if kind == "torch" else np.asarray
    z, sigma, classes = (kept(one.copy()) for one in (values, levels, labels))
    if kind == "read-only":
        z.flags.writeable = False
    np.testing.assert_array_equal(np.asarray(spoiling(z, sigma, classes)), np.asarray(plain(values, levels, labels)))
    for given_, before in ((z, values), (sigma, levels), (classes, labels)):
        np.testing.assert_array_equal(np.asarray(given_), before)


def in_place(x: Any, sigma: Any, shift: Any = 0) -> Any:
    """A function that is no `Network` and writes to all that it gets."""
    denoised = x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2) + shift
    x *= 7
    if not isinstance(shift, int):
        shift += 5
    return denoised


class SameBuffer:
    """Returns its result in the same memory each time."""

    buffer: Any = None

    def __call__(self, x: Any, sigma: Any, shift: Any = 0) -> Any:
        denoised = x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2) + shift
        if self.buffer is None:
            self.buffer = denoised
        self.buffer[:] = denoised
        return self.buffer


@pytest.mark.parametrize("name", [*pspc.samplers.SAMPLERS, "general"])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_samplers_trust_no_memory_of_others(name: str, kind: Any) -> None:
    sampler = {**pspc.samplers.SAMPLERS, "general": pspc.samplers.sample_general}[name]
    start, shift = RNG.standard_normal((2, 1, 2, 2)) * 10, np.full((2, 1, 1, 1), 0.25)

    def clean(x: Any, sigma: Any, shift: Any = 0) -> Any:
        return in_place(x + 0, sigma, shift + 0)

    def spoil(state: dict[str, Any]) -> None:
        state["x"] *= 0
        state["denoised"] *= 0

    grid = pspc.edm_sigmas(6, 0.05, 10.0)
    expected = sampler(clean, kind(start.copy()), grid, extra_args={"shift": kind(shift.copy())}, trajectory=True)
    for model in (in_place, SameBuffer()):
        x, extra = kind(start.copy()), kind(shift.copy())
        found = sampler(model, x, grid, extra_args={"shift": extra}, callback=spoil, trajectory=True)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
        np.testing.assert_array_equal(np.asarray(x), start)
        np.testing.assert_array_equal(np.asarray(extra), shift)


@pytest.mark.parametrize("model", [SameBuffer(), pspc.Network(SameBuffer(), max_batch=2)])
def test_results_are_not_changed_by_the_next_call(model: Any) -> None:
    D = model if isinstance(model, pspc.Network) else pspc.Network(model)
    first = D(np.ones((4, 1, 2, 2)), 1.0)
    np.testing.assert_array_equal(first, 0.5)
    D(np.zeros((4, 1, 2, 2)), 1.0)
    np.testing.assert_array_equal(first, 0.5)


def test_comparisons_trust_no_memory_of_others() -> None:
    z = RNG.standard_normal((5, 1, 2, 2)).astype(np.float32)
    before = z.copy()
    np.testing.assert_allclose(denoise(in_place, z, 1.0, 2), before / 2)
    np.testing.assert_array_equal(z, before)


# Mode


class Moody(nn.Module):
    """Random, and changing, in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5))
        self.frozen = nn.Dropout(0.5).eval()

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        y: Tensor = self.frozen(self.parts(x))
        if float(sigma[0]) == 13:
            raise ValueError("unlucky")
        return y


@pytest.mark.parametrize("adapted", [False, True])
def test_a_module_in_training_mode_is_evaluated_and_put_back(adapted: bool) -> None:
    net = Moody()
    D = pspc.Network(Adapter(net, "x0", Edm()) if adapted else net)
    z, buffers = tensor(3, 1, 4, 4), {name: one.clone() for name, one in net.named_buffers()}
    torch.testing.assert_close(D(z, 1.0), D(z, 1.0), rtol=0, atol=0)
    torch.testing.assert_close(dict(net.named_buffers()), buffers, rtol=0, atol=0)
    modes = {name: one.training for name, one in net.named_modules()}
    assert modes == {"": True, "parts": True, "parts.0": True, "parts.1": True, "frozen": False}
    with pytest.raises(errors.NetworkError, match="unlucky"):
        pspc.Network(net)(z, 13.0)
    assert net.training and not net.frozen.training


def test_a_scripted_module_in_training_mode_is_put_back_too() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            y: Tensor = self.drop(x)
            return y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        net = torch.jit.script(Dropped().train())
    D = pspc.Network(net)
    np.testing.assert_array_equal(D(np.ones((2, 1, 4, 4)), 1.0), 1.0)
    assert [one.training for one in net.modules()] == [True, True]
    net.eval()
    np.testing.assert_array_equal(D(np.ones((2, 1, 4, 4)), 1.0), 1.0)
    assert [one.training for one in net.modules()] == [False, False]


def test_threads_may_share_a_module_in_training_mode() -> None:
    net = Moody()
    D, z = pspc.Network(net), tensor(8, 1, 16, 16)
    expected = D(z, 1.0)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: D(z, 1.0), range(200)):
            assert torch.equal(found, expected)
    assert net.training


# Types


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scripted", [False, True])
def test_a_module_gets_the_type_of_its_weights(tmp_path: Path, dtype: torch.dtype, scripted: bool) -> None:
    net: Any = Shrink().to(dtype)
    source: Any = net
    jit: Any = torch.jit
    if scripted:
        source = tmp_path / "net.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            jit.save(jit.trace(net, (tensor(1, 1, 2, 2).to(dtype), torch.ones(1, dtype=dtype))), source)
    D = open_network(source, trust=True)
    z = RNG.standard_normal((2, 1, 2, 2)).astype(np.float32)
    for kind in (z, torch.from_numpy(z), z.astype(">f4"), z.astype(">f8")):
        found = D(kind, 1.0)
        assert found.dtype == kind.dtype
        np.testing.assert_allclose(np.asarray(found, np.float32), z / 4, rtol=1e-2, atol=1e-3)


def test_an_adapters_formulas_are_not_rounded_to_half_precision() -> None:
    net = nn.Conv2d(1, 1, 1).half()
    nn.init.zeros_(net.weight)
    nn.init.ones_(net.bias)  # type: ignore[arg-type]
    D = pspc.Network(Adapter(lambda x_t, t: net(x_t.half()), "eps", DiscreteVP.linear()))
    inside = pspc.Network(Adapter(Always(net), "eps", DiscreteVP.linear()))
    z = RNG.standard_normal((2, 1, 2, 2)).astype(np.float32) * 50
    np.testing.assert_array_equal(inside(z, 50.0), D(z, 50.0))
    np.testing.assert_allclose(inside(z, 50.0), z - 50, rtol=1e-5)


class Always(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y


@pytest.mark.parametrize("z", [np.ones((1, 1, 2, 2), int), np.ma.ones((1, 1, 2, 2)), [[[[1.0]]]], None])
def test_only_arrays_of_floats_are_images(z: Any) -> None:
    with pytest.raises(errors.DTypeError, match=r"z (has|is)"):
        pspc.Network(lambda x, sigma: x / 2)(z, 1.0)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_what_half_precision_cannot_hold_is_refused(kind: Any) -> None:
    data = pspc.ImageSet(np.full((2, 1, 2, 2), 1e6, np.float32))
    z = kind(np.ones((1, 1, 2, 2), np.float16))
    for D in (pspc.Gaussian(data, cache=False), pspc.Empirical(data), pspc.Network(Shrink().double().to_large())):
        with pytest.raises(errors.InvalidValueError, match=r"1e\+06 is too large for float16; use float32"):
            D(z, 1.0)
    assert float(pspc.Empirical(data)(kind(np.ones((1, 1, 2, 2), np.float32)), 1.0).max()) == 1e6


def test_a_state_that_half_precision_cannot_hold_is_refused() -> None:
    x = torch.full((1, 1, 1, 1), 6e4, dtype=torch.float16)
    with pytest.raises(errors.InvalidValueError, match=r"the state at sigma 1 holds -?inf"):
        pspc.samplers.sample_euler(lambda x, sigma: -x, x, [2.0, 1.0])


# Exceptions and values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_network_that_returns_no_numbers_is_an_error(value: float, kind: Any) -> None:
    z = kind(np.ones((3, 1, 2, 2)))
    with pytest.raises(errors.InvalidValueError, match=r"what the network .*<lambda> returned holds -?(nan|inf) at"):
        pspc.Network(lambda x, sigma: x * value, max_batch=2)(z, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_without_numbers_are_refused(value: float) -> None:
    with pytest.raises(errors.InvalidValueError, match=r"z holds (nan|inf) at"):
        pspc.Network(lambda x, sigma: x * 0)(np.full((1, 1, 2, 2), value), 1.0)


def failing(x: Any, sigma: Any) -> Any:
    raise KeyError("no such layer\nat all")


def labelled(x: Any, sigma: Any, class_labels: Any) -> Any:
    return x


def test_an_exception_in_a_network_names_it_in_one_line() -> None:
    with pytest.raises(errors.NetworkError, match=r"the network .*failing failed: KeyError: ") as caught:
        pspc.Network(failing)(np.ones((1, 1, 2, 2)), 1.0)
    assert isinstance(caught.value.__cause__, KeyError) and "\n" not in str(caught.value)
    with pytest.raises(errors.NetworkError, match=r"missing 1 required .*called without class labels"):
        pspc.Network(labelled)(np.ones((1, 1, 2, 2)), 1.0)
    with pytest.raises(errors.NetworkError, match="expected input"):
        pspc.Network(Always(nn.Conv2d(3, 3, 1)))(np.ones((1, 1, 2, 2)), 1.0)


@pytest.mark.parametrize("returned", [None, (1, 2), "text"])
def test_a_network_that_returns_no_array(returned: Any) -> None:
    with pytest.raises(errors.DTypeError, match=f"returned a {type(returned).__name__}"):
        pspc.Network(lambda x, sigma: returned)(np.ones((1, 1, 2, 2)), 1.0)


def test_to_and_eval_return_the_denoiser() -> None:
    net = Shrink()
    D = pspc.Network(net)
    assert D.to("cpu") is D and D.to(torch.device("cpu")).eval() is D and not net.training
    with pytest.raises(errors.InvalidValueError, match="device is 'nowhere'"):
        D.to("nowhere")
    plain = pspc.Network(np.multiply)
    assert plain.eval() is plain


def grey() -> pspc.ImageSet:
    return pspc.ImageSet(np.random.default_rng(1).integers(0, 256, (30, 4, 4), dtype=np.uint8))
