"""Denoises problems of odd shapes, and asks for posteriors and derivatives: `python shapes.py DEVICE OUT.npz [few]`.

It imports no torch.

The problems are the same wherever it runs, so that a GPU, emulated or not, can be compared with the CPU.
"""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

import pspc_rs as pspc

# Channels, height, width, images; the fifth number is the side of the windows, 0 for masks.
SHAPES = [
    (3, 5, 7, 70, 3),
    (1, 7, 5, 9, 5),
    (4, 3, 34, 5, 2),
    (2, 9, 4, 66, 0),
    (3, 6, 6, 130, 6),
    (1, 6, 33, 6, 5),
]

# For sanitizers, which are slow: small shapes that still launch every kernel.
FEW = [(3, 3, 4, 5, 2), (1, 6, 7, 5, 5), (1, 3, 33, 3, 2), (1, 3, 4, 5, 0), (1, 3, 3, 6, 3)]


Array = npt.NDArray[Any]


def problem(
    shape: tuple[int, int, int, int, int], device: str, floats: bool, xflip: bool, chosen: bool, few: bool
) -> dict[str, Array]:
    """What is found in one problem, among all images or among some of them."""
    channels, height, width, count, side = shape
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    images[count // 2] = images[0]
    labels, log_prior = (np.arange(count) % 2, np.linspace(-3, 3, count)) if chosen else (None, None)
    pixels = images.astype(np.float32) / 100 - 1 if floats else images
    data = pspc.ImageSet(pixels, labels, xflip=xflip, log_prior=log_prior)
    sigma = np.array([0.02, 0.3, 0.02, 0.3] if few else [8.0, 0.02, 0.3, 0.8, 0.02, 0.02, 0.3, 0.8])
    index = rng.integers(0, len(data), len(sigma))
    clean = data.batch(index)
    z = clean + sigma[:, None, None, None] * rng.standard_normal(clean.shape)
    # The last queries are so far from all images that they need float64.
    z[2 if few else 5 :] *= 30
    # One class, and each query without the image that it was made from.
    among: dict[str, Any] = {"class_labels": np.zeros(len(sigma), int), "exclude": index} if chosen else {}
    D: pspc.denoisers.PosteriorComposite
    if side > 0:
        D = pspc.PSPCSquare(data, patch_sizes=side, device=device)
    else:
        masks = rng.random((6, height, width)) < 0.4
        masks[0] |= ~masks.any(axis=0)
        D = pspc.PSPCFlex(data, masks=masks, device=device)
    denoised = {"denoised": D(z, sigma, **among)}
    if not few:
        return denoised | asked(D, z, sigma, among)
    if not chosen or shape not in (FEW[0], FEW[3]):
        return denoised
    # One query far from the data, on squares and on masks.
    one = slice(2, 3)
    return denoised | asked(D, z[one], sigma[one], {name: values[one] for name, values in among.items()})


def asked(D: pspc.denoisers.PosteriorComposite, z: Array, sigma: Array, among: dict[str, Any]) -> dict[str, Array]:
    """What a denoiser says of noisy images besides what is below the noise."""
    P = D.posterior(z, sigma, top=3, **among)
    statistics = {"evidence": P.log_evidence, "entropy": P.entropy, "weights": P.top_weight, "sums": P.attribution()}
    moments = {"variance": P.variance, "middles": P.component_variance, "mean": P.denoised}
    directions = np.stack([np.sin(z), np.cos(z)])
    products = {"jvp": D.jvp(z, sigma, directions, **among)[1], "vjp": D.vjp(z, sigma, directions[0], **among)[1]}
    # They grow as 1 / sigma^2.
    products = {name: values * sigma[:, None, None, None] ** 2 for name, values in products.items()}
    return {**statistics, **moments, **products}


def found(device: str, few: bool) -> dict[str, Array]:
    """What is found in every problem."""
    kinds = [(False, True, False), (False, True, True)]
    kinds += [] if few else [(False, False, False), (True, True, False), (True, True, True)]
    return {
        f"{name} {shape} {floats} {xflip}{' chosen' if chosen else ''}": values
        for shape in (FEW if few else SHAPES)
        for floats, xflip, chosen in kinds
        for name, values in problem(shape, device, floats, xflip, chosen, few).items()
    }


if __name__ == "__main__":
    results: dict[str, Any] = found(sys.argv[1], sys.argv[3:] == ["few"])
    np.savez(sys.argv[2], **results)
