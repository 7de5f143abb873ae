"""Metrics against tiny cases computed by hand and against numpy's own formulas; names that papers mix up told apart."""

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.experiments import (
    METRICS,
    MeanError,
    copy_ratio,
    copy_share,
    flow_distance,
    mean_over_images,
    mean_squared_error,
    nearest_images,
    pearson_r,
    pixel_descriptor,
    pixel_r2,
    r2,
    squared_errors,
    trajectory_r2,
)

TARGET = np.array([[0.0, 1.0, 2.0, 1.0], [3.0, -1.0, 0.0, 2.0]]).reshape(2, 1, 2, 2)
PREDICTED = np.array([[0.0, 1.0, 1.0, 0.0], [1.0, -1.0, 0.0, 0.0]]).reshape(2, 1, 2, 2)
# Squared errors 2 and 8; targets less their mean of 1 have the squares 2 and 10.


def normal_denoiser(variance: float) -> Callable[..., Any]:
    return lambda z, sigma: z * (variance / (variance + sigma.reshape(-1, 1, 1, 1) ** 2))


def noise(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    ("pixels", "per", "expected"),
    [("[-1, 1]", "value", (2 / 4 + 8 / 4) / 2), ("[-1, 1]", "image", 5.0), ("[0, 1]", "image", 1.25)],
)
def test_squared_errors_by_hand(pixels: Any, per: Any, expected: float) -> None:
    found = mean_squared_error(PREDICTED, TARGET, pixels=pixels, per=per)
    assert found.mean == expected
    # Two images at distance d: the standard deviation is d / sqrt(2), the standard error d / 2.
    each = {"value": (0.5, 2.0), "image": (2.0, 8.0)}[per]
    assert found.standard_error == pytest.approx(abs(each[1] - each[0]) / 2 * (0.25 if pixels == "[0, 1]" else 1))


def test_both_pixel_units_are_those_of_the_pixels_themselves() -> None:
    a, b = noise(5, 3, 4, 4), noise(5, 3, 4, 4, seed=1)
    in_01 = mean_squared_error((a + 1) / 2, (b + 1) / 2)
    np.testing.assert_allclose(mean_squared_error(a, b, pixels="[0, 1]"), in_01, rtol=1e-12)
    whole = mean_squared_error(a, b, pixels="[0, 1]", per="image")
    np.testing.assert_allclose(whole, np.multiply(in_01, 48), rtol=1e-12)


def test_paired_differences_are_known_better_than_either_error() -> None:
    clean = noise(200, 1, 4, 4) * np.exp(noise(200, 1, 1, 1, seed=3))
    good, bad = clean * 0.5, clean * 0.45
    paired = mean_over_images(squared_errors(bad, clean) - squared_errors(good, clean))
    both = [mean_squared_error(images, clean) for images in (bad, good)]
    assert paired.mean == pytest.approx(both[0].mean - both[1].mean, rel=1e-12)
    assert paired.standard_error < 0.25 * both[0].standard_error
    for values, error, message in [
        ([1.0], errors.InvalidValueError, "there are 1 images"),
        ([[1.0, 2.0]], errors.ShapeError, r"values have shape \[1, 2\]"),
        ([1.0, math.nan], errors.InvalidValueError, "values holds nan"),
    ]:
        with pytest.raises(error, match=message):
            mean_over_images(values)


def test_r2_by_hand() -> None:
    biased = r2(PREDICTED, TARGET, ddof=0)
    assert biased.mean == pytest.approx(((1 - 2 / 2) + (1 - 8 / 10)) / 2)
    # D var is 4 / 3 of the sum of squares.
    unbiased = r2(PREDICTED, TARGET)
    assert unbiased.mean == pytest.approx(((1 - 2 * 3 / 8) + (1 - 8 * 3 / 40)) / 2)
    assert unbiased.standard_error == pytest.approx(abs(0.25 - 0.4) / 2)


def test_pearson_by_hand_and_by_numpy() -> None:
    # Less their means of 0.5 and 0: (-.5 .5 .5 -.5) with (-1 0 1 0), and (1 -1 0 0) with (2 -2 -1 1).
    expected = (1 / math.sqrt(1 * 2) + 4 / math.sqrt(2 * 10)) / 2
    assert pearson_r(PREDICTED, TARGET).mean == pytest.approx(expected)
    a, b = noise(6, 3, 4, 4), noise(6, 3, 4, 4, seed=1)
    by_numpy = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(a, b, strict=True)]
    assert pearson_r(a, b).mean == pytest.approx(np.mean(by_numpy), abs=1e-14)
    vectors = [pixel_descriptor(images) for images in (a, b)]
    unit = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in vectors]
    assert pearson_r(a, b).mean == pytest.approx((unit[0] * unit[1]).sum(axis=1).mean(), abs=1e-14)


