"""Which images count, on the GPU: some of them, all but a few of a query, or more or less by their priors.

On a machine without a GPU these tests are skipped, and `test_cuda_emulated.py` runs them on an emulated device.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
import reference
from pspc_rs import _core, cuda
from test_cuda_edges import ROUTES, bands, units
from test_cuda_engine import EMULATED, NO_GPU

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.uint32]

pytestmark = pytest.mark.skipif(NO_GPU is not None, reason=NO_GPU or "")


@dataclass
class Problem:
    """A data set, queries, and which images count for them."""

    images: Array
    xflip: bool
    z: Array
    sigma: Array
    log_prior: Array | None = None
    chosen: Indices | None = None
    left_out: list[Indices] | None = None

    def on(self, ordinal: int | None, windows: _core.Components) -> npt.NDArray[np.float32]:
        """The composite on a GPU, or on the CPU."""
        engine = cuda.engine(_core.Bank(self.images, self.log_prior), ordinal)
        sigma = self.sigma.tolist()
        return engine.composite(windows, self.z, sigma, self.xflip, images=self.chosen, left_out=self.left_out)

    def oracle(self, masks: Array) -> Array:
        """The equations in float64, with energies relative to those of one image, so that z may lie anywhere."""
        x = units(self.images)
        x = np.concatenate([x, x[..., ::-1]]) if self.xflip else x
        image = np.arange(len(x)) % len(self.images)
        prior = np.zeros(len(x)) if self.log_prior is None else self.log_prior[image]
        out = np.zeros(self.z.shape)
        for b, z in enumerate(self.z):
            above = ((x - x[0]) * ((x + x[0]) - 2 * z)).sum(1)
            logits = prior - np.einsum("nyx,kyx->kn", above, masks.astype(float)) / (2 * self.sigma[b] ** 2)
            logits[:, ~self.counted(b)[image]] = -np.inf
            weights = np.exp(logits - logits.max(1, keepdims=True))
            weights /= weights.sum(1, keepdims=True)
            out[b] = np.einsum("kn,kyx,ncyx->cyx", weights, masks, x) / masks.sum(0)
        return out

    def counted(self, query: int) -> Array:
        """Which images count for a query."""
        counted = np.full(len(self.images), self.chosen is None)
        if self.chosen is not None:
            counted[self.chosen] = True
        if self.left_out is not None:
            counted[self.left_out[query]] = False
        return counted

    def spread(self) -> float:
        x = units(self.images)
        return float(x.max() - x.min()) or 1.0


def windows_of(route: str, height: int, width: int, side: int = 2) -> tuple[_core.Components, Array]:
    """Windows for the engine and for the oracle."""
    side = min(side, height, width)
    if route == "full":
        return _core.Components.full(height, width), np.ones((1, height, width), bool)
    if route == "square":
        masks = reference.square_windows(height, width, side).numpy()
        return _core.Components.square(height, width, side), masks
    masks = bands(height, width).numpy()
    return _core.Components.masks(masks), masks


def indices(which: Array) -> Indices:
    return np.flatnonzero(which).astype(np.uint32)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Bytes or floats from small to large sigma; chosen images, left-out ones among them the nearest, priors."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, channels = draw(st.sampled_from([3, 5, 70, 200])), draw(st.sampled_from([1, 3]))
    shape = (count, channels, draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    if draw(st.booleans()):
        images = (rng.standard_normal(shape) * draw(st.sampled_from([1.0, 1e-3]))).astype(np.float32)
    batch, x = draw(st.integers(1, 4)), units(images)
    sigma = 10 ** np.array([draw(st.floats(-2.5, 2)) for _ in range(batch)]) * np.abs(x).max()
    near = rng.integers(0, count, batch)
    z = x[near] + sigma[:, None, None, None] * rng.standard_normal((batch, *shape[1:]))
    problem = Problem(images, draw(st.booleans()), z, sigma)
    if draw(st.booleans()):
        problem.log_prior = rng.standard_normal(count) * draw(st.sampled_from([1.0, 30.0, 1e4]))
    if draw(st.booleans()):
        chosen = rng.random(count) < draw(st.sampled_from([0.1, 0.5, 1.0]))
        chosen[rng.integers(0, count, 2)] = True
        problem.chosen = indices(chosen)
    if draw(st.booleans()):
        problem.left_out = []
        share = draw(st.sampled_from([0.0, 0.1, 0.95]))
        for b in range(batch):
            left_out = rng.random(count) < share
            left_out[near[b]] = True
            # Something has to be left.
            left_out[rng.choice(np.arange(count) if problem.chosen is None else problem.chosen)] = False
            problem.left_out.append(indices(left_out))
    return problem


@pytest.mark.parametrize("route", ROUTES)
@given(problems(), st.integers(1, 6))
def test_images_that_count_give_the_oracle_and_what_the_cpu_gives(route: str, problem: Problem, side: int) -> None:
    height, width = problem.images.shape[2:]
    windows, masks = windows_of(route, height, width, side)
    denoised = problem.on(0, windows)
    np.testing.assert_allclose(denoised, problem.oracle(masks), rtol=0, atol=5e-6 * problem.spread())
    np.testing.assert_allclose(denoised, problem.on(None, windows), rtol=0, atol=5e-6 * problem.spread())


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("xflip", [False, True])
def test_chosen_images_are_as_a_data_set_of_their_own(route: str, xflip: bool) -> None:
    """Bit for bit, also next to images that are left out and with priors."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (700, 3, 6, 5), dtype=np.uint8)
    log_prior = rng.standard_normal(700)
    chosen = indices(rng.random(700) < 0.4)
    sigma = np.array([0.02, 0.3, 3.0])
    z = units(images)[chosen[:3]] + sigma[:, None, None, None] * rng.standard_normal((3, 3, 6, 5))
    left_out = [np.array([0], np.uint32), indices(np.arange(len(chosen)) < 70), np.array([], np.uint32)]
    windows, _ = windows_of(route, 6, 5, side=3)
    by_index = [chosen[positions] for positions in left_out]
    among = Problem(images, xflip, z, sigma, log_prior, chosen, by_index).on(0, windows)
    alone = Problem(images[chosen], xflip, z, sigma, log_prior[chosen], None, left_out).on(0, windows)
    np.testing.assert_array_equal(among, alone)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sigma", [0.01, 0.2, 2.0])
