"""Wrong input, one row each: which exception of ours comes, and a piece of its sentence.

Damaged and hostile files have rows of their own in test_data_bad_files.py and test_data_hostile_files.py.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pspc_rs as pspc
from pspc_rs import errors

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 8), dtype=np.uint8)
DATA = pspc.ImageSet(IMAGES)
Z = np.zeros((2, 3, 6, 8), np.float32)
MAPS = np.ones((2, 6, 8, 6, 8), np.float32)
MASKS = np.ones((4, 6, 8), bool)


def denoise(z: object = Z, sigma: object = 1.0) -> object:
    return pspc.PSPCSquare(DATA, patch_sizes=3)(z, sigma)


def spoilt(value: float) -> object:
    z = Z.copy()
    z[1, 2, 3, 4] = value
    return z


def uncovered() -> object:
    masks = MASKS.copy()
    masks[:, 2, 5] = False
    return pspc.PSPCFlex(DATA, masks=masks)


def flex(maps: object, thresholds: object = (1.0, 0.5)) -> object:
    return pspc.PSPCFlex(DATA, heatmaps=maps, thresholds=thresholds)(Z, 0.002)  # type: ignore[arg-type]


Row = tuple[Callable[[], object], type[pspc.PspcError], str]
ROWS: dict[str, Row] = {
    "NaN pixel": (lambda: denoise(spoilt(math.nan)), errors.InvalidValueError, r"z holds NaN at \[1, 2, 3, 4\]"),
    "infinite pixel": (lambda: denoise(spoilt(math.inf)), errors.InvalidValueError, "inf"),
    "huge pixel": (lambda: denoise(spoilt(1e12)), errors.InvalidValueError, "1e9"),
    "z with 3 axes": (lambda: denoise(Z[0]), errors.ShapeError, r"allowed is \[batch, 3, 6, 8\]"),
    "z transposed": (lambda: denoise(Z.transpose(0, 1, 3, 2)), errors.ShapeError, r"\[2, 3, 8, 6\]"),
    "z of integers": (lambda: denoise(Z.astype(np.int64)), errors.DTypeError, "int64"),
    "z complex": (lambda: denoise(Z.astype(np.complex64)), errors.DTypeError, "complex64"),
    "z a list": (lambda: denoise(Z.tolist()), errors.DTypeError, "list"),
    "z None": (lambda: denoise(None), errors.DTypeError, "None"),
    "torch z of integers": (lambda: denoise(torch.zeros(2, 3, 6, 8, dtype=torch.int32)), errors.DTypeError, "int32"),
    "sigma 0": (lambda: denoise(sigma=0), errors.InvalidValueError, "sigma is 0"),
    "sigma negative": (lambda: denoise(sigma=-1.0), errors.InvalidValueError, "-1"),
    "sigma NaN": (lambda: denoise(sigma=math.nan), errors.InvalidValueError, "sigma is NaN; .* from 1e-6 to 1e9"),
    "sigma infinite": (lambda: denoise(sigma=[1.0, math.inf]), errors.InvalidValueError, "inf"),
    "sigma too small": (lambda: denoise(sigma=1e-9), errors.InvalidValueError, "sigma is 1e-9; .* from 1e-6 to 1e9"),
    "sigma of wrong length": (lambda: denoise(sigma=[1.0, 2.0, 3.0]), errors.ShapeError, r"\[3\]"),
    "sigma a word": (lambda: denoise(sigma="1"), errors.DTypeError, "sigma"),
    "window 0": (lambda: pspc.PSPCSquare(DATA, patch_sizes=0), errors.InvalidValueError, "0"),
    "window too large": (lambda: pspc.PSPCSquare(DATA, patch_sizes=7), errors.InvalidValueError, "7.* 6 x 8"),
    "window 2.5": (lambda: pspc.PSPCSquare(DATA, patch_sizes=2.5), errors.DTypeError, "2.5"),  # type: ignore[arg-type]
    "no schedule": (lambda: pspc.PSPCSquare(DATA), errors.ScheduleError, "either schedule="),
    "two schedules": (lambda: pspc.PSPCSquare(DATA, "cifar10", patch_sizes=3), errors.ScheduleError, "either"),
    "unknown schedule": (lambda: pspc.PSPCSquare(DATA, "imagenet"), errors.ScheduleError, "cifar10"),
    "schedule of another size": (lambda: pspc.PSPCSquare(DATA, "cifar10"), errors.ScheduleError, "32 x 32.* 6 x 8"),
    "more sides than levels": (
        lambda: pspc.PSPCSquare(DATA, patch_sizes=[5, 3], sigmas=[3.0, 2.0, 1.0]),
        errors.ScheduleError,
        "3",
    ),
    "grid ascending": (
        lambda: pspc.PSPCSquare(DATA, patch_sizes=[5, 3], sigmas=[1.0, 2.0]),
        errors.InvalidValueError,
        "descending",
    ),
    "uncovered pixel": (uncovered, errors.CoverageError, "row 2, column 5"),
    "empty mask": (lambda: pspc.PSPCFlex(DATA, masks=MASKS & False), errors.InvalidValueError, "mask 0"),
    "no masks": (lambda: pspc.PSPCFlex(DATA, masks=MASKS[:0]), errors.DataError, "empty"),
    "masks of another size": (lambda: pspc.PSPCFlex(DATA, masks=MASKS[..., :7]), errors.ShapeError, r"\[4, 6, 7\]"),
    "masks of floats": (lambda: pspc.PSPCFlex(DATA, masks=MASKS.astype(float)), errors.DTypeError, "float64"),
    "Flex without anything": (lambda: pspc.PSPCFlex(DATA), errors.ScheduleError, "heatmaps= with thresholds="),
    "Flex without thresholds": (lambda: pspc.PSPCFlex(DATA, heatmaps=MAPS), errors.ScheduleError, "thresholds="),
    "Flex with an empty path": (lambda: flex(""), errors.MissingFileError, "''"),
    "heat maps of another size": (lambda: flex(MAPS[..., :7]), errors.ShapeError, r"\[2, 6, 8, 6, 8\]"),
    "heat maps of three levels": (lambda: flex(np.ones((3, 6, 8, 6, 8))), errors.ShapeError, "3, 6, 8"),
    "heat maps negative": (lambda: flex(-MAPS), errors.InvalidValueError, "non-negative"),
    "heat maps zero": (lambda: flex(0 * MAPS), errors.InvalidValueError, "positive sum"),
    "heat maps NaN": (lambda: flex(math.nan * MAPS), errors.InvalidValueError, "finite"),
    "heat maps missing": (lambda: flex("no-such-file.npy"), errors.MissingFileError, "no-such-file"),
    "heat maps no array": (lambda: flex(__file__), errors.DataError, "cannot read heat maps"),
    "threshold 0": (lambda: flex(MAPS, [1.0, 0.0]), errors.InvalidValueError, "0"),
    "threshold 1.5": (lambda: flex(MAPS, [1.5, 0.5]), errors.InvalidValueError, "1.5"),
    "no images": (lambda: pspc.ImageSet(IMAGES[:0]), errors.DataError, "at least one image"),
    "images with an empty axis": (lambda: pspc.ImageSet(IMAGES[:, :, :0]), errors.PspcError, "0"),
    "NaN in the data": (lambda: pspc.ImageSet(np.full((2, 1, 2, 2), np.nan)), errors.InvalidValueError, "nan"),
    "images of int16": (lambda: pspc.ImageSet(IMAGES.astype(np.int16)), errors.DTypeError, "int16"),
    "channels last": (lambda: pspc.ImageSet(IMAGES.transpose(0, 2, 3, 1)), errors.ShapeError, "transpose"),
    "too few labels": (lambda: pspc.ImageSet(IMAGES, labels=[1, 2]), errors.ShapeError, "20"),
    "missing data set": (lambda: pspc.load("no/such/data.zip"), errors.MissingFileError, "cifar10"),
    "rank 0": (lambda: pspc.Gaussian(DATA, rank=0, cache=False), errors.InvalidValueError, "1 to 19"),
    "rank above the data": (lambda: pspc.Gaussian(DATA, rank=20, cache=False), errors.InvalidValueError, "1 to 19"),
    "network of another shape": (
        lambda: pspc.Network(lambda x, s: x[:, :1])(Z, 1.0),
        errors.ShapeError,
        r"\[2, 1, 6, 8\]",
    ),
    "network with max_batch 0": (
        lambda: pspc.Network(lambda x, s: x, max_batch=0),
        errors.InvalidValueError,
        "max_batch",
    ),
    "data no set": (lambda: pspc.Empirical(IMAGES), errors.DTypeError, "ndarray; allowed is an ImageSet"),  # type: ignore[arg-type]
    "device no word": (lambda: pspc.Empirical(DATA, 1), errors.DTypeError, "device is 1"),  # type: ignore[arg-type]
    "heat maps of words": (lambda: flex(np.full((2, 6, 8, 6, 8), "a")), errors.DTypeError, "<U1"),
    "heat maps ragged": (lambda: flex([[1], [2, 3]]), errors.ShapeError, "not rectangular"),
    "2^63 draws": (lambda: pspc.SNIS(DATA, num_draws=2**63), errors.InvalidValueError, "num_draws"),
    "2^63 noises": (lambda: pspc.CFDM(DATA, num_noises=2**63), errors.InvalidValueError, "num_noises"),
    "boundless smoothing": (lambda: pspc.CFDM(DATA, smoothing=1e300), errors.InvalidValueError, "smoothing is 1e.300"),
    "masks ragged": (lambda: pspc.PSPCFlex(DATA, masks=[[True], [True, False]]), errors.ShapeError, "not rectangular"),  # type: ignore[arg-type]
    "picture too large": (
        lambda: pspc.images.image_grid(Z, columns=2**63),
        errors.InvalidValueError,
        "9223372036854775808 columns",
    ),
    "classes no list": (lambda: DATA.select(classes=3), errors.DTypeError, "classes are 3"),  # type: ignore[arg-type]
    "data a dict": (lambda: pspc.load({"x": 1}), errors.DTypeError, "dict; a data set needs"),
    "value_range a number": (
        lambda: pspc.ImageSet.from_torch([Z[0]], value_range=1.0),  # type: ignore[arg-type]
        errors.DTypeError,
        "value_range is 1.0",
    ),
    "index far outside": (lambda: DATA[10**5000], errors.ImageIndexError, "16610 bits"),
    "S_max an array": (
        lambda: pspc.samplers.sample_edm(pspc.Empirical(DATA), Z, [1.0, 0.5], S_max=np.ones(3)),  # type: ignore[arg-type]
        errors.ShapeError,
        "S_max",
    ),
    "no steps": (lambda: pspc.edm_sigmas(0), errors.InvalidValueError, "num_steps is 0"),
    "unknown sampler": (lambda: pspc.sample(pspc.Empirical(DATA), 1, "ddim"), errors.InvalidValueError, "heun"),
    "no samples": (lambda: pspc.sample(pspc.Empirical(DATA), 0), errors.InvalidValueError, "n is 0"),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_wrong_input_is_refused_with_a_clear_sentence(row: Row, tmp_path: Path) -> None:
    call, kind, words = row
    with pytest.raises(kind, match=words) as caught:
        call()
    assert isinstance(caught.value, pspc.PspcError)
    assert len(str(caught.value)) > 20
