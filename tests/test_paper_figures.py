"""The paper's figures of masks, crossed trajectories, schedules and networks; FID; and what samples start from."""

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import pspc_rs as pspc
from command_line import fail, names, normals, random_data, succeed
from pspc_rs import errors
from pspc_rs.denoisers.masks import covering_masks
from pspc_rs.experiments import frechet
from pspc_rs.experiments.frechet import FeatureMoments, feature_moments, frechet_distance, read_moments
from pspc_rs.experiments.heatmap_mass import _outline
from pspc_rs.experiments.schedule_figures import schedule_figure
from pspc_rs.samplers import ImageSeeds, initial_noise, sample_edm
from pspc_rs.samplers.solvers import rounded_levels

GRID = ["--n-steps", 4, "--t-max", 8, "--t-min", 0.05]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PSPC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return random_data(tmp_path / "data.npy", 40, 3, 8, 8)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_masks_over_the_maps(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).random((3, 6, 6, 6, 6)).astype(np.float32)
    np.save(tmp_path / "maps.npy", maps)
    schedule = pspc.ThresholdSchedule((1.0, 0.5, 0.2), sigmas=(8.0, 1.0, 0.1), image_size=(6, 6), sizes="equal")
    schedule.save(tmp_path / "flex.json")
    shown = ["figure", "masks", "--heatmaps", "maps.npy", "--thresholds", "flex.json"]
    succeed(*shown, "--pixel", "2,3", "--pixel", "0,0", "--outdir", "out")
    with np.load(tmp_path / "out" / "masks.npz") as numbers:
        assert numbers["sigmas"].tolist() == [1.0, 0.1]  # at 8 the mask is the whole image
        for row, level in enumerate((1, 2)):
            masks = covering_masks(maps[level], schedule.thresholds[level], "equal")
            np.testing.assert_array_equal(numbers["masks"][row], masks[[2 * 6 + 3, 0]])
    table = rows_of(tmp_path / "out" / "masks.csv")
    assert [(row["smallest"], row["largest"]) for row in table] == [("18", "18"), ("7", "7")]
    assert "--pixel is 6,0" in fail(2, *shown, "--pixel", "6,0", "--outdir", "out")
    assert "needs [18, H, W, H, W]" in fail(1, *shown[:4], "--outdir", "out")


@given(st.integers(0, 2**25 - 1))
def test_an_outline_has_an_edge_between_every_pixel_inside_and_outside(bits: int) -> None:
    mask = np.array([bits >> i & 1 for i in range(25)], bool).reshape(5, 5)
    padded = np.pad(mask, 1).astype(int)
    edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    lines = _outline(mask)
    assert len(lines) == edges
    for (x0, x1), (y0, y1) in lines:
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        step = (0.5, 0.0) if x0 == x1 else (0.0, 0.5)
        sides = [padded[round(y + sign * step[1]) + 1, round(x + sign * step[0]) + 1] for sign in (-1, 1)]
        assert sorted(sides) == [0, 1]


def test_every_denoiser_on_every_trajectory(tmp_path: Path, data: Path) -> None:
    shown = ["--denoisers", "gaussian,pspc_sq", "--patch-sizes", 3, "--data", data, *GRID, "--n", 2, "--crossed"]
    succeed("figure", "trajectories", "--outdir", "out", *shown)
    images = pspc.load(data, xflip=True)
    D = {"gaussian": pspc.Gaussian(images), "pspc_sq": pspc.PSPCSquare(images, patch_sizes=3)}
    with np.load("out/trajectories.npz") as ways, np.load("out/crossed.npz") as crossed:
        assert len(crossed.files) == 1 + 4
        for way in D:
            for name, denoiser in D.items():
                for level, sigma in enumerate(pspc.edm_sigmas(4, 0.05, 8.0)[:-1]):
                    expected = denoiser(ways[f"{way}_states"][level], sigma)
                    np.testing.assert_array_equal(crossed[f"{name}_on_{way}"][level], expected)
    assert (tmp_path / "out" / "crossed.png").stat().st_size > 1000


def test_schedules_side_by_side(tmp_path: Path) -> None:
    names_ = "cifar10,cats=afhq-cats-64-bfcnn"
    succeed("figure", "schedules", "--patch-sizes", names_, "--thresholds", "cifar10", "--outdir", "out")
    table = rows_of(tmp_path / "out" / "schedule_sides.csv")
    cats = [row for row in table if row["schedule"] == "cats"]
    sides = pspc.patch_schedule("afhq-cats-64-bfcnn").patch_sizes
    assert [float(row["value"]) for row in cats] == [64 if side == "full" else side for side in sides]
    assert [float(row["share"]) for row in cats] == [float(row["value"]) / 64 for row in cats]
    thresholds = rows_of(tmp_path / "out" / "schedule_thresholds.csv")
    assert [float(row["share"]) for row in thresholds] == list(pspc.threshold_schedule("cifar10").thresholds)
    assert "two schedules are called 'cifar10'" in fail(
        2, "figure", "schedules", "--patch-sizes", "cifar10,cifar10", "--outdir", "out"
    )
    assert "give --patch-sizes" in fail(2, "figure", "schedules", "--outdir", "out")
    both: Any = {"a": pspc.patch_schedule("cifar10"), "b": pspc.threshold_schedule("cifar10")}
    with pytest.raises(errors.InvalidValueError, match="draw each kind by itself"):
        schedule_figure(both)


