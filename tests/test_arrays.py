"""Where numpy and torch meet: kinds, dtypes and shapes are kept, and what cannot be used is refused in words."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pspc_rs as pspc
from pspc_rs.arrays import (
    MAX_SIGMA,
    MIN_SIGMA,
    check_finite,
    import_torch,
    is_torch,
    like,
    numpy_view,
    real_array,
    sigma_vector,
    to_numpy,
)
from pspc_rs.checks import integer, real_number
from pspc_rs.errors import DTypeError, InvalidValueError, MissingDependencyError, PspcError, ShapeError

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def test_torch_is_not_imported_for_numpy() -> None:
    code = (
        "import sys, numpy as np; from pspc_rs.arrays import *; import pspc_rs.arrays as a;"
        "z = a.to_numpy(np.ones((1, 1, 2, 2))); a.check_finite('z', z); a.like(z, z); a.sigma_vector(1, 1);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r'as_torch=True needs torch: pip install "pspc-rs\[torch\]"'):
        import_torch("as_torch=True")


def test_memory_is_shared_where_it_can_be() -> None:
    tensor = torch.ones(2, 3)
    assert to_numpy(tensor).ctypes.data == tensor.data_ptr()
    assert like(to_numpy(tensor), tensor).data_ptr() == tensor.data_ptr()
    array = np.ones((2, 3))
    assert like(array, array) is array


@given(hnp.arrays(np.float64, hnp.array_shapes(), elements=st.floats(-100, 100)), st.sampled_from(FLOATS))
def test_tensors_come_back_as_they_were(array: Any, dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(array).to(dtype).requires_grad_()
    numbers = to_numpy(tensor)
    assert numbers.dtype == (np.float32 if dtype == torch.bfloat16 else np.dtype(str(dtype).removeprefix("torch.")))
    back = like(numbers, tensor)
    assert is_torch(back) and back.dtype == dtype and torch.equal(back, tensor.detach())


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_like_keeps_numpy_dtypes(dtype: str) -> None:
    template = np.zeros((1,), dtype)
    assert like(np.array([1.5, 2.0]), template).dtype == template.dtype
    assert like(to_numpy(template + template.dtype.type(2)), torch.zeros(1)).tolist() == [2.0]


def test_like_takes_read_only_and_strided_memory() -> None:
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    array.flags.writeable = False
    tensor = like(array, torch.zeros(1))
    tensor += 1
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert like(array[:, ::-1], torch.zeros(1)).tolist() == [[2, 1, 0], [5, 4, 3]]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(2, np.int64),
        np.zeros(2, np.uint8),
        np.zeros(2, bool),
        np.zeros(2, np.complex64),
        np.zeros(2, object),
        np.zeros(2, np.longdouble),
        torch.zeros(2, dtype=torch.int32),
        torch.zeros(2, dtype=torch.complex64),
    ],
)
def test_other_dtypes_are_refused(bad: Any) -> None:
    with pytest.raises(DTypeError, match=r"z has dtype .*convert to float32"):
        to_numpy(bad)


@pytest.mark.parametrize("bad", [[1.0], 1.0, None, "z", np.ma.masked_array([1.0], mask=[True])])
def test_other_objects_are_refused(bad: object) -> None:
    with pytest.raises(DTypeError, match=r"noise is a .* allowed are numpy arrays and torch tensors"):
        to_numpy(bad, "noise")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@given(hnp.array_shapes(min_dims=1, max_dims=4), st.data())
def test_the_first_bad_value_is_named(kind: Any, value: float, shape: tuple[int, ...], data: st.DataObject) -> None:
    array = np.ones(shape, np.float32)
    check_finite("z", kind(array))
    spots = data.draw(st.lists(st.integers(0, array.size - 1), min_size=1, max_size=3))
    array.ravel()[spots] = value
    where = ", ".join(str(i) for i in np.unravel_index(min(spots), shape))
    with pytest.raises(InvalidValueError) as caught:
        check_finite("z", kind(array))
    assert str(caught.value) == f"z holds {value} at [{where}]; all values must be finite"


def test_finite_bfloat16_is_fine() -> None:
    check_finite("z", torch.ones(3, dtype=torch.bfloat16))


@pytest.mark.parametrize("sigma", [0.5, np.float32(0.5), np.array(0.5), [0.5], np.full((3, 1, 1, 1), 0.5), (0.5,) * 3])
def test_sigma_in_every_shape(sigma: Any) -> None:
    forms = [sigma, torch.tensor(sigma), torch.as_tensor(sigma).to(torch.bfloat16).requires_grad_()]
    for form in forms:
        vector = sigma_vector(form, 3)
        assert vector.dtype == np.float64 and vector.tolist() == [0.5] * 3 and vector.flags.writeable


def test_sigma_of_whole_numbers_and_of_a_batch() -> None:
    assert sigma_vector(2, 2).tolist() == [2, 2]
    assert sigma_vector(np.array([1, 2, 3]), 3).tolist() == [1, 2, 3]
    assert sigma_vector(np.ones((1, 1, 1, 1)), 2).tolist() == [1, 1]
    assert sigma_vector(1.0, 0).shape == (0,)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), (1, 3), (3, 1, 1), (3, 1, 1, 2), (2, 1, 1, 1)])
def test_sigma_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"sigma has shape .*a batch of 3"):
        sigma_vector(np.ones(shape), 3)


@pytest.mark.parametrize(
    ("bad", "shown"),
    [(0.0, "0.0"), (-1.0, "-1.0"), (np.nan, "NaN"), (np.inf, "inf"), (9e-7, "9e-7"), (2e9, "2000000000.0")],
)
def test_sigma_out_of_range(bad: float, shown: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(f"sigma is {shown}; allowed are numbers from 1e-6 to 1e9")):
        sigma_vector([1.0, bad], 2)
    assert sigma_vector([MIN_SIGMA, MAX_SIGMA], 2).tolist() == [MIN_SIGMA, MAX_SIGMA]


@pytest.mark.parametrize("bad", ["1", None, 1j, True, [None], [[1.0], [1.0, 2.0]], object()])
def test_sigma_of_a_wrong_type(bad: object) -> None:
    with pytest.raises(PspcError, match="sigma is"):
        sigma_vector(bad, 1)


def test_real_arrays_keep_their_shape() -> None:
    assert real_array("a", torch.ones(2, 3, dtype=torch.int16)).shape == (2, 3)
    assert real_array("a", []).size == 0
    with pytest.raises(DTypeError, match="a is"):
        real_array("a", [True])


@pytest.mark.parametrize("good", [7, 7.0, np.float16(7), np.int8(7), np.array(7.0), torch.tensor(7), np.array([7.0])])
def test_real_numbers(good: object) -> None:
    assert real_number("rho", good) == 7.0


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("7", DTypeError),
        (True, DTypeError),
        (None, DTypeError),
        ([7.0], DTypeError),
        (1j, DTypeError),
        (np.nan, InvalidValueError),
        (np.inf, InvalidValueError),
        (np.ones(2), ShapeError),
    ],
)
def test_bad_real_numbers(bad: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="rho"):
        real_number("rho", bad)


@pytest.mark.parametrize("good", [3, np.uint8(3), torch.tensor(3)])
def test_whole_numbers(good: object) -> None:
    number = integer("n", good)
    assert number == 3 and type(number) is int


@pytest.mark.parametrize(
    ("bad", "error"),
    [(3.0, DTypeError), ("3", DTypeError), (True, DTypeError), (np.ones(2, int), DTypeError), (0, InvalidValueError)],
)
def test_bad_whole_numbers(bad: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"n is .* at least 1"):
        integer("n", bad)


@pytest.mark.parametrize("narrow", ["float16", "float32"])
def test_numbers_that_do_not_fit_are_refused(narrow: str) -> None:
    largest = float(np.finfo(narrow).max)
    for array in (np.array([1.0, largest]), np.array([np.inf, np.nan, -largest])):
        for template in (np.zeros(1, narrow), torch.zeros(1, dtype=getattr(torch, narrow))):
            np.testing.assert_array_equal(numpy_view(like(array, template)), array.astype(narrow))
            with pytest.raises(InvalidValueError, match=f"the result reaches .*, which does not fit into {narrow}"):
                like(array * 1.5, template)


def test_results_beyond_half_precision_are_no_infinities() -> None:
    data = pspc.ImageSet(np.full((2, 1, 2, 2), 1e5))
    for z in (np.zeros((1, 1, 2, 2), np.float16), torch.zeros(1, 1, 2, 2, dtype=torch.float16)):
        with pytest.raises(InvalidValueError, match="100000, which does not fit into float16; use float32"):
            pspc.Empirical(data)(z, 1.0)
