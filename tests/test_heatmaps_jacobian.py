"""Heat maps from Jacobians: composites against autograd through the oracle, networks against their matrix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

import pspc_rs as pspc
import reference
import trained_networks
from pspc_rs import errors
from pspc_rs.heatmaps.jacobians import composite_maps, network_maps
from pspc_rs.heatmaps.maps import chosen_pixels

SIDES = st.integers(1, 5)


def maps_by_autograd(D: Callable[[Tensor], Tensor], z: Any, pixels: Any) -> NDArray[np.float64]:
    """One z and one derivative at a time, [batch, P, H, W]."""
    maps = []
    for one in torch.as_tensor(z).double():
        jacobian: Any = torch.autograd.functional.jacobian(lambda x: D(x[None])[0], one)  # type: ignore[no-untyped-call]
        own = torch.stack([jacobian[c, :, :, c] for c in range(len(one))]).abs().sum(0)
        maps.append(own.reshape(-1, *own.shape[2:])[pixels])
    return torch.stack(maps).numpy()


@given(
    st.integers(1, 3),
    SIDES,
    SIDES,
    st.integers(1, 12),
    st.sampled_from([0.02, 0.3, 1.0, 20.0]),
    st.booleans(),
    st.sampled_from(["empirical", "square", "flex"]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_composites_have_the_jacobian_of_the_oracle(
    c: int, h: int, w: int, n: int, sigma: float, xflip: bool, kind: str, floats: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    u8 = rng.integers(0, 256, (n, c, h, w), dtype=np.uint8)
    stored = reference.pixels(u8)
    data = pspc.ImageSet(stored.float().numpy() if floats else u8, xflip=xflip)
    images = reference.with_flips(stored) if xflip else stored
    windows = reference.full_window(h, w)
    D: pspc.denoisers.PosteriorComposite = pspc.Empirical(data)
    if kind == "square":
        side = int(rng.integers(1, min(h, w) + 1))
        D, windows = pspc.PSPCSquare(data, patch_sizes=side), reference.square_windows(h, w, side)
    elif kind == "flex":
        masks = rng.random((h * w, h * w)) < 0.4
        np.fill_diagonal(masks, True)
        D, windows = pspc.PSPCFlex(data, masks=masks.reshape(-1, h, w)), torch.from_numpy(masks.reshape(-1, h, w))
    z = images[rng.integers(len(images), size=2)].numpy() + sigma * rng.standard_normal((2, c, h, w))
    pixels = rng.permutation(h * w)[: int(rng.integers(1, h * w + 1))]
    expected = maps_by_autograd(lambda x: reference.composite(images, windows, x, sigma), z, pixels)
    found = composite_maps(D, z, sigma, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * max(1.0, expected.max()))


def test_a_temperature_and_prior_weights_count_in_maps() -> None:
    rng = np.random.default_rng(0)
    u8, prior = rng.integers(0, 256, (12, 1, 4, 5), dtype=np.uint8), rng.normal(size=12)
    data, images = pspc.ImageSet(u8, xflip=True, log_prior=prior), reference.with_flips(reference.pixels(u8))
    D, windows = pspc.PSPCSquare(data, patch_sizes=3, temperature=1.7), reference.square_windows(4, 5, 3)
    z, pixels = rng.standard_normal((2, 1, 4, 5)), np.arange(20)
    options: dict[str, Any] = {"log_prior": np.tile(prior, 2), "temperature": 1.7}
    expected = maps_by_autograd(lambda x: reference.posterior(images, windows, x, 0.6, **options).denoised, z, pixels)
    np.testing.assert_allclose(composite_maps(D, z, 0.6, pixels), expected, rtol=1e-6, atol=1e-6)


def test_maps_do_not_depend_on_how_the_work_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    data = pspc.ImageSet(rng.integers(0, 256, (40, 3, 6, 5), dtype=np.uint8), xflip=True)
    z, pixels = rng.standard_normal((2, 3, 6, 5)), np.arange(30)
    D = pspc.PSPCSquare(data, patch_sizes=3)
    whole = composite_maps(D, z, 1.0, pixels)
    monkeypatch.setattr("pspc_rs.heatmaps.jacobians._NUMBERS_AT_ONCE", 500)
    np.testing.assert_allclose(composite_maps(D, z, 1.0, pixels), whole, rtol=1e-12, atol=1e-14)
    one_by_one = np.concatenate([composite_maps(D, z, 1.0, pixels[i : i + 1]) for i in range(30)], axis=1)
    np.testing.assert_allclose(one_by_one, whole, rtol=1e-12, atol=1e-14)


class Affine(torch.nn.Module):
    """D(z) = A(sigma) z + b."""

    def __init__(self, c: int, h: int, w: int, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.matrix = torch.nn.Parameter(torch.randn(c * h * w, c * h * w, generator=random), requires_grad=False)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return ((x.flatten(1) / sigma[:, None]) @ self.matrix.T + 1).reshape(x.shape)


@given(st.integers(1, 3), SIDES, SIDES, st.integers(1, 40), st.integers(0, 10**6))
def test_maps_of_a_linear_network_are_its_matrix(c: int, h: int, w: int, at_once: int, seed: int) -> None:
    net = Affine(c, h, w, seed)
    z = np.random.default_rng(seed).standard_normal((3, c, h, w)).astype(np.float32)
    pixels = chosen_pixels(None, h, w)[::-1].copy()
    blocks = net.matrix.reshape(c, h * w, c, h * w)
    expected = sum(blocks[k, :, k].abs() for k in range(c)) / 2
    found = network_maps(pspc.Network(net), z, 2.0, pixels, at_once=at_once)
    for maps in found:
        np.testing.assert_allclose(maps.reshape(h * w, h * w), np.asarray(expected)[pixels], rtol=1e-6, atol=1e-6)


def test_batched_products_are_those_one_by_one() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(2, 8, 3, padding=1), torch.nn.GroupNorm(2, 8), torch.nn.SiLU()]
    net = torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 2, 3, padding=1))
    D = pspc.Network(lambda x, sigma: net(x) / sigma[:, None, None, None])
    z, pixels = np.random.default_rng(0).standard_normal((2, 2, 5, 4)).astype(np.float32), np.array([3, 17, 0])
    found = network_maps(D, z, 0.5, pixels, at_once=32)
    single = [network_maps(D, one[None], 0.5, pixels[i : i + 1], at_once=1)[0] for one in z for i in range(3)]
    np.testing.assert_allclose(found.reshape(6, 5, 4), np.concatenate(single), rtol=1e-5, atol=1e-6)
    expected = maps_by_autograd(lambda x: net.double()(x) / 0.5, z, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_networks_without_gradients_are_refused() -> None:
    for net in (lambda x, sigma: x.detach(), lambda x, sigma: np.zeros(x.shape)):
        with pytest.raises(errors.InvalidValueError, match="no gradient"):
            network_maps(pspc.Network(net), np.zeros((1, 1, 2, 2), np.float32), 1.0, np.array([0]))
    bounded = pspc.Network(lambda x, sigma: x, sigma_max=2.0)
    with pytest.raises(errors.InvalidValueError, match="good for"):
        network_maps(bounded, np.zeros((1, 1, 2, 2), np.float32), 3.0, np.array([0]))


def test_maps_of_a_trained_network_are_those_of_plain_backward_passes(test_data: Path) -> None:
    with np.load(test_data / "mnist-28x28.npz") as stored:
        x = stored["x_test"][:2, None].astype(np.float32) / 127.5 - 1
    z = x + 0.3 * np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    found = network_maps(pspc.Network(trained_networks.bp_mnist), z, 0.3, np.array([14 * 28 + 14, 5]))
    noisy = torch.from_numpy(z).requires_grad_()
    trained_networks.bp_mnist(noisy, 0.3)[:, 0, 14, 14].sum().backward()  # type: ignore[no-untyped-call]
    assert noisy.grad is not None
    np.testing.assert_allclose(found[:, 0], noisy.grad[:, 0].abs().numpy(), rtol=0, atol=1e-6)
    mean = found[:, 0].mean(axis=0)
    assert mean[14, 14] == mean.max() > 0