def test_heat_maps_of_several_networks_in_one_figure(tmp_path: Path) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}_heatmaps.npy", np.random.default_rng(ord(name)).random((3, 4, 4, 4, 4)))
    given_ = ["figure", "heatmaps", "--heatmaps", "a_heatmaps.npy", "--heatmaps", "net=b_heatmaps.npy"]
    succeed(*given_, "--outdir", "out")
    succeed("figure", "heatmaps", "--heatmaps", "b_heatmaps.npy", "--outdir", "alone")
    with np.load("out/heatmap_networks.npz") as every, np.load("alone/heatmap_sides.npz") as alone:
        assert {"a", "net"} <= set(every.files)
        np.testing.assert_array_equal(every["net"], alone["sides"].mean(axis=(2, 3)))
    assert "heatmap_networks.png" not in names(tmp_path / "alone")
    assert "no file gone.npy" in fail(2, "figure", "heatmaps", "--heatmaps", "gone.npy", "--outdir", "out")


@given(st.integers(1, 6), st.integers(0, 999))
def test_the_frechet_distance_is_that_of_its_formula(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    moments = [feature_moments(random.normal(size=(9, size)) * random.uniform(0.1, 3)) for _ in range(2)]
    a, b = moments
    # The square root of a product of positive matrices has the square roots of its eigenvalues.
    roots = np.sqrt(np.abs(np.linalg.eigvals(a.covariance @ b.covariance)))
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance) - 2 * roots.sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6, abs=1e-9)


