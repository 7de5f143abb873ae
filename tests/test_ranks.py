"""Denoisers across ranks against those of one process: every rank gets the same bits, and what one process gets.

The tolerance is 2e-6 of the reach of the data, 2: either side is exact to 1e-6 of it.
"""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import pspc_rs as pspc
import rank_threads
from fault_runs import LONG
from posterior_problems import Problem, problems
from pspc_rs.denoisers import PosteriorComposite
from pspc_rs.errors import DTypeError, InvalidValueError
from rank_threads import FAMILY, on_ranks

Array = npt.NDArray[Any]

HERE = Path(__file__).parent
TOLERANCE = 4e-6


def close(found: Array, expected: Array, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def same_on_all(found: list[Any]) -> Array:
    """What every rank got."""
    for one in found:
        if isinstance(one, Exception):
            raise one
        np.testing.assert_array_equal(one, found[0])
    return np.asarray(found[0])


@settings(settings.get_profile("few"))
@given(problem=problems(), count=st.integers(2, 5), data=st.data())
def test_windows_across_ranks_are_as_on_one(problem: Problem, count: int, data: st.DataObject) -> None:
    batch, num = len(problem.z), problem.data.num_stored
    count = min(count, num)
    D = problem.denoiser(device="cpu")
    options: dict[str, Any] = {}
    if data.draw(st.booleans()):
        options["class_labels"] = np.arange(batch) % 2
    if num > 3 and data.draw(st.booleans()):
        options["exclude"] = data.draw(st.lists(st.integers(-1, num - 1), min_size=batch, max_size=batch))
    found = same_on_all(on_ranks(D, count, lambda own, _: own(problem.z, problem.sigma, **options)))
    close(found, D(problem.z, problem.sigma, **options))


@settings(settings.get_profile("few"))
@given(problem=problems(kinds=("empirical",)), member=st.sampled_from(sorted(FAMILY)), count=st.integers(2, 3))
def test_the_family_across_ranks_is_as_on_one(problem: Problem, member: str, count: int) -> None:
    count = min(count, problem.data.num_stored)
    D = FAMILY[member](problem.data) if min(problem.data.shape[1:]) > 2 else pspc.ELS(problem.data, window_sizes=1)
    found = same_on_all(on_ranks(D, count, lambda own, _: own(problem.z, problem.sigma)))
    close(found, D(problem.z, problem.sigma))


@settings(settings.get_profile("few"))
@given(problem=problems(), count=st.integers(2, 4))
def test_posteriors_across_ranks_are_as_on_one(problem: Problem, count: int) -> None:
    D = problem.denoiser(device="cpu")
    count = min(count, problem.data.num_stored)
    expected = D.posterior(problem.z, problem.sigma, top=4)

    def ask(own: PosteriorComposite, _: int) -> dict[str, Array]:
        P = own.posterior(problem.z, problem.sigma, top=4)
        asked = {name: getattr(P, name) for name in ("log_evidence", "entropy", "top_weight", "top_index")}
        # Not P.denoised: up to Python 3.11, cached properties of different objects share a lock, and ranks are threads.
        denoised = np.empty(problem.z.shape)
        for part in P._parts:
            denoised[part.queries] = part.found.composite()
        return {**asked, "denoised": denoised, "attribution": P.attribution()}

    results = on_ranks(D, count, ask)
    found = {name: same_on_all([result[name] for result in results]) for name in results[0]}
    close(found["denoised"], expected.denoised)
    close(found["entropy"], expected.entropy, 2e-5 * (1 + np.abs(expected.entropy).max()))
    close(found["top_weight"], expected.top_weight, 1e-5)
    close(found["attribution"], expected.attribution(), 1e-5 * found["entropy"].shape[1])
    np.testing.assert_allclose(found["log_evidence"], expected.log_evidence, rtol=1e-5, atol=1e-6)
    # Where neighbouring weights are apart, the images are the same.
    weights = np.concatenate([expected.top_weight, np.zeros((*expected.top_weight.shape[:-1], 1))], axis=-1)
    apart = (weights[..., :-1] - weights[..., 1:] > 1e-4) & (np.minimum.accumulate(weights[..., :-1], axis=-1) > 1e-4)
    clear = np.logical_and.accumulate(apart, axis=-1)
    np.testing.assert_array_equal(found["top_index"][clear], expected.top_index[clear])


def images(num: int = 7) -> pspc.ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (num, 1, 4, 4), dtype=np.uint8)
    return pspc.ImageSet(pixels, [0] * 3 + [1] * (num - 3))


