"""The whole GPU engine on an emulated device: the same kernels and launches, run by the CPU.

This covers everything but NVIDIA's driver and hardware: compilation, arguments, grids, memory plans, caches, errors.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import cuda_emulation
from cuda_emulation import shapes
from pspc_rs import cuda

HERE = Path(__file__).parent

SMALL_RUN = """
import numpy as np, pspc_rs as pspc
data = pspc.ImageSet(np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5))
print(pspc.PSPCSquare(data, patch_sizes=2, device="cuda")(np.zeros((1, 3, 4, 5)), 1.0).mean())
"""


MANY_WINDOWS_RUN = """
import sys, numpy as np
from pspc_rs import _core, cuda
engine = cuda.engine(_core.Bank(np.zeros((2, 1, 32, 32), np.uint8)), 0)
kept = []
for _ in range(40):
    windows = _core.Components.masks(np.ones((20, 32, 32), bool))
    engine.composite(windows, np.zeros((1, 1, 32, 32), np.float32), [1.0], False)
    if sys.argv[1] == "keep":
        kept.append(windows)
"""


CHOSEN_RUN = """
import sys, numpy as np
from pspc_rs import _core, cuda
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (2000, 3, 8, 8), dtype=np.uint8)
engine = cuda.engine(_core.Bank(images), 0)
assert engine.resident
chosen = np.flatnonzero(rng.random(2000) < 0.9).astype(np.uint32)
z = rng.uniform(-1, 1, (2, 3, 8, 8))
np.save(sys.argv[1], engine.composite(_core.Components.full(8, 8), z, [0.05, 1.0], False, images=chosen))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if "NVRTC" not in cuda.state():
        pytest.skip("NVRTC is not installed")
    return cuda_emulation.build(tmp_path_factory.mktemp("driver"))


def compare(out: Path, few: bool) -> None:
    expected = shapes.found("cpu", few)
    with np.load(out) as found:
        assert set(found) == set(expected)
        for name, values in expected.items():
            if name.startswith("denoised"):
                # A query without the image that it was made from is far from all others, and its logits are larger.
                atol = 5e-6 if name.endswith("chosen") else 2e-6
                np.testing.assert_allclose(found[name], values, rtol=0, atol=atol, err_msg=name)
            else:
                np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=2e-5, err_msg=name)


def run_tests(tests: str, driver: Path, cache: Path) -> None:
    """Runs a file of tests, whose denoisers compute on the emulated GPU."""
    profile = {"HYPOTHESIS_PROFILE": os.environ.get("HYPOTHESIS_PROFILE", "few"), "PSPC_TEST_DEVICE": "cuda"}
    # Torch's own part for GPUs does not find its way around the emulated driver, and says so.
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore:CUDA initialization:UserWarning"]
    done = cuda_emulation.run(["-m", "pytest", *options, str(HERE / tests)], driver, cache, **profile)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


ENGINE_TESTS = ["test_cuda_engine.py", "test_cuda_edges.py", "test_cuda_atoms.py"]
POSTERIOR_TESTS = ["test_posterior.py", "test_derivatives.py", "test_rank_derivatives.py"]


@pytest.mark.parametrize("tests", ENGINE_TESTS + POSTERIOR_TESTS)
def test_the_engine_tests_pass_on_an_emulated_gpu(tests: str, driver: Path, cache: Path) -> None:
    run_tests(tests, driver, cache)


def test_golden_posteriors_pass_on_an_emulated_gpu(test_data: Path, driver: Path, cache: Path) -> None:
    del test_data
    run_tests("test_family_golden.py", driver, cache)


@pytest.mark.parametrize("settings", [{"FAKE_CUDA_FREE": "3000"}, {"FAKE_CUDA_SHARED": "1500"}])
def test_little_memory_of_either_kind_changes_no_bit(
    settings: dict[str, str], driver: Path, cache: Path, tmp_path: Path
) -> None:
    program = [str(HERE / "cuda_emulation" / "shapes.py"), "cuda"]
    for name, environment in (("plenty", {}), ("little", settings)):
        done = cuda_emulation.run([*program, str(tmp_path / f"{name}.npz")], driver, cache, **environment)
        assert done.returncode == 0, done.stderr
    compare(tmp_path / "plenty.npz", few=False)
    with np.load(tmp_path / "plenty.npz") as plenty, np.load(tmp_path / "little.npz") as little:
        for name in plenty:
            np.testing.assert_array_equal(little[name], plenty[name], err_msg=name)


def test_a_data_set_that_does_not_fit_is_copied_in_tiles(driver: Path, cache: Path) -> None:
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_cuda_engine.py"), "-k", "tiles"]
    done = cuda_emulation.run(tests, driver, cache, FAKE_CUDA_FREE="40000")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_chosen_images_that_do_not_fit_beside_the_data_set_are_gathered_in_tiles(
    driver: Path, cache: Path, tmp_path: Path
) -> None:
    found = []
    for memory in ("100000000", "850000"):
        path = str(tmp_path / f"{memory}.npy")
        done = cuda_emulation.run(["-c", CHOSEN_RUN, path], driver, cache, FAKE_CUDA_MEMORY=memory)
        assert done.returncode == 0, done.stderr
        found.append(np.load(path))
    np.testing.assert_array_equal(*found)


