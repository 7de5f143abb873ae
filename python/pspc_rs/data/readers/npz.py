"""Numpy's own files, .npy and .npz, without pickles."""

import math
import os
import warnings
import zipfile
from collections.abc import Collection
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.arrays import as_flag, check_split
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.readers.files import check_member, damage_named, existing, open_zip, read_u8
from pspc_rs.errors import DataError, ShapeError

NPY_MAGIC = b"\x93NUMPY"
"""First bytes of a .npy file."""

_IMAGE_KEYS = {
    "train": ("images", "x_train", "train_images", "data", "x", "X", "arr_0"),
    "test": ("x_test", "test_images"),
}
_LABEL_KEYS = {
    "train": ("labels", "y_train", "train_labels", "y", "Y", "targets", "arr_1"),
    "test": ("y_test", "test_labels"),
}


def read_npz(
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    channels_last: bool = False,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
) -> ImageSet:
    """The images and labels of an .npz archive.

    The first key that exists is used, in this order. Training images: images, x_train, train_images, data, x, X,
    arr_0; their labels: labels, y_train, train_labels, y, Y, targets, arr_1. Test images: x_test, test_images; their
    labels: y_test, test_labels.

    Args:
        path: the archive.
        split: ``"train"`` or ``"test"``.
        channels_last: the images are [N, H, W, C].
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.

    Returns:
        ImageSet of the images as `ImageSet` takes them: uint8 or float, [N, C, H, W] or [N, H, W].

    Raises:
        DataError: the archive is damaged, holds pickled objects, or none of these keys.
        DTypeError: the images are neither uint8 nor floats, or the labels no integers.
        InvalidValueError: an unknown split or class, or pixels that are not finite.
        MissingFileError: there is no such file.
        ShapeError: axes that are no images, or not one label per image.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "few.npz")
        ...     np.savez(file, x_train=np.zeros((3, 8, 8), np.uint8), y_train=[0, 1, 0])
        ...     read_npz(file)
        ImageSet('few', 3 images of [1, 8, 8] uint8, 2 classes, xflip=False)
    """
    file = existing(path)
    check_split(split)
    with open_zip(file) as archive:
        keys = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        images_key = next((key for key in _IMAGE_KEYS[split] if key in keys), None)
        if images_key is None:
            raise DataError(
                f"{file} holds {', '.join(sorted(keys)) or 'no arrays'}; expected for split {split!r} is one of "
                f"{', '.join(_IMAGE_KEYS[split])}"
            )
        images = _read_array(archive, images_key)
        labels_key = next((key for key in _LABEL_KEYS[split] if key in keys), None)
        labels = None if labels_key is None else _read_array(archive, labels_key)
    images = _channels_first(images, channels_last)
    return ImageSet(images, labels, xflip, name=file.stem).select(max_size, classes)


def read_npy(
    path: str | os.PathLike[str],
    *,
    channels_last: bool = False,
    xflip: bool = False,
    max_size: int | None = None,
) -> ImageSet:
    """The images of an .npy file; C-ordered uint8 or float32 images are mapped into memory, not loaded.

    Args:
        path: the file.
        channels_last: the images are [N, H, W, C].
        xflip: count horizontal flips as further data.
        max_size: at most so many images.

    Returns:
        ImageSet without labels, of the images as `ImageSet` takes them.

    Raises:
        DataError: the file is damaged or holds pickled objects.
        DTypeError: the images are neither uint8 nor floats.
        InvalidValueError: pixels that are not finite.
        MissingFileError: there is no such file.
        ShapeError: axes that are no images.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "few.npy")
        ...     np.save(file, np.zeros((3, 1, 8, 8), np.float32))
        ...     read_npy(file, max_size=2)
        ImageSet('few', 2 images of [1, 8, 8] float32, no labels, xflip=False)
    """
    file = existing(path)
    with damage_named(file):
        with file.open("rb") as stream:
            shape, fortran, dtype = _read_header(stream, str(file))
            start = stream.tell()
        announced = start + math.prod(shape) * dtype.itemsize
        if announced != file.stat().st_size:
            raise DataError(f"{file} announces {announced} bytes, but has {file.stat().st_size}")
        images = np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")
    return ImageSet(_channels_first(images, channels_last), None, xflip, name=file.stem).select(max_size)


def _channels_first(images: NDArray[Any], channels_last: bool) -> NDArray[Any]:
    if not as_flag(channels_last, "channels_last"):
        return images
    if images.ndim != 4:
        raise ShapeError(f"images have shape {images.shape}; with channels_last expected are four axes, [N, H, W, C]")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _read_header(stream: BinaryIO, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{what} has version {version} of the npy format; allowed are 1.0 and 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        # Headers that Python 2 wrote are fine.
        warnings.simplefilter("ignore", UserWarning)
        shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise DataError(f"{what} holds pickled Python objects, which are never read; allowed are plain numbers")
    if any(length < 0 for length in shape):
        raise DataError(f"{what} announces the shape {shape}")
    return shape, fortran, dtype


def _read_array(archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    member = archive.getinfo(f"{key}.npy")
    what = f"{archive.filename}, array {key}"
    check_member(member, what)
    with damage_named(what), archive.open(member) as opened:
        stream = cast(BinaryIO, opened)
        shape, fortran, dtype = _read_header(stream, what)
        size = math.prod(shape) * dtype.itemsize
        if stream.tell() + size != member.file_size:
            raise DataError(f"{what} announces {size} bytes of numbers, but has {member.file_size} bytes in all")
        return read_u8(stream, (size,), what).view(dtype).reshape(shape, order="F" if fortran else "C")
