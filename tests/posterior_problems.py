"""Small problems for tests of posteriors: data with every option, a denoiser, queries, and what the oracle says."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from torch import Tensor

import pspc_rs as pspc
import reference
from pspc_rs.denoisers import PosteriorComposite

Array = npt.NDArray[Any]

KINDS = ("empirical", "square", "masks")

DEVICE = os.environ.get("PSPC_TEST_DEVICE", "cpu")
"""Where the denoisers of these problems compute; tests of the GPU run those of posteriors again on it."""


@dataclass
class Problem:
    """A data set with labels, a denoiser of one level, and queries at noise levels of their own."""

    data: pspc.ImageSet
    kind: str
    temperature: float
    z: Array
    sigma: Array

    @property
    def windows(self) -> Tensor:
        _, height, width = self.data.shape
        if self.kind == "empirical":
            return reference.full_window(height, width)
        if self.kind == "square":
            return reference.square_windows(height, width, 2)
        masks = torch.ones(3, height, width, dtype=torch.bool)
        masks[0, :, 1:] = masks[1, : (height + 1) // 2] = False
        masks[1, 0, 0] = True
        return masks

    def denoiser(self, data: pspc.ImageSet | None = None, **options: Any) -> PosteriorComposite:
        chosen = self.data if data is None else data
        options = {"temperature": self.temperature, "device": DEVICE, **options}
        if self.kind == "empirical":
            return pspc.Empirical(chosen, **options)
        if self.kind == "square":
            return pspc.PSPCSquare(chosen, patch_sizes=2, **options)
        return pspc.PSPCFlex(chosen, masks=self.windows.numpy(), **options)

    def oracle(self, z: Any = None, counts: Any = None) -> reference.Posterior:
        """What the oracle says; ``counts`` are flags [batch, images]."""
        views = 1 + self.data.xflip
        atoms = torch.from_numpy(self.data.batch(range(len(self.data))).astype(np.float64))
        if self.data.dtype == np.uint8:
            atoms = reference.pixels(self.data.images.copy())
            atoms = reference.with_flips(atoms) if self.data.xflip else atoms
        prior = None if self.data.log_prior is None else np.tile(self.data.log_prior, views)
        return reference.posterior(
            atoms,
            self.windows,
            self.z if z is None else z,
            torch.from_numpy(self.sigma),
            log_prior=prior,
            counts=None if counts is None else np.tile(counts, views),
            temperature=self.temperature,
        )

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(int(np.abs(self.z).sum() * 1e6))


@st.composite
def problems(
    draw: st.DrawFn, kinds: tuple[str, ...] = KINDS, temperatures: tuple[float, ...] = (1.0, 1.0, 0.6, 1.7)
) -> Problem:
    """Bytes and floats, flips, few images and many, prior weights, temperatures; z near the data and far from them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 5)), draw(st.integers(2, 6)))
    n = draw(st.sampled_from([2, 3, 12, 40]))
    images: Array = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    if draw(st.booleans()):
        images = (images / 127.5 - 1).astype(np.float32)
    prior = rng.normal(size=n) * 2 if draw(st.booleans()) else None
    data = pspc.ImageSet(images, np.arange(n) % 2, draw(st.booleans()), log_prior=prior, channels_last=False)
    batch = draw(st.integers(1, 3))
    sigma = np.array([draw(st.sampled_from([0.05, 0.3, 1.0, 4.0, 30.0])) for _ in range(batch)])
    noise = sigma[:, None, None, None] * rng.standard_normal((batch, *shape))
    z = data.batch(rng.integers(0, len(data), batch)) * draw(st.sampled_from([0.5, 1.0])) + noise
    return Problem(data, draw(st.sampled_from(kinds)), draw(st.sampled_from(temperatures)), z, sigma)
