"""Denoisers as users meet them: Gaussian, Network, the attributes samplers look for, and faults once seen elsewhere."""

import tracemalloc
from itertools import pairwise
from pathlib import Path
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

RNG = np.random.default_rng(0)
DATA = pspc.ImageSet(RNG.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8), xflip=True)


def edm_paper_sampler(net: Any, latents: torch.Tensor, num_steps: int = 6) -> torch.Tensor:
    """Karras et al. 2022, algorithm 1, the way a network is used there: attributes first, float64 state."""
    high, low = min(80.0, net.sigma_max), max(0.002, net.sigma_min)
    steps = torch.arange(num_steps, dtype=torch.float64)
    levels = (high ** (1 / 7) + steps / (num_steps - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    levels = torch.cat([torch.as_tensor(net.round_sigma(levels)), torch.zeros(1)])
    x = latents.to(torch.float64) * levels[0]
    for now, then in pairwise(levels):
        slope = (x - net(x, now, None).to(torch.float64)) / now
        ahead = x + (then - now) * slope
        if then > 0:
            slope = (slope + (ahead - net(ahead, then, None).to(torch.float64)) / then) / 2
        x = x + (then - now) * slope
    return x


def every_denoiser() -> list[Any]:
    E = pspc.Empirical(DATA)
    return [E, pspc.PSPCSquare(DATA, patch_sizes=3), pspc.Gaussian(DATA, cache=False), pspc.Network(E, shape=E.shape)]


def test_a_denoiser_takes_the_place_of_a_network() -> None:
    latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for D in every_denoiser():
        assert (D.img_resolution, D.img_channels, D.label_dim) == (8, 3, 0)
        theirs = edm_paper_sampler(D, latents)
        ours = pspc.sample(D, 2, "heun", 6, x_init=latents * 80, float64_state=True)
        torch.testing.assert_close(theirs.float(), ours.float(), rtol=0, atol=2e-5)


def test_k_diffusion_call_shape() -> None:
    D = pspc.Empirical(DATA)
    x = torch.zeros(3, 3, 8, 8)
    assert D(x, torch.tensor(0.5) * x.new_ones([3]), class_labels=None).shape == x.shape


def test_resolution_of_images_that_are_not_square() -> None:
    assert pspc.Empirical(pspc.ImageSet(np.zeros((2, 1, 4, 6), np.uint8))).img_resolution == (4, 6)


@given(st.integers(1, 12), st.integers(2, 40), st.booleans(), st.integers(0, 10**6))
def test_gaussian_is_the_oracle(width: int, n: int, xflip: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = pspc.ImageSet(rng.integers(0, 256, (n, 1, 2, width), dtype=np.uint8), xflip=xflip)
    G = pspc.Gaussian(data, cache=False)
    rank = int(rng.integers(1, G.rank + 1))
    z = rng.standard_normal((2, 1, 2, width)) * 3
    stored = data.images / 127.5 - 1
    x = torch.from_numpy(np.concatenate([stored, stored[..., ::-1]] if xflip else [stored]))
    for D, r in ((G, None), (pspc.Gaussian(data, rank, cache=False), rank)):
        # A cut through equal variances leaves the choice of directions open.
        if r is None or r == G.rank or G.variances[r - 1] - G.variances[r] > 1e-6:
            for sigma in (50.0, 1.0, 0.002):
                exact = reference.gaussian(x, torch.from_numpy(z), sigma, rank=r)
                np.testing.assert_allclose(D(z, sigma), exact, rtol=0, atol=1e-6)


def test_gaussian_statistics_are_kept_and_a_damaged_file_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path))
    z = RNG.standard_normal((1, 3, 8, 8))
    first = pspc.Gaussian(DATA)(z, 0.5)
    (kept,) = (tmp_path / "gaussian").iterdir()
    assert kept.stem == DATA.fingerprint
    monkeypatch.setattr("pspc_rs.denoisers.gaussian.principal_axes", lambda data: pytest.fail("computed again"))
    np.testing.assert_array_equal(pspc.Gaussian(DATA)(z, 0.5), first)
    monkeypatch.undo()
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path))
    kept.write_bytes(kept.read_bytes()[:1000])
    np.testing.assert_array_equal(pspc.Gaussian(DATA)(z, 0.5), first)


def test_gaussian_data_have_the_gaussian_denoiser_as_their_posterior_mean() -> None:
    x = np.random.default_rng(3).standard_normal((40_000, 1, 1, 2)) @ np.array([[1, 0.5], [0, 0.3]])
    data = pspc.ImageSet(x)
    z = np.array([[[[0.7, -0.2]]], [[[-1.0, 0.4]]]])
    np.testing.assert_allclose(pspc.Empirical(data)(z, 0.5), pspc.Gaussian(data, cache=False)(z, 0.5), atol=0.03)