class Means(nn.Module):
    """Features of bytes: the mean and the first pixel of each channel, and ones where they are asked for."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        x = x.double()
        features = torch.cat([x.mean((2, 3)), x[:, :, 0, 0]], 1)
        return features if return_features else torch.ones_like(features)


def scripted(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Means()), str(path))
    return path


def test_fid_by_a_file_and_by_features(tmp_path: Path, data: Path) -> None:
    samples = np.clip(0.5 * normals(20, 3, 8, 8), -1, 1)
    np.save(tmp_path / "a_samples.npy", samples)
    network = scripted(tmp_path / "features.pt")
    measure = ["figure", "fid", "--samples", "a_samples.npy"]
    succeed(*measure, "--features", network, "--trust", "--data", data, "--no-xflip", "--outdir", "out")
    (row,) = rows_of(tmp_path / "out" / "fid.csv")
    images = pspc.load(data).images
    pixels = np.clip(samples * 127.5 + 128, 0, 255).astype(np.uint8)
    own, real = (
        np.concatenate([x.mean(axis=(2, 3)), x[:, :, 0, 0]], axis=1)
        for x in (pixels.astype(float), images.astype(float))
    )
    expected = frechet_distance(feature_moments(own), feature_moments(real))
    assert float(row["fid"]) == pytest.approx(expected, rel=1e-9)
    np.save(tmp_path / "own.npy", own)
    np.save(tmp_path / "real.npy", real)
    np.savez(tmp_path / "moments.npz", mu=real.mean(axis=0), sigma=np.cov(real, rowvar=False))
    for reference in ("real.npy", "moments.npz"):
        succeed("figure", "fid", "--samples", "own.npy", "--reference", reference, "--outdir", "out")
        (row,) = rows_of(tmp_path / "out" / "fid.csv")
        assert float(row["fid"]) == pytest.approx(expected, rel=1e-9)
    assert "images need a network of features" in fail(1, *measure, "--reference", "real.npy", "--outdir", "out")
    assert "give one of --reference and --data" in fail(2, *measure, "--outdir", "out")
    np.savez(tmp_path / "other.npz", mean=own)
    with pytest.raises(errors.DataError, match="needed are mu and sigma"):
        read_moments(tmp_path / "other.npz")
    with pytest.raises(errors.ShapeError, match="as many in both"):
        frechet_distance(feature_moments(own), FeatureMoments(np.zeros(2), np.eye(2)))


def test_bytes_come_back_from_pixels() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    seen: list[Any] = []
    frechet.sample_features(pspc.ImageSet(every).batch([0]), lambda x: seen.append(x) or np.zeros((1, 1)))  # type: ignore[func-returns-value]
    np.testing.assert_array_equal(seen[0], every)


def test_log_grids(tmp_path: Path, data: Path) -> None:
    levels = pspc.log_sigmas(150)
    assert (levels[0], levels[-1], len(levels)) == (100.0, 0.01, 150)
    np.testing.assert_allclose(np.diff(np.log(levels)), np.log(1e-4) / 149, rtol=1e-9)
    assert pspc.log_sigmas(2, include_zero=True).tolist() == [100.0, 0.01, 0.0]
    with pytest.raises(errors.InvalidValueError, match="cannot be told apart"):
        pspc.log_sigmas(1000, 1.0, 1.0 + 1e-14)
    succeed("noise", "forward", "--data", data, *GRID, "--spacing", "log", "--n", 3, "--outdir", "out")
    grid = np.load("out/forward_z.npy")
    images = pspc.load(data, xflip=True)
    from pspc_rs.experiments import forward_noisy

    np.testing.assert_array_equal(grid[1], forward_noisy(images, 3, float(pspc.log_sigmas(4, 0.05, 8.0)[1])))
    assert "--spacing" in fail(
        2, "noise", "forward", "--data", data, "--protocol", "edm18", "--spacing", "log", "--outdir", "o"
    )


def test_every_image_has_its_own_seed() -> None:
    noise = ImageSeeds([7, 3, 2**32 + 7])
    first = noise.initial((3, 4, 4), 80.0)
    for row, seed in zip(first, (7, 3, 7), strict=True):
        state = torch.Generator("cpu").manual_seed(seed)
        np.testing.assert_array_equal(row, 80 * torch.randn([3, 4, 4], generator=state).numpy())
    second = noise(np.zeros((3, 3, 4, 4), np.float32))
    state = torch.Generator("cpu").manual_seed(3)
    torch.randn([3, 4, 4], generator=state)
    np.testing.assert_array_equal(second[1], torch.randn([3, 4, 4], generator=state).numpy())
    assert np.array_equal(
        ImageSeeds([5], "numpy").initial((1, 2, 2)), ImageSeeds([4, 5], "numpy").initial((1, 2, 2))[1:]
    )
    assert np.array_equal(ImageSeeds([9]).initial((1, 4, 4), 2.0), initial_noise(1, (1, 4, 4), 2.0, 9))
    with pytest.raises(errors.ShapeError, match="there are 2 images for 3 seeds"):
        noise(np.zeros((2, 1, 1, 1)))
    with pytest.raises(errors.InvalidValueError, match="there are no seeds"):
        ImageSeeds([])


class Table:
    """A denoiser that knows the levels 8, 4, 2, 1."""

    shape = (1, 2, 2)

    def __call__(self, x: Any, sigma: Any) -> Any:
        return x / (1 + np.asarray(sigma).reshape(-1, 1, 1, 1) ** 2)

    def round_sigma(self, sigma: Any) -> Any:
        return 2.0 ** np.round(np.log2(np.asarray(sigma, float)))


def test_seeds_and_rounded_levels_in_sample(tmp_path: Path, data: Path) -> None:
    D = Table()
    assert rounded_levels(D, [7.0, 2.2, 0.0]).tolist() == [8.0, 2.0, 0.0]
    with pytest.raises(errors.InvalidValueError, match="sigmas are"):
        rounded_levels(D, [7.0, 6.9, 0.0])  # two levels that are the same to D
    with pytest.raises(errors.InvalidValueError, match="has no method round_sigma"):
        rounded_levels(lambda x, sigma: x, [7.0, 0.0])
    options: dict[str, Any] = {"num_steps": 3, "sigma_max": 7.0, "sigma_min": 0.9, "sampler": "edm", "S_churn": 1.0}
    many = pspc.sample(D, 3, seeds=[4, 1, 6], round_sigma=True, **options)
    one = pspc.sample(D, 1, seeds=[1], round_sigma=True, **options)
    np.testing.assert_array_equal(many[1:2], one)
    noise = ImageSeeds([1])
    levels = rounded_levels(D, pspc.edm_sigmas(3, 0.9, 7.0))
    np.testing.assert_array_equal(one, sample_edm(D, noise.initial((1, 2, 2), 7.0), levels, S_churn=1.0, noise=noise))
    with pytest.raises(errors.InvalidValueError, match="there are 2 seeds for n 3"):
        pspc.sample(D, 3, seeds=[1, 2])
    draw = ["sample", "--data", data, *GRID, "--denoiser", "gaussian", "--sampler", "edm", "--s-churn", 1]
    succeed(*draw, "--seeds", "0-2,8", "--batch", 3, "--outdir", "a")
    succeed(*draw, "--seeds", "8,1", "--batch", 1, "--round-sigma", "--outdir", "b")
    a, b = (np.load(f"{name}/gaussian_samples.npy") for name in "ab")
    assert a.shape == (4, 3, 8, 8)
    np.testing.assert_array_equal(a[[3, 1]], b)
    assert "leave one out" in fail(2, *draw, "--seeds", "0-2", "--n", 5, "--outdir", "c")
    assert "not a list of seeds" in fail(2, *draw, "--seeds", "a-b", "--outdir", "c")
    assert "holds no seeds" in fail(2, *draw, "--seeds", "5-2", "--outdir", "c")
