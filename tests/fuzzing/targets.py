"""What is fuzzed: functions of a random source that call the package, and return the arrays that must be finite."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fuzzing.mutations import mutated

Arrays: TypeAlias = Iterable[Any]
"""Results; those that are arrays or tensors of floats must be finite."""


@dataclass(frozen=True)
class Target:
    """One thing that is fuzzed.

    Attributes:
        name: what findings call it.
        run: called with a random source and an empty folder of its own.
        share: how many inputs it gets, relative to others.
    """

    name: str
    run: Callable[[random.Random, Path], Arrays]
    share: float = 1.0


@dataclass(frozen=True)
class Reader:
    """A reader of bytes.

    Attributes:
        name: what findings call it.
        file: the name of the file that the bytes are written to.
        seeds: whole files.
        read: reads the file.
        share: how many inputs it gets, relative to others.
    """

    name: str
    file: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], Arrays]
    share: float = 1.0

    def read_bytes(self, data: bytes, folder: Path) -> Arrays:
        """What is read from a file of these bytes."""
        file = folder / self.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return self.read(file)

    def target(self) -> Target:
        """The reader with mutated seeds."""
        kept: list[bytes] = []

        def run(source: random.Random, folder: Path) -> Arrays:
            if not kept:
                kept.extend(self.seeds())
            return self.read_bytes(mutated(kept, source), folder)

        return Target(self.name, run, self.share)


def without_result(read: Callable[[Path], object]) -> Callable[[Path], Arrays]:
    """A reader whose result is not looked at."""

    def call(file: Path) -> Arrays:
        read(file)
        return []

    return call


def targets() -> list[Target]:
    """Everything that is fuzzed here; what needs torch is left out without it."""
    from fuzzing.calls import CALLS
    from fuzzing.readers import readers

    return [*(reader.target() for reader in readers()), *CALLS]
