"""The core's normal numbers are those of torch's CPU generator, bit for bit, and torch is not imported for them."""

import importlib.util
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pspc_rs import _core
from pspc_rs.errors import ShapeError
from pspc_rs.samplers import initial_noise, noise

torch = pytest.importorskip("torch")

needs_the_same_kernels = pytest.mark.skipif(
    not noise._core_draws_as_torch(), reason="torch's kernels of another system round otherwise"
)

SEEDS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1]))
SIZES = st.one_of(st.integers(0, 40), st.integers(41, 5000), st.sampled_from([16, 31, 32, 33, 65_537]))


def drawn(seed: int, sizes: list[int]) -> list[NDArray[np.float32]]:
    stream = _core.TorchNormals(seed)
    parts = [np.empty(size, np.float32) for size in sizes]
    for part in parts:
        stream.fill(part)
    return parts


@needs_the_same_kernels
@given(seed=SEEDS, sizes=st.lists(SIZES, min_size=1, max_size=6))
def test_streams_have_the_bits_of_torch(seed: int, sizes: list[int]) -> None:
    state = torch.Generator("cpu").manual_seed(seed)
    for size, part in zip(sizes, drawn(seed, sizes), strict=True):
        expected = torch.randn(size, generator=state, dtype=torch.float32).numpy()
        np.testing.assert_array_equal(part.view(np.int32), expected.view(np.int32))


@needs_the_same_kernels
@pytest.mark.parametrize("size", [10**6, 10**6 + 7])
def test_a_million_numbers_have_the_bits_of_torch(size: int) -> None:
    expected = torch.randn(size, generator=torch.Generator("cpu").manual_seed(123)).numpy()
    np.testing.assert_array_equal(drawn(123, [size])[0].view(np.int32), expected.view(np.int32))


@given(seed=SEEDS, size=st.integers(1, 3000))
def test_numbers_are_near_those_of_torch_on_every_system(seed: int, size: int) -> None:
    expected = torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed)).numpy()
    np.testing.assert_allclose(drawn(seed, [size])[0], expected, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("variable", ["default", "avx2"])
def test_where_torch_has_other_kernels_torch_draws(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    def refuse(seed: int) -> None:
        raise AssertionError("the core draws")

    monkeypatch.setenv("ATEN_CPU_CAPABILITY", variable)
    monkeypatch.setattr(noise, "_torch_normals", refuse)
    if variable == "default":
        expected = torch.randn((2, 1, 4, 4), generator=torch.Generator("cpu").manual_seed(5)).numpy()
        np.testing.assert_array_equal(initial_noise(2, (1, 4, 4), 1.0, 5), expected)
    elif noise._core_draws_as_torch():
        with pytest.raises(AssertionError, match="the core draws"):
            initial_noise(2, (1, 4, 4))


@needs_the_same_kernels
def test_what_torch_is_not_needed_for_a_broken_one_does_not_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = initial_noise(2, (1, 4, 4), seed=3)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    np.testing.assert_array_equal(initial_noise(2, (1, 4, 4), seed=3), expected)


def test_threads_may_share_a_stream_and_arrays_must_be_contiguous() -> None:
    stream = _core.TorchNormals(4)
    parts = [np.empty(1600, np.float32) for _ in range(4)]
    threads = [threading.Thread(target=stream.fill, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = {part.tobytes() for part in parts}
    assert together == {part.tobytes() for part in drawn(4, [1600] * 4)}
    with pytest.raises(ShapeError, match="contiguous"):
        stream.fill(np.empty((8, 8), np.float32)[:, 0])


@needs_the_same_kernels
@pytest.mark.parametrize("command", [["sample", "--n-steps", "2"], ["denoise", "--t-idx", "3"]])
def test_commands_do_not_import_torch(tmp_path_factory: pytest.TempPathFactory, command: list[str]) -> None:
    folder = tmp_path_factory.mktemp("run")
    np.save(folder / "data.npy", np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8))
    code = (
        "import sys; from pspc_rs.cli import main; "
        "sys.argv[0] = 'pspc-rs'\ntry: main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    )
    words = [*command, "--data", "data.npy", "--outdir", "out", "--n", "2", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=folder, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr.splitlines()[-1] == "False"
