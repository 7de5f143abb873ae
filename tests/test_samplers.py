"""Samplers against the oracle, known solutions and their orders of convergence; noise, dtypes and bad input."""

import importlib.util
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import reference
from pspc_rs.denoisers import Network
from pspc_rs.errors import DTypeError, InvalidValueError, MissingDependencyError, PspcError, ShapeError
from pspc_rs.samplers import (
    SAMPLERS,
    initial_noise,
    noise_source,
    sample,
    sample_dpmpp_2m,
    sample_edm,
    sample_euler,
    sample_general,
    sample_heun,
)
from pspc_rs.samplers.noise import noise_like
from pspc_rs.sigmas import edm_sigmas

EVERY = pytest.mark.parametrize("sampler", list(SAMPLERS.values()), ids=list(SAMPLERS))
VARIANCE = 0.25
MEAN = 0.1


def normal(x: Any, sigma: Any) -> Any:
    """The denoiser of data that are normal with MEAN and VARIANCE in every pixel."""
    return MEAN + (x - MEAN) * (VARIANCE / (VARIANCE + sigma**2)).reshape(-1, 1, 1, 1)


def normal_flow(x: Any, start: float, end: float) -> Any:
    """Where the probability flow ODE takes x: its distance from the mean shrinks with the standard deviation."""
    return MEAN + (x - MEAN) * ((VARIANCE + end**2) / (VARIANCE + start**2)) ** 0.5


def noise(n: int = 2, sigma: float = 80.0) -> NDArray[np.float64]:
    return np.random.default_rng(n).standard_normal((n, 3, 2, 4)) * sigma


@pytest.mark.parametrize(("sampler", "oracle"), [(sample_euler, reference.euler), (sample_heun, reference.heun)])
@pytest.mark.parametrize("include_zero", [True, False])
def test_equal_to_the_oracle(sampler: Any, oracle: Any, include_zero: bool) -> None:
    images = reference.pixels(np.random.default_rng(0).integers(0, 256, (9, 3, 2, 4)))
    window = reference.full_window(2, 4)
    grid = edm_sigmas(12, include_zero=include_zero)
    ours = sampler(lambda x, s: reference.composite(images, window, x, s), torch.from_numpy(noise()), grid)
    exact = oracle(lambda z, s: reference.composite(images, window, z, s), noise(), grid)
    torch.testing.assert_close(ours, exact, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("sampler", "order"), [(sample_euler, 1), (sample_heun, 2), (sample_dpmpp_2m, 2), (sample_edm, 2)]
)
def test_order_of_convergence(sampler: Any, order: int) -> None:
    x = noise(sigma=10.0)
    exact = normal_flow(x, 10.0, 0.05)
    errors = []
    for steps in (160, 320, 640):
        grid = edm_sigmas(steps + 1, 0.05, 10.0, include_zero=False)
        errors.append(np.abs(sampler(normal, x, grid) - exact).max())
    for coarse, fine in pairwise(errors):
        assert abs(np.log2(coarse / fine) - order) < 0.15


def test_dpmpp_2m_is_the_published_formula() -> None:
    s0, s1, s2 = grid = [8.0, 3.0, 0.5]
    x = noise()
    d0 = normal(x, np.array([s0]))
    x1 = s1 / s0 * x - (np.exp(-(np.log(s0 / s1))) - 1) * d0
    d1 = normal(x1, np.array([s1]))
    r = np.log(s0 / s1) / np.log(s1 / s2)
    x2 = s2 / s1 * x1 - (np.exp(-np.log(s1 / s2)) - 1) * ((1 + 1 / (2 * r)) * d1 - 1 / (2 * r) * d0)
    np.testing.assert_allclose(sample_dpmpp_2m(normal, x, grid), x2, rtol=1e-13)


