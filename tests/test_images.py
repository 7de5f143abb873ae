"""Pictures: the mapping of pixels, the layout of grids, PNG files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pspc_rs.errors import DTypeError, InvalidValueError, OutputError, ShapeError
from pspc_rs.images import image_grid, save_png, to_uint8


def test_every_byte_survives_the_way_to_pixels_and_back() -> None:
    stored = np.arange(256, dtype=np.uint8)
    pixels = stored.astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert np.array_equal(to_uint8(pixels), stored)


def test_values_outside_are_clipped() -> None:
    assert to_uint8(np.array([-7.0, 7.0])).tolist() == [0, 255]


@given(
    batch=st.integers(1, 7),
    channels=st.sampled_from([1, 3, 4]),
    columns=st.integers(1, 9),
    padding=st.integers(0, 3),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_every_image_lies_in_its_cell(
    batch: int, channels: int, columns: int, padding: int, size: tuple[int, int]
) -> None:
    height, width = size
    x = np.random.default_rng(0).uniform(-1, 1, (batch, channels, height, width))
    if channels == 4:
        x[:, 3] = 1  # opaque
    grid = image_grid(x, columns=columns, padding=padding)
    rows = -(-batch // columns)
    assert grid.shape[:2] == (rows * (height + padding) + padding, columns * (width + padding) + padding)
    for index in range(batch):
        top = index // columns * (height + padding) + padding
        left = index % columns * (width + padding) + padding
        cell = grid[top : top + height, left : left + width].reshape(height, width, -1)
        assert np.array_equal(cell, to_uint8(x[index, :3]).transpose(1, 2, 0))


def test_transparent_pixels_show_the_white_ground() -> None:
    x = np.full((1, 4, 2, 2), -1.0)
    assert (image_grid(x) == 255).all()


def test_grey_images_give_a_grey_picture() -> None:
    assert image_grid(np.zeros((4, 1, 5, 7)), padding=0).shape == (10, 14)


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (2, 5, 4, 4), (3, 4, 4), (0, 3, 4, 4), (1, 3, 0, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="1 or 3 or 4 channels"):
        image_grid(np.zeros(shape))


def test_bad_pixels_and_options_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="nan"):
        image_grid(np.full((1, 1, 2, 2), np.nan))
    with pytest.raises(InvalidValueError, match="columns is 0"):
        image_grid(np.zeros((1, 1, 2, 2)), columns=0)
    with pytest.raises(DTypeError, match="uint8"):
        image_grid(np.zeros((1, 1, 2, 2), np.uint8))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_png_holds_the_same_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    save_png(tmp_path / "new" / "a.png", image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), image)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_png_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(DTypeError, match="float64"):
        save_png(tmp_path / "a.png", np.zeros((4, 4)))
    with pytest.raises(ShapeError, match=r"\[4, 4, 2\]"):
        save_png(tmp_path / "a.png", np.zeros((4, 4, 2), np.uint8))
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        save_png(tmp_path / "folder", np.zeros((4, 4), np.uint8))
