"""Heat maps: how much each input pixel decides each output pixel of a denoiser; PSPC-Flex cuts its masks from them.

G(p)(q) = mean over z of sum_c |d D_c(p) / d z_c(q)|, the same channel in and out; Niedoba et al. 2025, eq. 8. Entry
[level, y, x] of an array of heat maps is the map of output pixel (y, x).
"""

from pspc_rs.denoisers.masks import own_pixel_first
from pspc_rs.heatmaps.cached import cached_gaussian_heatmaps
from pspc_rs.heatmaps.maps import gaussian_heatmaps, heatmaps_at, save_heatmaps

__all__ = ["cached_gaussian_heatmaps", "gaussian_heatmaps", "heatmaps_at", "own_pixel_first", "save_heatmaps"]