@EVERY
def test_a_constant_denoiser_is_solved_exactly(sampler: Any) -> None:
    image = noise(1, 1.0)

    def model(x: Any, sigma: Any) -> Any:
        return np.broadcast_to(image, x.shape)

    for grid in ([80.0, 7.0, 0.5], [80.0, 0.5]):
        expected = image + (noise() - image) * (0.5 / 80)
        # Rounding of states near 200, over the last sigma, times the step: a few 1e-12.
        np.testing.assert_allclose(sampler(model, noise(), grid), expected, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(sampler(model, noise(), edm_sigmas(5)), np.broadcast_to(image, (2, 3, 2, 4)))


@EVERY
def test_numpy_and_torch_agree(sampler: Any) -> None:
    x = noise()
    array = sampler(normal, x, edm_sigmas(8))
    tensor = sampler(normal, torch.from_numpy(x), torch.from_numpy(edm_sigmas(8)))
    np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-13, atol=1e-15)


@EVERY
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes_are_kept(sampler: Any, wide: bool, dtype: str) -> None:
    seen = set()

    def model(x: Any, sigma: Any) -> Any:
        assert sigma.shape == (2,)
        seen.add((x.dtype, sigma.dtype))
        return normal(x, sigma)

    half = dtype.endswith("16")
    kinds: list[Any] = [torch.from_numpy(noise()).to(getattr(torch, dtype))]
    kinds += [] if dtype == "bfloat16" else [noise().astype(dtype)]
    for x in kinds:
        seen.clear()
        out = sampler(model, x, edm_sigmas(6), float64_state=wide)
        assert type(out) is type(x) and out.dtype == x.dtype and out.shape == x.shape
        level = "float32" if half else dtype
        assert seen == {(x.dtype, getattr(torch, level) if isinstance(x, torch.Tensor) else np.dtype(level))}


def test_float64_state_is_more_exact() -> None:
    grid = edm_sigmas(1000, 0.05, 80.0, include_zero=False).astype(np.float32)
    x = noise(8)
    x = x.astype(np.float32).astype(np.float64)
    exact = sample_euler(normal, x, grid)
    with_32, with_64 = (
        np.abs(sample_euler(normal, x.astype(np.float32), grid, float64_state=wide) - exact).max()
        for wide in (False, True)
    )
    assert with_64 < with_32 / 2


@EVERY
def test_input_is_not_written_to(sampler: Any) -> None:
    x = noise()
    x.flags.writeable = False
    before = x.copy()
    sampler(normal, x, edm_sigmas(4))
    np.testing.assert_array_equal(x, before)
    tensor = torch.from_numpy(before.copy()).requires_grad_()
    assert not sampler(normal, tensor, edm_sigmas(4)).requires_grad
    np.testing.assert_array_equal(tensor.detach().numpy(), before)


def test_torch_models_run_without_gradients() -> None:
    layer = torch.nn.Conv2d(3, 3, 1)

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = layer(x)
        assert not out.requires_grad
        return out * 0

    sample_heun(model, torch.zeros(1, 3, 2, 2), edm_sigmas(3))
    assert torch.is_grad_enabled()


@EVERY
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_trajectory_holds_every_state(sampler: Any, kind: Callable[[Any], Any]) -> None:
    x = kind(noise().astype(np.float32))
    states = sampler(normal, x, edm_sigmas(5), trajectory=True)
    assert type(states) is type(x) and states.dtype == x.dtype and tuple(states.shape) == (6, 2, 3, 2, 4)
    assert bool((states[0] == x).all())
    assert bool((states[-1] == sampler(normal, x, edm_sigmas(5))).all())
    assert bool((states[2] == sampler(normal, x, edm_sigmas(5)[:3])).all())


@EVERY
def test_callback_is_told_about_every_step(sampler: Any) -> None:
    told: list[dict[str, Any]] = []
    grid = edm_sigmas(5)
    states = sampler(normal, noise(), grid, callback=told.append, trajectory=True)
    assert [set(one) for one in told] == [{"x", "i", "sigma", "sigma_hat", "denoised"}] * 5
    assert [one["i"] for one in told] == list(range(5))
    assert [one["sigma"] for one in told] == [one["sigma_hat"] for one in told] == grid[:-1].tolist()
    for one, state in zip(told, states, strict=False):
        np.testing.assert_array_equal(one["x"], state)
        np.testing.assert_array_equal(one["denoised"], normal(state, np.array([one["sigma"]])))


