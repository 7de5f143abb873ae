"""Guides mutations of bytes by what they reach in our Python code, with atheris (extra ``fuzz``, Linux).

``python tests/fuzzing/coverage.py --seconds 20`` gives every reader so much time; ``make fuzz`` calls it after
`fuzzing.run`. Without atheris it says so and does nothing.
"""

import argparse
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

_MEMORY_MB = 4096
_SECONDS_PER_INPUT = 20


def fuzz_reader(name: str, seconds: int, home: Path) -> None:
    """Fuzzes one reader; the process ends with it, with an error if something was found."""
    import atheris

    with atheris.instrument_imports(include=["pspc_rs"]):
        from fuzzing.readers import readers
    from fuzzing.run import check, new_folder
    from fuzzing.targets import Target

    reader = next(one for one in readers() if one.name == name)
    corpus, work = new_folder(home / "corpus"), home / "work"
    seeds = reader.seeds()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def one_input(data: bytes) -> None:
        found = check(Target(name, lambda _, folder: reader.read_bytes(data, folder)), 0, 0, new_folder(work))
        if found is not None:
            raise AssertionError(f"{name}: {found.what}\n{found.where}")

    limits = [f"-rss_limit_mb={_MEMORY_MB}", f"-timeout={_SECONDS_PER_INPUT}", f"-max_total_time={seconds}"]
    atheris.Setup(
        [
            sys.argv[0],
            *limits,
            "-seed=1",
            f"-max_len={2 * max(map(len, seeds))}",
            "-verbosity=0",
            f"-artifact_prefix={home}/",
            str(corpus),
        ],
        one_input,
    )
    atheris.Fuzz()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=20, help="time for every reader")
    parser.add_argument("--reader", help="only this one, in this process")
    options = parser.parse_args()
    if find_spec("atheris") is None:
        print('coverage-guided fuzzing was left out: atheris is not installed (pip install "pspc-rs[fuzz]")')
        return 0
    if options.reader:
        fuzz_reader(options.reader, options.seconds, Path(tempfile.mkdtemp()))
        return 0

    from fuzzing.readers import readers

    failed = []
    for name in [reader.name for reader in readers()]:
        command = [sys.executable, __file__, "--reader", name, "--seconds", str(options.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
        if done.returncode != 0:
            failed.append(name)
            print(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())
