"""Tables with a column of images: Parquet files, and folders and Arrow files of Hugging Face `datasets`.

pyarrow is all it takes to read them; nothing is imported from `datasets`, and nothing is unpickled.
"""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.checks import one_of
from pspc_rs.data.decode import ImageFile
from pspc_rs.data.image_arrays import channels_first
from pspc_rs.data.image_set import ImageSet
from pspc_rs.data.streams import Batch, ImageStream, Item, batches_of, collect
from pspc_rs.errors import DataError, DTypeError, InvalidValueError, warn
from pspc_rs.extras import import_extra
from pspc_rs.files import MAX_FILE_BYTES, decode_errors, read_limited, require_path
from pspc_rs.progress import Progress
from pspc_rs.reprs import a_few

PARQUET_MAGIC = b"PAR1"
"""First bytes of a Parquet file."""

ARROW_MAGICS = (b"ARROW1", b"\xff\xff\xff\xff")
"""First bytes of an Arrow file, and of a stream of Arrow messages, which `datasets` writes."""

_IMAGE_NAMES = ("image", "images", "img", "jpg", "png", "pixels", "latent", "latents", "x", "data")
_LABEL_NAMES = ("label", "labels", "cls", "class", "fine_label", "y")
_STATE, _SPLITS = "state.json", "dataset_dict.json"
_ROWS = 256


def read_table(
    path: str | os.PathLike[str],
    *,
    split: str = "train",
    image: str | None = None,
    label: str | None = None,
    xflip: bool = False,
    max_size: int | None = None,
    classes: Collection[int] | None = None,
    progress: bool | Progress | None = None,
) -> ImageSet:
    """The images in a column of a Parquet file, or of a data set that Hugging Face `datasets` has saved.

    Images are bytes of image files, alone or as the struct {bytes, path} of `datasets`, or arrays as nested lists
    [C, H, W], [H, W] or [H, W, C] of bytes or floats. They are read in order. All are held in memory;
    `pspc_rs.data.save_store` streams them.

    Args:
        path: a .parquet file, a folder of some, a folder of ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk``,
            or an .arrow file.
        split: for a folder of several splits, ``"train"`` or ``"test"``.
        image: name of the column of images; None takes the first of image, images, img, jpg, png, pixels, latent,
            latents, x and data that is there, or else the only one that can hold images.
        label: name of the column of labels, integers; None takes the first of label, labels, cls, class, fine_label and
            y that is there, if any.
        xflip: count horizontal flips as further data.
        max_size: at most so many images, counted after `classes`.
        classes: labels to keep.
        progress: True for a progress bar, or a function called as ``progress(done, total)``; None shows a bar on a
            terminal, for more than 2000 images.

    Returns:
        ImageSet of uint8, or of float32 for arrays of floats, [N, C, H, W].

    Raises:
        DataError: a file is damaged, an entry is missing or no image, or images differ in shape.
        DTypeError: labels that are no integers.
        InvalidValueError: there is no such column or split.
        MissingDependencyError: pyarrow is not installed.
        MissingFileError: there is no such file or folder.

    Example:
        >>> read_table("train-00000-of-00001.parquet", image="img")  # doctest: +SKIP
        ImageSet('train-00000-of-00001', 50000 images of [3, 32, 32] uint8, 10 classes, xflip=False)
    """
    return collect(table_stream(require_path(path), split, image, label), xflip, max_size, classes, progress)


def table_stream(path: Path, split: str, image: str | None = None, label: str | None = None) -> ImageStream:
    """The images of a table as a stream; see `read_table`.

    Raises:
        DataError, DTypeError, InvalidValueError, MissingDependencyError: see `read_table`.
    """
    one_of("split", split, ("train", "test"))
    import_extra("pyarrow.parquet", "a Parquet or Arrow file", "tables")
    files = [_File(file) for file in (files_in(path, split) if path.is_dir() else [path])]
    if not files:
        raise DataError(f"{path} holds no Parquet or Arrow files")
    columns = _columns(files[0], image, label)
    total = sum(file.count() for file in files)

    def batches(start: int) -> Iterator[Batch]:
        return _batches(files, columns, start)

    return ImageStream(path.name if path.is_dir() else path.stem, total, batches)


def has_tables(folder: Path) -> bool:
    """Whether a folder holds Parquet files, alone or in ``data``, or was written by `datasets`."""
    fixed = any((folder / name).is_file() for name in (_STATE, _SPLITS))
    return fixed or any(any(place.glob("*.parquet")) for place in (folder, folder / "data"))


