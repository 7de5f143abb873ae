"""Denoisers and data sets that travel: pickles, copies, files of torch, worker processes of every kind."""

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pspc_rs as pspc
from bad_files import random_images

SHAPE = (3, 8, 8)
DATA = pspc.ImageSet(random_images(40, *SHAPE), xflip=True, name="forty")


def masks() -> Any:
    both = np.zeros((2, 8, 8), bool)
    both[0, :, :5] = both[1, :, 3:] = True
    return both


def heatmaps() -> Any:
    return np.random.default_rng(0).random((2, 8, 8, 8, 8))


DENOISERS: dict[str, Callable[[], pspc.Denoiser]] = {
    "Empirical": lambda: pspc.Empirical(DATA),
    "PSPCSquare": lambda: pspc.PSPCSquare(DATA, patch_sizes=["full", 5, 3], sigmas=[2.0, 0.5, 0.1]),
    "PSPCFlex masks": lambda: pspc.PSPCFlex(DATA, masks=masks()),
    "PSPCFlex heat maps": lambda: pspc.PSPCFlex(DATA, heatmaps=heatmaps(), thresholds=[1, 0.4], sigmas=[1.0, 0.1]),
    "CFDM": lambda: pspc.CFDM(DATA),
    "SNIS": lambda: pspc.SNIS(DATA, num_neighbors=4),
    "LS": lambda: pspc.LS(DATA, patch_sizes=["full", 5, 3], sigmas=[2.0, 0.5, 0.1]),
    "ELS": lambda: pspc.ELS(DATA, patch_sizes=3, source="inside"),
    "SoftPSPC": lambda: pspc.SoftPSPC(DATA, [2.0, 1.0], sigmas=[2.0, 0.5], response="centre"),
    "PCALocality": lambda: pspc.PCALocality(DATA, 0.1),
    "FilteredPosteriorMean": lambda: pspc.FilteredPosteriorMean(DATA, heatmaps()[0].reshape(64, 8, 8)),
    "PSPCSquare with a source": lambda: pspc.PSPCSquare(DATA, patch_sizes=3, source=pspc.Orbit(yflip=True)),
    "Gaussian": lambda: pspc.Gaussian(DATA, cache=False),
}

SIGMAS = [2.0, 0.4, 0.1]
Z = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)


def by_pickle(thing: Any, protocol: int) -> Any:
    return pickle.loads(pickle.dumps(thing, protocol))  # noqa: S301


def by_torch(thing: Any) -> Any:
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "protocol 2": lambda thing: by_pickle(thing, 2),
    "protocol 5": lambda thing: by_pickle(thing, 5),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch.save": by_torch,
}


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers_arrive_with_the_same_numbers(name: str, way: str, used: bool) -> None:
    denoiser = DENOISERS[name]()
    expected = DENOISERS[name]()(Z, SIGMAS)
    if used:
        denoiser(Z, SIGMAS)
    other = WAYS[way](denoiser)
    assert type(other) is type(denoiser)
    assert other is not denoiser
    assert (repr(other), other.settings) == (repr(denoiser), denoiser.settings)
    np.testing.assert_array_equal(other(Z, SIGMAS), expected)
    np.testing.assert_array_equal(denoiser(Z, SIGMAS), expected)


def test_a_deep_copy_shares_the_images_and_nothing_that_changes() -> None:
    denoiser = pspc.PSPCFlex(DATA, masks=masks())
    other = copy.deepcopy({"ema": denoiser, "again": denoiser})
    assert other["ema"] is other["again"]
    assert other["ema"].data is DATA
    assert not np.shares_memory(other["ema"].masks_at(1.0), denoiser.masks_at(1.0))


@pytest.mark.parametrize("way", ["protocol 2", "protocol 5", "deepcopy"])
def test_data_sets_arrive_read_only(way: str) -> None:
    for data in (
        pspc.ImageSet(random_images(3, 1, 4, 4), [0, 1, 0], xflip=True, log_prior=[0, -1, 2]),
        pspc.ImageSet(np.zeros((1, 1, 2, 2))),
    ):
        other = WAYS[way](data)
        assert (repr(other), other.fingerprint) == (repr(data), data.fingerprint)
        with pytest.raises(ValueError, match="read-only"):
            other.images[0] = 0


def denoised_elsewhere(denoiser: pspc.Denoiser) -> Any:
    return denoiser(Z, SIGMAS)


@pytest.mark.parametrize("method", [m for m in ("spawn", "forkserver") if m in multiprocessing.get_all_start_methods()])
def test_worker_processes_get_the_same_numbers(method: str) -> None:
    denoiser = DENOISERS["PSPCSquare"]()
    with multiprocessing.get_context(method).Pool(1) as pool:
        (elsewhere,) = pool.map(denoised_elsewhere, [denoiser])
    np.testing.assert_array_equal(elsewhere, denoiser(Z, SIGMAS))
