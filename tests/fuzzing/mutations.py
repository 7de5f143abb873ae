"""Damage to bytes: what random editing, transfers and hostile hands do to files."""

import random
import struct
from collections.abc import Sequence

_TOKENS = (
    *(b"\x00", b"\xff", b"\x00" * 8, b"\xff" * 8, b"\n", b" ", b'"', b"\\", b"/", b"../", b"nan", b"NaN", b"Infinity"),
    *(b"1e999", b"-1", b"0", b"null", b"[", b"]", b"{", b"}", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"\x1f\x8b"),
    *(b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"ustar", b"\xef\xbb\xbf", b"\x80\x05", b"\x80\x02", b"."),
    *(b"|u1", b"<f4", b"|O", b"<f8", b"|S9", b"True", b"False", b"dataset.json", b".png", b".npy", b"images.npy"),
)
_INTEGERS = (0, 1, 2, 127, 128, 255, 256, 4096, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_LAYOUTS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
_HEADER = 160
_MOST_CHANGES = 6


def mutated(seeds: Sequence[bytes], source: random.Random) -> bytes:
    """One of the seeds after a few changes; now and then the seed itself, or noise."""
    data = bytearray(source.choice(seeds))
    kind = source.random()
    if kind < 0.02:
        return bytes(data)
    if kind < 0.04:
        return source.randbytes(source.randrange(200))
    for _ in range(source.randint(1, _MOST_CHANGES)):
        change = source.choice(_CHANGES)
        change(data, seeds, source)
    return bytes(data)


def _place(data: bytearray, source: random.Random) -> int:
    """A position; half of the time in the header, which is short and decides most."""
    limit = len(data) if source.random() < 0.5 else min(len(data), _HEADER)
    return source.randrange(limit + 1)


def _set_byte(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    del seeds
    if data:
        data[_place(data, source) % len(data)] = source.randrange(256)


def _flip_bit(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    del seeds
    if data:
        data[_place(data, source) % len(data)] ^= 1 << source.randrange(8)


def _truncate(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    del seeds
    del data[_place(data, source) :]


def _delete(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    del seeds
    start = _place(data, source)
    del data[start : start + source.randint(1, 40)]


def _repeat(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    del seeds
    start = _place(data, source)
    piece = data[start : start + source.randint(1, 60)]
    data[start:start] = piece * source.randint(1, 4)


def _insert_token(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    del seeds
    start, token = _place(data, source), source.choice(_TOKENS)
    data[start : start + len(token) * source.randrange(2)] = token


def _write_integer(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    del seeds
    layout = source.choice(_LAYOUTS)
    size = struct.calcsize(layout)
    start = _place(data, source)
    data[start : start + size] = struct.pack(layout, source.choice(_INTEGERS) % (1 << (8 * size)))


def _splice(data: bytearray, seeds: Sequence[bytes], source: random.Random) -> None:
    other = source.choice(seeds)
    start = source.randrange(len(other) + 1)
    data[_place(data, source) :] = other[start:]


_CHANGES = (_set_byte, _flip_bit, _truncate, _delete, _repeat, _insert_token, _write_integer, _splice)
