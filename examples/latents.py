"""Samples in the space of latents: a small autoencoder is trained, PSPC-Square samples among its latents.

    python examples/latents.py --outdir out/latents

takes about a minute. It needs torch and scikit-learn, whose two photographs are the data. The autoencoder of a real
run, such as AutoencoderKL of diffusers, comes with its own scale and shift; its `decode` goes where ours does.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pspc_rs as pspc
from pspc_rs.data import Scaling, save_store
from pspc_rs.images import image_grid, save_png


class Autoencoder(nn.Module):
    """Pictures [B, 3, 32, 32] to latents [B, 4, 8, 8] and back."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, 4, 1)
        )
        self.decode = nn.Sequential(
            nn.Conv2d(4, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The pictures after both ways."""
        reconstructed: torch.Tensor = self.decode(self.encode(x))
        return reconstructed


def train(data: pspc.ImageSet, steps: int, batch: int = 64) -> Autoencoder:
    """An autoencoder of the data's pictures."""
    torch.manual_seed(0)
    net, rng = Autoencoder(), np.random.default_rng(0)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(steps):
        x = torch.from_numpy(data.batch(rng.integers(0, len(data), batch)))
        loss = nn.functional.mse_loss(net(x), x)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return net


def encode(net: Autoencoder, data: pspc.ImageSet, batch: int = 256) -> np.ndarray:
    """The latents of all pictures, float32 [N, 4, 8, 8]."""
    parts = [range(start, min(start + batch, len(data))) for start in range(0, len(data), batch)]
    with torch.no_grad():
        return np.concatenate([net.encode(torch.from_numpy(data.batch(list(part)))).numpy() for part in parts])


def main() -> None:
    """Trains, encodes, samples and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("out/latents"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=16)
    chosen = parser.parse_args()

    pictures = pspc.load("photos", max_size=chosen.images)
    net = train(pictures, chosen.steps).eval()
    latents = encode(net, pictures)
    # One number per channel brings the latents to mean 0 and standard deviation 1/2, that of pictures.
    scaling = Scaling(0.5 / latents.std(axis=(0, 2, 3)), shift=latents.mean(axis=(0, 2, 3)))
    raw = pspc.ImageSet(latents, pictures.labels, name="photos")
    # Flips are not counted: a flipped latent is not the latent of the flipped picture.
    data = pspc.load(save_store(raw, chosen.outdir / "latents.npy", scaling=scaling, overwrite=True))

    side = {80.0: "full", 2.0: 5, 0.5: 3, 0.002: 3}
    D = pspc.PSPCSquare(data, patch_sizes=list(side.values()), sigmas=list(side))
    samples = pspc.sample(D, chosen.samples, generator="numpy")
    save_png(chosen.outdir / "samples.png", image_grid(data.decode(samples, net.decode)))
    save_png(chosen.outdir / "decoded.png", image_grid(data.decode(data.batch(range(16)), net.decode)))
    restored = data.decode(data.batch(range(len(data))), net.decode)
    error = float(np.mean((restored - pictures.batch(range(len(pictures)))) ** 2))
    print(f"{chosen.outdir}: {chosen.samples} samples; squared error of the autoencoder {error:.4f}")


if __name__ == "__main__":
    main()
