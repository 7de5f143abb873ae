"""Class labels and left-out images: what is taken, what the engine gets, and what is refused by name."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pspc_rs as pspc
from pspc_rs import errors
from pspc_rs.denoisers.selection import select

LABELS = np.array([7, 7, -2, 5, 5, 5, 7, -2, 5, 7])
IMAGES = np.random.default_rng(0).integers(0, 256, (10, 1, 4, 4), dtype=np.uint8)
DATA = pspc.ImageSet(IMAGES, LABELS)
FLIPPED = pspc.ImageSet(IMAGES, LABELS, xflip=True)
Z = np.random.default_rng(1).normal(size=(3, 1, 4, 4))

CHOOSING: dict[str, Any] = {
    "Empirical": pspc.Empirical,
    "PSPCSquare": lambda data, **options: pspc.PSPCSquare(data, patch_sizes=3, **options),
    "PSPCFlex": lambda data, **options: pspc.PSPCFlex(data, masks=np.ones((1, 4, 4), bool), **options),
    "CFDM": lambda data, **options: pspc.CFDM(data, 0.2, 2, **options),
    "SNIS": lambda data, **options: pspc.SNIS(data, num_neighbors=3, num_draws=20, **options),
}
EVERY = pytest.mark.parametrize("name", CHOOSING)


def counted(class_labels: Any, exclude: Any, data: pspc.ImageSet = DATA, batch: int = 3) -> list[list[int]] | None:
    """The images that count for each query, from what the engine gets."""
    selection = select("D", data, class_labels, exclude, batch)
    if selection is None:
        return None
    for images in [base for base in selection.bases if base is not None] + list(selection.left_out):
        assert images.dtype == np.uint32 and bool((np.diff(images.astype(np.int64)) > 0).all())
    for query, base in enumerate(selection.bases[at] for at in selection.base_of):
        inside = np.arange(data.num_stored) if base is None else base
        assert np.isin(selection.left_out[query], inside).all() and len(selection.left_out[query]) < len(inside)
    return [selection.images_of(query, data.num_stored).tolist() for query in range(batch)]


@given(st.data(), st.integers(1, 4), st.booleans())
def test_what_counts_is_what_was_asked_for(draw: st.DataObject, batch: int, xflip: bool) -> None:
    data = FLIPPED if xflip else DATA
    labels = draw.draw(st.lists(st.sampled_from([None, -2, 5, 7]), min_size=batch, max_size=batch))
    inside = [[image for image in range(10) if label in (None, LABELS[image])] for label in labels]
    left = [
        draw.draw(st.lists(st.sampled_from(range(20 if xflip else 10)), max_size=draw.draw(st.sampled_from([1, 12]))))
        for _ in range(batch)
    ]
    columns = max(map(len, left))
    indices = [[*one, *[-1] * (columns - len(one))] for one in left]
    expected = [
        [image for image in images if image not in {index % 10 for index in one}]
        for images, one in zip(inside, left, strict=True)
    ]
    rows = np.array([[label == kind for kind in (-2, 5, 7)] for label in labels])
    flags = np.array([[image in {index % 10 for index in one} for image in range(10)] for one in left])
    for class_labels in (rows, rows.astype(np.float32), torch.from_numpy(rows).long()):
        for exclude in (np.array(indices, int).reshape(batch, -1), flags):
            if not all(expected):
                with pytest.raises(errors.InvalidValueError, match="exclude leaves no image for query"):
                    select("D", data, class_labels, exclude, batch)
                continue
            found = counted(class_labels, exclude, data, batch)
            assert found == expected or (found is None and all(len(one) == 10 for one in expected))


@pytest.mark.parametrize("nothing", [None, [], np.zeros((3, 0)), torch.zeros(3, 0), np.zeros((3, 0), bool)])
def test_nothing_is_nothing(nothing: Any) -> None:
    assert counted(nothing, None) is None and counted(None, nothing) is None
    assert counted(None, [-1, -1, -1]) is None and counted(None, np.zeros((3, 10), bool)) is None
    assert counted(np.zeros((3, 3)), nothing) is None
    for name, make in CHOOSING.items():
        D = make(DATA)
        np.testing.assert_array_equal(D(Z, 0.5, nothing, exclude=nothing), D(Z, 0.5), err_msg=name)
    assert pspc.Gaussian(DATA, cache=False)(Z, 0.5, nothing, exclude=nothing).shape == Z.shape


def test_queries_that_count_the_same_images_share_a_base_set() -> None:
    selection = select("D", DATA, [5, 7, 5], None, 3)
    assert selection is not None and len(selection.bases) == 2 and selection.base_of.tolist() == [0, 1, 0]
    assert repr(selection) == "Selection(3 queries, 2 base sets)"
    kept = select("D", DATA, None, np.tile(np.arange(10) > 2, (3, 1)), 3)
    assert kept is not None and len(kept.bases) == 1 and not any(map(len, kept.left_out))
    few = select("D", DATA, None, [4, -1, 4], 3)
    assert few is not None and list(few.bases) == [None] and [len(one) for one in few.left_out] == [1, 0, 1]
    again = few.of(np.array([0, 0, 1]))
    assert [again.images_of(query, 10).tolist() for query in range(3)] == [
        [0, 1, 2, 3, 5, 6, 7, 8, 9],
        [0, 1, 2, 3, 5, 6, 7, 8, 9],
        list(range(10)),
    ]


BAD: dict[str, tuple[dict[str, Any], type[errors.PspcError], str]] = {
    "unknown label": ({"class_labels": [5, 4, 7]}, errors.InvalidValueError, r"hold 4 for query 1, which no .* \[-2,"),
    "number of labels": (
        {"class_labels": [5, 7]},
        errors.ShapeError,
        r"shape \[2\]; allowed are \[3\] and, one-hot, \[",
    ),
    "one label": ({"class_labels": 5}, errors.ShapeError, r"class_labels have shape \[\]"),
    "columns": ({"class_labels": np.eye(3, 4)}, errors.ShapeError, r"shape \[3, 4\]; allowed are .* one-hot, \[3, 3\]"),
    "floats": ({"class_labels": [5.0, 7.0, 5.0]}, errors.DTypeError, "dtype float64; allowed are integers"),
    "flags": ({"class_labels": [True, False, True]}, errors.DTypeError, "class_labels have dtype bool"),
    "words": ({"class_labels": ["a", "b", "c"]}, errors.DTypeError, "class_labels have dtype <U1"),
    "two classes": (
        {"class_labels": [[1, 0, 0], [1, 0, 1], [0, 0, 1]]},
        errors.InvalidValueError,
        r"hold \[1, 0, 1\] for query 1; allowed are rows with a single 1, or of zeros",
    ),
    "soft labels": ({"class_labels": np.full((3, 3), 0.5)}, errors.InvalidValueError, "rows with a single 1"),
    "NaN": ({"class_labels": np.full((3, 3), np.nan)}, errors.InvalidValueError, "rows with a single 1"),
    "ragged": ({"class_labels": [[1, 0], [1], [0]]}, errors.ShapeError, "class_labels are nested lists of mixed"),
    "beyond": (
        {"exclude": [0, 10, 1]},
        errors.InvalidValueError,
        "holds 10 for query 1; allowed are images 0 to 9, and",
    ),
    "negative": ({"exclude": [[0, -1], [3, -2], [1, 1]]}, errors.InvalidValueError, "exclude holds -2 for query 1"),
    "far": (
        {"exclude": np.full(3, 2**64 - 1, np.uint64)},
        errors.InvalidValueError,
        "exclude holds 18446744073709551615",
    ),
    "number of rows": (
        {"exclude": [[0], [1]]},
        errors.ShapeError,
        r"exclude has shape \[2, 1\]; allowed are \[3\], \[3",
    ),
    "one image": ({"exclude": 4}, errors.ShapeError, r"exclude has shape \[\]"),
    "axes": ({"exclude": np.zeros((3, 1, 1), int)}, errors.ShapeError, r"exclude has shape \[3, 1, 1\]"),
    "flags of others": ({"exclude": np.zeros((3, 9), bool)}, errors.ShapeError, r"exclude is bool of shape \[3, 9\]"),
    "float indices": (
        {"exclude": [0.0, 1.0, 2.0]},
        errors.DTypeError,
        "exclude has dtype float64; allowed are indices",
    ),
    "everything": ({"exclude": np.ones((3, 10), bool)}, errors.InvalidValueError, "it holds all 10 of the data set"),
    "a class": (
        {"class_labels": [5, -2, 7], "exclude": [[3, 4], [7, 2], [0, 1]]},
        errors.InvalidValueError,
        "exclude leaves no image for query 1: it holds all 2 of class -2",
    ),
}


@EVERY
@pytest.mark.parametrize("case", BAD)
def test_bad_choices_are_refused(name: str, case: str) -> None:
    choice, error, message = BAD[case]
    with pytest.raises(error, match=message):
        CHOOSING[name](DATA)(Z, 0.5, **choice)


def test_flips_are_indices_only_where_there_are_flips() -> None:
    assert counted(None, [19, 10, 0], FLIPPED) == [list(range(9)), list(range(1, 10)), list(range(1, 10))]
    with pytest.raises(errors.InvalidValueError, match="holds 20 for query 0; allowed are images 0 to 19"):
        select("D", FLIPPED, None, [20, 0, 0], 3)


@EVERY
def test_labels_need_data_with_labels(name: str) -> None:
    D = CHOOSING[name](pspc.ImageSet(IMAGES))
    with pytest.raises(
        errors.InvalidValueError, match=f"given, but {name} has no classes, as its data set has no labels"
    ):
        D(Z, 0.5, [1, 1, 1])
    assert D(Z, 0.5, exclude=[1, 1, 1]).shape == Z.shape


def test_the_gaussian_denoiser_refuses_choices_by_name() -> None:
    G = pspc.Gaussian(DATA, cache=False)
    calls: list[Any] = [G, G.divergence, lambda z, sigma, **choice: G.jvp(z, sigma, Z, **choice)]
    for call in calls:
        with pytest.raises(errors.InvalidValueError, match="class_labels were given, but Gaussian has no classes"):
            call(Z, 0.5, class_labels=[5, 5, 5])
        with pytest.raises(errors.InvalidValueError, match="exclude was given, but Gaussian cannot leave images out"):
            call(Z, 0.5, exclude=[5, 5, 5])


@EVERY
def test_samplers_are_told_of_classes_only_when_asked(name: str) -> None:
    plain, D = CHOOSING[name](DATA), CHOOSING[name](DATA, conditional=True)
    assert (plain.label_dim, D.label_dim) == (0, 3)
    assert "conditional" not in repr(plain) and "conditional=True" in repr(D)
    assert D.settings == plain.settings
    np.testing.assert_array_equal(D(Z, 0.5), plain(Z, 0.5))
    one_hot = torch.eye(3)[[1, 0, 2]]
    np.testing.assert_array_equal(D(Z, 0.5, one_hot), plain(Z, 0.5, [5, -2, 7]))
    with pytest.raises(errors.DataError, match=r"conditional is True, but ImageSet\(.*no labels.* has no labels"):
        CHOOSING[name](pspc.ImageSet(IMAGES), conditional=True)
    with pytest.raises(errors.DTypeError, match="conditional is 'yes'"):
        CHOOSING[name](DATA, conditional="yes")


@EVERY
def test_a_sample_of_a_class_comes_from_its_images(name: str) -> None:
    D = CHOOSING[name](DATA)
    choice = {"class_labels": np.array([5, -2]), "exclude": np.array([3, 2])}
    samples = pspc.sample(D, 2, "euler", 12, extra_args=choice, generator="numpy")
    if name in ("Empirical", "PSPCFlex"):
        assert np.abs(samples[1] - DATA.batch([7])[0]).max() < 1e-4
        assert min(np.abs(samples[0] - DATA.batch([image])[0]).max() for image in (4, 5, 8)) < 0.1
