"""Denoises problems of odd shapes: `python shapes.py DEVICE OUT.npz [few]`. It imports no torch.

The problems are the same wherever it runs, so that a GPU, emulated or not, can be compared with the CPU.
"""

import sys
from typing import Any

import numpy as np

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


def problem(shape: tuple[int, int, int, int, int], device: str, floats: bool, xflip: bool, few: bool) -> np.ndarray:
    """The denoised images of one problem."""
    channels, height, width, count, side = shape
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    images[count // 2] = images[0]
    data = pspc.ImageSet(images.astype(np.float32) / 100 - 1 if floats else images, xflip=xflip)
    sigma = np.array([0.02, 0.3, 0.02, 0.3] if few else [8.0, 0.02, 0.3, 0.8, 0.02, 0.02, 0.3, 0.8])
    clean = data.batch(rng.integers(0, len(data), len(sigma)))
    z = clean + sigma[:, None, None, None] * rng.standard_normal(clean.shape)
    # The last queries are so far from all images that they need float64.
    z[2 if few else 5 :] *= 30
    if side > 0:
        return pspc.PSPCSquare(data, patch_sizes=side, device=device)(z, sigma)
    masks = rng.random((6, height, width)) < 0.4
    masks[0] |= ~masks.any(axis=0)
    return pspc.PSPCFlex(data, masks=masks, device=device)(z, sigma)


def denoised(device: str, few: bool) -> dict[str, np.ndarray]:
    """The denoised images of every problem."""
    kinds = [(False, True)] if few else [(False, False), (False, True), (True, True)]
    return {
        f"{shape} {floats} {xflip}": problem(shape, device, floats, xflip, few)
        for shape in (FEW if few else SHAPES)
        for floats, xflip in kinds
    }


if __name__ == "__main__":
    results: dict[str, Any] = denoised(sys.argv[1], sys.argv[3:] == ["few"])
    np.savez(sys.argv[2], **results)