def test_r2_and_pearson_are_told_apart() -> None:
    """Half the contrast and another brightness: perfectly correlated, and far from the target."""
    target = noise(4, 1, 8, 8)
    faded = target / 2 + 1
    assert pearson_r(faded, target).mean == pytest.approx(1, abs=1e-12)
    assert r2(faded, target).mean < 0.5
    assert pearson_r(-target, target).mean == pytest.approx(-1, abs=1e-12)
    assert r2(-target, target).mean < -2
    # Nor is r2 the square of r.
    near = target + noise(4, 1, 8, 8, seed=1)
    assert abs(r2(near, target).mean - pearson_r(near, target).mean ** 2) > 0.1
    assert METRICS["r2"].title != METRICS["pearson_r"].title


def test_r2_over_pixels_by_hand() -> None:
    # Both means are 1, so that the sums of squares are those of r2, pooled.
    assert pixel_r2(PREDICTED, TARGET).mean == pytest.approx(1 - (2 + 8) / (2 + 10))
    # A dim image and a bright one: their difference is part of the spread.
    bright = TARGET + np.array([0.0, 2.0]).reshape(2, 1, 1, 1)
    assert pixel_r2(bright + 1, bright).mean == pytest.approx(1 - 8 / (2 + 10 + 8))
    assert r2(bright + 1, bright, ddof=0).mean == pytest.approx(((1 - 4 / 2) + (1 - 4 / 10)) / 2)


def test_the_standard_error_of_r2_over_pixels_is_that_of_its_draws() -> None:
    def draw(seed: int) -> MeanError:
        scale = np.exp(noise(60, 1, 1, 1, seed=seed) / 3)
        target = noise(60, 1, 4, 4, seed=seed + 10_000) * scale
        return pixel_r2(target + 0.5 * noise(60, 1, 4, 4, seed=seed + 20_000) * np.sqrt(scale), target)

    draws = [draw(seed) for seed in range(300)]
    spread = np.std([one.mean for one in draws])
    assert np.mean([one.standard_error for one in draws]) == pytest.approx(spread, rel=0.25)


def test_r2_along_trajectories_is_the_mean_over_levels() -> None:
    a, b = noise(3, 4, 1, 3, 3), noise(3, 4, 1, 3, 3, seed=1)
    by_level = [r2(one, other, ddof=0).mean for one, other in zip(a, b, strict=True)]
    found = trajectory_r2(a, b)
    assert found.mean == pytest.approx(np.mean(by_level))
    by_image = 1 - ((a - b) ** 2).sum(axis=(2, 3, 4)) / ((b - b.mean(axis=(2, 3, 4), keepdims=True)) ** 2).sum(
        axis=(2, 3, 4)
    )
    assert found.standard_error == pytest.approx(np.std(by_image.mean(axis=0), ddof=1) / 2)
    with pytest.raises(errors.ShapeError, match=r"needed is one shape \[levels, N, C, H, W\]"):
        trajectory_r2(a[0], b[0])


def test_flow_distance_by_hand() -> None:
    a, b = np.zeros((2, 1, 1, 2)), np.array([[3.0, 4.0], [0.0, 1.0]]).reshape(2, 1, 1, 2)
    assert flow_distance(a, b) == (3.0, 2.0)
    root = flow_distance(a, b, order=2)
    assert root.mean == pytest.approx(math.sqrt((25 + 1) / 2))
    assert root.standard_error == pytest.approx(12 / (2 * math.sqrt(13)))
    assert flow_distance(a, a, order=2) == (0.0, 0.0)
    halved = flow_distance(a, b, descriptor=lambda images: images.reshape(len(images), -1) / 2)
    assert halved.mean == 1.5
    with pytest.raises(errors.InvalidValueError, match="order is 3; allowed are integers from 1 to 2"):
        flow_distance(a, b, order=3)


def test_flow_distance_of_two_gaussians_is_that_of_their_maps() -> None:
    """The flow of normal data of variance v multiplies noise by about sqrt(v): the distance is known."""
    start = pspc.samplers.initial_noise(200, (1, 4, 4), 80.0, 0)
    ends = [
        pspc.samplers.sample_heun(normal_denoiser(v), start, pspc.edm_sigmas(100, include_zero=True)) for v in (1, 0.25)
    ]
    expected = np.linalg.norm(start.reshape(200, -1) / 80, axis=1).mean() * (1 - 0.5)
    assert flow_distance(*ends).mean == pytest.approx(expected, rel=0.01)