def test_whole_shards_that_do_not_count_are_passed_over(route: str, sigma: float) -> None:
    """The first bounds of the scan then come from no image at all."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 1, 5, 6), dtype=np.uint8)
    z = units(images)[:2] + sigma * rng.standard_normal((2, 1, 5, 6))
    left_out = [indices(np.arange(400) < 130), indices(np.arange(400) != 399)]
    problem = Problem(images, True, z, np.full(2, sigma), left_out=left_out)
    windows, masks = windows_of(route, 5, 6)
    np.testing.assert_allclose(problem.on(0, windows), problem.oracle(masks), rtol=0, atol=2e-6)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("far", [1.0, 50.0, 1e6])
@pytest.mark.parametrize("sigma", [0.02, 0.3, 0.8, 5.0])
def test_large_priors_and_z_far_away_take_no_digits(route: str, far: float, sigma: float) -> None:
    """A prior may cancel the energy of an image, whatever the size of both."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (90, 3, 6, 5), dtype=np.uint8)
    z = units(images)[:2] + sigma * rng.standard_normal((2, 3, 6, 5))
    z[..., 2:3] = far
    windows, masks = windows_of(route, 6, 5, side=3)
    energies = ((units(images) - z[0]) ** 2 - (units(images)[:1] - z[0]) ** 2).sum((1, 2, 3)) / (2 * sigma**2)
    left_out = [indices(np.arange(90) == 0)] * 2
    for log_prior in (0.3 * energies, rng.uniform(-1e6, 1e6, 90)):
        problem = Problem(images, True, z, np.full(2, sigma), log_prior.clip(-1e6, 1e6), left_out=left_out)
        np.testing.assert_allclose(problem.on(0, windows), problem.oracle(masks), rtol=0, atol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
def test_a_prior_that_cancels_a_large_energy_hides_no_rounding(route: str) -> None:
    """In the expanded form the energies of all images but a grey one are far below zero, and priors make up for it."""
    rng = np.random.default_rng(4)
    z = 0.7 * rng.choice([-1.0, 1.0], (1, 3, 32, 32))
    x = z + rng.uniform(-0.3, 0.3, (5, 3, 32, 32))
    x[0] = 0
    images = np.rint((x + 1) * 127.5).astype(np.uint8)
    log_prior = ((units(images) - z) ** 2).sum((1, 2, 3)) / (2 * 0.6**2)
    problem = Problem(images, False, z, np.array([0.6]), log_prior)
    windows, masks = windows_of(route, 32, 32, side=31)
    if route == "masks":
        masks = np.ones((1, 32, 32), bool)
        windows = _core.Components.masks(masks)
    np.testing.assert_allclose(problem.on(0, windows), problem.oracle(masks), rtol=0, atol=2e-6)


@pytest.mark.parametrize("route", ROUTES)
def test_bits_do_not_depend_on_queries_that_leave_out_others(route: str) -> None:
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (150, 1, 8, 7), dtype=np.uint8)
    sigma = np.array([8.0, 8.0, 0.3, 0.3, 0.02, 0.02])
    z = units(images)[:6] + sigma[:, None, None, None] * rng.standard_normal((6, 1, 8, 7))
    left_out = [np.array([b], np.uint32) if b % 2 else np.array([], np.uint32) for b in range(6)]
    windows, _ = windows_of(route, 8, 7, side=3)
    engine = cuda.engine(_core.Bank(images), 0)
    together = engine.composite(windows, z, sigma.tolist(), True, left_out=left_out)
    for b in range(6):
        one = engine.composite(windows, z[b : b + 1], [sigma[b]], True, left_out=left_out[b : b + 1])
        np.testing.assert_array_equal(together[b : b + 1], one)