def test_chosen_images_of_a_data_set_that_does_not_fit_come_from_the_host(driver: Path, cache: Path) -> None:
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_cuda_atoms.py"), "-k", "chosen or shards"]
    done = cuda_emulation.run(tests, driver, cache, FAKE_CUDA_FREE="30000")
    assert done.returncode == 0 and "16 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("sanitizer", list(cuda_emulation.SANITIZERS))
def test_kernels_are_clean_under_a_sanitizer(sanitizer: str, driver: Path, cache: Path, tmp_path: Path) -> None:
    watched = cuda_emulation.build(tmp_path / "driver", sanitizer)
    program = [str(HERE / "cuda_emulation" / "shapes.py"), "cuda", str(tmp_path / "few.npz"), "few"]
    # The sanitizer is for the kernels, not for their compiler: a run before this one fills the cache.
    assert cuda_emulation.run(program, driver, cache).returncode == 0
    done = cuda_emulation.run(program, watched, cache, sanitizer)
    assert done.returncode == 0, done.stderr
    compare(tmp_path / "few.npz", few=True)


@pytest.mark.parametrize(
    ("kernel", "shown"),
    [
        ("prepare_probes", "kernel prepare_probes_u8"),
        ("square_composites", "kernel square_composites_u8_narrow"),
    ],
)
def test_an_error_names_the_kernel(kernel: str, shown: str, driver: Path, cache: Path) -> None:
    done = cuda_emulation.run(["-c", SMALL_RUN], driver, cache, FAKE_CUDA_FAIL=kernel)
    assert "pspc_rs.errors.CudaError" in done.stderr and shown in done.stderr, done.stderr
    assert "CUDA_ERROR_LAUNCH_FAILED" in done.stderr


def test_out_of_memory_says_for_what(driver: Path, cache: Path) -> None:
    done = cuda_emulation.run(["-c", SMALL_RUN], driver, cache, FAKE_CUDA_MEMORY="200")
    assert "CudaError: getting" in done.stderr and "CUDA_ERROR_OUT_OF_MEMORY" in done.stderr, done.stderr


def test_device_copies_of_windows_are_freed_with_their_originals(driver: Path, cache: Path) -> None:
    memory = {"FAKE_CUDA_MEMORY": "1000000"}
    kept = cuda_emulation.run(["-c", MANY_WINDOWS_RUN, "keep"], driver, cache, **memory)
    assert "CUDA_ERROR_OUT_OF_MEMORY" in kept.stderr, kept.stderr
    dropped = cuda_emulation.run(["-c", MANY_WINDOWS_RUN, "drop"], driver, cache, **memory)
    assert dropped.returncode == 0, dropped.stderr


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"FAKE_CUDA_VERSION": "11080"}, "the NVIDIA driver supports CUDA 11.8, at least 12.0 is needed"),
        ({"FAKE_CUDA_VERSION": "12040"}, "the NVIDIA driver supports CUDA 12.4, too old for NVRTC 13."),
        ({"FAKE_CUDA_DEVICES": "0"}, "the NVIDIA driver does not start"),
        ({"FAKE_CUDA_MAJOR": "5"}, "does not compile for this GPU of compute capability 5.0"),
    ],
)
def test_an_unusable_machine_gets_the_reason(settings: dict[str, str], shown: str, driver: Path, cache: Path) -> None:
    if "NVRTC 13" not in cuda.state() and "12040" in settings.values():
        pytest.skip("NVRTC is older than 13")
    done = cuda_emulation.run(["-c", SMALL_RUN], driver, cache, **settings)
    assert "CudaError: CUDA cannot be used: " in done.stderr and shown in done.stderr, done.stderr


def test_a_gpu_by_number(driver: Path, cache: Path) -> None:
    second = SMALL_RUN.replace('"cuda"', '"cuda:1"')
    assert cuda_emulation.run(["-c", second], driver, cache, FAKE_CUDA_DEVICES="2").returncode == 0
    done = cuda_emulation.run(["-c", second], driver, cache)
    assert "CudaError: CUDA cannot be used: there is no GPU 1, this machine has 1" in done.stderr
    auto = SMALL_RUN.replace('"cuda"', '"auto"')
    assert cuda_emulation.run(["-c", auto], driver, cache).returncode == 0


def test_compiled_kernels_are_cached_and_damaged_ones_recompiled(driver: Path, tmp_path: Path) -> None:
    run = cuda_emulation.run(["-c", SMALL_RUN], driver, tmp_path)
    assert run.returncode == 0, run.stderr
    files = {path: path.read_bytes() for path in (tmp_path / "kernels").iterdir()}
    assert files and all(path.suffix == ".cubin" for path in files)
    for path, content in files.items():
        path.write_bytes(content[:-1])
    assert cuda_emulation.run(["-c", SMALL_RUN], driver, tmp_path).stdout == run.stdout
    assert {path: path.read_bytes() for path in files} == files
    assert len(list((tmp_path / "kernels").iterdir())) == len(files)
