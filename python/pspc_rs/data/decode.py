"""Pixels of image files: many files decoded into one array, on all cores."""

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

from pspc_rs.errors import DataError
from pspc_rs.extras import import_pillow
from pspc_rs.files import MAX_SIDE, decode_errors
from pspc_rs.progress import Progress, reporting

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""File names that are taken for images."""

# The content decides, not the suffix; formats that run another program (EPS) are left out.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "TGA", "AVIF", "JPEG2000")

# Decoders stop once all pixels are there; by these bytes a file without its end is noticed.
_LAST_BYTES = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}

_MODES = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}

_FILES_PER_TASK = 32

# Up to this many pixels per channel one thread is fastest: more would wait for the interpreter lock.
_MAX_SINGLE_THREAD_PIXELS = 64 * 64


@dataclass(frozen=True)
class ImageFile:
    """One image file: its name in messages, and a function that returns its bytes."""

    name: str
    read: Callable[[], bytes]


def decode_images(files: Sequence[ImageFile], what: str, progress: bool | Progress | None) -> NDArray[np.uint8]:
    """The images as uint8 [N, C, H, W]; each file is read and decoded once, larger ones on all cores.

    Args:
        files: at least one.
        what: what messages and the progress bar call them together.
        progress: see `pspc_rs.progress.reporting`.

    Raises:
        DataError: a file is damaged, or differs from the first in size or channels.
    """
    with _quiet_pillow():
        first = _decode(files[0], None)
        with decode_errors(what):
            images = np.empty((len(files), *first.shape), np.uint8)
        images[0] = first
        stop = threading.Event()

        def decode_range(start: int) -> int:
            end = min(start + _FILES_PER_TASK, len(files))
            for index in range(start, end):
                if stop.is_set():
                    break
                images[index] = _decode(files[index], first.shape)
            return end - start

        total, done = len(files), 1
        workers = 1 if first[0].size <= _MAX_SINGLE_THREAD_PIXELS else os.cpu_count()
        with reporting(progress, "img", f"reading {what}", total) as report, ThreadPoolExecutor(workers) as pool:
            try:
                report(done, total)
                for count in pool.map(decode_range, range(1, total, _FILES_PER_TASK)):
                    done += count
                    report(done, total)
            finally:
                # After an error or Ctrl-C, running tasks end with their current image and no others start.
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
    return images


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    Image = import_pillow()
    Image.init()
    with warnings.catch_warnings():
        # `_check_header` has its own limit on sizes.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _decode(file: ImageFile, expected: tuple[int, ...] | None) -> NDArray[np.uint8]:
    Image = import_pillow()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    with decode_errors(file.name):
        data = file.read()
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
    """The pixels of a Pillow image, uint8 [C, H, W]: grey, grey and alpha, RGB or RGBA.

    Raises:
        DataError: the image has another mode, or more than 8 bits per channel.
    """
    mode = _target_mode(image, name)
    pixels: NDArray[Any] = np.asarray(image if image.mode == mode else image.convert(mode))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _channels(image: "Image.Image", name: str) -> int:
    return len(_target_mode(image, name))


def _target_mode(image: "Image.Image", name: str) -> str:
    deep = _has_more_than_8_bits(image)
    if deep or image.mode not in _MODES:
        depth = ", 16 bits per channel" if deep else ""
        raise DataError(
            f"{name} has mode {image.mode}{depth}; allowed are 8-bit grey, RGB and palette images, with alpha or not"
        )
    if image.mode == "P" and "transparency" in image.info:
        return "RGBA"
    return _MODES[image.mode]


def _has_more_than_8_bits(image: "Image.Image") -> bool:
    # Pillow reads 16-bit colour as RGB and drops the low byte; only the raw mode of the tiles says so.
    for tile in getattr(image, "tile", []):
        codec, arguments = tile[0], tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(part, str) and ";16" in part for part in arguments):
            return True
        if codec.startswith("ppm") and any(isinstance(part, int) and part > 255 for part in arguments):
            return True
    return image.mode.startswith("I;16")
