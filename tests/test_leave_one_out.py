"""Leaving one out: z made of an image is denoised as if that image were not in the data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from command_line import fail, random_data, succeed
from pspc_rs.errors import InvalidValueError
from pspc_rs.experiments import Sides, Thresholds, cfdm_mse, compare, fit_schedule, forward_noisy
from pspc_rs.experiments.leaving_out import Sources
from pspc_rs.experiments.noisy_sets import NoisyLevels, drawn_images, drawn_indices, forward_levels
from pspc_rs.experiments.tuning import tune_snis

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (12, 1, 6, 6), dtype=np.uint8), xflip=True)
SIGMAS = [1.0, 0.3]
N = 5
MASKS = np.stack([np.tri(6, dtype=bool), np.tri(6, dtype=bool).T])
SOURCES = Sources(DATA.fingerprint, drawn_indices(DATA, N))


def zero(z: Any, sigma: Any) -> Any:
    return 0 * z


def without(index: int) -> pspc.ImageSet:
    """The data without an image and its flip."""
    return DATA.subset(np.delete(np.arange(DATA.num_stored), index % DATA.num_stored))


def expected(make: Any, z: Any, sigma: float) -> Any:
    """What denoisers of data sets without the image behind each z make of it."""
    return np.concatenate(
        [make(without(index))(z[one : one + 1], sigma) for one, index in enumerate(SOURCES.indices.tolist())]
    )


def error(first: Any, second: Any) -> float:
    return float(np.square(np.asarray(first, float) - second).mean())


KINDS: dict[str, Any] = {
    "empirical": pspc.Empirical,
    "pspc_sq": lambda data: pspc.PSPCSquare(data, patch_sizes=3),
    "pspc_flex": lambda data: pspc.PSPCFlex(data, masks=MASKS),
    "cfdm": lambda data: pspc.CFDM(data, 0.2, 2),
}


def test_the_drawn_images_are_those_behind_z() -> None:
    z = forward_noisy(DATA, N, 1e-6)
    assert np.abs(z - DATA.batch(SOURCES.indices)).max() < 1e-4
    assert np.array_equal(drawn_images(DATA, N), DATA.batch(SOURCES.indices))
    assert (SOURCES.indices >= DATA.num_stored).any(), "a flip is among them"


def test_rows_are_those_of_data_sets_without_the_image(tmp_path: Path) -> None:
    models = {name: make(DATA) for name, make in KINDS.items()}
    options: dict[str, Any] = {"sigmas": SIGMAS, "n": N, "batch": 3, "processes": ["forward"]}
    rows = compare(
        DATA, {"zero": zero, "optimal": models["empirical"]}, models, tmp_path, leave_one_out=True, **options
    )
    assert len(rows) == 2 * 2 * len(KINDS)
    for row in rows:
        sigma = float(row["sigma"])
        z = forward_noisy(DATA, N, sigma)
        ours = expected(KINDS[str(row["denoiser"])], z, sigma)
        target = 0 * z if row["target"] == "zero" else expected(pspc.Empirical, z, sigma)
        assert row["mse"] == pytest.approx(error(ours, target), rel=1e-4, abs=1e-12)
    plain = compare(DATA, {"zero": zero}, models, tmp_path, **options)
    assert not {row["settings"] for row in plain} & {row["settings"] for row in rows}
    least = {(row["denoiser"], row["level"]): float(row["mse"]) for row in plain}
    left = {(row["denoiser"], row["level"]): float(row["mse"]) for row in rows if row["target"] == "zero"}
    assert all(abs(left[key] / least[key] - 1) > 1e-3 for key in least if key[1] == 1)
    assert compare(DATA, {"zero": zero}, models, tmp_path, leave_one_out=False, **options) == plain


def test_who_cannot_leave_an_image_out_is_named(tmp_path: Path) -> None:
    gaussian, empirical = pspc.Gaussian(DATA, cache=False), pspc.Empirical(DATA)
    options: dict[str, Any] = {"sigmas": SIGMAS, "n": N, "processes": ["forward"], "leave_one_out": True}
    with pytest.raises(
        InvalidValueError, match=r"wiener \(Gaussian\) cannot leave an image out; allowed are Empirical"
    ):
        compare(DATA, {"zero": zero}, {"wiener": gaussian}, tmp_path, **options)
    with pytest.raises(InvalidValueError, match=r"target \(Gaussian\) cannot"):
        compare(DATA, {"target": gaussian}, {"empirical": empirical}, tmp_path, **options)
    with pytest.raises(InvalidValueError, match=r"net \(Empirical in a Network\) cannot"):
        compare(DATA, {"net": pspc.Network(empirical)}, {"empirical": empirical}, tmp_path, **options)
    other = pspc.Empirical(DATA.select(xflip=False))
    with pytest.raises(InvalidValueError, match=r"images of other, ImageSet.*are not those that z are made of"):
        compare(DATA, {"zero": zero}, {"other": other}, tmp_path, **options)
    for processes in (["reverse"], ["forward", "reverse"]):
        with pytest.raises(InvalidValueError, match=r"processes are .*reverse; allowed is forward alone"):
            compare(DATA, {"zero": zero}, {"empirical": empirical}, tmp_path, **{**options, "processes": processes})
    assert list(tmp_path.iterdir()) == []
    assert len(compare(DATA, {"zero": zero}, {"network": pspc.Network(zero)}, tmp_path, **options)) == 2


@pytest.mark.parametrize("kind", ["side", "threshold"])
def test_a_schedule_is_fitted_to_data_without_the_image(tmp_path: Path, kind: str) -> None:
    maps = np.random.default_rng(1).random((2, 6, 6, 6, 6))
    family = Sides(DATA, [2, 4]) if kind == "side" else Thresholds(DATA, maps, SIGMAS, [0.3, 0.8])
    noisy = forward_levels(DATA, SIGMAS, N)
    clean = [DATA.batch(SOURCES.indices)] * 2
    fit = fit_schedule(family, clean, noisy, SIGMAS, tmp_path / "fit.csv", leave_one_out=True)
    for level, sigma in enumerate(SIGMAS):
        for column, value in enumerate(family.values):

            def make(data: pspc.ImageSet, value: float = value) -> pspc.Denoiser:
                if kind == "side":
                    return pspc.PSPCSquare(data, patch_sizes=int(value))
                return pspc.PSPCFlex(data, heatmaps=maps, thresholds=[value] * 2, sigmas=SIGMAS)

            ours = expected(make, noisy[level], sigma)
            assert fit.mse[level, column] == pytest.approx(error(ours, clean[level]), rel=1e-4)
    plain = fit_schedule(family, clean, noisy, SIGMAS, tmp_path / "fit.csv")
    assert np.all(plain.mse < fit.mse)
    assert len((tmp_path / "fit.csv").read_text().splitlines()) == 1 + 2 * 4
    assert "leave_one_out" not in str(plain.schedule.provenance)
    assert "'leave_one_out': True" in str(fit.schedule.provenance)


def test_the_image_behind_z_must_be_known_to_a_fit(tmp_path: Path) -> None:
    noisy, table = forward_levels(DATA, SIGMAS, N), tmp_path / "fit.csv"
    with pytest.raises(InvalidValueError, match="not known which images of the data z are made of"):
        fit_schedule(Sides(DATA), zero, [noisy[0], noisy[1]], SIGMAS, table, leave_one_out=True)
    unknown = NoisyLevels(2, lambda level: noisy[level], noisy.settings)
    with pytest.raises(InvalidValueError, match="not known"):
        fit_schedule(Sides(DATA), zero, unknown, SIGMAS, table, leave_one_out=True)
    with pytest.raises(InvalidValueError, match="z are not made of the images of Sides"):
        fit_schedule(Sides(without(0)), zero, noisy, SIGMAS, table, leave_one_out=True)
    with pytest.raises(InvalidValueError, match=r"the target \(Gaussian\) cannot"):
        fit_schedule(Sides(DATA), pspc.Gaussian(DATA, cache=False), noisy, SIGMAS, table, leave_one_out=True)
    assert not table.exists()


def test_baselines_are_tuned_without_the_image() -> None:
    z = [forward_noisy(DATA, N, sigma) for sigma in SIGMAS]
    errors = cfdm_mse(DATA, zero, z, SIGMAS, smoothings=[0.2], num_noises=[2], sources=SOURCES)
    for level, sigma in enumerate(SIGMAS):
        ours = expected(KINDS["cfdm"], z[level], sigma)
        assert errors.mse[0, 0, level] == pytest.approx(error(ours, 0), rel=1e-4)
    tuned = tune_snis(DATA, zero, z, SIGMAS, [4], num_draws=8, sources=SOURCES)
    D = pspc.SNIS(DATA, 4, 8, 0)
    ours = np.asarray(D(z[0], SIGMAS[0], exclude=SOURCES.indices), float)
    assert tuned.columns["mse"][0] == pytest.approx(np.square(ours).mean(), rel=1e-5)
    with pytest.raises(InvalidValueError, match="images of the baseline"):
        tune_snis(without(1), zero, z, SIGMAS, [4], sources=SOURCES)


def test_the_commands_leave_one_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing.py").write_text("def net(z, sigma):\n    return 0 * z\n")
    data = random_data(tmp_path / "data.npy", 20, 1, 6, 6)
    grid = ["--data", data, "--n-steps", 3, "--t-max", 2, "--t-min", 0.1, "--n", 4, "--outdir", tmp_path / "out"]
    run = ["compare", *grid, "--target", "nothing:net", "--denoisers", "empirical"]
    succeed(*run, "--process", "forward")
    succeed(*run, "--process", "forward", "--leave-one-out")
    assert len((tmp_path / "out" / "mse.csv").read_text().splitlines()) == 1 + 6
    assert "allowed is forward alone" in fail(1, *run, "--leave-one-out")
    gaussian = ["--process", "forward", "--leave-one-out", "--denoisers", "gaussian"]
    assert "gaussian (Gaussian) cannot leave an image out" in fail(1, *run[:-2], *gaussian)
    snis = ["--fit", "snis", "--candidates", "2"]
    fit = ["fit-schedule", *grid, "--candidates", "2,4", "--leave-one-out"]
    succeed(*fit, "--target", "clean", "--name", "left")
    provenance: Any = pspc.PatchSchedule.load(tmp_path / "out" / "left.json").provenance
    assert provenance["fitted"]["leave_one_out"] is True
    succeed(
        *fit[:-4], "--leave-one-out", "--target", "nothing:net", "--fit", "snis", "--candidates", "2", "--name", "b"
    )
    held = random_data(tmp_path / "held.npy", 9, 1, 6, 6)
    assert "not made of the images" in fail(1, *fit, "--target", "nothing:net", "--noise-data", held)
    reverse = ["--target", "nothing:net", "--process", "reverse"]
    assert "not known which images" in fail(1, *fit, *reverse)
    assert "needs --process forward" in fail(2, *fit, *reverse, *snis)
