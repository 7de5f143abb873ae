"""Denoisers D(z, sigma): those of the paper, its baselines, and any network."""

from pspc_rs.denoisers.base import Denoiser
from pspc_rs.denoisers.cfdm import CFDM
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.denoisers.empirical import Empirical
from pspc_rs.denoisers.flex import PSPCFlex, masks_from_maps
from pspc_rs.denoisers.gaussian import Gaussian
from pspc_rs.denoisers.network import Network
from pspc_rs.denoisers.snis import SNIS
from pspc_rs.denoisers.square import PSPCSquare

__all__ = [
    "CFDM",
    "SNIS",
    "Denoiser",
    "Empirical",
    "Gaussian",
    "Network",
    "PSPCFlex",
    "PSPCSquare",
    "PosteriorComposite",
    "masks_from_maps",
]
