"""Noisy sets: what is drawn, trajectories, the same bytes for the same seed, runs that are stopped and resumed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pspc_rs as pspc
import reference
from command_line import fail, names, random_data, succeed
from pspc_rs import errors
from pspc_rs.experiments.noisy_sets import forward_noisy, reverse_noisy, save_forward, save_reverse

SIGMAS = pspc.edm_sigmas(5, include_zero=False)


@pytest.fixture
def data() -> pspc.ImageSet:
    return pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (30, 1, 4, 6), dtype=np.uint8), xflip=True)


def shrink(z: Any, sigma: Any) -> Any:
    """Of normal data with variance 1."""
    return z / (1 + np.asarray(sigma).reshape(-1, 1, 1, 1) ** 2)


def test_forward_z_are_drawn_as_documented(data: pspc.ImageSet) -> None:
    z = forward_noisy(data, 7, 0.5, seed=3)
    random = np.random.RandomState(3)
    x = data.batch([random.randint(len(data)) for _ in range(7)])
    noise = torch.randn((7, 1, 4, 6), generator=torch.Generator().manual_seed(3)).numpy()
    assert z.dtype == np.float32
    assert np.array_equal(z, x + np.float32(0.5) * noise)


def test_rows_of_a_forward_set_are_what_is_drawn_at_their_level(tmp_path: Path, data: pspc.ImageSet) -> None:
    assert save_forward(tmp_path / "z.npy", data, SIGMAS, 7, seed=3)
    z = np.load(tmp_path / "z.npy")
    assert z.dtype == np.float32
    assert np.array_equal(z, np.stack([forward_noisy(data, 7, sigma, seed=3) for sigma in SIGMAS]))
    record = json.loads((tmp_path / "z.json").read_text())
    assert record["settings"]["sigmas"] == SIGMAS.tolist()
    assert record["settings"]["seed"] == 3
    assert record["data"]["fingerprint"] == data.fingerprint


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path, data: pspc.ImageSet) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        save_forward(tmp_path / f"f{name}.npy", data, SIGMAS, 6, seed=seed)
        save_reverse(tmp_path / f"r{name}.npy", pspc.Empirical(data), data.shape, SIGMAS, 6, seed=seed, batch=4)
    for process in "fr":
        a, b, c = ((tmp_path / f"{process}{name}.npy").read_bytes() for name in "abc")
        assert a == b != c


@pytest.mark.parametrize(("sampler", "oracle"), [("heun", reference.heun), ("euler", reference.euler)])
def test_reverse_z_lie_on_the_trajectory(sampler: str, oracle: Any) -> None:
    z = np.random.default_rng(0).standard_normal((3, 1, 2, 2)).astype(np.float32) * 80
    found = reverse_noisy(shrink, z, SIGMAS, sampler)
    assert found.shape == (5, 3, 1, 2, 2) and found.dtype == np.float32
    for level in range(5):
        exact = oracle(lambda z, s: z / (1 + s**2), z, SIGMAS[: level + 1])
        np.testing.assert_allclose(found[level], exact, rtol=1e-5)


def test_the_trajectory_is_that_of_sampling_whether_or_not_the_grid_ends_in_zero() -> None:
    z = np.full((1, 1, 2, 2), 80.0, np.float32)
    with_zero = pspc.samplers.sample_heun(shrink, z, [*SIGMAS, 0.0], trajectory=True)
    assert np.array_equal(reverse_noisy(shrink, z, [*SIGMAS, 0.0]), with_zero[:-1])
    assert np.array_equal(reverse_noisy(shrink, z, [80.0]), z[None])


def test_reverse_sets_join_batches_along_the_images(tmp_path: Path, data: pspc.ImageSet) -> None:
    save_reverse(tmp_path / "z.npy", shrink, data.shape, SIGMAS, 7, seed=3, batch=3)
    start = pspc.samplers.initial_noise(7, data.shape, 80.0, seed=3)
    assert np.array_equal(np.load(tmp_path / "z.npy"), reverse_noisy(shrink, start, SIGMAS))
    assert names(tmp_path) == ["z.json", "z.npy"]


def test_trajectories_may_start_at_noisy_data(tmp_path: Path, data: pspc.ImageSet) -> None:
    save_reverse(tmp_path / "z.npy", shrink, data.shape, [2.0, 1.0], 7, seed=3, start_data=data)
    assert np.array_equal(np.load(tmp_path / "z.npy")[0], forward_noisy(data, 7, 2.0, seed=3))


class StoppedError(Exception):
    """What ends a run in these tests."""


@pytest.mark.parametrize("process", ["forward", "reverse"])
def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path, data: pspc.ImageSet, process: str) -> None:
    def write(path: Path, **options: Any) -> bool:
        if process == "forward":
            return save_forward(path, data, SIGMAS, 7, **options)
        return save_reverse(path, shrink, data.shape, SIGMAS, 7, batch=2, **options)

    def stop(done: int, total: int) -> None:
        ticks.append((done, total))
        if done == 3:
            raise StoppedError

    ticks: list[tuple[int, int]] = []
    with pytest.raises(StoppedError):
        write(tmp_path / "z.npy", progress=stop)
    assert not (tmp_path / "z.npy").exists()
    assert write(tmp_path / "z.npy", progress=lambda *told: ticks.append(told))
    total = ticks[0][1]
    assert ticks == [(done, total) for done in range(1, total + 1)]
    write(tmp_path / "undisturbed.npy")
    assert (tmp_path / "z.npy").read_bytes() == (tmp_path / "undisturbed.npy").read_bytes()
    assert not write(tmp_path / "z.npy")
    with pytest.raises(errors.OutputError, match="seed was 0, is 1"):
        write(tmp_path / "z.npy", seed=1)


@pytest.mark.parametrize("resume", [True, False])
def test_resume_is_deprecated_and_false_still_replaces(tmp_path: Path, data: pspc.ImageSet, resume: bool) -> None:
    save_forward(tmp_path / "z.npy", data, SIGMAS, 2)
    with pytest.warns(DeprecationWarning, match="write overwrite=True") as caught:
        assert not save_forward(tmp_path / "z.npy", data, SIGMAS, 2, resume=resume)
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning), pytest.raises(errors.OutputError, match="n was 2, is 3"):
        save_forward(tmp_path / "z.npy", data, SIGMAS, 3, resume=True)
    with pytest.warns(DeprecationWarning):
        assert save_forward(tmp_path / "z.npy", data, SIGMAS, 3, resume=False)
    assert len(np.load(tmp_path / "z.npy")[0]) == 3


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path, data: pspc.ImageSet) -> None:
    path = tmp_path / "z.npy"
    cases: list[tuple[str, Callable[[], object]]] = [
        ("n is 0", lambda: save_forward(path, data, SIGMAS, 0)),
        ("seed is -1", lambda: save_forward(path, data, SIGMAS, 2, seed=-1)),
        ("seed is 4294967296", lambda: save_forward(path, data, SIGMAS, 2, seed=2**32)),
        ("sigmas are", lambda: save_forward(path, data, [1.0, 2.0], 2)),
        ("sampler is 'edm'", lambda: save_reverse(path, shrink, data.shape, SIGMAS, 2, sampler="edm")),
        ("batch is 0", lambda: save_reverse(path, shrink, data.shape, SIGMAS, 2, batch=0)),
    ]
    for message, write in cases:
        with pytest.raises(errors.InvalidValueError, match=message):
            write()
        assert names(tmp_path) == []
    with pytest.raises(errors.InvalidValueError, match="output at sigma 80 holds nan"):
        save_reverse(path, lambda z, sigma: z * np.nan, data.shape, SIGMAS, 2)
    assert not path.exists()


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An import path of a network in the current folder."""
    code = "def D(z, sigma):\n    return z / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)\n"
    (tmp_path / "noise_network.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    return "noise_network:D"


def test_the_commands_write_sets_that_denoise_reads(tmp_path: Path, network: str) -> None:
    data = random_data(tmp_path / "data.npy", 20, 1, 4, 4)
    options = ["--data", data, "--outdir", tmp_path / "out", "--n-steps", 4, "--n-samples", 5, "--seed", 2]
    printed = succeed("noise", "forward", *options)
    assert printed.strip() == str(tmp_path / "out" / "forward_z.npy")
    succeed("noise", "reverse", *options, "--network", network, "--batch", 2, "--sampler", "euler")
    assert names(tmp_path / "out") == ["forward_z.json", "forward_z.npy", "reverse_z.json", "reverse_z.npy"]
    assert "complete already" in succeed("noise", "forward", *options)
    z = np.load(tmp_path / "out" / "reverse_z.npy")
    start = pspc.samplers.initial_noise(5, (1, 4, 4), 80.0, seed=2)
    assert np.array_equal(z, reverse_noisy(shrink, start, pspc.edm_sigmas(4), "euler"))
    succeed("noise", "reverse", *options, "--network", network, "--start", "data", "--overwrite")
    z = np.load(tmp_path / "out" / "reverse_z.npy")
    assert np.array_equal(z[0], np.load(tmp_path / "out" / "forward_z.npy")[0])
    denoise = ["denoise", "--data", data, "--outdir", tmp_path, "--n-steps", 4, "--t-idx", 2, "--n-samples", 5]
    succeed(*denoise, "--seed", 2)
    drawn = (tmp_path / "empirical_outputs_t_02_of_04.npy").read_bytes()
    succeed(*denoise, "--z", tmp_path / "out" / "forward_z.npy", "--overwrite")
    assert (tmp_path / "empirical_outputs_t_02_of_04.npy").read_bytes() == drawn
    assert "needs --network" in fail(2, "noise", "reverse", *options)
