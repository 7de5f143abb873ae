"""Labels as files have them: taken as classes where they are classes, else left out, and never in silence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bad_files import encoded, labels_of, random_images, write_folder, write_zip
from pspc_rs.data import ImageSet, load, read_edm_zip, read_folder, read_npz
from pspc_rs.data.labels import class_labels
from pspc_rs.errors import DTypeError, PspcError, PspcWarning, ShapeError

CLASSES = [2, 0, 1]

FORMS: dict[str, Any] = {
    "integers": [2, 0, 1],
    "column": [[2], [0], [1]],
    "floats": [2.0, 0.0, 1.0],
    "one-hot": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    "one-hot floats": [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    "one-hot flags": [[False, False, True], [True, False, False], [False, True, False]],
}

OTHER_KINDS: dict[str, Any] = {
    "fractions": [0.5, 1.0, 2.0],
    "NaN": [float("nan"), 1.0, 2.0],
    "too large": [1e300, 1.0, 2.0],
    "words": ["cat", "dog", "bird"],
    "poses": [[0.1] * 25] * 3,
    "attributes": [[1, 1, 0], [1, 0, 0], [0, 1, 0]],
}


def npz(folder: Path, labels: Any) -> tuple[Callable[..., ImageSet], Path]:
    np.savez(folder / "a.npz", images=random_images(3, 1, 4, 4), labels=np.array(labels))
    return read_npz, folder / "a.npz"


def members(labels: Any) -> dict[str, bytes]:
    names = [f"{index}.png" for index in range(3)]
    files = {name: encoded(image) for name, image in zip(names, random_images(3, 1, 4, 4), strict=True)}
    entries = [list(pair) for pair in zip(names, labels, strict=True)]
    return {**files, "dataset.json": json.dumps({"labels": entries}).encode()}


def archive(folder: Path, labels: Any) -> tuple[Callable[..., ImageSet], Path]:
    return read_edm_zip, write_zip(folder / "a.zip", members(labels))


def unpacked(folder: Path, labels: Any) -> tuple[Callable[..., ImageSet], Path]:
    return read_folder, write_folder(folder / "a", members(labels))


def items(folder: Path, labels: Any) -> tuple[Callable[..., ImageSet], Any]:
    del folder
    return load, list(zip(random_images(3, 1, 4, 4), labels, strict=True))


WRITERS = [npz, archive, unpacked, items]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_class_is_the_same_class(tmp_path: Path, write: Any, form: str) -> None:
    read, source = write(tmp_path, FORMS[form])
    assert labels_of(read(source)) == CLASSES
    assert labels_of(read(source, classes=[0, 2])) == [2, 0]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_labels_of_other_kinds_are_left_out_with_a_word_unless_classes_ask(
    tmp_path: Path, write: Any, kind: str
) -> None:
    read, source = write(tmp_path, OTHER_KINDS[kind])
    with pytest.warns(PspcWarning, match="class labels are .* They are left out"):
        data = read(source)
    assert (data.num_stored, data.labels) == (3, None)
    with pytest.raises(DTypeError, match="class labels are"):
        read(source, classes=[1])


def test_tensors_as_labels_of_items() -> None:
    torch = pytest.importorskip("torch")
    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    for labels in (torch.tensor(CLASSES), torch.tensor(CLASSES)[:, None], torch.eye(3)[CLASSES]):
        assert labels_of(load(torch.utils.data.TensorDataset(images, labels))) == CLASSES
    with pytest.warns(PspcWarning, match="left out"):
        assert load(torch.utils.data.TensorDataset(images, torch.zeros(3, 40))).labels is None


def test_items_with_labels_of_mixed_shapes() -> None:
    images = random_images(2, 1, 4, 4)
    with pytest.warns(PspcWarning, match="of mixed shapes"):
        assert load([(images[0], [1, 2]), (images[1], 3)]).labels is None


def test_labels_for_another_number_of_images_are_refused(tmp_path: Path) -> None:
    for labels in ([0, 1], [[0], [1]], 3, np.zeros((2, 3))):
        np.savez(tmp_path / "a.npz", images=random_images(3, 1, 4, 4), labels=labels)
        with pytest.raises(ShapeError, match="3 images need labels"):
            read_npz(tmp_path / "a.npz")


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_keep_every_bit(values: list[int]) -> None:
    for given_as in (values, np.array(values), [[value] for value in values]):
        labels = class_labels(given_as, len(values), "labels", needed=True)
        assert labels is not None
        assert labels.tolist() == values


anything = st.floats() | st.integers() | st.text() | st.booleans() | st.none()


@given(st.lists(anything | st.lists(anything), max_size=5))
def test_any_list_is_taken_or_refused_by_an_error_of_ours(values: list[Any]) -> None:
    try:
        labels = class_labels(values, len(values), "labels", needed=True)
    except PspcError:
        return
    assert labels is None if not values else labels is not None
