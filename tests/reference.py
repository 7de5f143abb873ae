"""The oracle: the equations in float64, window by window, slow and obvious; it shares no code with the package."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, float], Tensor]


def pixels(u8: Any) -> Tensor:
    """Images u8 [N, C, H, W] as float64 in [-1, 1]: u / 127.5 - 1."""
    return torch.as_tensor(u8).double() / 127.5 - 1


def with_flips(images: Tensor) -> Tensor:
    """The images, followed by all of them mirrored left-right."""
    return torch.cat([images, images.flip(-1)])


def full_window(height: int, width: int) -> Tensor:
    """One window that holds every pixel, bool [1, H, W]."""
    return torch.ones(1, height, width, dtype=torch.bool)


def square_windows(height: int, width: int, side: int) -> Tensor:
    """Every side x side window that fits into the image, bool [K, H, W]."""
    windows = []
    for top in range(height - side + 1):
        for left in range(width - side + 1):
            window = torch.zeros(height, width, dtype=torch.bool)
            window[top : top + side, left : left + side] = True
            windows.append(window)
    return torch.stack(windows)


def mask_from_map(heat: Any, threshold: float) -> Tensor:
    """The largest pixels of a heat map [H, W] whose share of its sum is just above the threshold, bool [H, W].

    Sorted ascending and stably, a pixel stays when the running share up to and including it is >= 1 - threshold, a
    difference of float32 numbers.
    """
    flat = torch.as_tensor(heat).double().flatten()
    order = torch.argsort(flat, stable=True)
    running = torch.cumsum((flat / flat.sum())[order], 0)
    least = (torch.ones((), dtype=torch.float32) - torch.tensor(threshold, dtype=torch.float32)).double()
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[order[running >= least]] = True
    return mask.reshape(torch.as_tensor(heat).shape)


def composite(images: Tensor, windows: Tensor, z: Any, sigma: Any) -> Tensor:
    """Posterior mean composite, float64 [B, C, H, W].

    For every window, softmax over images of -|z - x|^2 / (2 sigma^2) on its pixels in all channels; the posterior mean
    is added to these pixels; every pixel is divided by the number of windows that hold it.

    Args:
        images: float64 [N, C, H, W], mirrored ones included.
        windows: lambda, bool or numbers of pixels [K, H, W] or of values [K, C, H, W].
        z: noisy images [B, C, H, W].
        sigma: noise level, a number or one a noisy image [B].
    """
    cover = windows.sum(0)
    if (cover == 0).any():
        raise ValueError("a pixel is in no window")
    z = torch.as_tensor(z).double()
    sigmas = torch.as_tensor(sigma, dtype=torch.float64).expand(len(z))
    denoised = torch.zeros_like(z)
    for b in range(len(z)):
        for window in windows:
            inside_z = z[b][:, window]
            inside_x = images[:, :, window]
            logits = -((inside_z - inside_x) ** 2).sum((1, 2)) / (2 * sigmas[b] ** 2)
            weights = torch.softmax(logits, 0)
            denoised[b][:, window] += torch.einsum("n,ncp->cp", weights, inside_x)
    return denoised / cover


class Posterior(NamedTuple):
    """What the posteriors of B noisy images over A atoms say, one for each of K components; float64.

    Attributes:
        log_evidence: log sum_a exp(l_ka), [B, K].
        entropy: -sum_a w_ka log w_ka in nats, [B, K].
        logits: l_ka, [B, K, A]; -inf for atoms that do not count.
        weights: w_ka, [B, K, A].
        variance: response-weighted mean over the components at a pixel of their variance there, [B, C, H, W].
        component_variance: variance at the middle pixel of each component, [B, K, C].
        denoised: the composite, [B, C, H, W].
    """

    log_evidence: Tensor
    entropy: Tensor
    logits: Tensor
    weights: Tensor
    variance: Tensor
    component_variance: Tensor
    denoised: Tensor


def posterior(
    images: Tensor,
    windows: Tensor,
    z: Any,
    sigma: Any,
    *,
    responses: Tensor | None = None,
    middles: Any = None,
    log_prior: Any = None,
    counts: Any = None,
    seen_by: Any = None,
    temperature: float = 1.0,
) -> Posterior:
    """The posteriors over atoms, with l_ka = log pi_a - sum_d lambda_k(d) (z(d) - y_a(d))^2 / (2 T sigma^2).

    This is the general form: with windows as lambda it is a composite, see the package's page of the family.

    Every step is one that torch differentiates, so that autograd gives the derivatives of what is returned.

    Args:
        images: the atoms, float64 [A, C, H, W], mirrored ones included.
        windows: bool [K, H, W].
        z: noisy images [B, C, H, W].
        sigma: noise level, a number or one a noisy image [B].
        responses: weights rho of the components in the composite, the same; the windows if None.
        middles: pixel y W + x of each component whose variance is its own, [K]; see ``middle_pixels`` if None.
        log_prior: log pi_a, [A]; 0 if None.
        counts: bool [B, A], False for atoms that are left out; all count if None.
        seen_by: bool [K, A], which components see which atoms; all do if None.
        temperature: T.
    """
    z = torch.as_tensor(z).double()
    sigmas = torch.as_tensor(sigma, dtype=torch.float64).expand(len(z))
    inside, atoms = _of_values(windows, z.shape[1]), images.double().flatten(2)
    energies = (z.flatten(2)[:, None] - atoms) ** 2
    logits = -torch.einsum("bacp,kcp->bka", energies, inside) / (2 * temperature * sigmas[:, None, None] ** 2)
    if log_prior is not None:
        logits = logits + torch.as_tensor(log_prior).double()
    if counts is not None:
        logits = logits.masked_fill(~torch.as_tensor(counts)[:, None], -math.inf)
    if seen_by is not None:
        logits = logits.masked_fill(~torch.as_tensor(seen_by), -math.inf)
    log_evidence = logits.logsumexp(-1)
    weights = torch.softmax(logits, -1)
    entropy = -(weights * (logits - log_evidence[..., None]).masked_fill(weights == 0, 0)).sum(-1)
    mean = torch.einsum("bka,acp->bkcp", weights, atoms)
    variance = torch.einsum("bka,bkacp->bkcp", weights, (atoms - mean[:, :, None]) ** 2)
    shares = inside if responses is None else _of_values(responses, z.shape[1])
    shares = shares / shares.sum(0)
    own = torch.as_tensor(middle_pixels(windows) if middles is None else middles)
    return Posterior(
        log_evidence=log_evidence,
        entropy=entropy,
        logits=logits,
        weights=weights,
        variance=torch.einsum("kcp,bkcp->bcp", shares, variance).reshape(z.shape),
        component_variance=torch.stack([variance[:, k, :, p] for k, p in enumerate(own.tolist())], 1),
        denoised=torch.einsum("kcp,bkcp->bcp", shares, mean).reshape(z.shape),
    )


def _of_values(weights: Tensor, channels: int) -> Tensor:
    """Weights of pixels or of values, as those of values, float64 [K, C, H W]."""
    weights = weights.double()
    return (weights[:, None].expand(-1, channels, -1, -1) if weights.ndim == 3 else weights).flatten(2)


def middle_pixels(windows: Tensor) -> list[int]:
    """The pixel y W + x in the middle of each window's bounding box, the later one of two, or the nearest in it."""
    middles = []
    for window in windows:
        rows, columns = (torch.nonzero(window.any(axis)).flatten() for axis in (1, 0))
        y, x = (int(at[0] + at[-1] + 1) // 2 for at in (rows, columns))
        pixels = torch.nonzero(window)
        nearest = pixels[((pixels - torch.tensor([y, x])) ** 2).sum(1).argmin()]
        middles.append(int(nearest[0] * windows.shape[2] + nearest[1]))
    return middles


def jvp(denoise: Callable[[Tensor], Tensor], z: Any, v: Any) -> Tensor:
    """J v, for v like z, or with a leading axis for each of several, float64.

    J^T u is linear in u, and J v is the derivative of v . J^T u with respect to u.
    """
    z, v = torch.as_tensor(z).double().detach().requires_grad_(), torch.as_tensor(v).double()
    denoised = denoise(z)
    u = torch.zeros_like(denoised, requires_grad=True)
    (product,) = torch.autograd.grad(denoised, z, u, create_graph=True)
    several = v if v.ndim > z.ndim else v[None]
    tangents = torch.stack([torch.autograd.grad(product, u, one, retain_graph=True)[0] for one in several])
    return tangents.reshape(v.shape)


def vjp(denoise: Callable[[Tensor], Tensor], z: Any, u: Any) -> Tensor:
    """J^T u, for u like z, or with a leading axis for each of several, float64."""
    z, u = torch.as_tensor(z).double().detach().requires_grad_(), torch.as_tensor(u).double()
    denoised = denoise(z)
    several = u if u.ndim > z.ndim else u[None]
    products = torch.stack([torch.autograd.grad(denoised, z, one, retain_graph=True)[0] for one in several])
    return products.reshape(u.shape)


def log_density(images: Tensor, z: Any, sigma: Any) -> Tensor:
    """log of the mean over the images of the normal density around each, float64 [B]."""
    z = torch.as_tensor(z).double()
    sigmas = torch.as_tensor(sigma, dtype=torch.float64).expand(len(z))
    log_evidence = posterior(images, full_window(*z.shape[-2:]), z, sigmas).log_evidence[:, 0]
    constant: Tensor = math.log(len(images)) + z[0].numel() / 2 * torch.log(2 * math.pi * sigmas**2)
    return log_evidence - constant


def gaussian(images: Tensor, z: Any, sigma: float, rank: int | None = None) -> Tensor:
    """Gaussian denoiser, float64 [B, C, H, W]: mu + U diag(S / (S + sigma^2)) U^T (z - mu).

    U and S are eigenvectors and eigenvalues of the covariance of the images with divisor N, the ``rank`` leading ones.
    """
    z = torch.as_tensor(z).double()
    flat = images.flatten(1)
    mean = flat.mean(0)
    _, singular, vectors = torch.linalg.svd(flat - mean, full_matrices=False)
    variance = (singular**2 / len(flat))[:rank]
    coordinates = (z.flatten(1) - mean) @ vectors[:rank].T
    shrunk: Tensor = mean + (coordinates * (variance / (variance + sigma**2))) @ vectors[:rank]
    return shrunk.reshape(z.shape)


def cfdm(images: Tensor, noises: Any, smoothing: float, z: Any, sigma: float) -> Tensor:
    """Mean over noises eps of the empirical denoiser at z + smoothing (1 + sigma) eps, float64 [B, C, H, W]."""
    window = full_window(*z.shape[-2:])
    return cfdm_mean(lambda moved, level: composite(images, window, moved, level), noises, smoothing, z, sigma)


def cfdm_mean(denoise: Denoiser, noises: Any, smoothing: float, z: Any, sigma: float) -> Tensor:
    """Mean over noises eps of a denoiser at z + smoothing (1 + sigma) eps, float64 [B, C, H, W]."""
    z = torch.as_tensor(z).double()
    moved = [z + smoothing * (1 + sigma) * torch.as_tensor(noise).double() for noise in noises]
    return torch.stack([denoise(one, sigma) for one in moved]).mean(0)


def snis(images: Tensor, z: Any, sigma: float, neighbors: int, uniforms: Any) -> Tensor:
    """Self-normalised importance sampling from nearest neighbours, float64 [B, C, H, W].

    The proposal q gives the nearest images, nearest first, their posterior weight and each of the others, in the order
    of the data, the smallest weight among the nearest. Image l is the first whose cumulative q exceeds uniforms[b, l].
    """
    z = torch.as_tensor(z).double()
    denoised = torch.zeros_like(z)
    for b in range(len(z)):
        logits = -((z[b] - images) ** 2).sum((1, 2, 3)) / (2 * sigma**2)
        order = torch.argsort(logits, descending=True, stable=True)
        near, far = order[:neighbors], order[neighbors:].sort().values
        order = torch.cat([near, far])
        proposal = torch.cat([logits[near], logits[near[-1]].expand(len(far))])
        drawn = torch.searchsorted(torch.softmax(proposal, 0).cumsum(0), torch.as_tensor(uniforms[b]), right=True)
        ratios = torch.softmax(logits[order[drawn]] - proposal[drawn], 0)
        denoised[b] = torch.einsum("l,lchw->chw", ratios, images[order[drawn]])
    return denoised


def euler(denoise: Denoiser, z: Any, sigmas: Any) -> Tensor:
    """Euler's method from sigmas[0] to sigmas[-1], float64."""
    state: Tensor = torch.as_tensor(z).double()
    for i in range(len(sigmas) - 1):
        s, s_next = float(sigmas[i]), float(sigmas[i + 1])
        state = state + (s_next - s) * (state - denoise(state, s)) / s
    return state


def heun(denoise: Denoiser, z: Any, sigmas: Any) -> Tensor:
    """Heun's method from sigmas[0] to sigmas[-1], without correction in a step to 0, float64."""
    state: Tensor = torch.as_tensor(z).double()
    for i in range(len(sigmas) - 1):
        s, s_next = float(sigmas[i]), float(sigmas[i + 1])
        slope = (state - denoise(state, s)) / s
        ahead = state + (s_next - s) * slope
        if s_next > 0:
            slope_ahead = (ahead - denoise(ahead, s_next)) / s_next
            ahead = state + (s_next - s) * (slope + slope_ahead) / 2
        state = ahead
    return state