@EVERY
def test_extra_arguments_reach_the_model(sampler: Any) -> None:
    def model(x: Any, sigma: Any, *, shift: float) -> Any:
        return np.full_like(x, shift)

    assert (sampler(model, noise(), edm_sigmas(3), extra_args={"shift": 0.25}) == 0.25).all()


@EVERY
def test_progress_counts_steps(sampler: Any, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[int, int]] = []
    sampler(normal, noise(), edm_sigmas(3), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    sampler(normal, noise(), edm_sigmas(3), progress=True)
    assert "3/3" in capsys.readouterr().err
    with pytest.raises(DTypeError, match="progress is 'yes'"):
        sampler(normal, noise(), edm_sigmas(3), progress="yes")


def test_model_calls_are_as_few_as_promised() -> None:
    count = 0

    def model(x: Any, sigma: Any) -> Any:
        nonlocal count
        count += 1
        return normal(x, sigma)

    for sampler, expected in ((sample_euler, 18), (sample_heun, 35), (sample_edm, 35), (sample_dpmpp_2m, 18)):
        count = 0
        sampler(model, noise(), edm_sigmas(18))
        assert count == expected


def test_edm_without_churn_is_heun() -> None:
    for x in (noise(), torch.from_numpy(noise())):
        ours = sample_edm(normal, x, edm_sigmas(9), S_churn=0.0, S_noise=3.0)
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(sample_heun(normal, x, edm_sigmas(9))))


