"""Builders of small data sets in every file format, whole or damaged."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pspc_rs.data import ImageSet

Bytes = NDArray[np.uint8]


def random_images(num: int, channels: int, height: int, width: int, seed: int = 0) -> Bytes:
    """Random u8 images, [N, C, H, W]."""
    return np.random.default_rng(seed).integers(0, 256, (num, channels, height, width), np.uint8)


def encoded(image: Bytes, file_format: str = "PNG") -> bytes:
    """One image [C, H, W] as the bytes of a file."""
    pixels = image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_claiming(width: int, height: int, depth: int = 8, color: int = 2, rows: bytes = b"") -> bytes:
    """A PNG whose header announces a size, whatever pixels follow."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def write_zip(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A ZIP archive of the given members."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """A folder of the given files, with the subfolders in their names."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def idx_bytes(array: Bytes) -> bytes:
    """An array as an IDX file."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, images: Bytes, labels: Bytes, packed: bool, split: str = "train") -> Path:
    """A folder with the two files of one split of MNIST."""
    pack, ending = (gzip.compress, ".gz") if packed else (bytes, "")
    files = {"images-idx3": images[:, 0], "labels-idx1": labels}
    return write_folder(
        folder, {f"{split}-{kind}-ubyte{ending}": pack(idx_bytes(array)) for kind, array in files.items()}
    )


def python2_batch(images: Bytes, labels: list[int], name: str = "batch") -> bytes:
    """A batch of CIFAR-10 with the opcodes that Python 2 and the numpy of its time wrote for it."""
    flat = images.reshape(len(images), -1)

    def short(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode()

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = (
        b"cnumpy\ndtype\n(" + short("u1") + b"K\x00K\x01tR(K\x03" + short("|") + b"NNN" + number(-1) * 2 + b"K\x00tb"
    )
    raw = b"T" + struct.pack("<i", flat.size) + flat.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02(cnumpy\nndarray\nq\x03(K\x00t" + short("b") + b"tR"
        b"(K\x01(" + number(len(flat)) + number(flat.shape[1]) + b"t" + dtype + b"\x89" + raw + b"tb"
    )
    label_list = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    filenames = b"](" + b"".join(short(f"{index}.png") for index in range(len(labels))) + b"e"
    entries = [
        short("data") + b"q\x01" + array,
        short("labels") + label_list,
        short("batch_label") + short(name),
        short("filenames") + filenames,
    ]
    return b"\x80\x02}q\x00(" + b"".join(entries) + b"u."


def binary_batch(images: Bytes, labels: list[int]) -> bytes:
    """A batch of CIFAR-10's binary version: a label byte, then the pixels."""
    return b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, images, strict=True))


def cifar_files(images: Bytes, labels: list[int], binary: bool) -> dict[str, bytes]:
    """The six files of CIFAR-10; the images are dealt out in order, the last sixth being the test batch."""
    size = len(images) // 6
    folder, ending = ("cifar-10-batches-bin", ".bin") if binary else ("cifar-10-batches-py", "")
    names = [f"{folder}/data_batch_{number}{ending}" for number in range(1, 6)] + [f"{folder}/test_batch{ending}"]
    make = binary_batch if binary else python2_batch
    return {
        name: make(images[i * size : (i + 1) * size], labels[i * size : (i + 1) * size]) for i, name in enumerate(names)
    }


def tar_bytes(files: Mapping[str, bytes], packed: bool = True) -> bytes:
    """A tar archive, in an order that is not the sorted one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if packed else "w") as archive:
        for name, content in reversed(list(files.items())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def labels_of(data: ImageSet) -> list[int] | None:
    """The labels as a list, or None."""
    return None if data.labels is None else data.labels.tolist()
