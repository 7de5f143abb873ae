"""Sampling protocols: their levels, `sample` under them, and DDIM's own formula beside Euler's method."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.samplers import PROTOCOLS, SAMPLERS, Protocol, initial_noise, sample_euler, sampling_protocol

DATA = pspc.ImageSet(np.random.default_rng(0).integers(0, 256, (30, 1, 6, 6), dtype=np.uint8), xflip=True)

PUBLISHED = {
    "ddim10": "60.822 25.736 12.0248 6.17351 3.44297 2.04109 1.24016 .72359 .34226 .0100",
    "cosine20": "11.034 5.8856 3.9791 2.9764 2.3518 1.9210 1.6026 1.3550 1.1547 .98761 .84442 .71895 .60681 .50482 "
    ".41057 .32217 .23810 .15711 .07807",
    "edm18": "80 57.59 40.79 28.37 19.35 12.91 8.401 5.315 3.257 1.923 1.088 .5853 .2964 .1395 .05995 .02293 "
    ".007528 .002",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_levels_are_the_published_ones_to_their_last_digit(name: str) -> None:
    printed = PUBLISHED[name].split()
    levels = sampling_protocol(name).grid(include_zero=False)
    assert len(levels) == len(printed)
    for level, text in zip(levels, printed, strict=True):
        digits = len(text.partition(".")[2])
        assert abs(level - float(text)) < 0.52 * 10.0**-digits


@pytest.mark.parametrize(("name", "num"), [("edm18", 18), ("edm40", 40), ("heun30", 30)])
def test_edm_protocols(name: str, num: int) -> None:
    protocol = PROTOCOLS[name]
    assert np.array_equal(protocol.grid(), pspc.edm_sigmas(num))
    assert (protocol.sampler, protocol.start_scale) == ("heun", 80.0)


@pytest.mark.parametrize("name", ["ddim10", "cosine20"])
def test_variance_preserving_protocols_start_from_a_standard_normal_x(name: str) -> None:
    protocol = PROTOCOLS[name]
    sigma = protocol.sigmas[0]
    alpha = 1 / math.sqrt(1 + sigma**2)
    assert protocol.start_scale * alpha == pytest.approx(1, rel=1e-15)
    assert protocol.sampler == "euler"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_sample_is_the_solver_on_the_levels_from_scaled_noise(name: str) -> None:
    D, protocol = pspc.PSPCSquare(DATA, patch_sizes=3), PROTOCOLS[name]
    start = initial_noise(2, DATA.shape, protocol.start_scale, seed=4)
    expected = SAMPLERS[protocol.sampler](D, start, protocol.grid())
    assert np.array_equal(pspc.sample(D, 2, protocol=name, seed=4), expected)
    assert np.array_equal(pspc.sample(D, 2, protocol=protocol, x_init=start), expected)


def test_records_have_the_levels() -> None:
    settings = sampling_protocol("cosine20").settings
    assert settings["sigmas"] == list(PROTOCOLS["cosine20"].sigmas) and settings["sigmas"][-1] == 0
    assert Protocol(**settings | {"sigmas": tuple(settings["sigmas"])}) == PROTOCOLS["cosine20"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampler": "heun"}, "sampler is 'heun' beside protocol 'ddim10', which decides it"),
        ({"num_steps": 10}, "num_steps is 10 beside"),
        ({"sigma_min": 0.01}, r"sigma_min is 0\.01 beside"),
        ({"sigma_max": 80.0}, r"sigma_max is 80\.0 beside"),
        ({"rho": 7.0}, r"rho is 7\.0 beside"),
    ],
)
def test_arguments_that_a_protocol_decides_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidValueError, match=message):
        pspc.sample(pspc.Empirical(DATA), 1, protocol="ddim10", **given)


def test_a_jump_is_refused_beside_a_protocol() -> None:
    with pytest.raises(errors.InvalidValueError, match=r"jump_to is 2\.5 beside protocol 'edm18', which decides it"):
        pspc.sample(pspc.Empirical(DATA), 1, protocol="edm18", jump=pspc.Gaussian(DATA, cache=False), jump_to=2.5)


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(errors.InvalidValueError, match="protocol is 'ddim'; allowed are ddim10, cosine20, edm18"):
        sampling_protocol("ddim")
    with pytest.raises(errors.DTypeError, match="protocol is 10; allowed are ddim10"):
        sampling_protocol(10)


def test_levels_are_not_clipped_to_those_of_a_network() -> None:
    net = pspc.Network(lambda z, sigma: 0 * z, shape=DATA.shape, sigma_max=5.0)
    assert pspc.sample(net, 1).shape == (1, 1, 6, 6)
    with pytest.raises(errors.InvalidValueError, match=r"sigma is 60\.8223; this network is good for 0 to 5"):
        pspc.sample(net, 1, protocol="ddim10")


def ddim(D: Any, x: NDArray[np.float64], abar: list[float]) -> NDArray[np.float64]:
    """DDIM without added noise as its paper writes it (Song et al. 2021, eq. 12), of x_t with abar falling in t."""
    for now, after in zip(abar, [*abar[1:], 1.0], strict=True):
        denoised = D(x / math.sqrt(now), math.sqrt((1 - now) / now))
        eps = (x - math.sqrt(now) * denoised) / math.sqrt(1 - now)
        x = math.sqrt(after) * denoised + math.sqrt(1 - after) * eps
    return x


@pytest.mark.parametrize("name", ["ddim10", "cosine20"])
def test_ddims_formula_is_eulers_method_on_the_levels(name: str) -> None:
    D, protocol = pspc.PSPCSquare(DATA, patch_sizes=3), PROTOCOLS[name]
    abar = [1 / (1 + sigma**2) for sigma in protocol.sigmas[:-1]]
    x = np.random.default_rng(1).normal(size=(3, *DATA.shape))
    ours = sample_euler(D, x * protocol.start_scale, protocol.sigmas)
    np.testing.assert_allclose(ours, ddim(D, x, abar), rtol=0, atol=1e-5)
