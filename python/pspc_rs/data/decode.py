"""Pixels of image files: many files decoded into one array, on all cores."""

import io
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DataError
from pspc_rs.extras import import_pillow
from pspc_rs.files import MAX_SIDE, decode_errors
from pspc_rs.progress import Progress, reporting
from pspc_rs.reprs import build_repr
from pspc_rs.threads import num_threads

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

# Short enough for Ctrl-C, long enough to keep all threads busy.
_SECONDS_PER_PIECE = 0.05

# The first piece has at most so many values, or one file per thread.
_VALUES_PER_PIECE = 1 << 24

# Up to this many pixels per channel one thread is fastest: more would wait for the interpreter lock.
_MAX_SINGLE_THREAD_PIXELS = 64 * 64


@dataclass(frozen=True)
class ImageFile:
    """One image file: its name in messages, and a function that returns its bytes."""

    name: str
    read: Callable[[], bytes]


class ImageFiles(Protocol):
    """Image files of one data set."""

    def __len__(self) -> int:
        """How many they are."""

    def file(self, index: int) -> ImageFile:
        """One of them."""

    def decode_plain(self, indices: range, pixels: NDArray[np.uint8]) -> list[int]:
        """Decodes those that are plain PNGs of the size of `pixels` on all threads.

        Args:
            indices: of the files.
            pixels: contiguous array [files, C, H, W] that the images are written to.

        Returns:
            The positions in `indices` of all others, in order, whatever they are: other formats, other sizes, damaged
            ones. Their pixels are unspecified.
        """


class ListedFiles:
    """Image files that are read one by one, and decoded by Pillow.

    Args:
        files: the files.
    """

    def __init__(self, files: Sequence[ImageFile]) -> None:
        self._files = files

    def __repr__(self) -> str:
        return build_repr(self, f"{len(self._files)} images")

    def __len__(self) -> int:
        return len(self._files)

    def file(self, index: int) -> ImageFile:
        """One of the files."""
        return self._files[index]

    def decode_plain(self, indices: range, pixels: NDArray[np.uint8]) -> list[int]:
        """See `ImageFiles`."""
        return list(range(len(indices)))


def decode_images(files: ImageFiles, what: str, progress: bool | Progress | None) -> NDArray[np.uint8]:
    """The images as uint8 [N, C, H, W]: plain PNGs are decoded in the core, all others, and what is damaged, by Pillow.

    Args:
        files: at least one.
        what: what messages and the progress bar call them together.
        progress: see `pspc_rs.progress.reporting`.

    Raises:
        DataError: a file is damaged, or differs from the first in size or channels.
        MissingDependencyError: Pillow cannot be imported.
    """
    with _quiet_pillow():
        first = _decode(files.file(0), None)
        with decode_errors(what):
            images = np.empty((len(files), *first.shape), np.uint8)
        images[0] = first
        with reporting(progress, "img", f"reading {what}", len(files)) as report:
            report(1, len(files))
            others = _decode_plain(files, images, report)
            _decode_others(files, others, images, report)
    return images


def _decode_plain(files: ImageFiles, images: NDArray[np.uint8], report: Progress) -> list[int]:
    """Decodes the plain PNGs after the first image, in pieces of a fraction of a second; returns all other indices."""
    others: list[int] = []
    total, start = len(images), 1
    least = min(_FILES_PER_TASK, num_threads())
    size = max(least, min(_FILES_PER_TASK, _VALUES_PER_PIECE // images[0].size))
    while start < total:
        piece = range(start, min(start + size, total))
        began = time.perf_counter()
        left = files.decode_plain(piece, images[piece.start : piece.stop])
        seconds = time.perf_counter() - began
        others += [piece[position] for position in left]
        start = piece.stop
        if len(left) == len(piece):
            # The rest will be of that other kind as well.
            return [*others, *range(start, total)]
        report(start - len(others), total)
        if seconds < _SECONDS_PER_PIECE:
            size *= 2
        elif seconds > 2 * _SECONDS_PER_PIECE:
            size = max(least, size // 2)
    return others


def _decode_others(files: ImageFiles, others: list[int], images: NDArray[np.uint8], report: Progress) -> None:
    """Decodes files of any kind by Pillow, larger ones on all cores."""
    stop = threading.Event()
    total, done, shape = len(images), len(images) - len(others), images.shape[1:]

    def decode_some(chosen: list[int]) -> int:
        for index in chosen:
            if stop.is_set():
                break
            images[index] = _decode(files.file(index), shape)
        return len(chosen)

    tasks = [others[start : start + _FILES_PER_TASK] for start in range(0, len(others), _FILES_PER_TASK)]
    workers = 1 if images[0, 0].size <= _MAX_SINGLE_THREAD_PIXELS else os.cpu_count()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for count in pool.map(decode_some, tasks):
                done += count
                report(done, total)
        finally:
            # After an error or Ctrl-C, running tasks end with their current image and no others start.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


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
        except Image.UnidentifiedImageError as error:
            raise DataError(f"{file.name} cannot be read, it is damaged or no image of a known kind") from error
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
