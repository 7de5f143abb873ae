"""A rank of a test: ``python rank_process.py RANK COUNT STORE OUT`` denoises with the others and writes what it got.

With a fifth argument, the rank of that number ends in the middle of a call, and the others write the error they get.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist

import pspc_rs as pspc
from rank_threads import FAMILY, SIGMAS, derivatives_of, problem


def main() -> None:
    rank, count, store, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    dies = int(sys.argv[5]) if len(sys.argv) > 5 else None
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    data, z = problem()
    square = pspc.PSPCSquare(data, patch_sizes=3).across()
    if dies is not None:
        told = "none"
        if rank == dies:
            square._engine._engine = Dying()  # type: ignore[union-attr]
        try:
            square(z, SIGMAS)
        except pspc.PspcError as error:
            told = str(error)
        Path(f"{out}.{rank}").write_text(told, encoding="utf-8")
        os._exit(0)
    family: dict[str, Any] = {name: member(data).across(dist.group.WORLD)(z, SIGMAS) for name, member in FAMILY.items()}
    samples = pspc.samplers.sample_heun(square, 8 * z, [8.0, 1.0, 0.2, 0.0])
    derivatives: dict[str, Any] = {
        f"{name} of {about}": values
        for about, D in {"square": square, "soft": FAMILY["soft"](data).across()}.items()
        for name, values in derivatives_of(D, z).items()
    }
    np.savez(f"{out}.{rank}.npz", square=square(z, SIGMAS), samples=samples, **family, **derivatives)
    dist.destroy_process_group()


class Dying:
    """An engine whose process ends."""

    def rank_evidence(self, *arguments: object, **options: object) -> None:
        os._exit(1)


if __name__ == "__main__":
    main()
