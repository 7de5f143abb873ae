"""Fitted schedules: known ones are recovered, and rows on disk are not computed again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from pspc_rs.errors import InvalidValueError, ScheduleError, ShapeError
from pspc_rs.experiments.fit_families import Sides, Thresholds
from pspc_rs.experiments.fitting import Fit, fit_figure, fit_schedule
from pspc_rs.experiments.noisy_sets import forward_noisy
from pspc_rs.experiments.patches import patch_errors, patch_study, patch_study_figure

SIGMAS = (8.0, 2.0, 1.0, 0.5, 0.2, 0.05)
KNOWN = ("full", 9, 7, 5, 3, 3)


@pytest.fixture(scope="module")
def data() -> pspc.ImageSet:
    """Images with structure at every scale: patches of different sides have different posteriors."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(300, 3, 3, 3)).repeat(4, axis=2).repeat(4, axis=3)
    fine = random.normal(size=(300, 3, 12, 12))
    return pspc.ImageSet(np.clip(128 + 40 * coarse + 20 * fine, 0, 255).astype(np.uint8), xflip=True)


@pytest.fixture(scope="module")
def noisy(data: pspc.ImageSet) -> list[Any]:
    return [forward_noisy(data, 12, sigma, seed=3) for sigma in SIGMAS]


def values(fit: Fit) -> Any:
    schedule = fit.schedule
    return schedule.patch_sizes if isinstance(schedule, pspc.PatchSchedule) else schedule.thresholds


def with_noise(denoiser: Any) -> Any:
    """A target that is near a denoiser, but not equal to it."""
    random = np.random.default_rng(7)

    def target(z: Any, sigma: float) -> Any:
        return denoiser(z, sigma) + 0.002 * random.standard_normal(z.shape)

    return target


