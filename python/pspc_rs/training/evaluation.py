"""What is recorded of a run: its loss by noise level, the lines of its logs, and what its network can do."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pspc_rs.checks import integer
from pspc_rs.data import ImageSet
from pspc_rs.errors import OutputError
from pspc_rs.files import replacing
from pspc_rs.networks.edm.preconditioners import Preconditioner
from pspc_rs.samplers import sample_heun
from pspc_rs.samplers.noise import initial_noise
from pspc_rs.sigmas import edm_sigmas
from pspc_rs.training.batches import one_hot

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Noise levels that evaluations are made at."""

_BINS_PER_DECADE = 4
_DECADES = (-3, 3)


class LossSums:
    """Sums of losses by noise level, in bins of a quarter of a decade, since the last `reset`.

    Attributes:
        sums: float64 [bins, 3] on the device of the network: number of images, squared error per pixel, weighted loss
            per pixel; images whose loss is not finite are left out.
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
        indices = torch.arange(low * _BINS_PER_DECADE, high * _BINS_PER_DECADE + 1, dtype=torch.float64)
        self._edges = 10 ** (indices / _BINS_PER_DECADE)
        self._num = len(self._edges) + 1
        self.sums = torch.zeros(self._num, 3, dtype=torch.float64, device=device)
        self.nonfinite = torch.zeros(2, dtype=torch.float64, device=device)

    def __repr__(self) -> str:
        return f"LossSums({int(self.sums[:, 0].sum())} images, loss {self.loss()})"

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
        """Adds the sums of a step, see ``of``, and the number of entries of gradients that were replaced."""
        self.sums += sums[:-1]
        self.nonfinite[0] += sums[-1, 0]
        self.nonfinite[1] += replaced

    def reset(self) -> None:
        """Begins a new interval."""
        self.sums.zero_()
        self.nonfinite.zero_()

    def loss(self) -> float | None:
        """The mean weighted loss per pixel, None before the first image with a finite one."""
        count, _, loss = self.sums.sum(0).tolist()
        return loss / count if count else None

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every bin with images in it: its range of noise levels, number of images, squared error and weighted loss."""
        edges = [0.0, *self._edges.tolist(), None]
        for index, (count, mse, loss) in enumerate(self.sums.tolist()):
            if count:
                sigma = [edges[index], edges[index + 1]]
                yield {"sigma": sigma, "images": int(count), "mse": mse / count, "loss": loss / count}


class LineLog:
    """A file of JSON lines, each with the number of ``images`` seen when it was written.

    Args:
        path: the file; made with the first line.
        images: lines of more images are removed: a resumed run writes them again.

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

    def __repr__(self) -> str:
        return f"LineLog({str(self._path)!r})"

    def write(self, entry: Mapping[str, object]) -> None:
        """Adds a line.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(entry))
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error}") from error

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


@torch.no_grad()
def loss_per_sigma(
    network: nn.Module,
    data: ImageSet,
    sigmas: Sequence[float] = SIGMAS,
    *,
    num: int = 256,
    seed: int = 0,
    batch: int = 64,
    label_dim: int = 0,
) -> NDArray[np.float64]:
    """The mean squared error per pixel of D(x + sigma n; sigma) at every noise level, float64 [len(sigmas)].

    The same images with the same noise n at every level, drawn by numpy's ``default_rng(seed)``.

    Args:
        network: D, on any device.
        data: the images.
        sigmas: noise levels.
        num: how many images, drawn with repetition.
        seed: of images and noise.
        batch: images at once.
        label_dim: number of classes of a conditional network, which gets those of the images; 0 for none.

    Raises:
        InvalidValueError: there is nothing to evaluate.

    Example:
        >>> from pspc_rs.networks import build_network
        >>> from pspc_rs.testing import tiny_images
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 3},
        ...     "architecture": "SongUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> loss_per_sigma(net, tiny_images(), [1.0, 0.1], num=2).shape
        (2,)
    """
    device = next(network.parameters()).device
    random = np.random.default_rng(seed)
    indices = random.integers(len(data), size=integer("num", num))
    totals = np.zeros(len(sigmas))
    for start in range(0, num, batch):
        chosen = indices[start : start + batch]
        images = torch.from_numpy(data.batch(chosen)).to(device)
        noise = torch.from_numpy(random.standard_normal(images.shape, dtype=np.float32)).to(device)
        labels = one_hot(data, chosen, label_dim)
        for level, sigma in enumerate(sigmas):
            denoised = network(
                images + sigma * noise,
                images.new_full((len(images),), sigma),
                None if labels is None else labels.to(device),
            )
            totals[level] += float(((denoised - images) ** 2).mean((1, 2, 3)).double().sum())
    return totals / num


def draw_samples(
    network: Preconditioner, num: int, *, seed: int = 0, num_steps: int = 18, batch: int = 64
) -> NDArray[np.float32]:
    """Samples by Heun's method from the noise of ``initial_noise``, float32 [num, C, H, W].

    A conditional network draws its classes in turn.

    Args:
        network: a network of ``pspc_rs.networks``, on any device.
        num: how many.
        seed: of the noise.
        num_steps: steps of the sampler.
        batch: samples at once.

    Example:
        >>> from pspc_rs.networks import build_network
        >>> net = build_network({
        ...     "preconditioner": "EDMPrecond",
        ...     "preconditioner_kwargs": {"img_resolution": 8, "img_channels": 1},
        ...     "architecture": "SongUNet",
        ...     "architecture_kwargs": {"model_channels": 8, "channel_mult": [1], "num_blocks": 1},
        ... })
        >>> draw_samples(net, 2, num_steps=2).shape
        (2, 1, 8, 8)
    """
    device = next(network.parameters()).device
    low, high, classes = max(0.002, network.sigma_min), min(80.0, network.sigma_max), network.label_dim
    sigmas = edm_sigmas(num_steps, low, high, include_zero=True)
    noise = torch.from_numpy(initial_noise(num, network.shape, high, seed, generator="torch"))
    parts = []
    for start in range(0, num, batch):
        x = noise[start : start + batch].to(device)
        labels = {}
        if classes:
            turns = torch.arange(start, start + len(x), device=device) % classes
            labels["class_labels"] = nn.functional.one_hot(turns, classes).float()
        parts.append(sample_heun(network, x, sigmas, extra_args=labels).cpu())
    samples: NDArray[np.float32] = torch.cat(parts).numpy()
    return samples
