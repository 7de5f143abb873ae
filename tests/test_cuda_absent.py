"""On a machine without a GPU nothing breaks, and asking for CUDA says what is missing."""

import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import pspc_rs as pspc
from pspc_rs import _core, cuda
from pspc_rs.cli import main

DATA = pspc.ImageSet(np.zeros((2, 1, 3, 3), np.uint8))
NO_DRIVER = "there is no NVIDIA driver (no libcuda was found); install the driver of your GPU"

without_driver = pytest.mark.skipif(
    NO_DRIVER not in cuda.state(), reason="there is an NVIDIA driver, or the engine was built without CUDA"
)


def test_import_looks_for_no_driver() -> None:
    code = "import sys, pspc_rs, pspc_rs.cuda; print([line for line in open('/proc/self/maps') if 'libcuda' in line])"
    if sys.platform != "linux":
        pytest.skip("looks at the process's memory map")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@without_driver
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_asking_for_cuda_says_what_is_missing(device: str) -> None:
    for make in (
        lambda: pspc.Empirical(DATA, device=device),
        lambda: pspc.PSPCSquare(DATA, patch_sizes=2, device=device),
        lambda: pspc.PSPCFlex(DATA, masks=np.ones((1, 3, 3), bool), device=device),
        cuda.devices,
        lambda: cuda.engine(_core.Bank(DATA.images), 0),
    ):
        with pytest.raises(pspc.errors.CudaError) as raised:
            make()
        assert NO_DRIVER in str(raised.value)


@without_driver
def test_auto_is_the_cpu() -> None:
    D = pspc.Empirical(DATA, device="auto")
    np.testing.assert_array_equal(D(np.zeros((1, 1, 3, 3)), 1.0), pspc.Empirical(DATA)(np.zeros((1, 1, 3, 3)), 1.0))


def test_a_build_without_cuda_says_so_and_auto_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda_devices", "cuda_state"):
        monkeypatch.delattr(_core, name, raising=False)
    assert cuda.resolve("auto") is None
    assert cuda.state() == "CUDA cannot be used: this build has no GPU engine"
    for make in (cuda.devices, lambda: pspc.Empirical(DATA, device="cuda")):
        with pytest.raises(pspc.errors.CudaError, match="this build has no GPU engine"):
            make()


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "", "cpu:0"])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(pspc.errors.InvalidValueError, match="allowed are 'cpu', 'cuda', 'cuda:N' and 'auto'"):
        pspc.Empirical(DATA, device=device)


@without_driver
def test_info_shows_the_state_and_commands_refuse_cuda() -> None:
    shown = CliRunner().invoke(main, ["info"])
    assert shown.exit_code == 0 and NO_DRIVER in shown.output
    asked = CliRunner().invoke(
        main, ["denoise", "--data", "digits", "--outdir", "x", "--t-idx", "0", "--device", "cuda"]
    )
    assert asked.exit_code == 2 and "no NVIDIA driver" in asked.output
