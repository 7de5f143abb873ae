"""The oracle itself, against golden float64 numbers and cases with a known answer."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import reference

Golden = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def golden(test_data: Path) -> Golden:
    with np.load(test_data / "golden" / "pspc-golden-cifar.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def n256(golden: Golden) -> torch.Tensor:
    return reference.pixels(golden["images_u8"])


@pytest.fixture(scope="module")
def n512(n256: torch.Tensor) -> torch.Tensor:
    return reference.with_flips(n256)


def heat_maps(t: float) -> NDArray[np.float32]:
    """The synthetic maps of one golden level [y, x, v, u]: a bump near every output pixel."""
    s = 1.8 + 2.2 * t**0.5
    at = np.arange(32.0)
    down = np.exp(-0.5 * ((at[None, :] - at[:, None] - 0.172) / (0.87 * s)) ** 2)
    across = np.exp(-0.5 * ((at[None, :] - at[:, None] + 0.333) / (0.861 * s)) ** 2)
    maps: NDArray[np.float64] = down[:, None, :, None] * across[None, :, None, :] + 0.0001
    return maps.astype(np.float32)


def flex_masks(golden: Golden, level: int) -> torch.Tensor:
    k = golden["flex_mask_levels"].tolist().index(level)
    bits = np.unpackbits(golden["flex_masks_bits"][k], axis=-1)
    return torch.from_numpy(bits.reshape(1024, 32, 32).astype(bool))


def differs(ours: torch.Tensor, exact: NDArray[Any]) -> float:
    return float(np.abs(ours.numpy() - exact).max())


@pytest.mark.parametrize("level", range(18))
def test_empirical_is_golden(golden: Golden, n512: torch.Tensor, level: int) -> None:
    ours = reference.composite(n512, reference.full_window(32, 32), golden["z"][level], float(golden["t"][level]))
    assert differs(ours, golden["n512_empirical_f64"][level]) < 1e-10


@pytest.mark.parametrize("level", [8, 13])
def test_square_is_golden(golden: Golden, n256: torch.Tensor, level: int) -> None:
    windows = reference.square_windows(32, 32, int(golden["patch_sizes"][level]))
    ours = reference.composite(n256, windows, golden["z"][level, 2:], float(golden["t"][level]))
    assert differs(ours, golden["n256_sq_f64"][level]) < 1e-10


def test_flex_is_golden(golden: Golden, n256: torch.Tensor) -> None:
    ours = reference.composite(n256, flex_masks(golden, 13), golden["z"][13, 2:], float(golden["t"][13]))
    assert differs(ours, golden["n256_flex_f64"][13]) < 1e-10


@pytest.mark.parametrize("level", [7, 17])
def test_masks_are_golden(golden: Golden, level: int) -> None:
    maps = heat_maps(float(golden["t_formula_f64"][level])).reshape(1024, 32, 32)
    ours = torch.stack([reference.mask_from_map(one, float(golden["thresholds"][level])) for one in maps])
    assert torch.equal(ours, flex_masks(golden, level))


@pytest.mark.parametrize("rank", [None, 64])
def test_gaussian_is_golden(golden: Golden, n256: torch.Tensor, rank: int | None) -> None:
    exact = golden["n256_gauss_f64" if rank is None else "n256_gauss_r64_f64"]
    for level in (0, 8, 17):
        ours = reference.gaussian(n256, golden["z"][level, 2:], float(golden["t"][level]), rank)
        assert differs(ours, exact[level]) < 1e-10


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_samples_are_golden(golden: Golden, n256: torch.Tensor, solver: str) -> None:
    def denoise(z: torch.Tensor, sigma: float) -> torch.Tensor:
        return reference.composite(n256, reference.full_window(32, 32), z, sigma)

    sigmas = [*golden["t"].tolist(), 0.0]
    ours = getattr(reference, solver)(denoise, golden["z_init"], sigmas)
    assert differs(ours, golden[f"n256_{solver}_empirical_f64"]) < 1e-10


def random_images(n: int, height: int = 4, width: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.rand(n, 2, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def test_one_image_is_what_comes_out() -> None:
    images = random_images(1)
    z = random_images(3)
    for windows in (reference.full_window(4, 5), reference.square_windows(4, 5, 2)):
        assert torch.allclose(reference.composite(images, windows, z, 0.3), images.expand_as(z), atol=1e-15)


def test_duplicates_weigh_twice() -> None:
    a, b = random_images(2)
    z = torch.zeros_like(a)[None]
    weight_a, weight_b = (torch.exp(-(x**2).sum() / 2) for x in (a, b))
    expected = (2 * weight_a * a + weight_b * b) / (2 * weight_a + weight_b)
    ours = reference.composite(torch.stack([a, a, b]), reference.full_window(4, 5), z, 1.0)
    assert torch.allclose(ours[0], expected, atol=1e-14)


def test_limits_of_sigma() -> None:
    images = random_images(7)
    windows = reference.square_windows(4, 5, 3)
    near, far = (reference.composite(images, windows, images[2:4], sigma) for sigma in (1e-4, 1e6))
    assert torch.allclose(near, images[2:4], atol=1e-14)
    assert torch.allclose(far, images.mean(0).expand_as(far), atol=1e-10)
    assert torch.allclose(reference.gaussian(images, images[2:4], 1e-7), images[2:4], atol=1e-10)
    assert torch.allclose(reference.gaussian(images, images[2:4], 1e7), images.mean(0).expand_as(far), atol=1e-10)


def test_every_query_has_its_own_sigma() -> None:
    images, z, windows = random_images(5), random_images(2), reference.square_windows(4, 5, 2)
    together = reference.composite(images, windows, z, torch.tensor([0.2, 3.0]))
    for b, sigma in enumerate(np.array([0.2, 3.0], np.float32).tolist()):
        assert torch.equal(together[b : b + 1], reference.composite(images, windows, z[b : b + 1], sigma))


def test_windows_are_counted_and_cover() -> None:
    assert reference.square_windows(4, 5, 3).shape == (6, 4, 5)
    assert torch.equal(reference.square_windows(4, 4, 4), reference.full_window(4, 4))
    with pytest.raises(ValueError, match="in no window"):
        reference.composite(random_images(2), reference.square_windows(4, 5, 3)[:1], random_images(1), 1.0)


def test_a_mask_keeps_the_largest_pixels() -> None:
    heat = [[4.0, 1.0], [3.0, 2.0]]
    assert reference.mask_from_map(heat, 0.5).tolist() == [[True, False], [True, False]]
    assert reference.mask_from_map(heat, 1.0).all()
    # Of equal pixels the later ones stay: the sort is ascending and stable.
    assert reference.mask_from_map([[1.0, 1.0], [1.0, 1.0]], 0.2).tolist() == [[False, False], [False, True]]
    # A running share of exactly 1 - threshold is enough.
    assert reference.mask_from_map([[1.0, 1.0], [1.0, 1.0]], 0.25).tolist() == [[False, False], [True, True]]


def test_solvers_keep_to_the_flow_of_one_image() -> None:
    image, z = random_images(1), 80 * random_images(2)
    sigmas = [80.0, 5.0, 0.3]
    expected = image + (z - image) * (0.3 / 80)
    for solver in (reference.euler, reference.heun):
        assert torch.allclose(solver(lambda z, s: image.expand_as(z), z, sigmas), expected, atol=1e-12)
        end = solver(lambda z, s: image.expand_as(z), z, [*sigmas, 0.0])
        assert torch.allclose(end, image.expand_as(end), atol=1e-12)


def posterior_problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return random_images(6), reference.square_windows(4, 5, 3), random_images(2) / 2


def test_the_posterior_has_the_composite_and_its_limits() -> None:
    images, windows, z = posterior_problem()
    said = reference.posterior(images, windows, z, torch.tensor([0.4, 2.0]))
    expected = reference.composite(images, windows, z, torch.tensor([0.4, 2.0]))
    assert torch.allclose(said.denoised, expected, atol=1e-13)
    far = reference.posterior(images, windows, z, 1e7)
    assert torch.allclose(far.entropy, torch.tensor(6.0).double().log(), atol=1e-10)
    assert torch.allclose(far.log_evidence, far.entropy, atol=1e-10)
    assert torch.allclose(far.component_variance[0, 0], images[:, :, 1, 1].var(0, correction=0), atol=1e-10)
    near = reference.posterior(images, windows, images[:1], 1e-3)
    assert float(near.entropy.abs().max() + near.variance.max()) < 1e-12


def test_atoms_that_do_not_count_are_as_if_absent() -> None:
    images, windows, z = posterior_problem()
    counts, prior = torch.arange(6) % 3 > 0, torch.linspace(-2, 1, 6).double()
    some = reference.posterior(images, windows, z, 0.7, counts=counts.expand(2, 6), log_prior=prior, temperature=1.4)
    absent = reference.posterior(images[counts], windows, z, 0.7, log_prior=prior[counts], temperature=1.4)
    for one, other in zip(some, absent, strict=True):
        assert torch.allclose(one[..., counts] if one is some.logits or one is some.weights else one, other, atol=1e-13)


@pytest.mark.parametrize("option", ["none", "counts", "prior", "temperature"])
def test_the_oracle_is_differentiated_as_it_is(option: str) -> None:
    images, windows, z = posterior_problem()
    choices: dict[str, dict[str, Any]] = {
        "none": {},
        "counts": {"counts": torch.arange(6).expand(2, 6) > 1},
        "prior": {"log_prior": torch.linspace(-2, 1, 6).double()},
        "temperature": {"temperature": 1.7},
    }
    options = choices[option]

    def denoise(z: torch.Tensor) -> torch.Tensor:
        return reference.posterior(images, windows, z, 0.8, **options).denoised

    assert torch.autograd.gradcheck(denoise, z.clone().requires_grad_())
    v, u = random_images(3)[:2], random_images(4)[:2]
    assert torch.allclose((u * reference.jvp(denoise, z, v)).sum(), (v * reference.vjp(denoise, z, u)).sum())


def test_middles_of_windows() -> None:
    assert reference.middle_pixels(reference.square_windows(4, 5, 3))[:4] == [6, 7, 8, 11]
    assert reference.middle_pixels(reference.full_window(4, 5)) == [2 * 5 + 2]


def test_the_density_of_one_image_is_normal() -> None:
    images, z = random_images(1), random_images(2)
    expected = (-(((z - images) / 0.6) ** 2) / 2 - math.log(0.6 * math.sqrt(2 * math.pi))).sum((1, 2, 3))
    assert torch.allclose(reference.log_density(images, z, 0.6), expected)
