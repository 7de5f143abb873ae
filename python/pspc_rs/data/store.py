"""Stores: images of any source, written once to a `.npy` file that is mapped into memory, with labels beside it."""

import contextlib
import io
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from pspc_rs.data.image_arrays import as_stored
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.latents import Scaling
from pspc_rs.data.store_record import (
    StoreRecord,
    is_record,
    labels_path,
    read_record,
    read_settings,
    record_path,
    write_record,
)
from pspc_rs.data.streams import Batch, check_alike
from pspc_rs.errors import DataError, InvalidValueError, OutputError, PspcError
from pspc_rs.files import decode_errors
from pspc_rs.locks import OutputLock
from pspc_rs.outputs import (
    differences,
    load_record,
    output_lock,
    parts_of,
    plain,
    save_array,
    save_record,
    sha256,
    write_header,
)
from pspc_rs.writing import flush

_SAVED_EVERY = 1 << 26
_WAYS_OUT = "replace it with --overwrite (in Python, overwrite=True), or choose another name"


class StoreWriter:
    """A store that is written batch by batch, and may be stopped at any moment.

    What is written so far lies in the hidden folder ``.{name}.parts`` beside the store, where a journal says how much
    of it lies safely on the disk. A later writer with the same settings goes on from there, and ends with the same
    bytes. The store gets its name once it is complete, so that no reader ever sees half of one. Until `finish` or
    `close`, no other run can write it.

    Attributes:
        complete: whether the store is there already, with these settings, and is to be kept.
        read: how many images of the source have been read.
        count: how many of them have been kept.

    Args:
        target: the `.npy` file.
        settings: what identifies the source and the choice among its images, of types that JSON holds.
        scaling: of latents, which is kept in the record.
        overwrite: replace a store that has other settings, and forget one of which a part was written.

    Raises:
        OutputError: another run is writing the store, it has other settings, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(Path(folder, "few.npy"), {"source": "zeros"}) as store:
        ...         store.append(Batch(np.zeros((3, 1, 2, 2), np.uint8), np.arange(3), 3), np.array([0, 2]))
        ...         store.finish()
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['few.json', 'few.labels.npy', 'few.npy']
    """

    def __init__(
        self, target: Path, settings: dict[str, Any], *, scaling: Scaling | None = None, overwrite: bool = False
    ) -> None:
        self.target = target
        self._scaling = scaling
        self.complete = False
        self.read = 0
        self.count = 0
        self._settings: dict[str, Any] = plain(settings)
        self._parts = parts_of(target)
        self._files: list[BinaryIO] = []
        self._first: Batch | None = None
        self._unsaved = 0
        self._lock: OutputLock = output_lock(target)
        self._lock.acquire()
        try:
            self._begin(overwrite)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"StoreWriter({str(self.target)!r}, {'complete' if self.complete else f'{self.count} images'})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After Ctrl-C, or an error of the source, what is there already is kept.
        if self._files and self._unsaved and self.count:
            with contextlib.suppress(OSError):
                self.save()
        self.close()

    def append(self, batch: Batch, chosen: NDArray[np.int64], expected: int | None = None) -> None:
        """Adds images.

        Args:
            batch: the next images of the source.
            chosen: positions of those that are kept.
            expected: how many images the source has, if that is known: the disk must have room for them.

        Raises:
            DataError: they differ from the first in shape or type.
            InvalidValueError: a pixel is not finite.
            OutputError: they cannot be written.
        """
        what = f"the source of {self.target.name}"
        start = self.read
        try:
            images, labels = as_stored(batch.images, batch.labels, channels_last=False)
        except InvalidValueError as error:
            raise InvalidValueError(f"{what}, counted from image {start} on: {error}") from error
        stored = Batch(images, labels, batch.done)
        check_alike(stored, self._first or stored, start, what)
        if self._first is None:
            kind = np.empty((0, *images.shape[1:]), images.dtype)
            self._first = Batch(kind, None if labels is None else labels[:0].copy(), 0)
            self._require_room(images, expected)
        with _writing(self.target):
            self._files[0].write(np.ascontiguousarray(images[chosen]).data)
            if labels is not None:
                self._files[1].write(np.ascontiguousarray(labels[chosen], "<i8").data)
        self.read += len(images)
        self.count += len(chosen)
        self._unsaved += images.nbytes
        if self._unsaved >= _SAVED_EVERY:
            with _writing(self.target):
                self.save()

    def save(self) -> None:
        """Puts what is written on the disk, then says so in the journal."""
        assert self._first is not None
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        images, labels, _ = self._first
        facts = {"shape": list(images.shape[1:]), "dtype": images.dtype.name, "labels": labels is not None}
        save_record(self._journal, {"settings": self._settings, "read": self.read, "count": self.count, **facts})
        self._unsaved = 0

    def finish(self) -> None:
        """Completes the store, with its labels and its record beside it.

        Raises:
            DataError: no image was kept.
            OutputError: something cannot be written.
        """
        if self._first is None or not self.count:
            self.forget()
            raise DataError(f"{self.target} would hold no images; at least one is needed")
        with _writing(self.target):
            self._files[0].seek(0)
            write_header(self._files[0], self._first.images.dtype, (self.count, *self._first.images.shape[1:]))
            self.save()
            self._close_files()
            record = self._described()
            # From here on there is no store until the last step, so that none has the labels of another.
            for path in (self.target, record_path(self.target), labels_path(self.target)):
                path.unlink(missing_ok=True)
            if record.labels_sha256 is not None:
                save_array(labels_path(self.target), self._labels())
                record = replace(record, labels_sha256=sha256(labels_path(self.target)))
            write_record(self.target, record, self._settings)
            self._images_file.replace(self.target)
            flush(self.target.parent)
        self.forget()
        self.complete = True

    def forget(self) -> None:
        """Removes what was written so far; the lock stays."""
        self._close_files()
        self._first, self.read, self.count = None, 0, 0
        with _writing(self.target):
            for path in (self._journal, self._images_file, self._labels_file):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets other runs write the store; what is kept stays."""
        if self._files and not self.count:
            self.forget()
        self._close_files()
        self._lock.release()

    @property
    def kept_labels(self) -> NDArray[np.int64] | None:
        """The labels of the images that were kept; None where there are none."""
        if self._first is None or self._first.labels is None:
            return None
        self._files[1].flush()
        return self._labels()

    def _begin(self, overwrite: bool) -> None:
        if read_settings(self.target) == self._settings and self._is_intact():
            self.complete = True
            self.forget()
            return
        journal = load_record(self._journal)
        if not overwrite:
            self._refuse_others(journal)
        if journal.get("settings") == self._settings:
            self._continue(journal)
        else:
            self.forget()
        with _writing(self.target):
            self._files = [_opened(path) for path in (self._images_file, self._labels_file)]
            self._truncate()

    def _is_intact(self) -> bool:
        record = read_record(self.target)
        if record is None or not self.target.is_file() or not record.is_current(self.target):
            return False
        return record.labels_sha256 is None or record.labels(self.target) is not None

    def _refuse_others(self, journal: dict[str, Any]) -> None:
        """Refuses to replace what another conversion wrote, or is in the middle of, or what is no store."""
        earlier = journal.get("settings")
        if isinstance(earlier, dict) and earlier != self._settings:
            changes = differences(earlier, self._settings)
            raise OutputError(f"{self.target} was begun from something else: {changes}; {_WAYS_OUT}")
        if self.target.exists():
            changes = differences(read_settings(self.target), self._settings)
            how = f"made from something else: {changes}" if read_settings(self.target) else "and is no store"
            raise OutputError(f"{self.target} is there already, {how}; {_WAYS_OUT}")
        beside = record_path(self.target)
        if beside.exists() and not is_record(beside):
            raise OutputError(f"{beside} is there already, and is no record of a store; {_WAYS_OUT}")

    def _continue(self, journal: dict[str, Any]) -> None:
        """Takes over what the journal describes, or begins anew if less than that is there."""
        match journal:
            case {"shape": [int(), int(), int()] as shape, "dtype": ("uint8" | "float32") as dtype} if (
                type(journal.get("read")) is int and type(journal.get("count")) is int
            ):
                images = np.empty((0, *shape), dtype)
                labels = np.empty(0, np.int64) if journal.get("labels") is True else None
                self._first = Batch(images, labels, 0)
                self.read, self.count = journal["read"], journal["count"]
        sizes = [path.stat().st_size if path.is_file() else 0 for path in (self._images_file, self._labels_file)]
        if self._first is None or any(size < needed for size, needed in zip(sizes, self._sizes(), strict=True)):
            self._first, self.read, self.count = None, 0, 0

    def _sizes(self) -> tuple[int, int]:
        """Bytes of the files of images and labels so far."""
        if self._first is None:
            return 0, 0
        images, labels, _ = self._first
        image_bytes = images.dtype.itemsize * int(np.prod(images.shape[1:]))
        return len(_header(images)) + self.count * image_bytes, 0 if labels is None else 8 * self.count

    def _truncate(self) -> None:
        """Cuts off what was written after the journal."""
        for file, size in zip(self._files, self._sizes(), strict=True):
            file.truncate(size)
            file.seek(size)

    def _require_room(self, images: NDArray[Any], expected: int | None) -> None:
        """Reserves the header, once it is known that the disk has room for all images."""
        needed, free = (expected or 0) * images[0].nbytes, shutil.disk_usage(self._parts).free
        if needed > free:
            raise OutputError(f"{self.target} cannot be written: it needs {needed} bytes, and the disk has {free} free")
        self._files[0].write(_header(images))

    def _described(self) -> StoreRecord:
        """The record of the store, whose bytes are read once more."""
        assert self._first is not None
        with decode_errors(self._images_file):
            images = np.lib.format.open_memmap(self._images_file, mode="r")
        labels = None if self._first.labels is None else self._labels()
        fingerprints = [ImageSet(images, labels, flips, channels_last=False).fingerprint for flips in (False, True)]
        found = self._images_file.stat()
        return StoreRecord(
            shape=images.shape,
            dtype=images.dtype.name,
            size=found.st_size,
            modified_ns=found.st_mtime_ns,
            fingerprints=(fingerprints[0], fingerprints[1]),
            labels_sha256=None if labels is None else "",
            scaling=None if self._scaling is None else self._scaling.settings,
        )

    def _labels(self) -> NDArray[np.int64]:
        return np.fromfile(self._labels_file, "<i8").astype(np.int64)

    def _close_files(self) -> None:
        files, self._files = self._files, []
        for file in files:
            with contextlib.suppress(OSError):
                file.close()

    @property
    def _journal(self) -> Path:
        return self._parts / "journal.json"

    @property
    def _images_file(self) -> Path:
        return self._parts / "images"

    @property
    def _labels_file(self) -> Path:
        return self._parts / "labels"


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turns what the system says about files into an OutputError that names the store."""
    try:
        yield
    except PspcError:
        raise
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error


def _opened(path: Path) -> BinaryIO:
    """A file to write to, as it is; made if it is not there."""
    path.touch()
    return path.open("r+b")


def _header(images: NDArray[Any]) -> bytes:
    """The header of a `.npy` file, as long for any number of images of this kind."""
    buffer = io.BytesIO()
    write_header(buffer, images.dtype, (0, *images.shape[1:]))
    return buffer.getvalue()


def chosen_of(batch: Batch, classes: Collection[int] | None, room: int | None) -> NDArray[np.int64]:
    """Positions of the images of a batch whose label is in `classes`, at most `room`.

    Raises:
        DataError: classes are given, the batch has no labels.
    """
    if classes is None:
        return np.arange(len(batch.images))[:room]
    if batch.labels is None:
        raise DataError("classes were asked for, but the data set has no labels")
    return np.flatnonzero(np.isin(batch.labels, list(classes)))[:room]