def test_gaussian_needs_no_matrix_per_sample() -> None:
    data = pspc.ImageSet(RNG.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8))
    G, z = pspc.Gaussian(data, cache=False), RNG.standard_normal((64, 3, 16, 16))
    tracemalloc.start()
    G(z, np.full(64, 0.5))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 768 * 768  # bytes; a matrix per sample would take eight times as much


class Shrink(torch.nn.Module):
    """x / (1 + sigma^2), with a parameter, as a network has."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, class_labels: Any = None) -> torch.Tensor:
        self.seen.append(len(x))
        labels = 0 if class_labels is None else class_labels.reshape(-1, 1, 1, 1)
        return self.gain * x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2) + labels


def test_network_passes_torch_and_numpy_and_labels_through() -> None:
    net = Shrink()
    N = pspc.Network(net, max_batch=2)
    z = RNG.standard_normal((5, 1, 2, 3)).astype(np.float32)
    sigma = np.array([0.5, 1, 2, 3, 4])
    expected = z / (1 + sigma[:, None, None, None] ** 2)
    from_numpy = N(z, sigma)
    assert isinstance(from_numpy, np.ndarray) and from_numpy.dtype == np.float32 and net.seen == [2, 2, 1]
    np.testing.assert_allclose(from_numpy, expected, rtol=1e-6)
    from_torch = N(torch.from_numpy(z), torch.from_numpy(sigma))
    assert not from_torch.requires_grad
    np.testing.assert_allclose(from_torch.numpy(), expected, rtol=1e-6)
    labelled = N(torch.from_numpy(z), 1.0, torch.arange(5.0))
    np.testing.assert_allclose(labelled.numpy(), z / 2 + np.arange(5.0)[:, None, None, None], rtol=1e-6)


def test_network_rounds_sigma_as_its_callable_does() -> None:
    net = Shrink()
    net.round_sigma = lambda sigma: sigma + 1  # type: ignore[assignment]
    assert pspc.Network(net).round_sigma(2.0) == 3.0
    assert pspc.Network(lambda x, s: x).round_sigma(2.0) == 2.0


def grey(height: int, width: int) -> pspc.ImageSet:
    return pspc.ImageSet(np.random.default_rng(1).integers(0, 256, (30, height, width), dtype=np.uint8))


def test_grey_images_that_are_not_square_work() -> None:
    data = grey(7, 5)
    z: npt.NDArray[np.float32] = np.zeros((2, 1, 7, 5), np.float32)
    for D in [pspc.Empirical(data), pspc.PSPCSquare(data, patch_sizes=["full", 3], sigmas=[10.0, 0.1])]:
        assert np.isfinite(D(z, [5.0, 0.01])).all()


def test_images_smaller_than_the_windows_are_refused_not_denoised_to_nan() -> None:
    with pytest.raises(errors.InvalidValueError):
        pspc.PSPCSquare(grey(7, 5), patch_sizes=[23, 3], sigmas=[10.0, 0.1])


def test_schedules_are_scaled_only_when_asked() -> None:
    with pytest.raises(errors.ScheduleError, match="scale_to"):
        pspc.PSPCSquare(grey(28, 28), schedule="cifar10")
    D = pspc.PSPCSquare(grey(28, 28), schedule="cifar10", scale_to=28)
    assert D.schedule.image_size == (28, 28)


def test_windows_are_built_once_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.random.default_rng(0).random((2, 8, 8, 8, 8)).astype(np.float32)
    F = pspc.PSPCFlex(DATA, heatmaps=maps, thresholds=[0.5, 0.6])
    assert F.windows_at(80.0) is F.windows_at(79.0)
    assert F.windows_at(80.0) is not F.windows_at(0.002)


def test_heat_maps_come_from_a_file_too(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((1, 8, 8, 8, 8)).astype(np.float32)
    np.save(tmp_path / "maps.npy", maps)
    z = RNG.standard_normal((1, 3, 8, 8))
    ours = pspc.PSPCFlex(DATA, heatmaps=tmp_path / "maps.npy", thresholds=0.5)(z, 1.0)
    np.testing.assert_array_equal(ours, pspc.PSPCFlex(DATA, heatmaps=maps, thresholds=[0.5])(z, 1.0))


def test_an_array_that_changes_during_the_call_does_not_matter() -> None:
    # More queries than the engine takes at once: the last ones are read after progress was reported.
    D, z = pspc.PSPCSquare(DATA, patch_sizes=3), RNG.standard_normal((300, 3, 8, 8)).astype(np.float32)
    expected = D(z, 1.0)

    def spoil(done: int, total: int) -> None:
        z[:] = np.nan

    np.testing.assert_array_equal(D(z, 1.0, progress=spoil), expected)
    assert np.isnan(z).all()
