"""The loss by noise level: sums over an interval of training, and the lines of the log."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pspc_rs.files import replacing

_PER_DECADE = 4
_DECADES = (-3, 3)


class LossSums:
    """Sums of losses by noise level, a quarter of a decade each, in the order in which images are seen.

    Attributes:
        sums: float64 [bins, 3] on the device of the network: number of images, squared error a pixel, weighted loss a
            pixel; images whose loss is not finite are left out.
        nonfinite: float64 [2]: how many images had such a loss, and how many entries of gradients were replaced.

    Example:
        >>> sums = LossSums(torch.device("cpu"))
        >>> sums.add(sums.of(torch.tensor([0.5]), torch.tensor([0.1]), torch.tensor([0.3])))
        >>> row = next(sums.rows())
        >>> row["images"], round(row["mse"], 3)
        (1, 0.1)
    """

    def __init__(self, device: torch.device) -> None:
        low, high = _DECADES
        exponents = torch.arange(low * _PER_DECADE, high * _PER_DECADE + 1, dtype=torch.float64) / _PER_DECADE
        self._edges = 10**exponents
        self._num = len(self._edges) + 1
        self.sums = torch.zeros(self._num, 3, dtype=torch.float64, device=device)
        self.nonfinite = torch.zeros(2, dtype=torch.float64, device=device)

    def of(self, sigma: Tensor, mse: Tensor, loss: Tensor) -> Tensor:
        """The sums of a part of a batch [bins + 1, 3]; the last row counts images whose loss is not finite.

        Args:
            sigma: noise levels [N] on the CPU.
            mse: mean squared error of each image [N], on the device.
            loss: the same with the loss's weight.
        """
        finite = loss.isfinite()
        rows = torch.stack([torch.ones_like(loss), mse, loss], 1).double()
        rows = torch.where(finite[:, None], rows, torch.zeros_like(rows))
        bins = torch.bucketize(sigma.double(), self._edges).to(loss.device)
        sums = torch.zeros(self._num + 1, 3, dtype=torch.float64, device=loss.device)
        sums[-1, 0] = (~finite).sum()
        return sums.index_add_(0, bins, rows)

    def add(self, sums: Tensor, replaced: Tensor | float = 0.0) -> None:
        """Adds what ``of`` gave for a step, and the number of entries of gradients that were replaced."""
        self.sums += sums[:-1]
        self.nonfinite[0] += sums[-1, 0]
        self.nonfinite[1] += replaced

    def reset(self) -> None:
        """Begins a new interval."""
        self.sums.zero_()
        self.nonfinite.zero_()

    def loss(self) -> float | None:
        """The mean weighted loss a pixel, None before the first image with a finite one."""
        count, _, loss = self.sums.sum(0).tolist()
        return loss / count if count else None

    def rows(self) -> Iterator[dict[str, Any]]:
        """The noise levels with any images: their range, number of images, squared error and weighted loss."""
        edges = [0.0, *self._edges.tolist(), None]
        for index, (count, mse, loss) in enumerate(self.sums.tolist()):
            if count:
                sigma = [edges[index], edges[index + 1]]
                yield {"sigma": sigma, "images": int(count), "mse": mse / count, "loss": loss / count}


class LineLog:
    """A file of JSON lines, each with the number of ``images`` seen when it was written.

    Args:
        path: the file; a new one is begun with the first line.
        images: forget lines written later than that: a resumed run writes them again.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = LineLog(Path(folder, "log.jsonl"), 0)
        ...     log.write({"images": 512, "loss": 0.5})
        ...     log.read()
        [{'images': 512, 'loss': 0.5}]
    """

    def __init__(self, path: Path, images: int) -> None:
        self._path = path
        kept = [line for line in self.read() if line["images"] <= images]
        if path.exists() or kept:
            with replacing(path) as temporary:
                temporary.write_text("".join(map(_line, kept)), encoding="utf-8")

    def write(self, entry: Mapping[str, object]) -> None:
        """Adds a line.

        Raises:
            OSError: it cannot be written.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))

    def read(self) -> list[dict[str, Any]]:
        """The lines; one that was cut short by a crash ends the list."""
        lines: list[dict[str, Any]] = []
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    break
        return lines


def _line(entry: Mapping[str, object]) -> str:
    return json.dumps(entry, allow_nan=False) + "\n"
