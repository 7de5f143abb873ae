"""Denoisers seen as eps, v, score, velocity and the like: closed forms, round trips through `Adapter`, errors."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.denoisers import Prediction
from pspc_rs.denoisers.predictions import PREDICTIONS

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (40, 3, 6, 6), dtype=np.uint8), xflip=True)
MODELS = {
    "empirical": pspc.Empirical(DATA),
    "pspc": pspc.PSPCSquare(DATA, patch_sizes=3),
    "gaussian": pspc.Gaussian(DATA, cache=False),
}
VP, FLOW, VE = (math.cos(1.1), math.sin(1.1)), (0.4, 0.6), (1.0, 0.7)


def noisy(alpha: float, sigma: float, num: int = 3) -> NDArray[np.float64]:
    n = np.random.default_rng(1).normal(size=(num, *DATA.shape))
    return alpha * DATA.batch(np.arange(num)).astype(np.float64) + sigma * n


@pytest.mark.parametrize(("alpha", "sigma"), [VP, FLOW, VE])
@pytest.mark.parametrize("name", MODELS)
def test_predictions_are_their_definitions(name: str, alpha: float, sigma: float) -> None:
    D, x_t = MODELS[name], noisy(alpha, sigma)
    x = np.asarray(D(x_t / alpha, sigma / alpha))
    n = (x_t - alpha * x) / sigma
    expected = {
        "x0": x,
        "eps": n,
        "score": -n / sigma,
        "residual": sigma / alpha * n,
        "v": alpha * n - sigma * x,
        "flow": n - x,
        "velocity": x - n,
    }
    for prediction, value in expected.items():
        np.testing.assert_allclose(Prediction(D, prediction)(x_t, alpha, sigma), value, rtol=0, atol=1e-6)


def test_score_is_the_gradient_of_the_log_density() -> None:
    D, sigma = pspc.Empirical(DATA), 0.8
    z = noisy(1.0, sigma, 1)
    score = np.asarray(Prediction(D, "score")(z, 1.0, sigma))
    direction = np.random.default_rng(2).normal(size=z.shape)
    step = 3e-3
    slope = (D.log_prob(z + step * direction, sigma) - D.log_prob(z - step * direction, sigma)) / (2 * step)
    assert (score * direction).sum() == pytest.approx(float(np.asarray(slope)[0]), rel=1e-3)
    # At x_t = alpha z the density is that of z, stretched.
    alpha = 0.3
    shrunk = Prediction(D, "score")(alpha * z, alpha, alpha * sigma)
    np.testing.assert_allclose(shrunk, score / alpha, rtol=1e-6, atol=1e-6)


def closed_form_velocity(x: NDArray[np.float64], t: float, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The velocity of flow matching on a finite data set: the mean of (x_i - x) / (1 - t) by posterior weight.

    With x_t = (1 - t) x_0 + t x_1 and x_0 standard normal, x_t given x_1 = x_i is N(t x_i, (1 - t)^2).
    """
    logits = -np.square(x[:, None] - t * points[None]).sum(axis=2) / (2 * (1 - t) ** 2)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    towards = (points[None] - x[:, None]) / (1 - t)
    velocity: NDArray[np.float64] = (weights[:, :, None] * towards).sum(axis=1)
    return velocity


