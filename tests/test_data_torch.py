"""Images out of torch data sets and what looks like them."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from bad_files import labels_of, random_images
from pspc_rs.data import ImageSet, load, read_torch_dataset
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, ShapeError


class Items:
    """The smallest thing that counts as a torch Dataset."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return self.items[index]


def test_items_of_every_kind() -> None:
    images = random_images(3, 3, 4, 5)
    pictures = [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]
    kinds: list[list[Any]] = [
        list(images),
        [(image,) for image in images],
        [(image, label) for label, image in enumerate(images)],
        [[picture, np.int64(label), "extra"] for label, picture in enumerate(pictures)],
    ]
    for items in kinds:
        data = load(Items(items))
        np.testing.assert_array_equal(data.images, images)
        assert labels_of(data) in (None, [0, 1, 2])
        assert (data.labels is None) == (not isinstance(items[0], tuple | list) or len(items[0]) == 1)
        assert data.name == "Items"


def test_each_item_is_asked_for_once() -> None:
    dataset = Items([(np.zeros((4, 4), np.uint8), index % 2) for index in range(6)])
    assert read_torch_dataset(dataset, max_size=2).num_stored == 2
    assert dataset.asked == [0, 1]
    dataset.asked.clear()
    assert labels_of(ImageSet.from_torch(dataset, classes=[1], max_size=2, xflip=True)) == [1, 1]
    assert dataset.asked == list(range(6))


def test_value_ranges() -> None:
    items = Items([np.array([[0, 0.5, 1]], np.float32)])
    np.testing.assert_allclose(read_torch_dataset(items, value_range=(0, 1)).images.ravel(), [-1, 0, 1])
    np.testing.assert_allclose(read_torch_dataset(items).images.ravel(), [0, 0.5, 1])
    with pytest.raises(InvalidValueError, match="outside value_range"):
        read_torch_dataset(items, value_range=(0, 0.9))
    for wrong in ((1, 0), (0, float("nan")), (0, 0)):
        with pytest.raises(InvalidValueError, match="value_range"):
            read_torch_dataset(items, value_range=wrong)
    with pytest.raises(DTypeError, match="value_range"):
        read_torch_dataset(Items([np.zeros((2, 2), np.uint8)]), value_range=(0, 1))


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([], DataError),
        ([np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 3), np.uint8)], ShapeError),
        ([np.zeros((1, 2, 2), np.uint8), np.zeros((1, 2, 2), np.float32)], DTypeError),
        ([np.zeros(3, np.uint8)], ShapeError),
        ([np.zeros((8, 9, 3), np.uint8)], ShapeError),
        ([(np.zeros((2, 2), np.uint8), 1), np.zeros((2, 2), np.uint8)], DataError),
        (["image"], DTypeError),
        ([np.full((2, 2), np.nan, np.float32)], InvalidValueError),
    ],
)
def test_items_that_do_not_fit(items: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_torch_dataset(Items(items))


def test_a_real_torch_dataset() -> None:
    torch = pytest.importorskip("torch")
    images = torch.rand(4, 3, 5, 6)
    dataset = torch.utils.data.TensorDataset(images, torch.tensor([3, 1, 2, 0]))
    data = load(dataset, classes=[1, 2])
    np.testing.assert_array_equal(data.images, images[1:3].numpy())
    assert labels_of(data) == [1, 2]
    with pytest.raises(DTypeError):
        load(object())
