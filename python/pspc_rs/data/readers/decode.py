"""Decoding of many image files at once, straight into one array."""

import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.progress import progress_bar
from pspc_rs.data.readers.files import MAX_SIDE, damage_named
from pspc_rs.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""File names that are taken for images."""

# The content decides, not the suffix; formats that run another program (EPS) must never be reached.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "TGA", "AVIF", "JPEG2000")

# Decoders are content once all pixels are there; a file that lost its end is reported all the same.
_LAST_BYTES = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}

_MODES = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}

_PER_TASK = 32

# Up to this many pixels, threads waiting for the interpreter lock cost more than decoding in parallel wins.
_SMALL = 64 * 64


@dataclass(frozen=True)
class ImageFile:
    """One image before it is read: the name for messages, and how to get its bytes."""

    name: str
    read: Callable[[], bytes]


def decode_images(files: Sequence[ImageFile], what: str, progress: bool | None) -> NDArray[np.uint8]:
    """All images as [N, C, H, W] u8; each file is read and decoded once, larger ones on all cores."""
    with _quiet_pillow():
        first = _decode(files[0], None)
        with damage_named(what):
            images = np.empty((len(files), *first.shape), np.uint8)
        images[0] = first
        stop = threading.Event()

        def decode_range(start: int) -> int:
            end = min(start + _PER_TASK, len(files))
            for index in range(start, end):
                if stop.is_set():
                    break
                images[index] = _decode(files[index], first.shape)
            return end - start

        workers = 1 if first[0].size <= _SMALL else os.cpu_count()
        with progress_bar(len(files), f"reading {what}", progress) as bar, ThreadPoolExecutor(workers) as pool:
            bar.update(1)
            try:
                for count in pool.map(decode_range, range(1, len(files), _PER_TASK)):
                    bar.update(count)
            finally:
                # After an error or Ctrl-C the running tasks end with their current image and the others never start.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
    return images


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    from PIL import Image

    Image.init()
    with warnings.catch_warnings():
        # Sizes are checked here, against a limit of ours.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _decode(file: ImageFile, expected: tuple[int, ...] | None) -> NDArray[np.uint8]:
    from PIL import Image

    data = file.read()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    with damage_named(file.name):
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except Image.DecompressionBombError as error:
            raise DataError(f"{file.name} announces too large an image: {error}") from error
        with image:
            _check_header(image, file.name, expected)
            last_bytes = _LAST_BYTES.get(image.format or "", b"")
            if last_bytes not in data:
                raise DataError(f"{file.name} is truncated: its end is missing")
            return pixels_of(image, file.name)


def _check_header(image: "Image.Image", name: str, expected: tuple[int, ...] | None) -> None:
    width, height = image.size
    if max(width, height) > MAX_SIDE:
        raise DataError(f"{name} announces {width} x {height} pixels; allowed is a side of at most {MAX_SIDE}")
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError(f"{name} holds {getattr(image, 'n_frames', 'several')} pictures; allowed are still images")
    if expected is None:
        return
    found = (_channels(image, name), height, width)
    if found != expected:
        raise DataError(
            f"{name} is {width} x {height} pixels with {found[0]} channels; expected are {expected[2]} x {expected[1]} "
            f"pixels with {expected[0]} channels, as the first image has"
        )


def pixels_of(image: "Image.Image", name: str) -> NDArray[np.uint8]:
    """The pixels of a Pillow image, [C, H, W] u8: grey, grey and alpha, RGB or RGBA."""
    mode = _target_mode(image, name)
    pixels: NDArray[Any] = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _channels(image: "Image.Image", name: str) -> int:
    return len(_target_mode(image, name))


def _target_mode(image: "Image.Image", name: str) -> str:
    if _has_more_than_8_bits(image) or image.mode not in _MODES:
        depth = ", 16 bits a channel" if _has_more_than_8_bits(image) else ""
        raise DataError(
            f"{name} has mode {image.mode}{depth}; allowed are 8-bit grey, RGB and palette images, with alpha or not"
        )
    if image.mode == "P" and "transparency" in image.info:
        return "RGBA"
    return _MODES[image.mode]


def _has_more_than_8_bits(image: "Image.Image") -> bool:
    # Pillow reads 16-bit colour as RGB by dropping the low byte; only the raw mode of the tile still tells.
    for tile in getattr(image, "tile", []):
        codec, arguments = tile[0], tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(part, str) and ";16" in part for part in arguments):
            return True
        if codec.startswith("ppm") and any(isinstance(part, int) and part > 255 for part in arguments):
            return True
    return image.mode.startswith("I;16")
