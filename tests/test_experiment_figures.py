"""The paper's figures: numbers against slow formulas, and figures that can be saved."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from pspc_rs.errors import DataError, InvalidValueError, MissingFileError, ShapeError
from pspc_rs.experiments.figures import save_figure
from pspc_rs.experiments.heatmap_mass import mass_figure, mass_sides, pixel_map_figure
from pspc_rs.experiments.image_grids import (
    denoised_figure,
    denoised_grid,
    sample_figure,
    trajectories,
    trajectory_figure,
)
from pspc_rs.experiments.similarity import (
    gradient_descriptor,
    pixel_descriptor,
    similarity_figure,
    similarity_matrix,
    sscd_descriptor,
)
from pspc_rs.outputs import save_table
from pspc_rs.progress import EarlierProgress


def normals(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0.05, 0.95), st.integers(0, 99))
def test_sides_are_the_smallest_that_hold_the_share(height: int, width: int, share: float, seed: int) -> None:
    maps = np.abs(normals(1, height, width, height, width, seed=seed))
    sides = mass_sides(maps, [1.0], [share]).sides[0, 0]
    for y in range(height):
        for x in range(width):
            heat = maps[0, y, x]

            def inside(r: int, heat: Any = heat, y: int = y, x: int = x) -> float:
                return float(heat[max(0, y - r) : y + r + 1, max(0, x - r) : x + r + 1].sum())

            radius = int(sides[y, x]) // 2
            assert inside(radius) >= share * heat.sum() * (1 - 1e-12)
            assert radius == 0 or inside(radius - 1) < share * heat.sum() * (1 + 1e-12)


def test_mass_of_a_point_is_at_its_pixel_and_of_a_plane_everywhere() -> None:
    point = np.zeros((2, 4, 4, 4, 4))
    for y in range(4):
        for x in range(4):
            point[0, y, x, y, x] = 1
    point[1] = 1
    sides = mass_sides(point, [2.0, 1.0], [0.5, 0.95])
    assert (sides.sides[0] == 1).all()
    assert sides.mean[1, 1] > sides.mean[1, 0] > 1
    assert list(sides.table()) == ["sigma", *(f"side_{s}_{n}" for s in ("0.5", "0.95") for n in ("mean", "p10", "p90"))]
    assert len(mass_figure(sides).axes) == 1
    assert len(pixel_map_figure(point, [2.0, 1.0], (0, 3)).axes) == 2


def test_bad_heat_maps_are_refused() -> None:
    maps = np.ones((1, 2, 3, 2, 3))
    with pytest.raises(ShapeError, match=r"needed is \[levels, H, W, H, W\]"):
        mass_sides(maps[0], [1.0])
    with pytest.raises(ShapeError, match="1 levels for 2 sigmas"):
        mass_sides(maps, [2.0, 1.0])
    with pytest.raises(InvalidValueError, match="positive sum"):
        mass_sides(-maps, [1.0])
    with pytest.raises(InvalidValueError, match="shares are"):
        mass_sides(maps, [1.0], [1.0])
    with pytest.raises(InvalidValueError, match=r"pixel is \(2, 0\)"):
        pixel_map_figure(maps, [1.0], (2, 0))
    with pytest.raises(InvalidValueError, match="levels are"):
        pixel_map_figure(maps, [1.0], levels=[1])


def test_grids_hold_what_the_denoisers_return() -> None:
    data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (30, 3, 6, 6), dtype=np.uint8))
    z = normals(2, 3, 3, 6, 6).astype(np.float32)
    D, G = pspc.PSPCSquare(data, patch_sizes=3), pspc.Gaussian(data, cache=False)
    told: list[str] = []
    outputs = denoised_grid({"PSPC": D, "Gaussian": G}, z, [2.0, 0.5], progress=EarlierProgress(told.append, ("what",)))
    assert np.array_equal(outputs["PSPC"][1], D(z[1], 0.5))
    assert np.array_equal(outputs["Gaussian"][0], G(z[0], 2.0))
    assert told == ["PSPC, sigma 2", "PSPC, sigma 0.5", "Gaussian, sigma 2", "Gaussian, sigma 0.5"]
    figure = denoised_figure(outputs, z, [2.0, 0.5], levels=[1], images=[0, 2])
    assert [axis.get_title() for axis in figure.axes[:3]] == ["z", "PSPC", "Gaussian"]
    assert len(figure.axes) == 6
    with pytest.raises(ShapeError, match=r"needed is \[3, N, C, H, W\]"):
        denoised_grid({"PSPC": D}, z, [3.0, 2.0, 1.0])
    with pytest.raises(InvalidValueError, match="no denoisers"):
        denoised_grid({}, z, [2.0, 0.5])
    with pytest.raises(InvalidValueError, match="images are"):
        denoised_figure(outputs, z, [2.0, 0.5], images=[3])


def test_trajectories_end_in_the_samples() -> None:
    data = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (30, 1, 6, 6), dtype=np.uint8))
    D = pspc.Empirical(data)
    start = pspc.samplers.initial_noise(2, data.shape, generator="numpy")
    sigmas = pspc.edm_sigmas(5)
    ways = trajectories({"one": D, "other": lambda z, sigma: z * 0}, start, sigmas, sampler="euler")
    assert np.array_equal(ways["one"].states[-1], pspc.sample(D, 2, "euler", 5, x_init=start))
    assert np.array_equal(ways["one"].denoised[0], D(start, 80.0))
    assert not ways["other"].states[-1].any()
    figure = trajectory_figure(ways, sigmas, images=[1], levels=[0, 4])
    assert len(figure.axes) == 2 * 3
    assert len(trajectory_figure(ways, sigmas, show="state").axes) == 4 * 6
    with pytest.raises(InvalidValueError, match="append 0"):
        trajectories({"one": D}, start, sigmas[:-1])
    with pytest.raises(InvalidValueError, match="sampler is 'magic'"):
        trajectories({"one": D}, start, sigmas, sampler="magic")


def test_similarity_is_the_mean_cosine_of_pairs() -> None:
    a, b = normals(4, 1, 5, 5), normals(4, 1, 5, 5, seed=1)
    matrix = similarity_matrix({"a": a, "b": b}, pixel_descriptor)
    cosines = [np.corrcoef(a[i].ravel(), b[j].ravel())[0, 1] for i in range(4) for j in range(4)]
    pairs = np.reshape(cosines, (4, 4))
    assert matrix.mean[0, 1] == pytest.approx(np.diag(pairs).mean())
    assert matrix.standard_error[0, 1] == pytest.approx(np.diag(pairs).std(ddof=1) / 2)
    assert matrix.unrelated[0, 1] == pytest.approx((pairs.sum() - np.trace(pairs)) / 12)
    assert np.allclose(matrix.mean, matrix.mean.T)
    assert np.diag(matrix.mean).tolist() == [1, 1]
    assert matrix.table()["first"] == ["a"]
    assert len(similarity_figure(matrix, "pixels").axes) == 2
    with pytest.raises(ShapeError, match="samples have shapes"):
        similarity_matrix({"a": a, "b": b[:3]}, pixel_descriptor)


def test_flat_images_have_no_direction() -> None:
    flat, other = np.full((2, 3, 4, 4), 0.5), normals(2, 3, 4, 4)
    for descriptor in (pixel_descriptor, gradient_descriptor):
        matrix = similarity_matrix({"flat": flat, "other": other}, descriptor)
        assert matrix.mean.tolist() == [[1, 0], [0, 1]]


def blobs(num: int, side: int = 24) -> Any:
    """Smooth random images."""
    from numpy.fft import fft2, fftfreq, ifft2

    soft = np.exp(-300 * (fftfreq(side)[:, None] ** 2 + fftfreq(side) ** 2))
    images = np.real(ifft2(fft2(normals(num, 1, side, side)) * soft))
    return images / np.abs(images).max()


def test_gradients_tell_images_apart_and_forgive_small_shifts_brightness_and_contrast() -> None:
    images = blobs(12)
    shifted, dimmed = np.roll(images, 1, axis=-1), 0.3 * images + 0.2
    matrix = similarity_matrix({"a": images, "shifted": shifted, "dimmed": dimmed}, gradient_descriptor)
    assert matrix.mean[0, 1] > 0.85
    assert matrix.mean[0, 2] > 0.999
    assert abs(matrix.unrelated[0, 1]) < 0.25
    mirrored = similarity_matrix({"a": images, "mirrored": images[..., ::-1]}, gradient_descriptor)
    assert mirrored.mean[0, 1] < 0.4
    with pytest.raises(InvalidValueError, match="cells is 30"):
        gradient_descriptor(images, cells=30)


def test_sscd_sees_images_as_it_was_trained_on(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Means(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, x):  # type: ignore[no-untyped-def]
            return torch.cat([x.mean((2, 3)), torch.full((x.shape[0], 1), float(x.shape[3]))], 1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(Means()), str(tmp_path / "means.pt"))
    describe = sscd_descriptor(tmp_path / "means.pt", batch=2, trust=True)
    images = np.stack([np.full((3, 8, 8), value) for value in (-1.0, 0.0, 3.0)])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = [[*((value - mean) / std), 288] for value in (0.0, 0.5, 1.0)]
    assert np.allclose(describe(images), expected, atol=1e-5)
    assert np.allclose(describe(images[:, :1]), expected, atol=1e-5)
    with pytest.raises(MissingFileError, match="no TorchScript file"):
        sscd_descriptor(tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a TorchScript module"):
        sscd_descriptor(tmp_path / "bad.pt", trust=True)


def test_figures_are_saved_with_their_numbers_and_the_same_bytes_again(tmp_path: Path) -> None:
    samples = {"a": normals(4, 3, 5, 5), "b": normals(4, 3, 5, 5)}
    contents = []
    for name in ("first", "second"):
        stem = tmp_path / name / "samples_0.3"
        files = save_figure(stem, sample_figure(samples), samples, {"name": list(samples), "n": [np.int64(4)] * 2})
        assert [path.suffix for path in files] == [".png", ".pdf", ".npz", ".csv"]
        contents.append([path.read_bytes() for path in files if path.suffix != ".npz"])
    assert contents[0] == contents[1]
    with np.load(tmp_path / "first" / "samples_0.3.npz") as stored:
        assert np.array_equal(stored["b"], samples["b"])
    assert (tmp_path / "first" / "samples_0.3.csv").read_text() == "name,n\na,4\nb,4\n"
    with pytest.raises(InvalidValueError, match="must be equal"):
        save_table(tmp_path / "bad.csv", {"a": [1], "b": []})
