"""PNGs decoded in the core: the pixels that Pillow finds, and everything unusual or damaged left to Pillow."""

import io
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from bad_files import encoded, png_chunk, random_images, write_folder, write_zip
from pspc_rs import _core, num_threads, set_num_threads
from pspc_rs.data import decode, load, read_edm_zip, read_folder
from pspc_rs.data.decode import SUFFIXES
from pspc_rs.data.readers import archives
from pspc_rs.data.readers.archives import has_image_suffix, is_junk, member_name
from pspc_rs.errors import DataError

COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
"""The colour type of a PNG by its number of channels."""

LIMIT = 1 << 26


def png(
    rows: bytes, width: int, height: int, channels: int, *, chunks: Sequence[bytes] = (), cuts: int = 1, level: int = 6
) -> bytes:
    """A PNG of filtered rows, its data cut into several chunks, others before them."""
    header = struct.pack(">IIBBBBB", width, height, 8, COLOURS[channels], 0, 0, 0)
    data = zlib.compress(rows, level)
    ends = [len(data) * part // cuts for part in range(cuts + 1)]
    parts = [png_chunk(b"IDAT", data[start:end]) for start, end in pairwise(ends)]
    return b"\x89PNG\r\n\x1a\n" + b"".join([png_chunk(b"IHDR", header), *chunks, *parts, png_chunk(b"IEND", b"")])


def decoded(files: Sequence[bytes], shape: tuple[int, int, int], folder: Path) -> tuple[NDArray[np.uint8], list[int]]:
    """What the core makes of files in an archive, with the positions that it leaves."""
    path = write_zip(folder / "plain.zip", {f"{index}.png": file for index, file in enumerate(files)})
    archive = _core.PlainZip.open(path)
    assert archive is not None
    pixels = np.zeros((len(files), *shape), np.uint8)
    return pixels, archive.decode(list(range(len(files))), pixels, LIMIT)


def by_pillow(file: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(file)) as image:
        pixels: NDArray[np.uint8] = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


HARMLESS = [
    png_chunk(b"gAMA", struct.pack(">I", 45455)),
    png_chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
    png_chunk(b"sRGB", b"\x00"),
    png_chunk(b"cHRM", struct.pack(">8I", *range(8))),
    png_chunk(b"tIME", bytes(7)),
    png_chunk(b"tEXt", b"Comment\x00words"),
]


@given(
    channels=st.sampled_from([1, 2, 3, 4]),
    width=st.integers(1, 40),
    height=st.integers(1, 12),
    filters=st.lists(st.integers(0, 4), min_size=12, max_size=12),
    chunks=st.lists(st.sampled_from(HARMLESS), max_size=3, unique=True),
    cuts=st.integers(1, 5),
    level=st.sampled_from([0, 1, 6, 9]),
    seed=st.integers(0, 99),
)
def test_every_filter_gives_what_pillow_gives(
    tmp_path_factory: pytest.TempPathFactory, channels: int, width: int, height: int, filters: list[int], **others: Any
) -> None:
    random = np.random.default_rng(others.pop("seed"))
    body = random.integers(0, 256, (height, width * channels), np.uint8)
    rows = b"".join(bytes([filters[y]]) + body[y].tobytes() for y in range(height))
    file = png(rows, width, height, channels, **others)
    pixels, left = decoded([file], (channels, height, width), tmp_path_factory.mktemp("png"))
    assert left == []
    np.testing.assert_array_equal(pixels[0], by_pillow(file))


@given(mode=st.sampled_from(["L", "LA", "RGB", "RGBA"]), optimise=st.booleans(), seed=st.integers(0, 99))
def test_what_pillow_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, mode: str, optimise: bool, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, len(mode)), np.uint8).cumsum(axis=1, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(), mode if mode == "LA" else None).save(buffer, "PNG", optimize=optimise)
    found, left = decoded([buffer.getvalue()], (len(mode), 9, 7), tmp_path_factory.mktemp("png"))
    assert left == []
    np.testing.assert_array_equal(found[0], pixels.transpose(2, 0, 1))


ROWS = b"".join(b"\x00" + bytes(range(9 * y, 9 * y + 9)) for y in range(2))
PLAIN = png(ROWS, 3, 2, 3)


def with_byte(place: int, value: int) -> bytes:
    return PLAIN[:place] + bytes([value]) + PLAIN[place + 1 :]


def repaired(file: bytes) -> bytes:
    """The same with a right checksum of the header."""
    return file[:29] + struct.pack(">I", zlib.crc32(file[12:29])) + file[33:]


