"""Heat maps of networks: vector-Jacobian products, many output pixels at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import import_torch, is_torch, like
from pspc_rs.denoisers import Network
from pspc_rs.denoisers.batches import in_parts
from pspc_rs.errors import InvalidValueError
from pspc_rs.heatmaps.pixels import Pixels


def network_maps(
    network: Network, z: NDArray[np.floating], sigma: float, pixels: Pixels, *, at_once: int = 32
) -> NDArray[np.float64]:
    """|d D_c(p) / d z_c(q)|, summed over channels c, of a network; float64 [batch, P, H, W].

    One evaluation of the network, then one vector-Jacobian product for every output pixel and channel, ``at_once`` of
    them batched by torch's vmap; fewer where memory runs out.

    Args:
        network: one that computes with torch tensors.
        z: noisy images [batch, channels, height, width].
        sigma: their noise level, in the network's range.
        pixels: output pixels p as indices y * W + x, [P].
        at_once: products a batch.

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
