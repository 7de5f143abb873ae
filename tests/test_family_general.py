"""Every member of the family against the general form in plain torch: odd shapes, sources, labels, priors.

Log evidence agrees to 1e-5 relative or 2e-6 absolute, derivatives to 1e-5 of their largest entry, all else to 1e-5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import pspc_rs as pspc
import reference
from pspc_rs import errors
from pspc_rs.experiments import explain
from pspc_rs.heatmaps import heatmaps_at

Array = npt.NDArray[Any]

KINDS = ("ls", "els", "inside", "bbels", "soft", "rows", "values", "square", "flex", "empirical")


@dataclass
class Problem:
    """A member on a small data set, queries, and the general form of the same."""

    denoiser: Any
    atoms: Tensor
    precision: Tensor
    response: Tensor
    seen_by: Any
    log_prior: Any
    views: int
    z: Array
    sigma: Array

    def oracle(self, z: Any = None, counts: Any = None) -> reference.Posterior:
        data = self.denoiser.data
        return reference.posterior(
            self.atoms,
            self.precision,
            self.z if z is None else z,
            torch.from_numpy(self.sigma),
            responses=self.response,
            middles=[0] * len(self.precision),
            log_prior=self.log_prior,
            counts=None if counts is None else np.tile(counts, self.views),
            seen_by=self.seen_by,
            temperature=self.denoiser.temperature,
        )._replace(logits=torch.zeros(data.num_stored))


def seen_through(views: Array, data: pspc.ImageSet) -> Tensor:
    """The atoms of a data set under maps of pixels, view by view."""
    x = data.images.astype(np.float64)
    x = (x / 127.5 - 1 if data.dtype == np.uint8 else x).reshape(len(x), data.shape[0], -1)
    padded = np.concatenate([x, np.zeros_like(x[..., :1])], axis=-1)
    return torch.from_numpy(np.concatenate([padded[..., one] for one in views])).reshape(-1, *data.shape)


def boxes(height: int, width: int, side: int, wraps: bool) -> Array:
    y, x = np.indices((height, width)).reshape(2, -1)
    apart = [np.abs(at[:, None] - at) for at in (y, x)]
    if wraps:
        apart = [np.minimum(one, size - one) for one, size in zip(apart, (height, width), strict=True)]
    near: Array = (apart[0] <= side // 2) & (apart[1] <= side // 2)
    return near.reshape(-1, height, width)


def moved(base: Array, height: int, width: int, side: int, kind: str) -> tuple[Array, Array]:
    """Maps that bring every place to every pixel, and at which pixels each counts; by definition, pixel by pixel."""
    reach, maps, seen = side // 2, [], []

    def missing(y: int, x: int) -> tuple[int, ...]:
        return tuple(max(by, 0) for by in (reach - y, y + reach - height + 1, reach - x, x + reach - width + 1))

    for dy, dx in np.ndindex(2 * height - 1, 2 * width - 1):
        by = (dy - height + 1, dx - width + 1)
        if kind != "bbels" and (by[0] < 0 or by[1] < 0):
            continue
        for one in base:
            grid, found = one.reshape(height, width), np.full((height, width), -1)
            sees = np.zeros((height, width), bool)
            for y, x in np.ndindex(height, width):
                to = (y + by[0], x + by[1])
                inside = 0 <= to[0] < height and 0 <= to[1] < width
                if kind == "bbels":
                    found[y, x] = grid[to] if inside else -1
                    sees[y, x] = inside and missing(*to) == missing(y, x)
                else:
                    at = (to[0] % height, to[1] % width)
                    found[y, x] = grid[at]
                    sees[y, x] = kind == "els" or not any(missing(*at))
            maps.append(found.ravel())
            seen.append(sees.ravel())
    return np.array(maps), np.array(seen)


@st.composite
def problems(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> Problem:
    kind = draw(st.sampled_from(kinds))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, height, width = draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(2, 5))
    n = draw(st.sampled_from([1, 2, 5, 19]))
    images: Array = rng.integers(0, 256, (n, channels, height, width), dtype=np.uint8)
    if draw(st.booleans()):
        images = (images / 127.5 - 1).astype(np.float32)
    prior = rng.normal(size=n) * 2 if draw(st.booleans()) else None
    data = pspc.ImageSet(images, np.arange(n) % 2, draw(st.booleans()), log_prior=prior, channels_last=False)
    orbit = pspc.Orbit(
        xflip=draw(st.booleans()),
        yflip=draw(st.booleans()),
        rot90=draw(st.booleans()) and height == width,
        shifts=draw(st.sampled_from([(), ((0, 1),), ((-1, 2), (1, 0))])),
        border=draw(st.sampled_from(["wrap", "zero"])),
    )
    options: dict[str, Any] = {"temperature": draw(st.sampled_from([1.0, 0.6, 1.7]))}
    base = orbit.views(height, width, data.xflip)
    views, seen, plane = base, None, height * width
    precision: Array
    response: Array = np.eye(plane).reshape(-1, height, width)
    side = draw(st.sampled_from([side for side in (1, 3, 5) if side < 2 * max(height, width)]))
    if kind in ("els", "inside", "bbels"):
        side = side if kind == "bbels" or side <= min(height, width) else 1
        views, seen = moved(base, height, width, side, kind)
        precision = boxes(height, width, side, wraps=kind != "bbels")
        if kind == "bbels":
            D: Any = pspc.BBELS(data, window_sizes=side, orbit=orbit, **options)
        else:
            source: Any = "wrapped" if kind == "els" else kind
            D = pspc.ELS(data, window_sizes=side, source=source, orbit=orbit, **options)
    elif kind == "ls":
        precision, D = (
            boxes(height, width, side, wraps=False),
            pspc.LS(data, window_sizes=side, source=orbit, **options),
        )
    elif kind == "soft":
        b = draw(st.sampled_from([0.4, 1.0, 3.0]))
        y, x = np.indices((height, width)).reshape(2, -1)
        squares = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
        precision = np.exp(-squares / (2 * b**2)).reshape(-1, height, width)
        answers: Any = draw(st.sampled_from(["same", "centre", 0.8]))
        if answers != "centre":
            width_of = b if answers == "same" else answers
            response = np.exp(-squares / (2 * width_of**2)).reshape(-1, height, width)
        D = pspc.SoftPSPC(data, b, response=answers, source=orbit, **options)
    elif kind in ("rows", "values"):
        shape = (4, channels, height, width) if kind == "values" else (4, height, width)
        precision, response = (np.where(rng.random(shape) < 0.6, rng.random(shape), 0) for _ in range(2))
        precision[0], response[3] = 0, 0.1
        D = pspc.FilteredPosteriorMean(data, precision, response, source=orbit, **options)
    else:
        precision = np.ones((1, height, width))
        if kind == "empirical":
            D = pspc.Empirical(data, source=orbit, **options)
        elif kind == "square":
            precision = reference.square_windows(height, width, 2).numpy()
            D = pspc.PSPCSquare(data, patch_sizes=2, source=orbit, **options)
        else:
            precision = rng.random((3, height, width)) < 0.6
            precision[0] |= ~precision.any(axis=0)
            precision[precision.sum(axis=(1, 2)) == 0] = True
            D = pspc.PSPCFlex(data, masks=precision, source=orbit, **options)
        response = precision
    batch = draw(st.integers(1, 3))
    sigma = np.array([draw(st.sampled_from([0.05, 0.3, 1.0, 4.0, 30.0])) for _ in range(batch)])
    z = data.batch(rng.integers(0, len(data), batch)) + sigma[:, None, None, None] * rng.standard_normal(
        (batch, channels, height, width)
    )
    prior = None if prior is None else np.tile(prior, len(views))
    sees = None if seen is None else np.repeat(seen.T, n, axis=1)
    lam, rho = (torch.from_numpy(np.asarray(one, np.float64)) for one in (precision, response))
    return Problem(D, seen_through(views, data), lam, rho, sees, prior, len(views), z, sigma)


@given(problems())
def test_members_are_the_general_form(problem: Problem) -> None:
    D, exact = problem.denoiser, problem.oracle()
    np.testing.assert_allclose(D(problem.z, problem.sigma), exact.denoised, rtol=0, atol=1e-5)
    P = D.posterior(problem.z, problem.sigma, top=3)
    np.testing.assert_allclose(P.denoised, exact.denoised, rtol=0, atol=1e-5)
    np.testing.assert_allclose(P.log_evidence, exact.log_evidence, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(P.entropy, exact.entropy, rtol=0, atol=1e-5)
    np.testing.assert_allclose(P.variance, exact.variance, rtol=0, atol=1e-5)
    by_image = exact.weights.sum(1).reshape(len(problem.z), problem.views, -1).sum(1)
    np.testing.assert_allclose(P.attribution(), by_image, rtol=0, atol=1e-5 * len(problem.precision))
    heaviest = -np.sort(-exact.weights.numpy(), axis=-1)[..., :3]
    np.testing.assert_allclose(P.top_weight[..., : heaviest.shape[-1]], heaviest, rtol=0, atol=1e-5)
    assert P.top_index.max() < D.data.num_stored and P.top_view.max() < problem.views


@given(problems())
def test_derivatives_are_those_of_the_general_form(problem: Problem) -> None:
    D, z, sigma = problem.denoiser, problem.z, problem.sigma
    rng = np.random.default_rng(0)
    v, u = rng.normal(size=(2, *z.shape)), rng.normal(size=z.shape)

    def denoise(z: Tensor) -> Tensor:
        return problem.oracle(z).denoised

    for found, exact in (
        (D.jvp(z, sigma, v)[1], reference.jvp(denoise, z, v).numpy()),
        (D.vjp(z, sigma, u)[1], reference.vjp(denoise, z, u).numpy()),
    ):
        scale = np.abs(exact).max() + 1e-6 * z[0].size / sigma.min() ** 2
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * scale)


@given(problems(), st.data())
def test_images_that_count(problem: Problem, draw: st.DataObject) -> None:
    D, n = problem.denoiser, problem.denoiser.data.num_stored
    if n == 1:
        return
    left = np.array([draw.draw(st.integers(0, n - 1)) for _ in problem.z])
    flags = np.arange(n) == left[:, None]
    exact = problem.oracle(counts=~flags)
    np.testing.assert_allclose(D(problem.z, problem.sigma, exclude=left), exact.denoised, rtol=0, atol=1e-5)
    P = D.posterior(problem.z, problem.sigma, exclude=left)
    np.testing.assert_allclose(P.log_evidence, exact.log_evidence, rtol=1e-5, atol=2e-6)
    assert np.all(P.attribution()[flags] == 0)
    labels = np.arange(len(problem.z)) % 2
    of_class = problem.oracle(counts=np.arange(n) % 2 == labels[:, None])
    found = D(problem.z, problem.sigma, class_labels=labels)
    np.testing.assert_allclose(found, of_class.denoised, rtol=0, atol=1e-5)


# Identities


def some_data(n: int = 12, size: tuple[int, int] = (6, 6)) -> pspc.ImageSet:
    return pspc.ImageSet(np.random.default_rng(n).integers(0, 256, (n, 2, *size), dtype=np.uint8), channels_last=False)


def some_z(data: pspc.ImageSet, sigma: float) -> Array:
    z: Array = data.batch([0, 1, 2]) + sigma * np.random.default_rng(1).standard_normal((3, *data.shape))
    return z


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_members_meet_where_they_are_the_same(sigma: float) -> None:
    data = some_data()
    z = some_z(data, sigma)

    def same(a: Any, b: Any) -> None:
        np.testing.assert_allclose(a(z, sigma), b(z, sigma), rtol=0, atol=1e-6)

    same(pspc.LS(data, window_sizes=11), pspc.Empirical(data))
    same(pspc.LS(data, window_sizes="full"), pspc.Empirical(data))
    same(pspc.BBELS(data, window_sizes=7), pspc.LS(data, window_sizes=7))
    same(pspc.BBELS(data, window_sizes=9), pspc.LS(data, window_sizes=9))
    masks = reference.square_windows(6, 6, 3).numpy().astype(float)
    same(pspc.FilteredPosteriorMean(data, masks), pspc.PSPCSquare(data, window_sizes=3))
    same(pspc.PSPCSquare(data, patch_sizes=3, source=pspc.Orbit()), pspc.PSPCSquare(data, patch_sizes=3))
    flipped = pspc.ImageSet(data.images, xflip=True, channels_last=False)
    same(pspc.PSPCSquare(data, patch_sizes=3, source=pspc.Orbit(xflip=True)), pspc.PSPCSquare(flipped, patch_sizes=3))
    odd = some_data(size=(5, 5))
    z = some_z(odd, sigma)
    shifts = [(dy, dx) for dy in range(5) for dx in range(5)]
    same(pspc.ELS(odd, window_sizes=5), pspc.Empirical(odd, source=pspc.Orbit(shifts=shifts)))


@pytest.mark.parametrize("member", [pspc.LS, pspc.ELS, pspc.BBELS])
def test_two_flat_images_give_the_majority_of_every_square(member: Any) -> None:
    """Kamb and Ganguli, theorem 4.1: at the end of a trajectory every pixel is that of most pixels around it."""
    images = np.stack([np.zeros((1, 8, 8), np.uint8), np.full((1, 8, 8), 255, np.uint8)])
    D = member(pspc.ImageSet(images), window_sizes=3)
    x: Any = pspc.sample(D, 6, sampler="euler", num_steps=40, seed=0, generator="numpy")
    for _ in range(40):
        # At the end of the grid a pixel may still be on its way.
        x = D(x, 0.002)
    signs = np.sign(x[:, 0])
    np.testing.assert_allclose(np.abs(x), 1, atol=1e-3)
    padded = np.pad(signs, ((0, 0), (1, 1), (1, 1)), mode="wrap" if member is pspc.ELS else "constant")
    sums = sum(padded[:, dy : dy + 8, dx : dx + 8] for dy in range(3) for dx in range(3))
    decided = sums != 0
    np.testing.assert_array_equal(np.sign(sums)[decided], signs[decided])


def test_numbers_depend_on_neither_threads_nor_batch() -> None:
    images = np.random.default_rng(0).integers(0, 256, (900, 2, 6, 6), dtype=np.uint8)
    D = pspc.LS(pspc.ImageSet(images, xflip=True), window_sizes=3)
    sigma = np.array([0.1, 0.6, 4.0, 20.0])
    z = D.data.batch([3, 400, 5, 6]) + sigma[:, None, None, None] * np.random.default_rng(1).normal(size=(4, 2, 6, 6))
    before, results = pspc.num_threads(), []
    try:
        for threads in (1, 2):
            pspc.set_num_threads(threads)
            P = D.posterior(z, sigma)
            results.append([D(z, sigma), P.entropy, P.variance, P.attribution(), *D.jvp(z, sigma, np.sin(z))])
    finally:
        pspc.set_num_threads(before)
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(D(z[1:2], sigma[1:2]), results[0][0][1:2])


# Bad input


@pytest.mark.parametrize("side", [2, 13, 0, -3])
def test_sides_without_a_middle_or_beyond_the_image_are_refused(side: int) -> None:
    with pytest.raises(errors.InvalidValueError, match="window side is"):
        pspc.LS(some_data(), window_sizes=side)


@pytest.mark.parametrize("side", [4, 7])
def test_patches_larger_than_the_image_are_refused(side: int) -> None:
    with pytest.raises(errors.InvalidValueError, match=f"window side is {side}"):
        pspc.ELS(some_data(), window_sizes=side)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused(value: float) -> None:
    rows = np.ones((2, 6, 6))
    rows[1, 2, 3] = value
    with pytest.raises(errors.InvalidValueError, match=r"the rows hold .* at \[1, 15\]; allowed are finite numbers"):
        pspc.FilteredPosteriorMean(some_data(), rows)


def test_what_does_not_fit_is_refused_by_name() -> None:
    data, rows = some_data(), np.ones((2, 6, 6))
    uncovered = rows.copy()
    uncovered[:, 2, 3] = 0
    with pytest.raises(errors.CoverageError, match="row 2, column 3"):
        pspc.FilteredPosteriorMean(data, rows, uncovered)
    for wrong in (np.ones((2, 5, 6)), np.ones((0, 6, 6)), np.ones((2, 3, 6, 6)), np.ones(6)):
        with pytest.raises(errors.ShapeError, match="precision has shape"):
            pspc.FilteredPosteriorMean(data, wrong)
    with pytest.raises(errors.ShapeError):
        pspc.FilteredPosteriorMean(data, rows, np.ones((3, 6, 6)))
    no_rows: Any = "rows"
    with pytest.raises(errors.DTypeError, match="precision"):
        pspc.FilteredPosteriorMean(data, no_rows)
    no_sources: list[Any] = ["wrapped", 3, "outside"]
    for source in no_sources:
        with pytest.raises(errors.DTypeError, match="source is"):
            pspc.LS(data, window_sizes=3, source=source)
    with pytest.raises(errors.InvalidValueError, match="allowed are 'wrapped' and 'inside'"):
        pspc.ELS(data, window_sizes=3, source=no_sources[2])
    with pytest.raises(errors.ScheduleError, match="LS needs either"):
        pspc.LS(data, patch_sizes=3, window_sizes=3)
    with pytest.raises(errors.InvalidValueError, match="rotations need square images"):
        pspc.Empirical(some_data(size=(4, 6)), source=pspc.Orbit(rot90=True))
    for threshold in (0, -1, 1.5, np.nan):
        with pytest.raises(errors.InvalidValueError, match="threshold"):
            pspc.PCALocality(data, threshold)
    with pytest.raises(errors.InvalidValueError, match="a mean of posterior means is none"):
        pspc.PCALocality(data, average_chunks=4).posterior(some_z(data, 1.0), 1.0)


def test_heat_maps_and_pages_refuse_what_they_cannot_show() -> None:
    data = some_data()
    z = some_z(data, 1.0)
    with pytest.raises(errors.InvalidValueError, match="ELS sees every image under 36 maps"):
        explain(pspc.ELS(data, window_sizes=3), z, 1.0)
    assert explain(pspc.LS(data, window_sizes=3), z, 1.0, at=[(2, 2)]).denoised.shape[-3:] == z.shape[1:]
    for D in (pspc.LS(data, window_sizes=3), pspc.PSPCSquare(data, patch_sizes=3, source=pspc.Orbit(yflip=True))):
        with pytest.raises(errors.DTypeError, match=rf"heat maps of a {type(D).__name__} are not known"):
            heatmaps_at(D, z, 1.0)


def test_a_gpu_is_refused_by_name() -> None:
    for make in (
        lambda device: pspc.LS(some_data(), window_sizes=3, device=device),
        lambda device: pspc.PSPCSquare(some_data(), patch_sizes=3, source=pspc.Orbit(yflip=True), device=device),
    ):
        assert make("auto").device == "cpu"
        with pytest.raises(errors.PspcError, match=r"CPU only|CUDA cannot be used"):
            make("cuda")


def test_empty_masks_are_told_of() -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 1, 6, 6), dtype=np.uint8)
    images[:, 0, 0, 0] = 0
    images[3, 0, 0, 0] = 1
    with pytest.warns(UserWarning, match="masks are empty at sigma 0.05"):
        pspc.PCALocality(pspc.ImageSet(images), 0.5)(np.zeros((1, 1, 6, 6)), 0.05)


def test_functions_of_sigma_give_the_rows() -> None:
    data = some_data()

    def by_sigma(sigma: float) -> Array:
        return np.full((1, 6, 6), 1 / (1 + sigma))

    z = some_z(data, 1.0)
    found = pspc.FilteredPosteriorMean(data, by_sigma)(z, [0.5, 1.0, 1.0])
    for query, sigma in enumerate([0.5, 1.0, 1.0]):
        alone = pspc.FilteredPosteriorMean(data, by_sigma(sigma))(z[query : query + 1], sigma)
        np.testing.assert_allclose(found[query], alone[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("num", [33, 700])
@pytest.mark.parametrize(
    "kind", ["ls", "els", "inside", "bbels", "soft", "centre", "rows", "values", "faint", "tails", "pca", "flips"]
)
def test_float32_is_float64(kind: str, num: int) -> None:
    """More images than a tile or a shard has, and sides of either kind of sums; posteriors are computed in float64."""
    rng = np.random.default_rng(num)
    shape = (3, 9, 12) if kind != "values" else (2, 4, 5)
    images: Array = rng.integers(0, 256, (num, *shape), dtype=np.uint8)
    if num == 33:
        images = (images / 255).astype(np.float32)
    data = pspc.ImageSet(images, xflip=kind == "flips", log_prior=rng.normal(size=num), channels_last=False)
    height, width = shape[1:]
    rows = rng.random((7, height, width)) + (rng.random((7, height, width)) < 0.3)
    values = np.where(rng.random((5, *shape)) < 0.3, rng.random((5, *shape)), 0.001)
    sides, sigmas = [9, 5, 3, 1], [3.0, 0.6, 0.3, 0.05]
    makers: dict[str, Any] = {
        "ls": lambda: pspc.LS(data, window_sizes=sides, sigmas=sigmas),
        "flips": lambda: pspc.LS(data, window_sizes=sides, sigmas=sigmas),
        "els": lambda: pspc.ELS(data, window_sizes=sides, sigmas=sigmas),
        "inside": lambda: pspc.ELS(data, window_sizes=sides, sigmas=sigmas, source="inside"),
        "bbels": lambda: pspc.BBELS(data, window_sizes=sides, sigmas=sigmas),
        "soft": lambda: pspc.SoftPSPC(data, [3.0, 1.5, 0.7, 0.4], sigmas=sigmas),
        "centre": lambda: pspc.SoftPSPC(data, 1.1, response="centre"),
        "rows": lambda: pspc.FilteredPosteriorMean(data, rows, rows**2),
        "values": lambda: pspc.FilteredPosteriorMean(data, values, values, temperature=1.5),
        "faint": lambda: pspc.FilteredPosteriorMean(data, rows, np.where(rows < rows.max(axis=0), 0, 1e-60)),
        "tails": lambda: pspc.FilteredPosteriorMean(data, (rows / 2) ** 200, (rows / 2) ** 90 + 1e-3),
        "pca": lambda: pspc.PCALocality(data, 0.3, maximum="row"),
    }
    D = makers[kind]()
    at = np.array([3.0, 0.6, 0.3, 0.05, 0.05, 1.0, 20.0, 0.15, 0.9])
    z = data.batch(rng.integers(0, num, len(at))) + at[:, None, None, None] * rng.standard_normal((len(at), *shape))
    left = [rng.choice(num, 3, replace=False) for _ in at]
    for exclude in (None, left):
        exact = D.posterior(z, at, exclude=exclude).denoised
        np.testing.assert_allclose(D(z, at, exclude=exclude), exact, rtol=0, atol=1e-5)
