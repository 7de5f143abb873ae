"""Any source of images, streamed once into a store."""

import hashlib
import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pspc_rs.checks import flag, integer, one_of
from pspc_rs.data.formats import Format, format_of
from pspc_rs.data.latents import Scaling
from pspc_rs.data.load import find_source, load
from pspc_rs.data.named import EMBEDDED
from pspc_rs.data.readers.image_batches import folder_stream, zip_stream
from pspc_rs.data.readers.imagenet import imagenet_stream
from pspc_rs.data.readers.tables import table_stream
from pspc_rs.data.readers.webdataset import webdataset_stream
from pspc_rs.data.store import StoreWriter, chosen_of
from pspc_rs.data.streams import Batch, ImageStream, stream_of
from pspc_rs.errors import DTypeError, InvalidValueError
from pspc_rs.files import as_path, decode_errors
from pspc_rs.progress import Progress, reporting


def save_store(
    source: Any,
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    image: str | None = None,
    label: str | None = None,
    scaling: Scaling | None = None,
    overwrite: bool = False,
    progress: bool | Progress | None = None,
) -> Path:
    """The path of a new store: the images of any source in a `.npy` file, which `load` maps into memory.

    The source is read once, in order, in batches of about 16 MiB; only formats that are small as such (CIFAR, .npz,
    packed IDX files) are held in memory. What is written lies in a hidden folder beside the store until it is complete.
    A call that was stopped, in whatever way, is continued by the same call, and ends with the same bytes.

    Beside ``name.npy``, uint8 or float32 [N, C, H, W], lie ``name.json``, the record with the fingerprint, and
    ``name.labels.npy``, int64 [N], if the source has labels. Flips and log weights are not written: flips are an option
    of reading.

    Args:
        source: whatever `load` takes.
        path: the store, whose name ends in ``.npy``.
        split: ``"train"`` or ``"test"``, for data that is divided so.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        image: column of the images in a table, or their suffix in a WebDataset; see `read_table` and `read_webdataset`.
        label: the same for the labels.
        scaling: of latents, which are scaled as they are written; the store keeps the numbers, as it keeps those of an
            `ImageSet` that has a scaling.
        overwrite: replace a store that was made from something else, or another file of that name.
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.

    Raises:
        DataError: the source is damaged or holds no images, or they differ in shape or type.
        InvalidValueError: the name does not end in ``.npy``, a pixel is not finite, or no image has one of the classes.
        MissingFileError: there is no such source.
        OutputError: the store is there already and was made from something else, another run is writing it, or it
            cannot be written.

    Example:
        >>> import tempfile
        >>> from pspc_rs.data import ImageSet
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = ImageSet(np.zeros((3, 1, 4, 4), np.uint8), labels=[5, 6, 6])
        ...     load(save_store(data, Path(folder, "few.npy")))
        ImageSet('few', 3 images of [1, 4, 4] uint8, 2 classes, xflip=False)
    """
    target = as_path(path)
    if target.suffix != ".npy":
        raise InvalidValueError(f"{target} does not end in .npy, as the name of a store has to")
    limit = None if max_size is None else integer("max_size", max_size)
    wanted = None if classes is None else sorted({integer("each class", label, least=None) for label in classes})
    stream, identity = open_stream(source, split, image, label)
    settings = {"source": identity, "split": split, "max_size": limit, "classes": wanted}
    settings |= {"image": image, "label": label}
    stream = stream if scaling is None else _scaled(stream, scaling)
    settings["scaling"] = None if stream.scaling is None else stream.scaling.settings
    with StoreWriter(target, settings, scaling=stream.scaling, overwrite=flag("overwrite", overwrite)) as store:
        if not store.complete:
            _fill(store, stream, limit, wanted, progress)
            store.finish()
    return target