def test_a_class_of_one_rank_is_denoised_by_all() -> None:
    D, z = pspc.PSPCSquare(images(), patch_sizes=2), np.zeros((2, 1, 4, 4))
    # The first three images have class 0: those of the first of three ranks, and of the second.
    found = same_on_all(on_ranks(D, 7, lambda own, _: own(z, [0.1, 3.0], class_labels=[0, 0])))
    close(found, D(z, [0.1, 3.0], class_labels=[0, 0]))


def test_different_calls_are_refused_on_all_ranks() -> None:
    D = pspc.PSPCSquare(images(), patch_sizes=2)
    found = on_ranks(D, 3, lambda own, rank: own(np.full((1, 1, 4, 4), 0.1 * (rank == 1)), 0.5))
    assert all(isinstance(error, InvalidValueError) and "same calls" in str(error) for error in found)


def test_a_rank_that_fails_ends_the_call_of_all() -> None:
    D = pspc.Empirical(images())

    def stop(done: int, total: int) -> None:
        raise RuntimeError("stopped")

    found = on_ranks(D, 3, lambda own, rank: own(np.zeros((1, 1, 4, 4)), 0.5, progress=stop if rank == 2 else None))
    assert isinstance(found[2], RuntimeError) and "stopped" in str(found[2])
    assert all(isinstance(error, pspc.PspcError) and "failed" in str(error) for error in found[:2])


def test_a_rank_that_cannot_build_its_windows_ends_the_call_of_all() -> None:
    D, z = pspc.PSPCSquare(images(), patch_sizes=2), np.zeros((1, 1, 4, 4))

    def call(own: PosteriorComposite, rank: int) -> Array:
        if rank == 1:
            own._windows = {}
            own._build_windows = None  # type: ignore[assignment,method-assign]
        return np.asarray(own(z, 0.5))

    found = on_ranks(D, 3, call)
    assert isinstance(found[1], TypeError)
    assert all(isinstance(found[rank], pspc.PspcError) and "rank 1 of 3 failed" in str(found[rank]) for rank in (0, 2))


def test_log_prob_and_copies_across_ranks() -> None:
    D, z = pspc.Empirical(images()), np.zeros((1, 1, 4, 4))
    found = same_on_all(
        on_ranks(D, 2, lambda own, _: cast(pspc.Empirical, copy.deepcopy(copy.copy(own))).log_prob(z, 0.7))
    )
    np.testing.assert_allclose(found, D.log_prob(z, 0.7), rtol=1e-6)
    refused = on_ranks(D, 2, lambda own, _: pickle.dumps(own))
    assert all(isinstance(error, DTypeError) for error in refused)
    assert on_ranks(D, 2, lambda own, _: repr(own))[0].endswith("ranks=2)")


def test_groups_are_checked() -> None:
    with pytest.raises(InvalidValueError, match="no group of processes"):
        pspc.Empirical(images()).across()


def start_ranks(folder: Path, count: int, *further: str) -> list[int]:
    """Runs ranks as processes; their exit codes."""
    environment = {**os.environ, "PSPC_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "rank_process.py")]
    paths = [str(folder / "store"), str(folder / "out"), *further]
    running = [
        subprocess.Popen([*command, str(rank), str(count), *paths], env=environment, cwd=HERE) for rank in range(count)
    ]
    return [process.wait(120) for process in running]


@pytest.mark.parametrize("count", [2, 3, 4] if LONG else [2])
def test_processes_get_what_one_gets(tmp_path: Path, count: int) -> None:
    assert start_ranks(tmp_path, count) == [0] * count
    found = [dict(np.load(tmp_path / f"out.{rank}.npz")) for rank in range(count)]
    data, z = rank_threads.problem()
    square = pspc.PSPCSquare(data, patch_sizes=3)
    expected = {
        **{name: member(data)(z, rank_threads.SIGMAS) for name, member in FAMILY.items()},
        "square": square(z, rank_threads.SIGMAS),
        "samples": pspc.samplers.sample_heun(square, 8 * z, [8.0, 1.0, 0.2, 0.0]),
    }
    derivatives = {
        f"{name} of {about}": values
        for about, D in {"square": square, "soft": FAMILY["soft"](data)}.items()
        for name, values in rank_threads.derivatives_of(D, z).items()
    }
    for name, values in derivatives.items():
        np.testing.assert_array_equal(found[0][name], found[-1][name])
        close(found[0][name], values, 2e-5 * np.abs(values).max())
    for name, values in expected.items():
        for other in found[1:]:
            np.testing.assert_array_equal(found[0][name], other[name])
        close(found[0][name], values, 1e-4 if name == "samples" else TOLERANCE)


def test_a_rank_that_ends_is_reported_by_the_others(tmp_path: Path) -> None:
    assert start_ranks(tmp_path, 2, "1") == [0, 1]
    assert "has ended" in (tmp_path / "out.0").read_text()
