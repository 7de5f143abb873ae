"""Fits by entropy and by the greedy rule: against brute force, what is not computed, records, and what is refused."""

import json
import math
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import pspc_rs as pspc
from command_line import fail, names, random_data, succeed
from pspc_rs.errors import DataError, DTypeError, InvalidValueError
from pspc_rs.experiments import Fit, Sides, Thresholds, fit_figure, fit_schedule, odd_sides
from pspc_rs.experiments.fit_rules import FallenEntropy, Greedy, LeastError, find_rule
from pspc_rs.experiments.noisy_sets import forward_levels, forward_noisy

SIGMAS = (8.0, 2.0, 1.0, 0.5, 0.2, 0.05)


def images(xflip: bool = True) -> pspc.ImageSet:
    """Images with structure at every scale."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(80, 2, 3, 3)).repeat(3, axis=2).repeat(3, axis=3)
    fine = random.normal(size=(80, 2, 9, 9))
    return pspc.ImageSet(np.clip(128 + 40 * coarse + 20 * fine, 0, 255).astype(np.uint8), xflip=xflip)


DATA = images()
NOISY = [forward_noisy(DATA, 5, sigma, seed=3) for sigma in SIGMAS]


def brute_force(data: pspc.ImageSet, z: NDArray[Any], sigma: float, side: int, left_out: Any = None) -> Any:
    """The mean entropy over all windows of a side, one per noisy image, in plain float64."""
    atoms = data.batch(range(len(data))).astype(np.float64)
    height, width = data.height, data.width
    found = []
    for one, image in enumerate(z):
        counts = np.ones(len(atoms), bool)
        if left_out is not None:
            counts[[left_out[one] % data.num_stored + view * data.num_stored for view in range(1 + data.xflip)]] = False
        entropies = []
        for top, left in np.ndindex(height - side + 1, width - side + 1):
            place = (..., slice(top, top + side), slice(left, left + side))
            logits = -((image[place] - atoms[counts][place]) ** 2).sum(axis=(1, 2, 3)) / (2 * sigma**2)
            weights = np.exp(logits - logits.max())
            weights /= weights.sum()
            entropies.append(-(weights * np.log(np.where(weights > 0, weights, 1))).sum())
        found.append(np.mean(entropies))
    return np.array(found)


@pytest.mark.parametrize("xflip", [True, False])
@pytest.mark.parametrize("sigma", [3.0, 0.4])
def test_entropies_are_those_of_the_windows(sigma: float, xflip: bool) -> None:
    data = images(xflip)
    z = forward_noisy(data, 3, sigma, seed=1)
    family = Sides(data, [1, 4, "full"])
    for value in family.values:
        expected = brute_force(data, z, sigma, int(value))
        np.testing.assert_allclose(family.entropy(value, z, sigma), expected, rtol=1e-4, atol=1e-5)
        absent = np.array([0, 7, 33])
        expected = brute_force(data, z, sigma, int(value), absent)
        np.testing.assert_allclose(family.entropy(value, z, sigma, exclude=absent), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fraction", [None, 0.3, 0.95])
def test_the_side_is_the_first_at_which_the_entropy_has_fallen(tmp_path: Path, fraction: float | None) -> None:
    family = Sides(DATA, [1, 2, 3, 5, 7, "full"])
    fit = fit_schedule(
        family, None, NOISY, SIGMAS, tmp_path / "entropy.csv", rule="entropy", fraction=fraction, batch=2
    )
    limit = (fraction or 0.8) * math.log(160)
    for level, (z, sigma) in enumerate(zip(NOISY, SIGMAS, strict=True)):
        exact = [brute_force(DATA, z, sigma, int(value)).mean() for value in family.values]
        index = next((index for index, entropy in enumerate(exact) if entropy <= limit), 5)
        assert fit.best[level] == family.values[index]
        np.testing.assert_allclose(fit.curves[level, : index + 1], exact[: index + 1], rtol=1e-4, atol=1e-5)
        assert np.isnan(fit.curves[level, index + 1 :]).all()
        assert fit.chosen[level] == fit.curves[level, index]
    assert fit.schedule.at(SIGMAS) == ["full" if value == 9 else int(value) for value in fit.best]
    assert (fit.rule, fit.measure) == (FallenEntropy(fraction or 0.8, 160), "entropy")
    with pytest.raises(InvalidValueError, match="measures no errors"):
        _ = fit.mse


def test_sides_grow_with_noise_and_with_the_fraction_that_is_left(tmp_path: Path) -> None:
    def fitted(fraction: float) -> Fit:
        family = Sides(DATA, odd_sides(9, 9))
        return fit_schedule(family, None, NOISY, SIGMAS, tmp_path / "e.csv", rule="entropy", fraction=fraction)

    fits = [fitted(fraction) for fraction in (0.95, 0.8, 0.5, 0.1)]
    for fit in fits:
        assert list(fit.best) == sorted(fit.best, reverse=True)
    assert (fits[0].best[-1], fits[-1].best[0]) == (1, 9)
    for less, more in pairwise(fits):
        assert all(a <= b for a, b in zip(less.best, more.best, strict=True))


def test_left_out_images_do_not_count_in_n(tmp_path: Path) -> None:
    levels = forward_levels(DATA, list(SIGMAS), 4, 0)
    arguments: Any = (Sides(DATA, [1, 3]), None, levels, SIGMAS, tmp_path / "e.csv")
    plain = fit_schedule(*arguments, rule="entropy")
    without = fit_schedule(*arguments, rule="entropy", leave_one_out=True)
    assert (plain.rule.settings["atoms"], without.rule.settings["atoms"]) == (160, 158)
    assert Sides(images(xflip=False)).num_atoms(leave_one_out=True) == 79
    assert levels.sources is not None
    expected = brute_force(DATA, levels[3], SIGMAS[3], 1, levels.sources.indices).mean()
    np.testing.assert_allclose(without.curves[3, 0], expected, rtol=1e-4)


def test_thresholds_are_fitted_by_entropy_too(tmp_path: Path) -> None:
    row = np.exp(-np.abs(np.arange(9)[:, None] - np.arange(9)) / 2.0)
    maps = np.broadcast_to(np.einsum("yv,xu->yxvu", row, row), (6, 9, 9, 9, 9))
    family = Thresholds(DATA, maps, SIGMAS, [0.1, 0.4, 0.7, 1])
    fit = fit_schedule(family, None, NOISY, SIGMAS, tmp_path / "e.csv", rule="entropy")
    assert isinstance(fit.schedule, pspc.ThresholdSchedule)
    assert fit.best[0] == 1 and fit.best[-1] == 0.1 and list(fit.best) == sorted(fit.best, reverse=True)


def test_greedy_goes_up_from_the_side_below(tmp_path: Path) -> None:
    family, target = Sides(DATA, [1, 3, 5, 7, "full"]), pspc.Gaussian(DATA, cache=False)
    exhaustive = fit_schedule(family, target, NOISY, SIGMAS, tmp_path / "all.csv")
    fit = fit_schedule(family, target, NOISY, SIGMAS, tmp_path / "greedy.csv", rule="greedy")
    last = 0
    for level in range(len(SIGMAS))[::-1]:
        errors = exhaustive.mse[level]
        start = last
        while last < 4 and errors[last + 1] * (1 + 1e-5) < errors[last]:
            last += 1
        assert fit.best[level] == family.values[last]
        asked = range(start, min(last + 1, 4) + 1)
        np.testing.assert_array_equal(fit.mse[level, asked], errors[asked])
        assert np.isnan(np.delete(fit.mse[level], asked)).all()
    assert list(fit.best) == sorted(fit.best, reverse=True)
    assert len((tmp_path / "greedy.csv").read_text().splitlines()) == 1 + np.isfinite(fit.mse).sum()


def test_the_rules_share_their_errors(tmp_path: Path) -> None:
    calls: list[float] = []

    def target(z: Any, sigma: Any) -> Any:
        calls.append(float(sigma[0]))
        return 0 * z

    arguments: Any = (Sides(DATA, [1, 3, 5]), target, NOISY[2:4], SIGMAS[2:4], tmp_path / "fit.csv")
    fit_schedule(*arguments)
    assert calls == [1.0, 0.5]
    told: list[tuple[int, int]] = []
    progress = lambda done, total: told.append((done, total))  # noqa: E731
    greedy = fit_schedule(*arguments, rule="greedy", progress=progress)
    assert calls == [1.0, 0.5]
    assert told[-1] == (6, 6)
    assert greedy.schedule.provenance["fitted"]["rule"] == "greedy"


def test_what_was_not_computed_is_none_in_files(tmp_path: Path) -> None:
    fit = fit_schedule(Sides(DATA, [1, 3, 5]), None, NOISY, SIGMAS, tmp_path / "e.csv", rule="entropy")
    fit.schedule.save(tmp_path / "fitted.json")
    loaded: Any = pspc.PatchSchedule.load(tmp_path / "fitted.json").provenance
    assert {"rule": "entropy", "fraction": 0.8, "atoms": 160}.items() <= loaded["fitted"].items()
    assert "target" not in loaded["fitted"]
    curves = loaded["curves"]
    assert curves["entropy"][-1][1:] == curves["standard_error"][-1][1:] == [None, None]
    again = fit_schedule(Sides(DATA, [1, 3, 5]), None, NOISY, SIGMAS, tmp_path / "e.csv", rule="entropy")
    assert again.schedule == fit.schedule
    assert repr(fit) == "Fit('fitted', 3 sides at 6 levels by entropy)"
    labels = [line.get_label() for line in fit_figure(fit).axes[0].lines]
    assert labels == ["side 1", "side 3", "side 5", "0.8 ln N", "chosen"]
    with pytest.raises(DataError, match="has the columns"):
        fit_schedule(Sides(DATA, [1]), pspc.Empirical(DATA), NOISY, SIGMAS, tmp_path / "e.csv")


curves = st.lists(st.floats(0.1, 10), min_size=1, max_size=8)


@given(curves, st.floats(0.01, 0.99), st.integers(2, 10**6))
def test_of_falling_entropies_the_first_below_is_taken(values: list[float], fraction: float, atoms: int) -> None:
    values = sorted(values, reverse=True)
    rule = FallenEntropy(fraction, atoms)
    asked: list[int] = []

    def curve(index: int) -> float:
        asked.append(index)
        return values[index]

    index = rule.choose(curve, len(values), 0)
    assert asked == list(range(index + 1))
    assert all(value > rule.limit for value in values[:index])
    assert values[index] <= rule.limit or index == len(values) - 1


@given(curves, st.data())
def test_greedy_stops_at_the_first_rise(values: list[float], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(values) - 1))
    index = Greedy().choose(values.__getitem__, len(values), start)
    assert index >= start
    least = np.minimum.accumulate(values[start : index + 1])
    assert (np.array(values[start : index + 1]) <= least * (1 + 1e-5)).all() and values[index] == least[-1]
    further = list(takewhile(lambda value: value <= values[index] * (1 + 1e-5), values[index + 1 :]))
    assert all(value * (1 + 1e-5) >= values[index] for value in further)


def test_greedy_goes_on_over_equal_errors() -> None:
    assert Greedy().choose([2.0, 2.0, 2.0, 1.0, 1.0, 3.0, 0.0].__getitem__, 7, 0) == 3


@given(st.lists(st.integers(1, 99), min_size=1, max_size=8, unique=True), st.integers(0, 8))
def test_in_a_valley_greedy_finds_the_least_error(errors: list[int], turn: int) -> None:
    valley = [1.0 * error for error in sorted(errors[:turn], reverse=True) + sorted(errors[turn:])]
    least = valley.index(min(valley))
    assert LeastError().choose(valley.__getitem__, len(valley), 0) == least
    if all(before > after for before, after in pairwise(valley[: least + 1])):
        assert Greedy().choose(valley.__getitem__, len(valley), 0) == least


def test_equal_errors_are_no_fall() -> None:
    for rule in (Greedy(), LeastError()):
        assert rule.choose([1.0, 1.0 - 1e-6, 1.0].__getitem__, 3, 0) == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rule": "median"}, InvalidValueError, "rule is 'median'; allowed are error, entropy, greedy"),
        ({"rule": 3}, DTypeError, "rule is 3"),
        (
            {"rule": "entropy", "fraction": 1.0},
            InvalidValueError,
            "fraction is 1; allowed are numbers above 0 and",
        ),
        ({"rule": "entropy", "fraction": 0}, InvalidValueError, "fraction is 0"),
        ({"rule": "entropy", "fraction": "x"}, DTypeError, "fraction is 'x'"),
        ({"rule": "greedy", "fraction": 0.5}, InvalidValueError, "it is for the rule 'entropy'"),
        ({"rule": "error"}, InvalidValueError, "target is None, but the rule 'error' needs one"),
        ({"rule": "greedy"}, InvalidValueError, "target is None, but the rule 'greedy' needs one"),
    ],
)
def test_bad_rules(tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fit_schedule(Sides(DATA, [1]), None, NOISY, SIGMAS, tmp_path / "fit.csv", **options)


def test_other_bad_fits(tmp_path: Path) -> None:
    table = tmp_path / "fit.csv"
    with pytest.raises(InvalidValueError, match="rule is 'entropy', which compares with no target"):
        fit_schedule(Sides(DATA, [1]), pspc.Empirical(DATA), NOISY, SIGMAS, table, rule="entropy")
    with pytest.raises(InvalidValueError, match="there are 1 images; a standard error needs at least 2"):
        fit_schedule(Sides(DATA, [1]), None, [z[:1] for z in NOISY], SIGMAS, table, rule="entropy")
    assert find_rule("greedy", None, 1) == Greedy()


GRID = ["--n-steps", 4, "--t-max", 8, "--t-min", 0.05, "--n-samples", 4]


def test_the_command_fits_by_entropy(tmp_path: Path) -> None:
    data = random_data(tmp_path / "data.npy", 60, 1, 8, 8)
    fit = ["fit-schedule", "--outdir", tmp_path / "out", "--data", data, *GRID, "--rule", "entropy"]
    printed = succeed(*fit)
    assert "entropy" in printed.splitlines()[0]
    figures = [f"fitted_curves.{suffix}" for suffix in ("csv", "npz", "pdf", "png")]
    expected = ["fit_entropy.csv", "fitted.json", "fitted_run.json", "results.sqlite", *figures]
    assert names(tmp_path / "out") == sorted(expected)
    schedule = pspc.PatchSchedule.load(tmp_path / "out" / "fitted.json")
    fitted: Any = schedule.provenance["fitted"]
    assert fitted["candidates"] == [1, 3, 5, 7, 8]
    assert (fitted["atoms"], fitted["fraction"]) == (120, 0.8)
    lines = (tmp_path / "out" / "fitted_curves.csv").read_text().splitlines()
    assert lines[0].startswith("sigma,entropy_1,entropy_3") and lines[-1].endswith(",,,")
    record = json.loads((tmp_path / "out" / "fitted_run.json").read_text())
    assert record["options"]["rule"] == "entropy"
    succeed(*fit, "--entropy-fraction", 0.2, "--name", "other")
    other = pspc.PatchSchedule.load(tmp_path / "out" / "other.json")
    assert other.provenance["fitted"]["fraction"] == 0.2
    assert pspc.PSPCSquare(pspc.load(data), other)(np.zeros((1, 1, 8, 8)), 1.0).shape == (1, 1, 8, 8)


def test_the_command_fits_greedily_with_the_errors_of_other_fits(tmp_path: Path) -> None:
    data, held = (random_data(tmp_path / f"{name}.npy", 60, 1, 8, 8) for name in ("data", "held"))
    fit = ["fit-schedule", "--outdir", tmp_path / "out", "--data", data, *GRID, "--target", "clean"]
    fit += ["--noise-data", held]
    succeed(*fit, "--candidates", "1,3,5,7,full")
    before = (tmp_path / "out" / "fit.csv").read_bytes()
    succeed(*fit, "--rule", "greedy", "--name", "greedy")
    assert (tmp_path / "out" / "fit.csv").read_bytes() == before
    schedule = pspc.PatchSchedule.load(tmp_path / "out" / "greedy.json")
    sides = [8 if side == "full" else side for side in schedule.patch_sizes]
    assert sides == sorted(sides, reverse=True)
    assert schedule.provenance["fitted"]["rule"] == "greedy"


def test_the_command_fits_by_entropy_on_trajectories(tmp_path: Path) -> None:
    data = random_data(tmp_path / "data.npy", 60, 1, 8, 8)
    fit = ["fit-schedule", "--outdir", tmp_path / "out", "--data", data, *GRID, "--rule", "entropy"]
    succeed(*fit, "--process", "reverse", "--target", "empirical", "--candidates", "1,4,full")
    fitted: Any = pspc.PatchSchedule.load(tmp_path / "out" / "fitted.json").provenance["fitted"]
    assert (fitted["noisy"]["process"], fitted["target_spec"]) == ("reverse", "empirical")
    assert "target" not in fitted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rule", "greedy"], "--rule greedy needs --target"),
        ([], "--rule error needs --target"),
        (["--rule", "entropy", "--target", "clean"], "--rule entropy compares with no target"),
        (["--rule", "entropy", "--process", "reverse"], "give --target with --process reverse"),
        (["--rule", "greedy", "--target", "empirical", "--fit", "snis"], "--fit snis is tuned by its error"),
        (["--target", "empirical", "--entropy-fraction", "0.5"], "--entropy-fraction is for --rule entropy"),
    ],
)
def test_the_command_refuses(tmp_path: Path, words: list[str], message: str) -> None:
    data = random_data(tmp_path / "data.npy", 60, 1, 8, 8)
    assert message in fail(2, "fit-schedule", "--outdir", tmp_path / "out", "--data", data, *GRID, *words)


def test_entropy_is_that_of_all_fifty_thousand_images(test_data: Path, tmp_path: Path) -> None:
    data = pspc.load(test_data / "cifar10-32x32.zip", xflip=True)
    held = pspc.load(test_data / "cifar10-test-1k-32x32.zip")
    sigmas = (1.0877, 0.2964)
    noisy = [forward_noisy(held, 2, sigma) for sigma in sigmas]
    fit = fit_schedule(Sides(data, [1, 3, 5, 7]), None, noisy, sigmas, tmp_path / "e.csv", rule="entropy")
    assert fit.rule == FallenEntropy(0.8, 100_000)
    assert list(fit.best) == [5, 3]
    # More than a subset of a tenth could ever have.
    assert np.nanmax(fit.curves) > math.log(10_000)