@pytest.mark.parametrize("t", [0.02, 0.3, 0.7, 0.95])
def test_velocity_is_that_of_the_closed_form_flow_in_two_dimensions(t: float) -> None:
    random = np.random.default_rng(3)
    points = random.normal(size=(50, 2))
    D = pspc.Empirical(pspc.ImageSet(points.astype(np.float32).reshape(50, 2, 1, 1)))
    x = (1 - t) * random.normal(size=(20, 2)) + t * points[:20]
    ours = Prediction(D, "velocity")(x.reshape(20, 2, 1, 1), t, 1 - t)
    expected = closed_form_velocity(x, t, points.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(np.asarray(ours).reshape(20, 2), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours, -np.asarray(Prediction(D, "flow")(x.reshape(20, 2, 1, 1), t, 1 - t)), atol=1e-12)


def test_eulers_method_along_the_velocity_is_that_in_z() -> None:
    D, start = MODELS["empirical"], np.random.default_rng(4).normal(size=(2, *DATA.shape))
    velocity, times = Prediction(D, "velocity"), np.linspace(0.01, 0.98, 12)
    x = start
    for now, after in pairwise(times.tolist()):
        x = x + (after - now) * np.asarray(velocity(x, now, 1 - now))
    z = pspc.samplers.sample_euler(D, start / times[0], (1 - times) / times)
    np.testing.assert_allclose(x / times[-1], z, rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_adapters_of_predictions_give_the_denoiser_back(prediction: str) -> None:
    torch = pytest.importorskip("torch")
    from pspc_rs.networks import Adapter, CosineVP, Edm, FlowMatching, VarianceExploding

    D = MODELS["pspc"]
    processes = [Edm(0.5)] if prediction == "edm" else [CosineVP(), FlowMatching(), VarianceExploding()]
    for process in processes:
        levels = torch.tensor([0.3, 2.0], dtype=torch.float64)
        alpha = process.scale(levels)
        net = Prediction(D, prediction)

        def called(x_t: Any, t: Any, net: Prediction = net, alpha: Any = alpha, levels: Any = levels) -> Any:
            return net(x_t, alpha, alpha * levels)

        z = torch.from_numpy(noisy(1.0, 0.5, 2))
        adapted = Adapter(called, prediction, process)(z, levels)
        torch.testing.assert_close(adapted, D(z, levels), rtol=0, atol=1e-6)


def test_kinds_dtypes_and_one_scale_per_image() -> None:
    torch = pytest.importorskip("torch")
    D, x_t = MODELS["gaussian"], noisy(*VP)
    alphas, sigmas = [0.9, 0.5, 0.2], np.array([0.3, 0.8, 1.5])
    each = [np.asarray(Prediction(D, "v")(x_t[i : i + 1], alphas[i], sigmas[i]))[0] for i in range(3)]
    v = Prediction(D, "v")
    np.testing.assert_allclose(v(x_t, alphas, sigmas), each, rtol=1e-12, atol=1e-12)
    narrow: Any = v(x_t.astype(np.float32), alphas, sigmas.reshape(3, 1, 1, 1))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, each, rtol=0, atol=1e-4)
    tensor = v(torch.from_numpy(x_t), torch.tensor(alphas), torch.from_numpy(sigmas))
    assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64
    np.testing.assert_allclose(tensor, each, rtol=0, atol=1e-6)
    half = v(torch.from_numpy(x_t).to(torch.bfloat16), alphas, sigmas)
    assert isinstance(half, torch.Tensor) and half.dtype == torch.bfloat16


def test_networks_and_functions_are_seen_so_too() -> None:
    def shrink(z: Any, sigma: Any) -> Any:
        assert sigma.shape == (3,) and sigma.dtype == z.dtype
        return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    x_t = noisy(*VP)
    expected = x_t * VP[1]  # x_t of variance 1: eps = sigma x_t
    np.testing.assert_allclose(Prediction(shrink, "eps")(x_t, *VP), expected, rtol=1e-12)
    np.testing.assert_allclose(Prediction(pspc.Network(shrink), "eps")(x_t, *VP), expected, rtol=1e-12)


def test_derivatives_go_through_x_t() -> None:
    torch = pytest.importorskip("torch")
    D, v = MODELS["empirical"], Prediction(MODELS["empirical"], "v")
    x_t = torch.from_numpy(noisy(*VP, 1)).requires_grad_()
    (gradient,) = torch.autograd.grad(v(x_t, *VP).sum(), x_t)
    alpha, sigma = VP
    z = x_t.detach() / alpha
    _, Jv = D.vjp(z, sigma / alpha, torch.ones_like(z))
    torch.testing.assert_close(gradient, alpha / sigma - (alpha**2 / sigma + sigma) * Jv / alpha, rtol=0, atol=1e-5)
    with pytest.raises(errors.GradientError, match="sigma requires gradients"):
        v(x_t.detach(), alpha, torch.tensor(sigma, requires_grad=True))


def test_further_arguments_go_to_the_denoiser() -> None:
    D, x_t = MODELS["empirical"], noisy(*VP)
    exclude = np.arange(3)
    found = Prediction(D, "x0")(x_t, *VP, exclude=exclude)
    np.testing.assert_allclose(found, D(x_t / VP[0], VP[1] / VP[0], exclude=exclude), rtol=1e-12)


@pytest.mark.parametrize(
    ("alpha", "sigma", "error", "message"),
    [
        (0.0, 1.0, errors.InvalidValueError, "alpha is 0; allowed are finite numbers above 0"),
        (0.5, -1.0, errors.InvalidValueError, "sigma is -1; allowed"),
        (math.nan, 1.0, errors.InvalidValueError, "alpha is nan"),
        ([0.5, 0.5], 1.0, errors.ShapeError, r"alpha has shape \[2\]; allowed are a number, \[1\], \[3\]"),
        (1.0, [[1.0]], errors.ShapeError, r"sigma has shape \[1, 1\]"),
        ("one", 1.0, errors.DTypeError, "alpha is 'one'"),
        (1e-6, 1e6, errors.InvalidValueError, r"sigma is 1000000000000\.0; allowed are numbers from 1e-6 to 1e9"),
    ],
)
def test_bad_scales_are_refused(alpha: Any, sigma: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Prediction(MODELS["empirical"], "eps")(noisy(*VP), alpha, sigma)


def test_bad_predictions_and_images_are_refused() -> None:
    with pytest.raises(errors.InvalidValueError, match="prediction is 'noise'; allowed are x0, eps, score"):
        Prediction(MODELS["empirical"], "noise")
    with pytest.raises(errors.DTypeError, match="D is a str; allowed are denoisers"):
        Prediction("empirical", "eps")  # type: ignore[arg-type]
    eps = Prediction(MODELS["empirical"], "eps")
    with pytest.raises(errors.ShapeError, match=r"x_t has shape \[3, 6, 6\]"):
        eps(noisy(*VP)[0], *VP)
    with pytest.raises(errors.DTypeError, match="x_t"):
        eps(np.zeros((1, 3, 6, 6), int), *VP)
    with pytest.raises(errors.ShapeError, match=r"D returned shape \[3, 3, 6\]"):
        Prediction(lambda z, sigma: z[..., 0], "eps")(noisy(*VP), *VP)
    with pytest.raises(errors.InvalidValueError, match="what D returned holds nan"):
        Prediction(lambda z, sigma: z * np.nan, "eps")(noisy(*VP), *VP)
    assert repr(eps) == f"Prediction('eps' of {MODELS['empirical']!r})"
