"""Samplers: solvers of the probability flow ODE dz/dsigma = (z - D(z, sigma)) / sigma for any model(x, sigma)."""

from pspc_rs.samplers.general import sample_general
from pspc_rs.samplers.likelihood import LogLikelihood, log_likelihood
from pspc_rs.samplers.noise import ImageSeeds, initial_noise, noise_source
from pspc_rs.samplers.protocols import PROTOCOLS, Protocol, sampling_protocol
from pspc_rs.samplers.solvers import SAMPLERS, sample, sample_dpmpp_2m, sample_edm, sample_euler, sample_heun
from pspc_rs.samplers.starts import gaussian_start

__all__ = [
    "PROTOCOLS",
    "SAMPLERS",
    "ImageSeeds",
    "LogLikelihood",
    "Protocol",
    "gaussian_start",
    "initial_noise",
    "log_likelihood",
    "noise_source",
    "sample",
    "sample_dpmpp_2m",
    "sample_edm",
    "sample_euler",
    "sample_general",
    "sample_heun",
    "sampling_protocol",
]