@pytest.mark.skipif(not EMULATED, reason="only an emulated GPU shares the addresses of the CPU")
@pytest.mark.parametrize("route", ROUTES)
def test_queries_by_address_know_which_images_count(route: str) -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (150, 1, 8, 7), dtype=np.uint8)
    sigma, chosen = np.array([2.0, 0.02]), indices(rng.random(150) < 0.5)
    z = units(images)[chosen[:2]] + sigma[:, None, None, None] * rng.standard_normal((2, 1, 8, 7))
    problem = Problem(images, True, z, sigma, rng.standard_normal(150), chosen, [chosen[:1], chosen[1:2]])
    windows, masks = windows_of(route, 8, 7, side=3)
    engine, out = cuda.engine(_core.Bank(images, problem.log_prior), 0), np.zeros_like(z)
    engine.composite_at(
        windows, z.ctypes.data, True, sigma.tolist(), True, out.ctypes.data, True, 0, None, chosen, problem.left_out
    )
    np.testing.assert_allclose(out, problem.oracle(masks), rtol=0, atol=2e-6)


def test_chosen_images_that_change_after_their_check_are_named() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (40, 1, 6, 5)).astype(np.float32)
    engine = cuda.engine(_core.Bank(images), 0)
    images[17, 0, 2, 3] = 2.0
    with pytest.raises(pspc.errors.DataError, match="17"):
        engine.composite(
            _core.Components.full(6, 5), np.zeros((1, 1, 6, 5)), [1.0], False, images=np.array([3, 17, 20], np.uint32)
        )


def test_progress_counts_the_images_that_count() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 1, 6, 5), dtype=np.uint8)
    calls: list[tuple[int, int]] = []
    cuda.engine(_core.Bank(images), 0).composite(
        _core.Components.square(6, 5, 2),
        np.zeros((2, 1, 6, 5)),
        [1.0, 2.0],
        True,
        lambda *call: calls.append(call),
        np.arange(100, 180, dtype=np.uint32),
    )
    assert calls[-1] == (2 * 80 * 2 * 2,) * 2
