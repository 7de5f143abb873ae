"""The maps of each kind of denoiser, from its Jacobian: networks, posterior composites and the Gaussian denoiser.

|d D_c(p) / d z_c(q)|, summed over channels c, for some output pixels p and every input pixel q.
"""

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import import_torch, is_torch, like
from pspc_rs.data import ImageSet
from pspc_rs.data.image_set import to_float
from pspc_rs.denoisers import Gaussian, Network
from pspc_rs.denoisers.batches import in_parts
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.errors import InvalidValueError

Float64: TypeAlias = NDArray[np.float64]
Masks: TypeAlias = NDArray[np.bool_]
Pixels: TypeAlias = NDArray[np.int64]
"""Output pixels as indices y * W + x, [P]."""

# Smaller posterior weights, relative to the largest, are below the rounding of float64.
_LEAST_LOG_WEIGHT = math.log(np.finfo(np.float64).eps) - 1
_NUMBERS_AT_ONCE = 1 << 24


def network_maps(
    network: Network, z: NDArray[np.floating], sigma: float, pixels: Pixels, *, at_once: int = 32
) -> NDArray[np.float64]:
    """|d D_c(p) / d z_c(q)|, summed over channels c, of a network; float64 [batch, P, H, W].

    One evaluation of the network, then one vector-Jacobian product for every output pixel and channel, ``at_once`` of
    them batched by torch's vmap, fewer if memory runs out.

    Args:
        network: one that computes with torch tensors.
        z: noisy images [batch, channels, height, width].
        sigma: their noise level, in the network's range.
        pixels: output pixels p as indices y * W + x, [P].
        at_once: products per batch.

    Raises:
        InvalidValueError: sigma is outside the network's range, or torch cannot differentiate the network.
        MissingDependencyError: torch is not installed.
    """
    torch: Any = import_torch("a heat map of a network")
    network.check_sigmas(np.array([sigma]))
    x = network.as_input(torch.from_numpy(np.ascontiguousarray(z))).detach().requires_grad_()
    with torch.enable_grad():
        denoised = network.evaluate(x, like(np.full(len(z), sigma), x))
    if not is_torch(denoised) or not denoised.requires_grad:
        raise InvalidValueError(
            "the network's output has no gradient with respect to its input, so no heat maps either"
        )
    batch, channels, height, width = x.shape
    maps = np.zeros((batch, len(pixels), height * width))
    for channel in range(channels):

        def products(part: slice, channel: int = channel) -> NDArray[np.float32]:
            chosen = torch.from_numpy(pixels[part]).to(x.device)
            units = torch.zeros(len(chosen), batch, channels, height * width, device=x.device, dtype=denoised.dtype)
            units[torch.arange(len(chosen)), :, channel, chosen] = 1
            units = units.reshape(len(chosen), *x.shape)
            rows = torch.autograd.grad(denoised, x, units, retain_graph=True, is_grads_batched=True)[0]
            found: NDArray[np.float32] = rows[:, :, channel].abs().float().cpu().numpy()
            return found

        rows, at_once = in_parts(products, len(pixels), at_once)
        maps += np.concatenate(rows).reshape(len(pixels), batch, -1).swapaxes(0, 1)
    return maps.reshape(batch, len(pixels), height, width)


def wiener_rows(gaussian: Gaussian, sigma: float, pixels: Pixels) -> NDArray[np.float32]:
    """Heat maps of some output pixels at one noise level, float32 [P, H, W].

    Args:
        gaussian: the denoiser.
        sigma: the noise level.
        pixels: indices y * W + x, [P].
    """
    channels, height, width = gaussian.shape
    axes = gaussian.axes.reshape(channels, height * width, -1).astype(np.float32)
    along, elsewhere = gaussian.gains_at(sigma)
    gain = (along - elsewhere).astype(np.float32)
    maps = np.zeros((len(pixels), height * width), np.float32)
    for rows in axes:
        products = (rows[pixels] * gain) @ rows.T
        products[np.arange(len(pixels)), pixels] += np.float32(elsewhere)
        maps += np.abs(products)
    return maps.reshape(-1, height, width)