UNUSUAL = {
    "interlaced": repaired(with_byte(28, 1)),
    "16 bits": repaired(with_byte(24, 16)),
    "palette": repaired(with_byte(25, 3)),
    "another compression": repaired(with_byte(26, 1)),
    "another filter method": repaired(with_byte(27, 1)),
    "a wrong checksum": with_byte(30, PLAIN[30] ^ 1),
    "a wrong checksum of the data": with_byte(-13, PLAIN[-13] ^ 1),
    "no end": PLAIN[:-12],
    "half": PLAIN[: len(PLAIN) // 2],
    "more at the end": PLAIN + b"x",
    "no PNG": encoded(random_images(1, 3, 2, 3)[0], "BMP"),
    "nothing": b"",
    "transparent": png(ROWS, 3, 2, 3, chunks=[png_chunk(b"tRNS", bytes(6))]),
    "a profile": png(ROWS, 3, 2, 3, chunks=[png_chunk(b"iCCP", b"a\x00\x00" + zlib.compress(b"b"))]),
    "a gamma that is too short": png(ROWS, 3, 2, 3, chunks=[png_chunk(b"gAMA", b"1")]),
    "animated": png(ROWS, 3, 2, 3, chunks=[png_chunk(b"acTL", struct.pack(">II", 1, 0))]),
    "an unknown filter": png(b"\x05" + ROWS[1:], 3, 2, 3),
    "too few rows": png(ROWS[:10], 3, 2, 3),
    "too many rows": png(ROWS * 2, 3, 2, 3),
    "a bomb": png(bytes(1 << 20), 3, 2, 3),
    "a chunk that never ends": PLAIN[:33] + b"\xff\xff\xff\xffIDAT",
    "data in two places": PLAIN[:33] + png_chunk(b"IDAT", b"") + HARMLESS[0] + PLAIN[33:],
    "another size": png(b"\x00" * 5, 4, 1, 1),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_files_are_left_to_pillow(tmp_path: Path, kind: str) -> None:
    _, left = decoded([PLAIN, UNUSUAL[kind], PLAIN], (3, 2, 3), tmp_path)
    assert left == [1]


def outcome(read: Callable[[Path], Any], path: Path) -> object:
    """The pixels that a reader finds, or its message."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(path).images.tolist()
    except DataError as error:
        return str(error)


def slowly(read: Callable[[Path], Any], path: Path) -> object:
    """The same without the core's readers."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (archives.ZipImages, archives.FolderImages):
            patch.setattr(kind, "decode_plain", lambda self, indices, pixels: list(range(len(indices))))
        patch.setattr(_core, "PlainZip", type("NoZip", (), {"open": staticmethod(lambda path: None)}))
        return outcome(read, path)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_results_and_messages_are_those_of_pillow(tmp_path: Path, kind: str) -> None:
    files = {"0.png": PLAIN, "1.png": UNUSUAL[kind], "2.png": PLAIN}
    for read, path in (
        (read_edm_zip, write_zip(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED)),
        (read_folder, write_folder(tmp_path / "a", files)),
    ):
        assert outcome(read, path) == slowly(read, path)


@given(data=st.data())
def test_damaged_archives_have_the_outcome_of_zipfile_and_pillow(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("zip") / "a.zip"
    compression = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    content = bytearray(write_zip(path, {"a/0.png": PLAIN, "b/ü.png": PLAIN}, compression).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        # The directory and the local headers matter most.
        place = data.draw(st.one_of(st.integers(0, 36), st.integers(len(content) - 140, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.sampled_from([len(content), len(content) - 1]))]))
    assert outcome(read_edm_zip, path) == slowly(read_edm_zip, path)


def test_archives_with_a_large_directory_and_extra_fields(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for index in range(70_000):
            member = zipfile.ZipInfo(f"{index:05}.png")
            member.extra = struct.pack("<HHI", 0x5455, 4, index)
            archive.writestr(member, PLAIN if index % 7000 == 0 else b"")
    plain = _core.PlainZip.open(tmp_path / "a.zip")
    assert plain is not None and len(plain.names()) == 70_000
    pixels = np.zeros((10, 3, 2, 3), np.uint8)
    assert plain.decode(list(range(0, 70_000, 7000)), pixels, LIMIT) == []
    assert (pixels == by_pillow(PLAIN)).all()


def test_members_beyond_four_gigabytes_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("0.png", PLAIN)
        # A hole in the file instead of a member that large.
        archive.fp.seek(5 << 30)  # type: ignore[union-attr]
        archive.start_dir = 5 << 30
        archive.writestr("1.png", PLAIN)
    plain = _core.PlainZip.open(path)
    assert plain is not None
    assert plain.read(1, LIMIT) == PLAIN
    assert load(path).num_stored == 2


@pytest.mark.parametrize("tail", [b"PK\x05\x06" + bytes(18), b"x"])
def test_archives_that_readers_may_take_for_another_are_left_to_zipfile(tmp_path: Path, tail: bytes) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": PLAIN})
    content = path.read_bytes()
    (tmp_path / "a.zip").write_bytes(b"before" + content)
    assert _core.PlainZip.open(path) is None
    assert load(path).num_stored == 1
    (tmp_path / "a.zip").write_bytes(content[:-2] + struct.pack("<H", len(tail)) + tail)
    assert _core.PlainZip.open(path) is None


def test_a_member_of_another_name_or_a_wrong_sum_is_not_read(tmp_path: Path) -> None:
    content = write_zip(tmp_path / "a.zip", {"a.png": PLAIN}).read_bytes()
    for place in (30, 60):
        (tmp_path / "a.zip").write_bytes(content[:place] + b"?" + content[place + 1 :])
        archive = _core.PlainZip.open(tmp_path / "a.zip")
        assert archive is not None
        assert archive.read(0, LIMIT) is None and archive.read(1, LIMIT) is None
        with pytest.raises(DataError, match=r"a\.zip"):
            load(tmp_path / "a.zip")


def test_the_limit_on_sizes_holds(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"a.png": bytes(10**6), "b.png": bytes(100)}, zipfile.ZIP_DEFLATED)
    archive = _core.PlainZip.open(path)
    assert archive is not None
    assert archive.read(0, 10**6 - 1) is None and archive.read(0, 10**6) == bytes(10**6)
    pixels = np.zeros((1, 3, 2, 3), np.uint8)
    (tmp_path / "a.png").write_bytes(PLAIN)
    assert _core.decode_png_files([tmp_path / "a.png"], pixels, len(PLAIN)) == []
    assert _core.decode_png_files([tmp_path / "a.png"], pixels, len(PLAIN) - 1) == [0]
    assert _core.decode_png_files([tmp_path / "none.png", tmp_path], np.zeros((2, 3, 2, 3), np.uint8), LIMIT) == [0, 1]


def test_the_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    images = random_images(300, 3, 9, 11)
    path = write_zip(tmp_path / "a.zip", {f"{index:03}.png": encoded(image) for index, image in enumerate(images)})
    before = num_threads()
    try:
        for threads in (1, 3):
            set_num_threads(threads)
            np.testing.assert_array_equal(load(path).images, images)
    finally:
        set_num_threads(before)


def test_the_interpreter_goes_on_meanwhile(tmp_path: Path) -> None:
    image = encoded(np.zeros((1, 2000, 2000), np.uint8))
    path = write_zip(tmp_path / "a.zip", {f"{index}.png": image for index in range(8)})
    archive, pixels, counted = _core.PlainZip.open(path), np.zeros((8, 1, 2000, 2000), np.uint8), 0
    assert archive is not None
    worker = threading.Thread(target=archive.decode, args=(list(range(8)), pixels, LIMIT))
    worker.start()
    while worker.is_alive():
        counted += 1
    assert counted > 100


def test_pieces_of_large_images_are_short_enough_for_ctrl_c() -> None:
    large = encoded(np.zeros((1, 4096, 4096), np.uint8))
    pieces: list[int] = []

    class Files:
        def __len__(self) -> int:
            return 12

        def file(self, index: int) -> decode.ImageFile:
            return decode.ImageFile("large", lambda: large)

        def decode_plain(self, indices: range, pixels: NDArray[np.uint8]) -> list[int]:
            pieces.append(len(indices))
            return []

    before = num_threads()
    try:
        set_num_threads(3)
        decode.decode_images(Files(), "large", False)
    finally:
        set_num_threads(before)
    assert pieces[0] == 3 and sum(pieces) == 11


PARTS = ["a", "/", "\\", ".", "png", "__MACOSX", "lost+found", "@eaDir", ".PNG", "jpg", "\n", "\u0131", "x.tif"]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
def test_names_are_those_of_pathlib(stored: str) -> None:
    junk = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
    path = PurePosixPath(stored.replace("\\", "/"))
    name = member_name(stored)
    assert name == str(path)
    assert has_image_suffix(name) == (path.suffix.lower() in SUFFIXES)
    assert name == "." or is_junk(name) == any(part.startswith(".") or part in junk for part in path.parts)