def _fill(
    store: StoreWriter,
    stream: ImageStream,
    limit: int | None,
    classes: list[int] | None,
    progress: bool | Progress | None,
) -> None:
    expected = stream.total if stream.unit == "img" and classes is None else None
    expected = expected if expected is None or limit is None else min(expected, limit)
    with reporting(progress, stream.unit, f"converting {stream.name}", stream.total) as report:
        if limit is None or store.count < limit:
            for batch in stream.batches(store.read):
                chosen = chosen_of(batch, classes, None if limit is None else limit - store.count)
                store.append(batch, chosen, expected)
                report(batch.done, stream.total)
                if store.count == limit:
                    break
        else:
            report(stream.total, stream.total)
    if classes is not None and limit is None:
        kept = store.kept_labels
        missing = set(classes) - set(() if kept is None else np.unique(kept).tolist())
        if missing:
            store.forget()
            raise InvalidValueError(f"classes are {classes}; no image of {stream.name} has {sorted(missing)}")


def _scaled(stream: ImageStream, scaling: object) -> ImageStream:
    """The latents of a stream scaled.

    Raises:
        DTypeError: scaling is none.
        InvalidValueError: they were scaled already.
    """
    if not isinstance(scaling, Scaling):
        raise DTypeError(f"scaling is a {type(scaling).__name__}; allowed are a Scaling and None")
    if stream.scaling is not None:
        raise InvalidValueError(f"{stream.name} has {stream.scaling} already; scaling= is for latents without")

    def batches(start: int) -> Iterator[Batch]:
        for batch in stream.batches(start):
            yield batch._replace(images=scaling.apply(batch.images))

    return replace(stream, batches=batches, scaling=scaling)


def open_stream(
    source: Any, split: str, image: str | None = None, label: str | None = None
) -> tuple[ImageStream, dict[str, Any]]:
    """The images of a source in order, and what identifies them.

    Args:
        source: whatever `load` takes.
        split: ``"train"`` or ``"test"``.
        image: column or suffix of the images, for tables and WebDataset.
        label: the same for the labels.

    Raises:
        DataError: the source is damaged.
        InvalidValueError: a column or suffix is given for another kind of source.
        MissingFileError: there is no such source.
    """
    one_of("split", split, ("train", "test"))
    path = None if not isinstance(source, str | os.PathLike) or source in EMBEDDED else find_source(source, split)
    found = None if path is None else format_of(path)
    if (image, label) != (None, None) and found not in ("table", "webdataset"):
        raise InvalidValueError("image and label name columns or suffixes, which only tables and WebDataset have")
    if path is not None and found is not None:
        return _stream_of_path(path, found, split, (image, label)), identity_of(path)
    if not isinstance(source, str | os.PathLike):
        data = load(source, split=split)
        if data.log_prior is not None:
            raise DTypeError("the data set has a log_prior, which a store cannot hold")
        return stream_of(data), {"fingerprint": data.fingerprint}
    return stream_of(load(source, split=split)), {"name": str(source)}


def _stream_of_path(path: Path, found: Format, split: str, columns: tuple[str | None, str | None]) -> ImageStream:
    match found:
        case "table":
            return table_stream(path, split, *columns)
        case "imagenet":
            return imagenet_stream(path, split)
        case "webdataset" if split == "train":
            return webdataset_stream(path, *columns)
        case "edm_zip" if split == "train":
            return zip_stream(path)
        case "folder" if split == "train":
            return folder_stream(path)
    return stream_of(load(path, split=split))


def identity_of(path: Path) -> dict[str, Any]:
    """What tells a file or folder from what it was before: names, sizes and times of its files, not where it lies.

    Raises:
        DataError: it cannot be looked at.
    """
    with decode_errors(path):
        files = [path] if path.is_file() else sorted(_files_below(path))
        states = [(str(file.relative_to(path)), file.stat()) for file in files]
        digest = hashlib.sha256(repr([(name, one.st_size, one.st_mtime_ns) for name, one in states]).encode())
        size = sum(one.st_size for _, one in states)
    return {"name": path.name, "files": len(files), "bytes": size, "sha256": digest.hexdigest()}


def _files_below(folder: Path) -> list[Path]:
    return [Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names]
