"""Files of arrays: numpy's .npy and .npz, without pickles, and the IDX files of MNIST and its relatives."""

import math
import os
import struct
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import flag, one_of
from pspc_rs.data.image_arrays import channels_first
from pspc_rs.data.image_set import ImageSet, checked_set
from pspc_rs.data.labels import class_labels
from pspc_rs.data.latents import Scaling
from pspc_rs.data.store_record import StoreRecord, read_record
from pspc_rs.errors import DataError, InvalidValueError, MissingFileError
from pspc_rs.files import (
    check_announced,
    check_member,
    decode_errors,
    is_gzip,
    open_file,
    open_zip,
    read_u8,
    require_path,
)
from pspc_rs.reprs import a_few

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

IDX_MAGIC = b"\x00\x00\x08\x03"
"""First bytes of an IDX file of bytes with three axes."""

_LABELS_MAGIC = b"\x00\x00\x08\x01"
_PREFIXES = {"train": ("train",), "test": ("t10k", "test")}
_ENDINGS = ("-images-idx3-ubyte", "-images.idx3-ubyte")
_PACKED = ("", ".gz")
_IDX_NAMES = {
    split: tuple(prefix + ending + packed for prefix in prefixes for ending in _ENDINGS for packed in _PACKED)
    for split, prefixes in _PREFIXES.items()
}

IDX_NAMES = (*_IDX_NAMES["train"], *_IDX_NAMES["test"])
"""Files of which one at least lies in a folder of IDX files."""


def read_npz(
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    channels_last: bool | None = None,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
) -> ImageSet:
    """The images and labels of an .npz archive.

    The first key that exists is used, in this order. Training images: images, x_train, train_images, data, x, X,
    arr_0; their labels: labels, y_train, train_labels, y, Y, targets, arr_1. Test images: x_test, test_images; their
    labels: y_test, test_labels.

    Labels may also be a column [N, 1], one-hot rows, flags, or floats that are integers. Others (several attributes,
    words) are left out with a `PspcWarning`, unless `classes` asks for some.

    Args:
        path: the archive.
        split: ``"train"`` or ``"test"``.
        channels_last: True for images [N, H, W, C], False for [N, C, H, W]; None decides by their shape, with a
            `PspcWarning` for the former.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.

    Returns:
        ImageSet of the images as `ImageSet` takes them: uint8 or float, [N, C, H, W] or [N, H, W].

    Raises:
        DataError: the archive is damaged, holds pickled objects, or none of these keys.
        DTypeError: the images are neither uint8 nor floats; classes, but no class labels.
        InvalidValueError: an unknown split or class, or pixels that are not finite.
        MissingFileError: there is no such file.
        ShapeError: axes that are no images or may be in either order, or not one label per image.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "few.npz")
        ...     np.savez(file, x_train=np.zeros((3, 8, 8), np.uint8), y_train=[0, 1, 0])
        ...     read_npz(file)
        ImageSet('few', 3 images of [1, 8, 8] uint8, 2 classes, xflip=False)
    """
    one_of("split", split, _IMAGE_KEYS)
    with open_zip(path) as archive:
        file = Path(path)
        keys = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        images_key = next((key for key in _IMAGE_KEYS[split] if key in keys), None)
        if images_key is None:
            raise DataError(
                f"{file} holds {a_few(sorted(keys)) or 'no arrays'}; expected for split {split!r} is one of "
                f"{', '.join(_IMAGE_KEYS[split])}"
            )
        images = read_npz_array(archive, images_key)
        labels_key = next((key for key in _LABEL_KEYS[split] if key in keys), None)
        stored = None if labels_key is None else read_npz_array(archive, labels_key)
    images = channels_first(images, channels_last, f"{file}: images", guess=True)
    labels = None
    if stored is not None:
        labels = class_labels(stored, len(np.atleast_1d(images)), f"{file}: {labels_key}", needed=classes is not None)
    return ImageSet(images, labels, xflip, name=file.stem, channels_last=False).select(max_size, classes)