def composite_maps(denoiser: PosteriorComposite, z: NDArray[np.floating], sigma: float, pixels: Pixels) -> Float64:
    """|d D_c(p) / d z_c(q)|, summed over channels c, of a posterior composite; float64 [batch, P, H, W].

    With w_kn the posterior of image n given window k of z, a window's posterior mean has the derivative
    d m_kc(p) / d z_c(q) = Cov_k(x_c(p), x_c(q)) / sigma^2 for p and q in the window, and 0 elsewhere; D(p) is the mean
    over the windows that hold p, so that

        d D_c(p) / d z_c(q) = sum over windows with p and q of Cov_k(x_c(p), x_c(q)) / (sigma^2 cover(p)).

    All of it is computed in float64. Images without weight are left out. A temperature T of the denoiser stands beside
    sigma^2, and the prior weights of its data count.

    Args:
        denoiser: empirical, PSPC-Square or PSPC-Flex.
        z: noisy images [batch, channels, height, width].
        sigma: their noise level.
        pixels: output pixels p as indices y * W + x, [P].
    """
    masks = denoiser.masks_at(sigma).reshape(-1, denoiser.shape[1] * denoiser.shape[2])
    masks = masks[masks[:, pixels].any(axis=1)]
    level = sigma * math.sqrt(denoiser.temperature)
    maps = [_maps_of_one(denoiser.data, masks, one, level, pixels) for one in z.astype(np.float64)]
    return np.array(maps).reshape(len(z), len(pixels), *denoiser.shape[1:])


def _maps_of_one(data: ImageSet, masks: Masks, z: Float64, sigma: float, pixels: Pixels) -> Float64:
    derivative = np.zeros((data.channels, len(pixels), masks.shape[1]))
    prior = data.log_prior
    log_prior = 0.0 if prior is None else np.tile(prior, 1 + data.xflip)
    step = max(1, _NUMBERS_AT_ONCE // len(data))
    for start in range(0, len(masks), step):
        windows = masks[start : start + step]
        energies = _energies(data, windows, z)
        for mask, energy in zip(windows, energies.T, strict=True):
            logits = log_prior - energy / (2 * sigma**2)
            logits -= logits.max()
            images = np.flatnonzero(logits > _LEAST_LOG_WEIGHT)
            weights = np.exp(logits[images])
            inside = np.flatnonzero(mask)
            rows = np.flatnonzero(mask[pixels])
            own = np.searchsorted(inside, pixels[rows])
            parts = _WindowPosterior(data, images, weights / weights.sum(), inside)
            derivative[:, rows[:, None], inside] += _covariance(parts, own)
    cover = masks[:, pixels].sum(axis=0)
    maps: Float64 = np.abs(derivative).sum(axis=0) / (sigma**2 * cover[:, None])
    return maps


def _energies(data: ImageSet, masks: Masks, z: Float64) -> Float64:
    """Sum over a window of |z - x_n|^2, [images, windows]."""
    energies = np.empty((len(data), len(masks)))
    columns = masks.T.astype(np.float64)
    step = max(1, _NUMBERS_AT_ONCE // (8 * z.size))
    for start in range(0, len(data), step):
        images = range(start, min(start + step, len(data)))
        distances = ((data.batch(images) - z) ** 2).sum(axis=1)
        energies[start : images.stop] = distances.reshape(len(images), -1) @ columns
    return energies


class _WindowPosterior:
    """The posterior of one window, some images at a time: weights [n] and the window's pixels [n, channels, pixels]."""

    def __init__(self, data: ImageSet, images: Pixels, weights: Float64, inside: Pixels) -> None:
        self.data, self.images, self.weights, self.inside = data, images, weights, inside

    def __iter__(self) -> Iterator[tuple[Float64, Float64]]:
        num, channels, width = self.data.num_stored, self.data.channels, self.data.width
        stored = self.data.images.reshape(num, channels, -1)
        mirrored = self.inside // width * width + (width - 1 - self.inside % width)
        step = max(1, _NUMBERS_AT_ONCE // (4 * channels * len(self.inside)))
        for start in range(0, len(self.images), step):
            images = self.images[start : start + step, None]
            places = np.where(images >= num, mirrored, self.inside)
            x = stored[images[:, :, None] % num, np.arange(channels)[None, :, None], places[:, None]]
            yield self.weights[start : start + step], to_float(x).astype(np.float64)


def _covariance(parts: _WindowPosterior, own: Pixels) -> Float64:
    """Covariances of some pixels of a window, given by their indices in it, with all: [channels, own, pixels]."""
    mean = sum((np.tensordot(weights, x, 1) for weights, x in parts), np.zeros(()))
    covariance = np.zeros((parts.data.channels, len(own), len(parts.inside)))
    for weights, x in parts:
        centred = (x - mean).transpose(1, 0, 2)
        covariance += (centred[:, :, own] * weights[:, None]).transpose(0, 2, 1) @ centred
    return covariance
