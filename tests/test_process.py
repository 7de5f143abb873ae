"""How the engine lives in a process: Ctrl-C, forks, missing optional packages, and what it says about itself."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from pspc_rs import _core
from pspc_rs.threads import MAX_THREADS


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


LONG_CALL = """
    import signal, time, numpy as np, pspc_rs as pspc
    # A shell that runs tests in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    images = np.random.default_rng(0).integers(0, 256, (20000, 3, 32, 32), dtype=np.uint8)
    D = pspc.MEMBER(pspc.ImageSet(images), patch_sizes=3)
    z = np.zeros((512, 3, 32, 32), np.float32)
    print("ready", flush=True)
    try:
        D(z, 1.0)
        print("finished")
    except KeyboardInterrupt:
        print("interrupted", time.time())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("member", ["PSPCSquare", "ELS"])
def test_ctrl_c_stops_a_long_call_within_a_second(member: str) -> None:
    program = textwrap.dedent(LONG_CALL).replace("MEMBER", member)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(1)
        sent = time.time()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    word, moment = out.split()
    assert word == "interrupted"
    assert float(moment) - sent < 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_a_forked_child_gets_threads_of_its_own() -> None:
    done = run(
        """
        import os, numpy as np, pspc_rs as pspc
        D = pspc.Empirical(pspc.ImageSet(np.zeros((300, 1, 4, 4), np.uint8)))
        z = np.zeros((1, 1, 4, 4), np.float32)
        before = D(z, 1.0)
        child = os.fork()
        if child == 0:
            os._exit(0 if (D(z, 1.0) == before).all() and pspc.num_threads() == 3 else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        PSPC_NUM_THREADS="3",
    )
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
def test_children_forked_while_pools_are_built_compute() -> None:
    """A lock that a thread of the parent held at the fork is not there to be released in the child."""
    done = run(
        """
        import os, threading, warnings, numpy as np, pspc_rs as pspc
        warnings.simplefilter("ignore", DeprecationWarning)
        D = pspc.Empirical(pspc.ImageSet(np.zeros((30, 1, 4, 4), np.uint8)))
        z = np.zeros((1, 1, 4, 4), np.float32)
        stop = threading.Event()
        def build():
            while not stop.is_set():
                pspc.set_num_threads(2)
        threading.Thread(target=build).start()
        codes = []
        for _ in range(30):
            child = os.fork()
            if child == 0:
                os._exit(0 if np.isfinite(D(z, 1.0)).all() else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        print(sum(codes))
        """
    )
    assert (done.stdout, done.returncode) == ("0\n", 0), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
@pytest.mark.parametrize("mebibytes", [2, 20, 60, 200])
@pytest.mark.parametrize("windows", ["full", "square", "small sigma", "masks"])
def test_too_little_memory_is_an_error_of_ours(windows: str, mebibytes: int) -> None:
    """Not the end of the process, as where an allocation of the engine fails."""
    done = run(
        f"""
        import resource, numpy as np, pspc_rs as pspc
        rng = np.random.default_rng(0)
        data = pspc.ImageSet(rng.integers(0, 256, (2000, 3, 32, 32), dtype=np.uint8))
        pspc.set_num_threads(1)
        kinds = {{
            "full": lambda: (pspc.Empirical(data), 1.0),
            "square": lambda: (pspc.PSPCSquare(data, patch_sizes=7), 1.0),
            "small sigma": lambda: (pspc.PSPCSquare(data, patch_sizes=3), 0.02),
            "masks": lambda: (pspc.PSPCFlex(data, masks=rng.random((300, 32, 32)) > 0.5), 1.0),
        }}
        D, sigma = kinds[{windows!r}]()
        z = rng.normal(size=(32, 3, 32, 32)).astype(np.float32)
        D(z[:1, :, :, :], 40.0)
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + {mebibytes} * 2**20,) * 2)
        try:
            print("done" if np.isfinite(D(z, sigma)).all() else "not finite")
        except MemoryError as error:
            print("refused")
        """
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout in ("done\n", "refused\n")


@pytest.mark.parametrize("package", ["torch", "sklearn", "pooch", "matplotlib", "PIL", "tqdm", "click", "platformdirs"])
def test_import_and_denoising_need_numpy_only(package: str) -> None:
    done = run(
        f"""
        import sys
        sys.modules[{package!r}] = None
        import numpy as np, pspc_rs as pspc
        D = pspc.PSPCSquare(pspc.ImageSet(np.zeros((3, 1, 4, 4), np.uint8)), patch_sizes=3)
        print(pspc.sample(D, 2, num_steps=3, seed=0, generator="numpy").shape)
        """
    )
    assert done.stdout == "(2, 1, 4, 4)\n", done.stderr


def test_import_loads_no_optional_package() -> None:
    done = run("import sys, pspc_rs; print({'torch', 'sklearn', 'PIL', 'tqdm', 'click', 'scipy'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


def test_every_instruction_set_agrees() -> None:
    """AVX2 and AVX-512 agree bit for bit; the portable set within rounding."""
    code = """
        import sys, numpy as np, pspc_rs as pspc
        rng = np.random.default_rng(0)
        data = pspc.ImageSet(rng.integers(0, 256, (100, 3, 9, 11), dtype=np.uint8), xflip=True)
        z = rng.standard_normal((3, 3, 9, 11))
        masks = np.zeros((2, 9, 11), bool); masks[0, :, :8] = masks[1, :, 5:] = True
        every = [pspc.Empirical(data), pspc.PSPCFlex(data, masks=masks)]
        every += [pspc.PSPCSquare(data, patch_sizes=side) for side in (1, 3, 7)]
        sys.stdout.write(np.stack([D(z, [5.0, 0.5, 0.05]) for D in every]).tobytes().hex())
    """
    names = dict(_core.build_info())["isa_available"].split(", ")
    results = {}
    for name in names:
        done = run(code, PSPC_ISA=name)
        assert done.returncode == 0, done.stderr
        results[name] = np.frombuffer(bytes.fromhex(done.stdout))
    fused = [result for name, result in results.items() if name != "portable"]
    for result in fused:
        np.testing.assert_array_equal(result, fused[0])
        np.testing.assert_allclose(result, results["portable"], rtol=0, atol=1e-4)


def test_thread_numbers() -> None:
    before = pspc.num_threads()
    pspc.set_num_threads(3)
    assert pspc.num_threads() == 3
    pspc.set_num_threads(before)
    with pytest.raises(pspc.errors.InvalidValueError, match="threads is 0; allowed are integers from 1 to"):
        pspc.set_num_threads(0)


@pytest.mark.parametrize(
    "threads", [2**63, 2**64, 10**6, pytest.param(10**5000, id="huge"), MAX_THREADS + 1, -1, 2.5, True, "3", None]
)
def test_numbers_of_threads_that_would_take_the_machine_start_none(threads: Any) -> None:
    before = pspc.num_threads()
    with pytest.raises(pspc.PspcError, match="allowed are integers"):
        pspc.set_num_threads(threads)
    assert pspc.num_threads() == before


def test_the_engine_has_the_same_limit() -> None:
    with pytest.raises(pspc.errors.InvalidValueError, match=rf"allowed are 1 to {MAX_THREADS}$"):
        _core.set_num_threads(MAX_THREADS + 1)


def test_any_integer_type_is_a_number_of_threads() -> None:
    before = pspc.num_threads()
    pspc.set_num_threads(np.int64(2))  # type: ignore[arg-type]
    assert pspc.num_threads() == 2
    pspc.set_num_threads(before)


@pytest.mark.parametrize("value", [str(2**63), pytest.param("9" * 5000, id="huge"), "100000", "+100000", "00100000"])
@pytest.mark.parametrize(
    "code", ["pspc.num_threads()", "z = np.zeros((1, 1, 2, 2)); pspc.Empirical(pspc.ImageSet(z))(z, 1.0)"]
)
def test_too_many_threads_in_the_environment_start_none(value: str, code: str) -> None:
    done = run(f"import numpy as np, pspc_rs as pspc; {code}", PSPC_NUM_THREADS=value)
    assert f"allowed are integers from 1 to {MAX_THREADS}" in done.stderr.splitlines()[-1]


def test_a_bad_number_of_threads_in_the_environment_is_named() -> None:
    done = run("import pspc_rs; pspc_rs.num_threads()", PSPC_NUM_THREADS="many")
    assert 'InvalidValueError: PSPC_NUM_THREADS is "many"; allowed are integers from 1 to 1024' in done.stderr


def test_a_bad_instruction_set_in_the_environment_is_named() -> None:
    done = run(
        """
        import numpy as np, pspc_rs as pspc
        pspc.Empirical(pspc.ImageSet(np.zeros((1, 1, 2, 2), np.uint8)))(np.zeros((1, 1, 2, 2)), 1.0)
        """,
        PSPC_ISA="sse9",
    )
    assert 'InvalidValueError: PSPC_ISA is "sse9"; allowed on this CPU are portable' in done.stderr
