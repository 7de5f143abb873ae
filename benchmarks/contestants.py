"""What the engine is compared with: PyTorch programs that compute the same posterior composites."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812

Contestant = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def windows_style(side: int) -> Contestant:
    """Window by window: unfolded patches, 100 images a chunk, query by query, as the published scripts go about it."""

    def run(z: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        height, width = z.shape[2:]
        ones = F.fold(F.unfold(torch.ones_like(z[:1]), side), (height, width), side)
        out = torch.empty_like(z)
        for i, query in enumerate(z):
            patch = F.unfold(query[None], side)[0]
            best = torch.full((1, patch.shape[1]), -torch.inf)
            total, mean = torch.zeros_like(best), torch.zeros_like(patch)
            for chunk in torch.split(x, 100):
                patches = F.unfold(chunk, side)
                logits = -(patches - patch).square().sum(dim=1) / (2 * sigma**2)
                new = torch.maximum(best, logits.amax(dim=0, keepdim=True))
                weights = (logits - new).exp()
                fade = (best - new).exp()
                total = total * fade + weights.sum(dim=0, keepdim=True)
                mean = mean * fade + torch.einsum("nl,ncl->cl", weights, patches)
                best = new
            out[i] = (F.fold((mean / total)[None], (height, width), side) / ones)[0]
        return out

    return run


def masks_style(masks: torch.Tensor) -> Contestant:
    """Mask by mask: the pixels of one mask at a time, 100 images a chunk, all queries at once."""
    places = [mask.flatten().nonzero()[:, 0] for mask in masks]
    cover = masks.sum(dim=0)

    def run(z: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        out = torch.zeros_like(z).flatten(2)
        flat, queries = x.flatten(2), z.flatten(2)
        for place in places:
            wanted = queries[:, :, place]
            parts = []
            for chunk in torch.split(flat, 100):
                errors = wanted[:, None] - chunk[None, :, :, place]
                parts.append(-errors.square().sum(dim=(2, 3)) / (2 * sigma**2))
            weights = torch.cat(parts, dim=1).softmax(dim=1)
            out[:, :, place] += torch.einsum("bn,ncp->bcp", weights, flat[:, :, place])
        return out.view_as(z) / cover

    return run


def box_sums(side: int, chunk: int) -> Contestant:
    """Two passes with box sums: the engine's algorithm in plain PyTorch."""

    def run(z: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        def logits(part: torch.Tensor) -> torch.Tensor:
            errors = (z[:, None] - part[None]).square_().sum(dim=2)
            return pooled(errors, side).mul_(-1 / (2 * sigma**2))

        total = torch.tensor(-torch.inf)
        for part in torch.split(x, chunk):
            total = torch.logaddexp(total, torch.logsumexp(logits(part), dim=1, keepdim=True))
        out = torch.zeros_like(z)
        for part in torch.split(x, chunk):
            weights = (logits(part) - total).exp_()
            spread = pooled(F.pad(weights, (side - 1,) * 4), side)
            out += torch.einsum("bnhw,nchw->bchw", spread, part)
        ones = torch.ones(1, 1, z.shape[2] - side + 1, z.shape[3] - side + 1)
        return out / pooled(F.pad(ones, (side - 1,) * 4), side)

    return run


def pooled(planes: torch.Tensor, side: int) -> torch.Tensor:
    """Box sums, down and then across: faster than one square pooling from side 5 on."""
    return F.avg_pool2d(F.avg_pool2d(planes, (side, 1), stride=1), (1, side), stride=1) * side**2


def gemm(norms: torch.Tensor) -> Contestant:
    """The empirical denoiser by matrix products; ``norms`` are half the squared lengths of the images."""

    def run(z: torch.Tensor, x: torch.Tensor, sigma: float) -> torch.Tensor:
        flat, queries = x.flatten(1), z.flatten(1)
        logits = (queries @ flat.T - norms) / sigma**2
        return (logits.softmax(dim=1) @ flat).view_as(z)

    return run