def test_churn_is_the_published_formula() -> None:
    told: list[dict[str, Any]] = []
    eps = noise(2, 1.0)
    grid = [8.0, 3.0, 0.5, 0.0]
    options: dict[str, Any] = {"S_churn": 0.9, "S_min": 1.0, "S_max": 5.0, "S_noise": 1.1, "noise": lambda x: eps}
    states = sample_edm(normal, noise(), grid, callback=told.append, trajectory=True, **options)
    assert [one["sigma_hat"] for one in told] == [8.0, pytest.approx(3.0 * 1.3), 0.5]
    expected = states[1] + 1.1 * ((3.0 * 1.3) ** 2 - 3.0**2) ** 0.5 * eps
    np.testing.assert_allclose(told[1]["x"], expected, rtol=1e-14)
    most = sample_edm(normal, noise(), grid, callback=told.append, S_churn=1e6)
    assert told[3]["sigma_hat"] == pytest.approx(8.0 * 2**0.5) and np.isfinite(most).all()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_churn_follows_its_seed(kind: Callable[[Any], Any]) -> None:
    x = kind(noise())
    runs = [np.asarray(sample_edm(normal, x, edm_sigmas(6), S_churn=10.0, noise=seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.1


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_churn_keeps_the_distribution(kind: Callable[[Any], Any]) -> None:
    start = np.random.default_rng(1).standard_normal((20_000, 1, 4, 4)) * (VARIANCE + 80.0**2) ** 0.5 + MEAN
    out = np.asarray(sample_edm(normal, kind(start), edm_sigmas(240), S_churn=20.0, noise=3))
    # Five standard errors of mean and variance; 240 steps of Heun's method leave the variance .24 % too large.
    assert abs(out.mean() - MEAN) < 5 * (VARIANCE / out.size) ** 0.5
    assert abs(out.var() / VARIANCE - 1.0024) < 5 * (2 / out.size) ** 0.5
    assert abs(np.corrcoef(out.ravel(), start.ravel())[0, 1]) < 0.9


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("sampler", [sample_edm, sample_general])
def test_noise_is_drawn_at_every_step(sampler: Any, kind: Any) -> None:
    def churned(**options: Any) -> tuple[Any, int]:
        draws: list[Any] = []

        def draw(x: Any) -> Any:
            draws.append(x)
            return kind(np.full(tuple(x.shape), float(len(draws))))

        return np.asarray(sampler(normal, kind(noise()), edm_sigmas(7), noise=draw, **options)), len(draws)

    assert churned(S_churn=0.0)[1] == churned(S_churn=3.0, S_max=10.0)[1] == 7
    # The first level at which noise acts is the third: it gets the third noise, not the first.
    states: list[dict[str, Any]] = []
    levels = edm_sigmas(7)
    churned(S_churn=3.0, S_max=float(levels[2]), callback=states.append)
    one_more: list[dict[str, Any]] = []
    sampler(normal, kind(noise()), levels, S_churn=0.0, callback=one_more.append)
    raised = states[2]["sigma_hat"]
    added = (np.asarray(states[2]["x"]) - np.asarray(one_more[2]["x"])) / np.sqrt(raised**2 - levels[2] ** 2)
    np.testing.assert_allclose(added, 3.0, rtol=1e-9)


@pytest.mark.parametrize("sampler", [sample_edm, sample_general])
def test_noise_beyond_a_models_range_names_the_option(sampler: Any) -> None:
    D = Network(normal, sigma_max=80.0)
    with pytest.raises(
        InvalidValueError, match=r"good for 0 to 80; adding noise at sigma 80 raised it to .*S_max below 80"
    ):
        sampler(D, noise(), edm_sigmas(18), S_churn=40.0)
    assert np.isfinite(sampler(D, noise(), edm_sigmas(18), S_churn=40.0, S_max=50.0)).all()


def test_added_noise_never_repeats_the_initial_noise() -> None:
    for generator, kind in (("numpy", np.asarray), ("torch", torch.from_numpy)):
        start = initial_noise(4, (3, 8, 8), 1.0, seed=7, generator=generator)  # type: ignore[arg-type]
        added = np.asarray(noise_like(7, kind(start))(kind(start)))
        assert added.dtype == np.float32
        assert abs(np.corrcoef(start.ravel(), added.ravel())[0, 1]) < 0.15


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"S_churn": -1.0}, InvalidValueError, "S_churn is -1;"),
        ({"S_churn": np.nan}, InvalidValueError, "S_churn is nan;"),
        ({"S_churn": "1"}, DTypeError, "S_churn is '1';"),
        ({"S_noise": -0.1}, InvalidValueError, "S_noise is -0.1;"),
        ({"S_min": -1.0}, InvalidValueError, "S_min is -1;"),
        ({"S_max": np.nan}, InvalidValueError, "S_max is nan;"),
        ({"S_min": 2.0, "S_max": 1.0}, InvalidValueError, "S_max is 1, below S_min, which is 2"),
        ({"noise": -1}, InvalidValueError, "seed is -1;"),
        ({"noise": 2**64}, InvalidValueError, "seed is 18446744073709551616;"),
        ({"noise": 0.5}, DTypeError, "seed is 0.5;"),
        ({"noise": lambda x: x[:1]}, ShapeError, r"noise\(\) returned shape"),
        ({"noise": torch.from_numpy}, DTypeError, r"noise\(\) returned a Tensor for a ndarray"),
        ({"noise": lambda x: 1.0}, DTypeError, r"noise\(\) returned a float"),
        ({"noise": lambda x: x * np.nan}, InvalidValueError, r"what noise\(\) returned holds nan"),
    ],
)
def test_bad_churn(options: dict[str, Any], error: type[PspcError], message: str) -> None:
    with pytest.raises(error, match=message):
        sample_edm(normal, noise(), edm_sigmas(3), **{"S_churn": 1.0} | options)