def read_npy(
    path: str | os.PathLike[str],
    *,
    channels_last: bool | None = None,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
) -> ImageSet:
    """The images of an .npy file; C-ordered uint8 or float32 images are mapped into memory, not loaded.

    A store (`pspc_rs.data.save_store`) has its labels, and its fingerprint without being read, from the files beside
    it. Float pixels of other files are read once, to check that they are finite.

    Nobody may shorten a file while it is mapped: the system ends a process that reads beyond its end (SIGBUS).

    Args:
        path: the file.
        channels_last: True for images [N, H, W, C], False for [N, C, H, W]; None decides by their shape, with a
            `PspcWarning` for the former.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep, of a store that has some.

    Returns:
        ImageSet of the images as `ImageSet` takes them; without labels, unless the file is a store that has some.

    Raises:
        DataError: the file is damaged or holds pickled objects; or the labels of a store are lost or damaged.
        DTypeError: the images are neither uint8 nor floats.
        InvalidValueError: pixels that are not finite.
        MissingFileError: there is no such file.
        ShapeError: axes that are no images or may be in either order.

    Example:
        >>> import numpy as np, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "few.npy")
        ...     np.save(file, np.zeros((3, 1, 8, 8), np.float32))
        ...     read_npy(file, max_size=2)
        ImageSet('few', 2 images of [1, 8, 8] float32, no labels, xflip=False)
    """
    file = require_path(path)
    with decode_errors(file):
        with file.open("rb") as stream:
            shape, fortran, dtype = read_npy_header(stream, str(file))
            start = stream.tell()
        announced = start + math.prod(shape) * dtype.itemsize
        if announced != file.stat().st_size:
            raise DataError(f"{file} announces {announced} bytes, but has {file.stat().st_size}")
        stored = np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")
    record = read_record(file)
    if record is not None and record.describes(stored) and not channels_last:
        return _of_store(file, stored, record, flag("xflip", xflip)).select(max_size, classes)
    images = channels_first(stored, channels_last, f"{file}: images", guess=True)
    return ImageSet(images, None, xflip, name=file.stem, channels_last=False).select(max_size, classes)


def _of_store(file: Path, images: NDArray[Any], record: StoreRecord, xflip: bool) -> ImageSet:
    labels = record.labels(file)
    scaling = None if record.scaling is None else Scaling(**record.scaling)
    if not record.is_current(file):
        # A copy has another time; its pixels may have been changed, so they are checked and counted again.
        return ImageSet(images, labels, xflip, name=file.stem, channels_last=False, scaling=scaling)
    return checked_set(images, labels, xflip, file.stem, scaling=scaling, fingerprint=record.fingerprints[xflip])