def test_a_known_schedule_of_sides_is_recovered(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    known = pspc.PSPCSquare(data, patch_sizes=KNOWN, sigmas=SIGMAS)
    fit = fit_schedule(Sides(data), with_noise(known), noisy, SIGMAS, tmp_path / "fit.csv", record={"n": 12})
    assert list(fit.values) == [1, 2, 3, 5, 7, 9, 11, 12]
    assert values(fit) == KNOWN
    assert np.allclose(fit.mse.min(axis=1), 0.002**2, rtol=0.1)
    fit.schedule.save(tmp_path / "fitted.json")
    again = pspc.PSPCSquare(data, schedule=tmp_path / "fitted.json")
    assert again.schedule == fit.schedule
    assert again.schedule.provenance["fitted"]["n"] == 12
    assert again.schedule.provenance["curves"]["mse"] == fit.mse.tolist()
    assert len(fit_figure(fit).axes[0].lines) == 9


def test_known_thresholds_are_recovered(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    distance = np.arange(12)[:, None] - np.arange(12)
    row = np.exp(-np.abs(distance) / 2.0)
    maps = np.broadcast_to(np.einsum("yv,xu->yxvu", row, row), (6, 12, 12, 12, 12))
    thresholds = (1.0, 0.8, 0.6, 0.4, 0.4, 0.4)
    known = pspc.PSPCFlex(data, heatmaps=maps, thresholds=thresholds, sigmas=SIGMAS)
    family = Thresholds(data, maps, SIGMAS, [0.4, 0.6, 0.8, 1])
    fit = fit_schedule(family, with_noise(known), noisy, SIGMAS, tmp_path / "fit.csv")
    assert values(fit)[:5] == thresholds[:5]


def test_what_cannot_be_told_apart_goes_to_the_smallest(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    sides = Sides(data, [3, 5, 7, "full"])  # of single pixels, other images have nearer ones
    fit = fit_schedule(sides, lambda z, sigma: z, [noisy[-1]], [1e-4], tmp_path / "fit.csv")
    assert fit.mse.max() < fit.mse.min() * 1.00001
    assert values(fit) == (3,)


def test_errors_of_single_patches_decide_where_they_are_asked_for(
    tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]
) -> None:
    sides, optimal = Sides(data, [3, 5, "full"]), pspc.Empirical(data)
    with_patches = {"error": "patch", "fit_range": (0.2, 2.0)}
    fit = fit_schedule(sides, optimal, noisy, SIGMAS, tmp_path / "fit.csv", **with_patches)  # type: ignore[arg-type]
    for level, sigma in enumerate(fit.sigmas):
        z = noisy[SIGMAS.index(sigma)]
        found = patch_errors(data, z, sigma, optimal(z, sigma), [3, 5, 12])
        np.testing.assert_allclose(fit.mse[level], [one.mean for one in found], rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(
            fit.standard_error[level], [one.standard_error for one in found], rtol=1e-6, atol=1e-12
        )
    assert fit.schedule.provenance["fitted"]["error"] == "patch"
    composites = fit_schedule(sides, optimal, noisy, SIGMAS, tmp_path / "fit.csv", fit_range=(0.2, 2.0))
    assert (composites.mse[:, :2] < fit.mse[:, :2]).all()  # averages over windows are closer than single ones
    maps = np.broadcast_to(np.eye(144).reshape(1, 12, 12, 12, 12), (6, 12, 12, 12, 12))
    with pytest.raises(InvalidValueError, match="errors of single windows are for sides"):
        fit_schedule(Thresholds(data, maps, SIGMAS), optimal, noisy, SIGMAS, tmp_path / "b.csv", error="patch")
    with pytest.raises(InvalidValueError, match="which neither leave_one_out nor"):
        fit_schedule(sides, None, noisy, SIGMAS, tmp_path / "c.csv", rule="entropy", error="patch")
    with pytest.raises(InvalidValueError, match="error is 'window'"):
        fit_schedule(sides, optimal, noisy, SIGMAS, tmp_path / "c.csv", error="window")


def test_masks_of_equal_size_are_fitted_and_kept_as_such(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    distance = np.abs(np.arange(12)[:, None] - np.arange(12))
    row = np.exp(-distance / 2.0)
    maps = np.broadcast_to(np.einsum("yv,xu->yxvu", row, row), (6, 12, 12, 12, 12))
    shares = (1.0, 49 / 144, 25 / 144, 25 / 144, 9 / 144, 9 / 144)
    known = pspc.PSPCFlex(data, heatmaps=maps, thresholds=shares, sizes="equal", sigmas=SIGMAS)
    family = Thresholds(data, maps, SIGMAS, sizes="equal")
    assert family.values == tuple(sorted({*(side**2 / 144 for side in (1, 2, 3, 5, 7, 9, 11)), 1.0}))
    fit = fit_schedule(family, with_noise(known), noisy, SIGMAS, tmp_path / "fit.csv")
    assert values(fit)[:5] == shares[:5]
    fit.schedule.save(tmp_path / "equal.json")
    again = pspc.PSPCFlex(data, heatmaps=maps, thresholds=tmp_path / "equal.json")
    np.testing.assert_array_equal(again(noisy[1], 2.0), known(noisy[1], 2.0))
    assert again.schedule == fit.schedule and "sizes='equal'" in repr(again.schedule)
    assert again.settings["schedule"]["sizes"] == "equal"
    with pytest.raises(ScheduleError, match="has thresholds of sizes 'equal'"):
        pspc.PSPCFlex(data, heatmaps=maps, thresholds=tmp_path / "equal.json", sizes="mass")


def test_known_rows_are_not_computed_again(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    calls: list[float] = []

    def target(z: Any, sigma: Any) -> Any:
        calls.append(float(sigma[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 0 * z

    arguments: Any = (noisy[:4], SIGMAS[:4], tmp_path / "fit.csv")
    with pytest.raises(KeyboardInterrupt):
        fit_schedule(Sides(data, [3, 5]), target, *arguments)
    told: list[int] = []
    progress = lambda done, total: told.append(done)  # noqa: E731
    resumed = fit_schedule(Sides(data, [3, 5]), target, *arguments, progress=progress)
    assert calls == [8.0, 2.0, 1.0, 1.0, 0.5]
    assert told == [5, 6, 7, 8]
    kept = (tmp_path / "fit.csv").read_bytes()
    fresh = fit_schedule(Sides(data, [3, 5]), target, noisy[:4], SIGMAS[:4], tmp_path / "fresh.csv")
    assert (tmp_path / "fresh.csv").read_bytes() == kept
    assert np.array_equal(fresh.mse, resumed.mse)
    more = fit_schedule(Sides(data, [3, 7]), target, *arguments)
    assert more.mse[0, 0] == resumed.mse[0, 0]
    fit_schedule(Sides(data, [3, 5]), target, *arguments, record={"seed": 1})
    assert len((tmp_path / "fit.csv").read_text().splitlines()) == 1 + 3 * 4 + 2 * 4


def test_levels_beyond_the_range_follow_what_was_asked(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    known = pspc.PSPCSquare(data, patch_sizes=KNOWN, sigmas=SIGMAS)

    def fitted(outside: Any) -> Any:
        sides = Sides(data, [3, 5, 7, 9, "full"])
        table = tmp_path / "fit.csv"
        fit = fit_schedule(sides, known, noisy, SIGMAS, table, fit_range=(0.3, 1.5), outside=outside)
        assert fit.sigmas == (1.0, 0.5)
        assert fit.schedule.provenance["outside"]["sigmas"] == [8.0, 2.0, 0.2, 0.05]
        return values(fit)

    assert fitted(None) == (7, 7, 7, 5, 5, 5)
    assert fitted("full") == ("full", "full", 7, 5, "full", "full")
    assert fitted(11) == (11, 11, 7, 5, 11, 11)
    other = pspc.PatchSchedule(("full", 3), sigmas=(2.0, 0.3), image_size=(12, 12))
    assert fitted(other) == ("full", "full", 7, 5, 3, 3)
    with pytest.raises(ScheduleError, match="needed is one of sides"):
        fitted(pspc.ThresholdSchedule((1,), sigmas=(1.0,), image_size=(12, 12)))


def test_given_outputs_are_a_target_too(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    outputs = [pspc.PSPCSquare(data, patch_sizes=5)(noisy[3], 0.5)]
    fit = fit_schedule(Sides(data, [3, 5, 7]), outputs, noisy[3:4], [0.5], tmp_path / "fit.csv", batch=5)
    assert values(fit) == (5,)


def test_bad_fits_are_refused(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    def fit(target: Any = None, images: Any = noisy, **options: Any) -> None:
        fit_schedule(Sides(data, [3]), target or known, images, SIGMAS, tmp_path / "fit.csv", **options)

    known = pspc.Empirical(data)

    with pytest.raises(InvalidValueError, match="no noise level lies in 3 to 4"):
        fit(fit_range=(3.0, 4.0))
    with pytest.raises(ShapeError, match="2 levels for 6 sigmas"):
        fit(images=noisy[:2])
    with pytest.raises(ShapeError, match="the target returned shape"):
        fit(target=lambda z, sigma: z[:1])
    with pytest.raises(InvalidValueError, match="must be finite"):
        fit(target=lambda z, sigma: z * np.nan)
    with pytest.raises(InvalidValueError, match=r"sides are \[13\]"):
        Sides(data, [13])
    with pytest.raises(InvalidValueError, match="threshold is 0"):
        Thresholds(data, np.ones((1, 12, 12, 12, 12)), [1.0], [0.0])
    with pytest.raises(InvalidValueError, match="no thresholds"):
        Thresholds(data, np.ones((1, 12, 12, 12, 12)), [1.0], [])
    with pytest.raises(ShapeError, match="heat maps have shape"):
        Thresholds(data, np.ones((1, 12, 12, 12, 12)), [2.0, 1.0])


def test_a_patch_study_is_resumed_and_drawn(tmp_path: Path, data: pspc.ImageSet, noisy: list[Any]) -> None:
    optimal = pspc.Empirical(data)
    told: list[int] = []
    progress = lambda done, total: told.append(done)  # noqa: E731
    study = patch_study(data, optimal, noisy[1:3], SIGMAS[1:3], tmp_path / "study.csv", sides=[5, 3], progress=progress)
    assert study.sides == (3, 5)
    assert told == sorted(told)
    assert told[-1] == 2000
    assert (study.mse[0] > study.mse[1]).all()
    rows = (tmp_path / "study.csv").read_bytes()
    again = patch_study(data, optimal, noisy[1:3], SIGMAS[1:3], tmp_path / "study.csv", sides=[3, 5])
    assert np.array_equal(again.mse, study.mse)
    assert (tmp_path / "study.csv").read_bytes() == rows
    assert len(patch_study_figure(study, "optimal").axes[0].lines) == 2
