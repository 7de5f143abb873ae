"""Batches of mixed noise levels: results in the caller's order, the bits of any order, queries named by their place."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from bad_files import random_images
from pspc_rs import _core
from pspc_rs.errors import InvalidValueError

DATA = pspc.ImageSet(random_images(40, 1, 8, 8), labels=[0, 1] * 20, xflip=True)
DENOISERS = {
    "empirical": pspc.Empirical(DATA),
    "square": pspc.PSPCSquare(DATA, patch_sizes=[5, 3], sigmas=[2.0, 0.1]),
    "soft": pspc.denoisers.SoftPSPC(DATA, 2.0),
}


def batch(sigmas: list[float]) -> tuple[Any, Any]:
    z = np.random.default_rng(0).normal(size=(len(sigmas), 1, 8, 8)).astype(np.float32)
    return z, np.array(sigmas)


@given(
    name=st.sampled_from(sorted(DENOISERS)),
    sigmas=st.lists(st.floats(0.05, 20.0), min_size=1, max_size=12),
    labelled=st.booleans(),
)
def test_results_come_in_the_order_of_the_batch(name: str, sigmas: list[float], labelled: bool) -> None:
    (z, levels), D = batch(sigmas), DENOISERS[name]
    options: dict[str, Any] = {"class_labels": np.arange(len(z)) % 2} if labelled else {}
    found = D(z, levels, **options)
    for query, level in enumerate(levels):
        alone = {key: value[query : query + 1] for key, value in options.items()}
        np.testing.assert_array_equal(found[query], D(z[query : query + 1], level, **alone)[0])
    order, v = np.argsort(levels), z[::-1].copy()
    if name != "square":  # whose levels have different numbers of windows
        entropy = D.posterior(z, levels, top=2, **options).entropy
        of_sorted = {key: value[order] for key, value in options.items()}
        np.testing.assert_array_equal(entropy[order], D.posterior(z[order], levels[order], top=2, **of_sorted).entropy)
    np.testing.assert_array_equal(D.jvp(z, levels, v)[1][order], D.jvp(z[order], levels[order], v[order])[1])


def test_the_engine_gets_the_queries_in_order_of_their_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[list[float]] = []

    class Engine:
        def composite(self, windows: Any, z: Any, sigma: list[float], *others: Any, **more: Any) -> Any:
            taken.append(sigma)
            return z

    z, levels = batch([3.0, 0.5, 7.0, 0.5])
    D = pspc.Empirical(DATA)
    monkeypatch.setattr(D, "_engine", Engine())
    np.testing.assert_array_equal(D(z, levels), z)
    assert taken == [[0.5, 0.5, 3.0, 7.0]]


@pytest.mark.parametrize("name", sorted(DENOISERS))
@pytest.mark.parametrize("value", [np.nan, np.inf, -1e10])
def test_a_bad_pixel_is_named_by_its_place_in_the_batch(name: str, value: float) -> None:
    z, levels = batch([3.0, 0.5, 7.0, 0.5])
    z[2, 0, 4, 5] = value
    for sigmas in (levels, np.sort(levels)):
        with pytest.raises(InvalidValueError, match=r"z holds .* at \[2, 0, 4, 5\]; allowed are finite numbers .* 1e9"):
            DENOISERS[name](z, sigmas)
    assert _core.MAX_Z == 1e9