@EVERY
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.full((1, 1, 2, 2), np.nan), InvalidValueError, r"x holds nan at \[0, 0, 0, 0\]"),
        (torch.full((1, 1, 2, 2), torch.inf), InvalidValueError, "x holds inf"),
        (np.ones((1, 1, 2, 2), np.int64), DTypeError, "x has dtype int64"),
        (np.ones((1, 2, 2)), ShapeError, r"x has shape \[1, 2, 2\]"),
        ([[[[1.0]]]], DTypeError, "x is a list"),
    ],
)
def test_bad_states(sampler: Any, x: Any, error: type[PspcError], message: str) -> None:
    with pytest.raises(error, match=message):
        sampler(normal, x, edm_sigmas(3))


@EVERY
@pytest.mark.parametrize("grid", [[], [80.0], [1.0, 2.0], [2.0, 2.0], [2.0, 0.0, 0.0], [2.0, -1.0], [np.nan, 1.0]])
def test_bad_grids(sampler: Any, grid: list[float]) -> None:
    with pytest.raises(InvalidValueError, match="sigmas are"):
        sampler(normal, noise(), grid)


@EVERY
@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (None, DTypeError, "model is a NoneType"),
        (lambda x, s: x[:1], ShapeError, "the model returned shape"),
        (lambda x, s: torch.from_numpy(x), DTypeError, "the model returned a Tensor for a ndarray"),
        (lambda x, s: None, DTypeError, "the model returned a NoneType"),
        (lambda x, s: x * np.nan, InvalidValueError, "the model's output at sigma 80 holds nan"),
        (lambda x, s: x.astype(int), DTypeError, "the model's output at sigma 80 has dtype int64"),
    ],
)
def test_bad_models(sampler: Any, model: Any, error: type[PspcError], message: str) -> None:
    with pytest.raises(error, match=message):
        sampler(model, noise(), edm_sigmas(3))


class Shaped:
    """A denoiser of normal data that knows its shape and noise levels, and records those it is asked for."""

    shape = (3, 2, 4)
    sigma_min: Any = 0.01
    sigma_max: Any = 50.0

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, x: Any, sigma: Any) -> Any:
        self.asked.append(float(sigma[0]))
        return normal(x, sigma)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_sample_is_noise_grid_and_sampler(name: str) -> None:
    D = Shaped()
    out = sample(D, 3, name, 7, seed=5, rho=5.0)
    grid = edm_sigmas(7, 0.01, 50.0, 5.0)
    expected = SAMPLERS[name](normal, initial_noise(3, (3, 2, 4), 50.0, 5), grid)
    assert out.dtype == np.float32 and out.shape == (3, 3, 2, 4)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(np.unique(D.asked), np.sort(grid[:-1].astype(np.float32)))