def test_copy_ratio_by_hand() -> None:
    data = pspc.ImageSet(np.array([0, 4, 100], np.float32).reshape(3, 1, 1, 1))
    near = nearest_images(data, np.array([0.5, 2.0, 3.5, 1.0]).reshape(4, 1, 1, 1))
    ratios = [0.5 / 3.5, 1.0, 0.5 / 3.5, 1 / 3]
    assert copy_ratio(near).mean == pytest.approx(np.mean(ratios))
    assert copy_share(near).mean == 0.5  # 1 / 3 itself is no copy
    assert copy_share(near).standard_error == pytest.approx(0.5 / math.sqrt(3))
    alone = nearest_images(pspc.ImageSet(np.zeros((1, 1, 1, 1), np.float32)), np.ones((2, 1, 1, 1)))
    for metric in (copy_ratio, copy_share):
        with pytest.raises(errors.InvalidValueError, match="there is one training image"):
            metric(alone)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_tables_take_tensors_and_float32(name: str) -> None:
    torch = pytest.importorskip("torch")
    a, b = noise(4, 3, 5, 5).astype(np.float32), noise(4, 3, 5, 5, seed=1).astype(np.float32)
    expected = METRICS[name].compute(a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(METRICS[name].compute(torch.from_numpy(a), torch.from_numpy(b)), expected, rtol=1e-12)
    best = METRICS[name].compute(a, a)
    assert best.mean == pytest.approx(0 if METRICS[name].is_error else 1, abs=1e-12)
    assert best.standard_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("metric", [mean_squared_error, r2, pearson_r, pixel_r2, flow_distance])
def test_bad_images_are_refused(metric: Callable[..., Any]) -> None:
    good = noise(3, 1, 2, 2)
    for bad, error, message in [
        (noise(3, 1, 2, 3), errors.ShapeError, r"images have shapes \[3, 1, 2, 2\] and \[3, 1, 2, 3\]"),
        (np.full_like(good, np.nan), errors.InvalidValueError, "images"),
        (np.ones((3, 1, 2, 2), int), errors.DTypeError, "images"),
    ]:
        with pytest.raises(error, match=message):
            metric(good, bad)
    with pytest.raises(errors.InvalidValueError, match="there are 1 images; a standard error needs at least 2"):
        metric(good[:1], good[:1])
    with pytest.raises(errors.ShapeError, match=r"images have shape \[3, 4\]"):
        metric(good.reshape(3, 4), good.reshape(3, 4))


def test_flat_images_have_no_r2_and_no_correlation() -> None:
    good, flat = noise(3, 1, 2, 2), noise(3, 1, 2, 2)
    flat[1] = 0.1
    with pytest.raises(errors.InvalidValueError, match=r"image 1 of the target is 0\.1 everywhere"):
        r2(good, flat)
    with pytest.raises(errors.InvalidValueError, match=r"image 1 of the predicted images is 0\.1 everywhere"):
        pearson_r(flat, good)
    assert math.isfinite(pixel_r2(good, flat).mean)
    with pytest.raises(errors.InvalidValueError, match=r"all values of the target are 0\.1"):
        pixel_r2(good, np.full_like(good, 0.1))


def test_other_units_are_refused() -> None:
    with pytest.raises(errors.InvalidValueError, match=r"pixels is '\[0, 255\]'; allowed are \[-1, 1\], \[0, 1\]"):
        mean_squared_error(TARGET, TARGET, pixels="[0, 255]")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidValueError, match="per is 'pixel'; allowed are value, image"):
        mean_squared_error(TARGET, TARGET, per="pixel")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidValueError, match="ddof is 2; allowed are integers from 0 to 1"):
        r2(PREDICTED, TARGET, ddof=2)


def test_published_errors_are_in_these_units(test_data: Path) -> None:
    """The Gaussian column of CondDiffNonlinearTheory: 10,000 CIFAR-10 images, 1,000 test images, noise of our own."""
    table = test_data / "conddiff-cifar.csv"
    if not table.is_file():
        pytest.skip("the published table is not beside the real data")
    pool = pspc.ImageSet(np.asarray(pspc.load(test_data / "cifar10-32x32.zip", xflip=False).images[:10_000]))
    clean = pspc.load(test_data / "cifar10-test-1k-32x32.zip", xflip=False).batch(np.arange(1000))
    D, drawn = pspc.Gaussian(pool, cache=False), np.random.default_rng(0)
    with table.open(newline="") as file:
        rows = {row["sigma_pixel01"]: row for row in csv.DictReader(file)}
    for level in ("0.05", "0.452", "1.61"):
        sigma = 2 * float(level)
        z = (clean + sigma * drawn.standard_normal(clean.shape)).astype(np.float32)
        found = METRICS["sse01"].compute(D(z, sigma), clean)
        # The images are the same, so that the two differ by much less than the error over images.
        assert found.mean == pytest.approx(float(rows[level]["gaussian_mse"]), abs=found.standard_error)
        assert found.standard_error == pytest.approx(float(rows[level]["gaussian_se"]), rel=0.05)
