"""The record beside a store, which is a `.npy` file of images: its labels and fingerprint, and when they hold."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pspc_rs.errors import DataError, warn
from pspc_rs.outputs import load_record, open_array, save_record, sha256

_KEY = "store"
_FORMAT = 1


@dataclass(frozen=True)
class StoreRecord:
    """What is known of the images in a store.

    Attributes:
        shape: of the array, [N, C, H, W].
        dtype: "uint8" or "float32".
        size: of the file, in bytes.
        modified_ns: when the file was last written, in nanoseconds. Only where this and the size are still so, the
            fingerprints hold, and the pixels are known to be finite.
        fingerprints: those of the `ImageSet` without and with flips.
        labels_sha256: checksum of the file of labels; None without labels.
        scaling: of latents, as JSON holds it; None for pictures.
    """

    shape: tuple[int, ...]
    dtype: str
    size: int
    modified_ns: int
    fingerprints: tuple[str, str]
    labels_sha256: str | None
    scaling: dict[str, list[float]] | None = None

    def describes(self, images: NDArray[Any]) -> bool:
        """Whether an array has the shape and type of the store's."""
        return images.shape == self.shape and images.dtype == np.dtype(self.dtype) and images.flags.c_contiguous

    def is_current(self, file: Path) -> bool:
        """Whether the file has not been written since."""
        found = file.stat()
        return (found.st_size, found.st_mtime_ns) == (self.size, self.modified_ns)

    def labels(self, file: Path) -> NDArray[np.int64] | None:
        """The labels beside the file; None if it was converted without.

        Raises:
            DataError: they are lost or damaged.
        """
        if self.labels_sha256 is None:
            return None
        path = labels_path(file)
        if not path.is_file():
            raise DataError(f"{path} is missing, which holds the labels of {file}; convert the data again")
        if sha256(path) != self.labels_sha256:
            raise DataError(f"{path} is damaged, or not the labels that {record_path(file)} describes")
        labels: NDArray[np.int64] = np.array(open_array(path))
        if labels.dtype != np.int64 or labels.shape != self.shape[:1]:
            raise DataError(
                f"{path} holds {labels.dtype} of shape {labels.shape}; expected is int64 of shape {self.shape[:1]}"
            )
        return labels


def record_path(file: Path) -> Path:
    """The JSON file beside a store."""
    return file.with_suffix(".json")


def labels_path(file: Path) -> Path:
    """The file of labels beside a store."""
    return file.with_suffix(".labels.npy")


def is_record(path: Path) -> bool:
    """Whether a file is the record of a store."""
    return isinstance(load_record(path).get(_KEY), dict)


def write_record(file: Path, store: StoreRecord, settings: dict[str, Any]) -> None:
    """Writes the record beside a store.

    Raises:
        OutputError: it cannot be written.
    """
    save_record(record_path(file), {_KEY: {"format": _FORMAT, **vars(store)}, "settings": settings})


def read_settings(file: Path) -> dict[str, Any]:
    """What a store was made from; empty if no record says so."""
    settings = load_record(record_path(file)).get("settings")
    return settings if isinstance(settings, dict) and is_record(record_path(file)) else {}


def read_record(file: Path) -> StoreRecord | None:
    """The record beside a `.npy` file; None if there is none, or if it is another file's or damaged."""
    entry = load_record(record_path(file)).get(_KEY)
    if not isinstance(entry, dict):
        return None
    match entry:
        case {
            "format": 1,
            "shape": [int(), int(), int(), int()] as shape,
            "dtype": ("uint8" | "float32") as dtype,
            "size": int(size),
            "modified_ns": int(modified),
            "fingerprints": [str(plain), str(flipped)],
            "labels_sha256": (None | str()) as labels,
            "scaling": (None | {"scale": [*_], "shift": [*_]}) as scaling,
        }:
            return StoreRecord(tuple(shape), dtype, size, modified, (plain, flipped), labels, scaling)
    warn(f"{record_path(file)} is not a record that this version reads; {file} is read without its labels")
    return None
