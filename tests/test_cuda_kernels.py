"""NVRTC compiles every kernel for every generation of GPUs without spilled registers; no GPU is needed."""

import ctypes
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from pspc_rs import _core, cuda

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
# dense_square for narrow and wide images and dense_masks, in both precisions and with a scan; full, posterior, sparse;
# planes
KERNELS = (3 + 2) * 2 + (3 + 2) + 7 + 6 + 3 + 17


def compile_with_report(library: ctypes.CDLL, name: str, text: str, options: list[str]) -> str:
    """The log of NVRTC and of the assembler for one source."""
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None)
    flags = [option.encode() for option in (*options, "--ptxas-options=-v")]
    failed = library.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*flags))
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    report = log.value.decode()
    assert failed == 0, report
    return report


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_without_spills(architecture: int) -> None:
    found = re.search(r"NVRTC (\d+)", cuda.state())
    if found is None:
        pytest.skip("NVRTC is not installed")
    library = ctypes.CDLL(f"libnvrtc.so.{found[1]}")
    sources = _core.cuda_sources(architecture)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda source: compile_with_report(library, *source), sources))
    kernels = 0
    for report in reports:
        assert "warning" not in report, report
        spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
        kernels += len(spills)
        assert all(numbers == ("0", "0", "0") for numbers in spills), report
    assert kernels == 2 * KERNELS
