"""Images as pictures to look at: bytes, grids and PNG files."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pspc_rs.arrays import check_finite, to_numpy
from pspc_rs.checks import integer
from pspc_rs.errors import DTypeError, ShapeError
from pspc_rs.extras import import_pillow
from pspc_rs.files import replacing

_BACKGROUND = 255


def to_uint8(x: object) -> NDArray[np.uint8]:
    """Pixels in [-1, 1] as bytes, round(127.5 (x + 1)).

    Values outside [-1, 1] are clipped; save arrays to keep them.

    Args:
        x: float array or tensor of any shape.

    Raises:
        DTypeError: x is not an array of floats.
        InvalidValueError: a pixel is NaN or infinite.

    Example:
        >>> to_uint8(np.array([-1.0, 0.2, 3.0]))
        array([  0, 153, 255], dtype=uint8)
    """
    pixels = to_numpy(x, "images")
    check_finite("images", pixels)
    return np.rint((pixels.astype(np.float64).clip(-1, 1) + 1) * 127.5).astype(np.uint8)


def image_grid(x: object, columns: int | None = None, padding: int = 2) -> NDArray[np.uint8]:
    """Images side by side in one picture, uint8 [H, W] for grey images and [H, W, 3] for colour.

    Pixels outside [-1, 1] are clipped. Images with four channels are drawn on a white background by their last channel
    (alpha, -1 transparent .. 1 opaque).

    Args:
        x: [batch, channels, height, width] in [-1, 1] units, 1, 3 or 4 channels; array or tensor.
        columns: images per row; by default about as many as rows.
        padding: white pixels around every image.

    Raises:
        ShapeError: not four axes, an empty batch, or another number of channels.
        DTypeError: x is not an array of floats.
        InvalidValueError: a pixel is NaN or infinite, columns below 1 or padding below 0.

    Example:
        >>> image_grid(np.full((3, 3, 8, 6), -1.0), columns=2, padding=1).shape
        (19, 15, 3)
    """
    pixels = to_uint8(x)
    if pixels.ndim != 4 or 0 in pixels.shape or pixels.shape[1] not in (1, 3, 4):
        raise ShapeError(
            f"images have shape {list(pixels.shape)}; needed is [batch, 1 or 3 or 4 channels, height, width]"
        )
    padding = integer("padding", padding, least=0)
    batch, channels, height, width = pixels.shape
    columns = math.ceil(math.sqrt(batch)) if columns is None else integer("columns", columns)
    if channels == 4:
        pixels = _on_white(pixels)
    rows = math.ceil(batch / columns)
    cell_height, cell_width = height + padding, width + padding
    grid = np.full(
        (rows * cell_height + padding, columns * cell_width + padding, min(channels, 3)), _BACKGROUND, np.uint8
    )
    for index, image in enumerate(pixels):
        top, left = (index // columns) * cell_height + padding, (index % columns) * cell_width + padding
        grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return grid[:, :, 0] if channels == 1 else grid


def _on_white(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    alpha = pixels[:, 3:] / 255
    return np.rint(pixels[:, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def save_png(path: str | Path, image: object) -> None:
    """Writes a picture as a PNG file.

    Args:
        path: the file, which is replaced if it exists.
        image: uint8 [H, W] or [H, W, 3], as `image_grid` makes it.

    Raises:
        DTypeError: the image is not a uint8 array.
        ShapeError: it has another shape.
        OutputError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_png(f"{folder}/a.png", np.zeros((4, 4), np.uint8))
        ...     Path(folder, "a.png").read_bytes()[1:4]
        b'PNG'
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise DTypeError(f"image is {getattr(image, 'dtype', type(image).__name__)}; allowed is a numpy array of uint8")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or 0 in image.shape:
        raise ShapeError(f"image has shape {list(image.shape)}; allowed are [H, W] and [H, W, 3]")
    Image = import_pillow()
    with replacing(Path(path)) as temporary:
        Image.fromarray(image).save(temporary, "PNG")