def files_in(folder: Path, split: str) -> list[Path]:
    """The files of one split in a folder, in order.

    Raises:
        DataError: the folder is not as `datasets` writes it.
        InvalidValueError: it does not have the split.
    """
    if (folder / _SPLITS).is_file():
        splits = _json(folder / _SPLITS).get("splits")
        if not isinstance(splits, list) or split not in splits or not (folder / split).is_dir():
            raise InvalidValueError(f"split is {split!r}, but {folder} has {a_few([str(one) for one in splits or []])}")
        folder = folder / split
    if (folder / _STATE).is_file():
        return _files_of_state(folder)
    found = sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))
    of_split = [path for path in found if path.name.startswith((f"{split}-", f"{split}.", f"{split}_"))]
    if not of_split and split == "test" and found:
        raise InvalidValueError(f"split is 'test', but {folder} has {a_few([path.name for path in found])}")
    return of_split or found


def _files_of_state(folder: Path) -> list[Path]:
    entries = _json(folder / _STATE).get("_data_files")
    if not isinstance(entries, list):
        raise DataError(f"{folder / _STATE} lists no files of data")
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    bad = next((name for name in names if not isinstance(name, str) or Path(name).name != name), None)
    if bad is not None or None in names:
        raise DataError(f"{folder / _STATE} names the file {bad!r}; allowed are names of files beside it")
    missing = [name for name in names if not (folder / str(name)).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {a_few([str(name) for name in missing])}")
    return [folder / str(name) for name in names]


def _json(path: Path) -> dict[str, Any]:
    with decode_errors(path):
        content = json.loads(read_limited(path))
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object")
    return content


class _File:
    """One file of a table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with decode_errors(path), path.open("rb") as file:
            start = file.read(8)
        self.is_parquet = start.startswith(PARQUET_MAGIC)
        self._is_stream = not start.startswith(ARROW_MAGICS[0])

    def schema(self) -> Any:
        """Names and types of its columns."""
        with decode_errors(self.path):
            return self._parquet().schema_arrow if self.is_parquet else self._arrow().schema

    def count(self) -> int:
        """The number of its rows."""
        with decode_errors(self.path):
            if self.is_parquet:
                return int(self._parquet().metadata.num_rows)
            return sum(batch.num_rows for batch in self._arrow_batches())

    def batches(self, columns: list[str], start: int) -> Iterator[Any]:
        """Its rows from `start` on, in batches of the chosen columns."""
        if not self.is_parquet:
            for batch in self._arrow_batches():
                for first in range(min(start, batch.num_rows), batch.num_rows, _ROWS):
                    yield batch.slice(first, _ROWS).select(columns)
                start = max(0, start - batch.num_rows)
            return
        file = self._parquet()
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if start < rows:
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=columns):
                    yield batch.slice(min(start, batch.num_rows))
                    start = max(0, start - batch.num_rows)
            else:
                start -= rows

    def _parquet(self) -> Any:
        return import_extra("pyarrow.parquet", "a Parquet file", "tables").ParquetFile(self.path, memory_map=True)

    def _arrow(self) -> Any:
        pyarrow = import_extra("pyarrow", "an Arrow file", "tables")
        opened = pyarrow.ipc.open_stream if self._is_stream else pyarrow.ipc.open_file
        return opened(pyarrow.memory_map(str(self.path)))

    def _arrow_batches(self) -> Iterator[Any]:
        reader = self._arrow()
        if self._is_stream:
            yield from reader
        else:
            yield from (reader.get_batch(index) for index in range(reader.num_record_batches))


@dataclass(frozen=True)
class _Columns:
    """The names of the columns of images and labels; None without labels."""

    image: str
    label: str | None

    @property
    def names(self) -> list[str]:
        return [self.image] if self.label is None else [self.image, self.label]


def _columns(file: _File, image: str | None, label: str | None) -> _Columns:
    schema = file.schema()
    names = list(schema.names)
    for what, name in (("image", image), ("label", label)):
        if name is not None and name not in names:
            raise InvalidValueError(f"{what} is {name!r}, but the columns of {file.path} are {a_few(names, 20)}")
    able = [name for name in names if _can_hold_images(schema.field(name).type)]
    found = image or next((name for name in _IMAGE_NAMES if name in able), able[0] if len(able) == 1 else None)
    if found is None:
        raise DataError(
            f"{file.path} has the columns {a_few(names, 20)}, none of which is surely of images; name it (image=, "
            "--image)"
        )
    labels = label or next((name for name in _LABEL_NAMES if name in names and name != found), None)
    if labels is not None and not _is_integer(schema.field(labels).type):
        message = f"{file.path}: the column {labels!r} is of {schema.field(labels).type}; labels are integers"
        if label is not None:
            raise DTypeError(message)
        warn(f"{message}. They are left out")
        labels = None
    return _Columns(found, labels)


def _types() -> Any:
    return import_extra("pyarrow", "a Parquet or Arrow file", "tables").types


def _storage(kind: Any) -> Any:
    return getattr(kind, "storage_type", kind)


def _can_hold_images(kind: Any) -> bool:
    kind = _storage(kind)
    if _is_struct(kind) or _is_binary(kind):
        return True
    return _is_list(kind) and _is_list(kind.value_type)


def _is_struct(kind: Any) -> bool:
    return bool(_types().is_struct(kind)) and kind.get_field_index("bytes") >= 0


def _is_binary(kind: Any) -> bool:
    types = _types()
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _is_list(kind: Any) -> bool:
    types = _types()
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_integer(kind: Any) -> bool:
    return bool(_types().is_integer(kind))


def _batches(files: list[_File], columns: _Columns, start: int) -> Iterator[Batch]:
    before = 0
    for file in files:
        count = file.count()
        if start < before + count:
            yield from _file_batches(file, columns, max(0, start - before), before)
        before += count


def _file_batches(file: _File, columns: _Columns, start: int, before: int) -> Iterator[Batch]:
    missing = [name for name in columns.names if name not in file.schema().names]
    if missing:
        raise DataError(f"{file.path} lacks the column {missing[0]!r}, which the first file has")
    with decode_errors(file.path):
        for rows in file.batches(columns.names, start):
            if rows.num_rows:
                images = rows.column(0)
                images = getattr(images, "storage", images)
                labels = None if columns.label is None else _labels(rows.column(1), f"{file.path}, {columns.label}")
                done = before + start + rows.num_rows
                if _is_struct(images.type) or _is_binary(images.type):
                    yield from batches_of(_items(images, labels, file.path, (start, before)), str(file.path))
                else:
                    yield Batch(_arrays(images, f"{file.path}, column {columns.image}"), labels, done)
                start += rows.num_rows


def _labels(column: Any, what: str) -> NDArray[np.int64]:
    if column.null_count:
        raise DataError(f"{what}: {column.null_count} labels are missing")
    if not _is_integer(column.type):
        raise DataError(f"{what} is of {column.type}; expected are integers, as in the first file")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if values.max() > np.iinfo(np.int64).max:
        raise DataError(f"{what}: label {values.max()} does not fit into 64 bits with a sign")
    return values.astype(np.int64)


def _items(column: Any, labels: NDArray[np.int64] | None, path: Path, place: tuple[int, int]) -> Iterator[Item]:
    """The rows of a column of image files; place is the number of rows before them in the file, and before the file."""
    first, before = place
    data = column.field("bytes") if _is_struct(column.type) else column
    for index in range(len(column)):
        what = f"{path}, row {first + index}"
        value = data[index]
        if not value.is_valid or not column[index].is_valid:
            raise DataError(f"{what} holds no bytes of an image, or only a path, which is not followed")
        content = value.as_buffer()
        if content.size > MAX_FILE_BYTES:
            raise DataError(f"{what} has {content.size} bytes; allowed are at most {MAX_FILE_BYTES}")
        label = None if labels is None else int(labels[index])
        yield Item(ImageFile(what, content.to_pybytes), label, before + first + index + 1, what)


def _arrays(column: Any, what: str) -> NDArray[Any]:
    """The images of a column of nested lists, [n, C, H, W]."""
    shape = [len(column)]
    while _is_list(column.type):
        if column.null_count:
            raise DataError(f"{what} has entries that are missing")
        inner = column.flatten()
        length, rest = divmod(len(inner), max(1, len(column)))
        lengths = {len(inner)} if not len(column) else set(np.unique(_lengths(column)).tolist())
        if rest or len(lengths) != 1 or length == 0:
            raise DataError(f"{what} has lists of {a_few(sorted(map(str, lengths)))} entries; images are of one shape")
        shape.append(length)
        column = inner
    if column.null_count:
        raise DataError(f"{what} has numbers that are missing")
    flat: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if len(shape) not in (3, 4):
        raise DataError(f"{what} has arrays of shape {shape[1:]}; allowed are [C, H, W], [H, W, C] and [H, W]")
    values = _pixels(flat, what).reshape(shape)
    return values[:, None] if values.ndim == 3 else channels_first(values, None, what, guess=True)


def _lengths(column: Any) -> NDArray[Any]:
    compute = import_extra("pyarrow.compute", "a Parquet or Arrow file", "tables")
    lengths: NDArray[Any] = compute.list_value_length(column).to_numpy(zero_copy_only=False)
    return lengths


def _pixels(flat: NDArray[Any], what: str) -> NDArray[Any]:
    if flat.dtype.kind in "iu" and flat.dtype != np.uint8:
        if flat.size and not (flat.min() >= 0 and flat.max() <= 255):
            raise DataError(f"{what} holds integers from {flat.min()} to {flat.max()}; allowed are 0 .. 255")
        return flat.astype(np.uint8)
    if flat.dtype != np.uint8 and flat.dtype.kind != "f":
        raise DataError(f"{what} holds {flat.dtype}; allowed are integers from 0 to 255 and floats")
    return flat
