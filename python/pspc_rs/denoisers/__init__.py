"""Denoisers D(z, sigma): those of the paper, its baselines, and any network."""

from pspc_rs.denoisers.base import Denoiser
from pspc_rs.denoisers.centred import BBELS, ELS, LS
from pspc_rs.denoisers.cfdm import CFDM
from pspc_rs.denoisers.composite import PosteriorComposite
from pspc_rs.denoisers.empirical import Empirical
from pspc_rs.denoisers.filtered import FilteredDenoiser
from pspc_rs.denoisers.filtered_mean import FilteredPosteriorMean
from pspc_rs.denoisers.flex import PSPCFlex
from pspc_rs.denoisers.gaussian import Gaussian
from pspc_rs.denoisers.masks import masks_from_maps
from pspc_rs.denoisers.network import Network
from pspc_rs.denoisers.orbit import Orbit
from pspc_rs.denoisers.pca_locality import PCALocality
from pspc_rs.denoisers.piecewise import Piecewise
from pspc_rs.denoisers.predictions import Prediction
from pspc_rs.denoisers.snis import SNIS
from pspc_rs.denoisers.soft import SoftPSPC
from pspc_rs.denoisers.square import PSPCSquare

__all__ = [
    "BBELS",
    "CFDM",
    "ELS",
    "LS",
    "SNIS",
    "Denoiser",
    "Empirical",
    "FilteredDenoiser",
    "FilteredPosteriorMean",
    "Gaussian",
    "Network",
    "Orbit",
    "PCALocality",
    "PSPCFlex",
    "PSPCSquare",
    "Piecewise",
    "PosteriorComposite",
    "Prediction",
    "SoftPSPC",
    "masks_from_maps",
]