def test_sample_adds_noise_by_its_seed() -> None:
    runs = [sample(Shaped(), 2, "edm", 6, x_init=noise(), S_churn=5.0, seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.01
    other = sample(Shaped(), 2, "edm", 6, x_init=noise(), S_churn=5.0, seed=1, noise=2)
    np.testing.assert_array_equal(other, runs[2])


def test_sample_with_tensors() -> None:
    out = sample(Shaped(), 2, num_steps=4, as_torch=True)
    assert isinstance(out, torch.Tensor) and out.dtype == torch.float32
    np.testing.assert_allclose(out.numpy(), sample(Shaped(), 2, num_steps=4), rtol=1e-5)
    x_init = torch.from_numpy(noise())
    assert sample(Shaped(), 2, x_init=x_init).dtype == torch.float64
    assert isinstance(sample(Shaped(), 2, x_init=noise(), as_torch=True), torch.Tensor)


def test_sample_of_plain_functions_needs_a_shape() -> None:
    assert sample(normal, 2, "euler", 3, shape=[1, 2, 3]).shape == (2, 1, 2, 3)
    assert sample(normal, 2, "euler", 3, x_init=noise()).shape == (2, 3, 2, 4)
    with pytest.raises(ShapeError, match="give shape="):
        sample(normal, 2)


def test_limits_may_be_tensors_and_other_things_are_none() -> None:
    D = Shaped()
    D.sigma_min, D.sigma_max = torch.tensor(0.5), np.float32(4.0)
    sample(D, 1, "euler", 3)
    assert (D.asked[0], D.asked[-1]) == (4.0, 0.5)
    D.sigma_min = D.sigma_max = lambda: 1.0
    sample(D, 1, "euler", 3)
    assert D.asked[-3] == 80.0
    D.sigma_min, D.sigma_max = 0, np.inf
    sample(D, 1, "euler", 3)
    assert D.asked[-3] == 80.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampler": "huen"}, InvalidValueError, "sampler is 'huen'; allowed are euler, heun, edm, dpmpp_2m"),
        ({"n": 0}, InvalidValueError, "n is 0"),
        ({"n": 1.5}, DTypeError, "n is 1.5"),
        ({"num_steps": 0}, InvalidValueError, "num_steps is 0"),
        ({"sigma_min": 60.0}, InvalidValueError, "outside 0.01 to 50"),
        ({"sigma_min": 0.001, "sigma_max": 0.005}, InvalidValueError, "outside 0.01 to 50"),
        ({"sigma_min": 5.0, "sigma_max": 2.0}, InvalidValueError, "sigma_max is 2, below sigma_min"),
        ({"sigma_max": np.nan}, InvalidValueError, "sigma_max is nan"),
        ({"shape": (3, 2, 5)}, ShapeError, r"shape is \[3, 2, 5\], but the denoiser is for .*\[3, 2, 4\]"),
        ({"x_init": noise(3)}, ShapeError, r"x_init has shape \[3, 3, 2, 4\]; needed is \[2, 3, 2, 4\]"),
        ({"x_init": noise(2) * np.inf}, InvalidValueError, "x holds"),
        ({"seed": -1}, InvalidValueError, "seed is -1"),
        ({"generator": "cuda"}, InvalidValueError, "generator is 'cuda'"),
    ],
)
def test_bad_arguments_of_sample(options: dict[str, Any], error: type[PspcError], message: str) -> None:
    with pytest.raises(error, match=message):
        sample(Shaped(), **{"n": 2} | options)


def test_initial_noise_is_one_batch_of_a_known_generator() -> None:
    expected = torch.randn([4, 3, 5, 6], generator=torch.Generator().manual_seed(11)) * 80.0
    ours = initial_noise(4, (3, 5, 6), seed=11)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, expected.numpy())
    np.testing.assert_array_equal(initial_noise(4, [3, 5, 6], 80.0, 11, generator="torch"), ours)
    other = np.random.default_rng(11).standard_normal((4, 3, 5, 6), np.float32) * np.float32(2.0)
    np.testing.assert_array_equal(initial_noise(4, (3, 5, 6), 2.0, 11, generator="numpy"), other)


def test_initial_noise_minds_no_global_state() -> None:
    expected = initial_noise(1, (1, 4, 4))
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    try:
        np.testing.assert_array_equal(initial_noise(1, (1, 4, 4)), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_without_torch_numpy_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    assert noise_source() == noise_source("torch") == "torch"
    assert noise_source("numpy") == "numpy"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert noise_source() == "numpy"
    np.testing.assert_array_equal(initial_noise(1, (1, 2, 2)), initial_noise(1, (1, 2, 2), generator="numpy"))
    with pytest.raises(MissingDependencyError, match="generator='torch' needs torch"):
        initial_noise(1, (1, 2, 2), generator="torch")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, (1, 2, 2)), InvalidValueError),
        ((1, (1, 2)), ShapeError),
        ((1, "abc"), ShapeError),
        ((1, 3), ShapeError),
        ((1, (1, 2, 0)), InvalidValueError),
        ((1, (1, 2, 2.5)), DTypeError),
        ((1, (1, 2, 2), 0.0), InvalidValueError),
        ((1, (1, 2, 2), np.inf), InvalidValueError),
        ((1, (1, 2, 2), 1.0, True), DTypeError),
    ],
)
def test_bad_arguments_of_initial_noise(arguments: Any, error: type[PspcError]) -> None:
    with pytest.raises(error):
        initial_noise(*arguments)
