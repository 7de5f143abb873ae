"""Builds a libcuda that runs the kernels on the CPU, and runs programs with it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNELS = HERE.parent.parent / "src" / "cuda" / "kernels"

SANITIZERS = {
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread",),
}


def compiler() -> str:
    """The C++ compiler; tests that need it are skipped without it."""
    found = shutil.which("g++")
    if found is None or sys.platform != "linux":
        pytest.skip("the emulated GPU is built by g++, on Linux")
    if not KERNELS.is_dir():
        pytest.skip("the kernels' sources are not here")
    return found


def build(folder: Path, sanitizer: str | None = None) -> Path:
    """Builds the emulated driver into a folder: with fibers or, for a sanitizer, with threads."""
    folder.mkdir(parents=True, exist_ok=True)
    own = ["-DEMULATE_FIBERS", "-O1"] if sanitizer is None else ["-O1", "-g1", *SANITIZERS[sanitizer]]
    common = ["-std=c++20", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
    files = [f"-I{KERNELS}", str(HERE / "fake_driver.cpp"), "-o", str(folder / "libcuda.so.1")]
    subprocess.run([compiler(), *common, *own, *files], check=True, timeout=600)
    return folder


def run(
    arguments: list[str], driver: Path, cache: Path, sanitizer: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python with the emulated driver in place of a real one."""
    # The thread sanitizer takes the words before a thread's own memory for a header of glibc's, wherever that memory
    # begins 16 bytes into a page: by chance it then asks for terabytes, and ends. It needs not know of such memory.
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(driver),
        "PSPC_CACHE_DIR": str(cache),
        "ASAN_OPTIONS": "detect_leaks=0",
        "TSAN_OPTIONS": "exitcode=66:halt_on_error=1:intercept_tls_get_addr=0",
        **environment,
    }
    command = [sys.executable, *arguments]
    if sanitizer is not None:
        library = "libasan.so" if sanitizer == "address" else "libtsan.so"
        asked = subprocess.run([compiler(), f"-print-file-name={library}"], capture_output=True, text=True, check=True)
        environment["LD_PRELOAD"] = asked.stdout.strip()
        # The sanitizers' shadow memory needs addresses that are not random.
        command = ["setarch", "--addr-no-randomize", *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