def read_npy_header(stream: BinaryIO, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether it is in Fortran order, and the type that the header of a .npy file announces.

    Raises:
        DataError: it is damaged or announces Python objects.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{what} has version {version} of the npy format; allowed are 1.0 and 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        # Numpy warns of headers that Python 2 wrote, which are valid.
        warnings.simplefilter("ignore", UserWarning)
        shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise DataError(f"{what} holds pickled Python objects, which are never read; allowed are plain numbers")
    if any(length < 0 for length in shape):
        raise DataError(f"{what} announces the shape {shape}")
    return shape, fortran, dtype


def read_npz_array(archive: zipfile.ZipFile, key: str) -> NDArray[Any]:
    """An array of an open .npz archive.

    Raises:
        DataError: it is damaged or holds Python objects.
    """
    member = archive.getinfo(f"{key}.npy")
    what = f"{archive.filename}, array {key}"
    check_member(member, what)
    with decode_errors(what), archive.open(member) as opened:
        stream = cast(BinaryIO, opened)
        shape, fortran, dtype = read_npy_header(stream, what)
        size = math.prod(shape) * dtype.itemsize
        if stream.tell() + size != member.file_size:
            raise DataError(f"{what} announces {size} bytes of numbers, but has {member.file_size} bytes in all")
        return read_u8(stream, (size,), what).view(dtype).reshape(shape, order="F" if fortran else "C")


def read_idx(
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
) -> ImageSet:
    """The grey images of an IDX file (MNIST, Fashion-MNIST, EMNIST, KMNIST), with the labels found beside it.

    An image file that is not compressed is mapped into memory, not loaded; nobody may shorten it meanwhile (SIGBUS).

    Args:
        path: the file of images (packed with gzip or not), or the folder it lies in. The labels are looked for under
            the same name with ``images`` and ``idx3`` replaced by ``labels`` and ``idx1``; without such a file the set
            has no labels.
        split: for a folder, ``"train"`` (``train-images-idx3-ubyte``) or ``"test"`` (``t10k-...`` or ``test-...``).
            A file is taken as it is, but ``"test"`` is refused where its name does not say so.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.

    Returns:
        ImageSet of uint8 [N, 1, H, W].

    Raises:
        DataError: the header does not fit the file, the file is damaged, or there is not one label per image.
        InvalidValueError: an unknown split or class.
        MissingFileError: there is no such file, or no IDX file in the folder.

    Example:
        >>> import pathlib, struct, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "tiny", "train-images-idx3-ubyte")
        ...     file.parent.mkdir()
        ...     _ = file.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 2, 5, 4) + bytes(40))
        ...     read_idx(file.parent)
        ImageSet('tiny-train', 2 images of [1, 5, 4] uint8, no labels, xflip=False)
    """
    file = _images_file(require_path(path), one_of("split", split, _PREFIXES))
    images = _read_idx_array(file, IDX_MAGIC)
    labels_file = _labels_beside(file)
    labels = None if labels_file is None else _read_idx_array(labels_file, _LABELS_MAGIC)
    if labels is not None and len(labels) != len(images):
        raise DataError(f"{labels_file} holds {len(labels)} labels, but {file} holds {len(images)} images")
    name = f"{file.resolve().parent.name}-{file.name.split('-images')[0]}"
    return ImageSet(images, labels, xflip, name=name).select(max_size, classes)


def _images_file(source: Path, split: str) -> Path:
    if not source.is_dir():
        if split == "test" and not source.name.startswith(_PREFIXES[split]):
            raise InvalidValueError(
                f"split is 'test', but {source} does not start with {' or '.join(_PREFIXES[split])}"
            )
        return source
    file = next((source / name for name in _IDX_NAMES[split] if (source / name).is_file()), None)
    if file is None:
        names = " or ".join(prefix + _ENDINGS[0] for prefix in _PREFIXES[split])
        raise MissingFileError(f"{source} holds no {names}, packed with gzip or not")
    return file


def _labels_beside(file: Path) -> Path | None:
    stem = file.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    candidates = (file.with_name(stem + packed) for packed in _PACKED)
    return next((labels for labels in candidates if labels.is_file() and labels != file), None)


def _read_idx_array(file: Path, magic: bytes) -> NDArray[np.uint8]:
    with decode_errors(file):
        size = file.stat().st_size
        with open_file(file) as stream:
            shape = _read_idx_header(stream, magic, file)
            start = 4 + 4 * len(shape)
            if is_gzip(file):
                check_announced(start + math.prod(shape), size, file)
                return read_u8(stream, shape, file)
        if size != start + math.prod(shape):
            raise DataError(f"{file} announces {list(shape)} bytes after {start}, but has {size} bytes in all")
        return np.memmap(file, np.uint8, "r", offset=start, shape=shape)


def _read_idx_header(stream: BinaryIO, magic: bytes, file: Path) -> tuple[int, ...]:
    axes = magic[3]
    header = stream.read(4 + 4 * axes)
    if len(header) < 4 + 4 * axes or header[:4] != magic:
        raise DataError(f"{file} starts with {header[:4].hex(' ')}; expected is an IDX header, {magic.hex(' ')}")
    shape: tuple[int, ...] = struct.unpack(f">{axes}I", header[4:])
    if 0 in shape:
        raise DataError(f"{file} announces an empty array of shape {list(shape)}")
    return shape
