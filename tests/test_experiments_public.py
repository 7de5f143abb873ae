"""What holds for all experiments: what an import brings, what objects say they are, names of earlier versions."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from pspc_rs import experiments
from pspc_rs.experiments.patches import patch_errors
from pspc_rs.experiments.results import RunFolder
from pspc_rs.experiments.tuning import tune_cfdm, tune_snis
from pspc_rs.heatmaps import save_heatmaps
from pspc_rs.outputs import ResumableArray
from pspc_rs.provenance import Clock

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8))
Z = np.random.default_rng(1).standard_normal((2, 3, 1, 4, 4)).astype(np.float32)
NOISY = list(Z)
SIGMAS = (2.0, 0.5)


def zero(z: Any, sigma: Any) -> Any:
    return 0 * z


def test_importing_experiments_brings_neither_torch_nor_matplotlib() -> None:
    code = """
import sys
import pspc_rs.experiments, pspc_rs.heatmaps, pspc_rs.cli
print(sorted({"torch", "matplotlib", "jinja2", "PIL", "tqdm"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["page", "parts", "report", "explain"])
def test_the_templates_of_pages_are_package_data(name: str) -> None:
    from importlib.resources import files

    assert files("pspc_rs.experiments").joinpath("templates", f"{name}.html").is_file()


def test_objects_say_what_they_are(tmp_path: Path) -> None:
    fit = experiments.fit_schedule(experiments.Sides(DATA, [3, 4]), zero, NOISY, SIGMAS, tmp_path / "fit.csv")
    study = experiments.patch_study(DATA, zero, NOISY, SIGMAS, tmp_path / "study.csv", sides=[2, 3])
    sides = experiments.mass_sides(np.ones((2, 4, 4, 4, 4)), SIGMAS)
    samples = {"a": Z[0], "b": Z[1]}
    tuned = [
        tune_cfdm(DATA, zero, NOISY, SIGMAS, [0.1], num_noises=1),
        tune_snis(DATA, zero, NOISY, SIGMAS, [2], num_draws=3),
    ]
    ways = experiments.trajectories({"zero": zero}, Z[0], [2.0, 0.0])
    expected = {
        "Fit('fitted', 2 sides at 2 levels)": fit,
        "Sides(3, 4)": experiments.Sides(DATA, [3, 4]),
        "PatchStudy(sides 2, 3, 2 levels)": study,
        "MassSides(2 levels, shares (0.5, 0.75, 0.95), 4 x 4 pixels)": sides,
        "SimilarityMatrix(a, b)": experiments.similarity_matrix(samples, experiments.pixel_descriptor),
        "Trajectory(1 steps, 3 images)": ways["zero"],
        "Tuned(smoothing=0.1, num_noises=1)": tuned[0],
        "Tuned(num_neighbors=2, num_draws=3)": tuned[1],
        f"RunFolder({str(tmp_path)!r}, 0 rows)": RunFolder(tmp_path),
        f"ResumableArray({str(tmp_path / 'a.npy')!r}, in parts)": ResumableArray(tmp_path / "a.npy", {}),
    }
    assert [repr(one) for one in expected.values()] == list(expected)
    (patch,) = patch_errors(DATA, Z[0], 1.0, Z[0], [3])
    assert repr(patch).startswith("PatchErrors(side 3, 4 of 4 windows, mean ")
    errors = experiments.cfdm_mse(DATA, zero, NOISY, SIGMAS, smoothings=[0.1])
    assert repr(errors) == "CFDMErrors(smoothings (0.1,), num_noises (8,), 2 levels)"
    assert repr(Clock()).startswith("Clock(started 20")


CALLS: dict[str, tuple[str, Callable[..., object]]] = {
    "compare": (
        "report",
        lambda path, **told: experiments.compare(
            DATA, {"net": zero}, {"zero": zero}, path, sigmas=SIGMAS, n=2, processes=["forward"], **told
        ),
    ),
    "save_forward": ("tick", lambda path, **told: experiments.save_forward(path / "z.npy", DATA, SIGMAS, 2, **told)),
    "save_reverse": (
        "tick",
        lambda path, **told: experiments.save_reverse(path / "z.npy", zero, DATA.shape, SIGMAS, 2, **told),
    ),
    "patch_errors": ("tick", lambda path, **told: experiments.patch_errors(DATA, Z[0], 1.0, Z[0], [3], **told)),
    "patch_study": (
        "tick",
        lambda path, **told: experiments.patch_study(DATA, zero, NOISY, SIGMAS, path / "a.csv", sides=[3], **told),
    ),
    "fit_schedule": (
        "tick",
        lambda path, **told: experiments.fit_schedule(
            experiments.Sides(DATA, [3]), zero, NOISY, SIGMAS, path / "a.csv", **told
        ),
    ),
    "denoised_grid": ("tick", lambda path, **told: experiments.denoised_grid({"zero": zero}, Z, SIGMAS, **told)),
    "trajectories": (
        "tick",
        lambda path, **told: experiments.trajectories({"zero": zero}, Z[0], [2.0, 0.5, 0.0], **told),
    ),
    "cfdm_mse": (
        "count",
        lambda path, **told: experiments.cfdm_mse(
            DATA, zero, NOISY, SIGMAS, smoothings=[0.1], num_noises=[1], batch=2, **told
        ),
    ),
    "save_heatmaps": (
        "tick",
        lambda path, **told: save_heatmaps(pspc.Gaussian(DATA, cache=False), NOISY, SIGMAS, path / "maps.npy", **told),
    ),
}
LAST = {
    "compare": (8, 8, "forward, sigma 0.5, zero"),
    "save_forward": (2, 2),
    "save_reverse": (1, 1),
    "patch_errors": (1, 1),
    "patch_study": (2000, 2000, "sigma 0.5"),
    "fit_schedule": (2, 2, "side 3, sigma 0.5"),
    "denoised_grid": ("zero, sigma 0.5",),
    "trajectories": ("zero, sigma 0.5",),
    "cfdm_mse": (12,),
    "save_heatmaps": (8, 8, "heat maps"),
}


@pytest.mark.parametrize("name", CALLS)
def test_earlier_names_of_progress_work_and_say_what_to_write(tmp_path: Path, name: str) -> None:
    earlier, call = CALLS[name]
    told: list[tuple[Any, ...]] = []
    with pytest.warns(DeprecationWarning, match=f"{earlier}= is deprecated; write progress=") as caught:
        call(tmp_path / "earlier", **{earlier: lambda *arguments: told.append(arguments)})
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]
    assert told[-1] == LAST[name]
    progress: list[tuple[int, int]] = []
    call(tmp_path / "now", progress=lambda done, total: progress.append((done, total)))
    assert progress[-1][0] == progress[-1][1] > 0
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
