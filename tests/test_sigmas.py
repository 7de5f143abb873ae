"""The EDM noise grid and the nearest level."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pspc_rs.errors import DTypeError, InvalidValueError, PspcError, ShapeError
from pspc_rs.sigmas import check_grid, edm_sigmas, nearest_level

PUBLISHED = (
    "80 57.59 40.79 28.37 19.35 12.91 8.401 5.315 3.257 1.923 1.088 .5853 .2964 .1395 .05995 .02293 .007528 .002"
)


def test_default_grid_is_the_published_one() -> None:
    grid = edm_sigmas()
    assert grid.shape == (19,) and grid.dtype == np.float64 and grid[-1] == 0
    np.testing.assert_allclose(grid[:-1], [float(s) for s in PUBLISHED.split()], rtol=5e-4)


def test_grid_is_golden(test_data: Path) -> None:
    with np.load(test_data / "golden" / "pspc-golden-cifar.npz") as golden:
        np.testing.assert_allclose(edm_sigmas(include_zero=False), golden["t_formula_f64"], rtol=1e-14)


@given(
    st.integers(1, 200),
    st.floats(1e-4, 1),
    st.floats(2, 500),
    st.floats(1, 10),
)
def test_grid_descends_from_one_end_to_the_other(steps: int, low: float, high: float, rho: float) -> None:
    grid = edm_sigmas(steps, low, high, rho)
    assert len(grid) == steps + 1
    assert grid[0] == high and grid[-1] == 0 and (steps == 1 or grid[-2] == low)
    assert (np.diff(grid) < 0).all()
    between = grid[:-1] ** (1 / rho)
    np.testing.assert_allclose(np.diff(between, 2), 0, atol=1e-9 * between[0])
    np.testing.assert_array_equal(edm_sigmas(steps, low, high, rho, include_zero=False), grid[:-1])


def test_one_step_is_the_largest_sigma() -> None:
    assert edm_sigmas(1).tolist() == [80.0, 0.0]
    assert edm_sigmas(1, 2.0, 2.0).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0;"),
        ({"num_steps": -3}, "num_steps is -3;"),
        ({"sigma_min": 0.0}, "sigma_min is 0;"),
        ({"sigma_min": -1.0}, "sigma_min is -1;"),
        ({"sigma_max": np.inf}, "sigma_max is inf;"),
        ({"sigma_max": np.nan}, "sigma_max is nan;"),
        ({"sigma_max": 0.001}, "sigma_max is 0.001, below sigma_min, which is 0.002"),
        ({"sigma_max": 0.002}, "cannot be told apart"),
        ({"rho": 0.0}, "rho is 0;"),
        ({"rho": -7.0}, "rho is -7;"),
        ({"rho": 1e-3}, "moderate rho"),
        ({"num_steps": 3, "sigma_min": 1.0, "sigma_max": np.nextafter(1.0, 2.0)}, "3 levels .* cannot be told apart"),
    ],
)
def test_numbers_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        edm_sigmas(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"num_steps": 18.0}, {"num_steps": True}, {"sigma_min": "1"}, {"sigma_max": None}, {"rho": True}]
)
def test_arguments_of_wrong_types(arguments: dict[str, Any]) -> None:
    with pytest.raises(DTypeError, match=next(iter(arguments))):
        edm_sigmas(**arguments)


@pytest.mark.parametrize("given_as", [list, tuple, np.float32, torch.tensor])
def test_grids_in_every_form(given_as: Any) -> None:
    assert check_grid(given_as([4, 2, 0])).tolist() == [4, 2, 0]


@pytest.mark.parametrize(
    ("grid", "error"),
    [
        ([], InvalidValueError),
        ([0.0], InvalidValueError),
        ([1.0, 1.0], InvalidValueError),
        ([1.0, 2.0], InvalidValueError),
        ([1.0, 0.0, 0.0], InvalidValueError),
        ([1.0, -1.0], InvalidValueError),
        ([np.nan, 1.0], InvalidValueError),
        ([2.0, np.nan], InvalidValueError),
        ([np.inf, 1.0], InvalidValueError),
        (3.0, ShapeError),
        ([[2.0, 1.0]], ShapeError),
        ([[2.0], [2.0, 1.0]], ShapeError),
        ("2,1", DTypeError),
        (None, DTypeError),
    ],
)
def test_bad_grids(grid: object, error: type[PspcError]) -> None:
    with pytest.raises(error, match="sigmas"):
        check_grid(grid)


@given(st.floats(1e-5, 1e5), st.sampled_from(["linear", "log"]))
def test_nearest_is_the_nearest(sigma: float, mode: Any) -> None:
    grid = edm_sigmas(12)
    distance = [abs(sigma - s) if mode == "linear" else abs(np.log(sigma / s)) for s in grid[:-1]]
    index = nearest_level(sigma, grid, mode)
    assert type(index) is int and index < 12
    assert distance[index] <= min(distance) * (1 + 1e-9)


def test_levels_are_their_own_nearest() -> None:
    grid = edm_sigmas(40)
    for mode in ("linear", "log"):
        assert nearest_level(grid[:-1], grid, mode).tolist() == list(range(40))


def test_zero_is_never_nearest_and_ties_go_up() -> None:
    assert nearest_level(1e-9, [2.0, 1.0, 0.0]) == 1
    assert nearest_level(1.5, [2.0, 1.0, 0.0]) == 0
    assert nearest_level(2.0, [4.0, 1.0], mode="log") == 0


def test_linear_and_log_differ() -> None:
    assert nearest_level(4.0, [10.0, 1.0]) == 1
    assert nearest_level(4.0, [10.0, 1.0], mode="log") == 0


def test_arrays_and_tensors_keep_their_shape() -> None:
    for sigma in (np.array([[9.0], [0.1]]), torch.tensor([[9.0], [0.1]])):
        index = nearest_level(sigma, [10.0, 1.0])
        assert index.tolist() == [[0], [1]] and index.dtype == np.int64
    assert nearest_level(np.array(9.0), [10.0, 1.0]) == 0


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf, [1.0, 0.0]])
def test_sigma_must_be_positive(bad: object) -> None:
    with pytest.raises(InvalidValueError, match="sigma is"):
        nearest_level(bad, [10.0, 1.0])


def test_unknown_modes_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="nearest is 'square'; allowed are linear, log"):
        nearest_level(1.0, [10.0, 1.0], mode="square")  # type: ignore[call-overload]
