"""Whether the header of a WAV or FLAC file tells its true length. libsndfile believes some headers that lie, and mends others without a word."""

from __future__ import annotations

import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

_UNKNOWN = 2**32 - 1
"""Size of a chunk of a WAV file that was streamed; also what RF64 writes where the size stands in its chunk ``ds64``."""
_PLAIN = (1, 3, 0xFFFE)  # PCM, float, extensible
_BLOCKSIZES = {1: 192, 2: 576, 3: 1152, 4: 2304, 5: 4608} | {code: 256 << (code - 8) for code in range(8, 16)}
_RATES = dict(enumerate((0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)))
_SHORTEST_FRAME, _LONGEST_FRAME = 10, 1 << 16
"""Bytes of a frame of silence, and the most samples that it can stand for."""
_LAST_FRAMES = 1 << 16
"""Bytes at the end of a FLAC file in which its last frame is looked for; 4,608 samples of two channels of 16 bits take 18 kB at the most."""


def wrong_length(path: Path, frames: int) -> str:
    """What is wrong with what a header says of the length, in words that go on from the file's name; empty if nothing.

    Args:
        path: a WAV, RF64 or FLAC file.
        frames: samples per channel, as libsndfile understands it.

    Raises:
        OSError: the file cannot be read.
    """
    status = path.stat()
    return _wrong_length(path, frames, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 14)  # chunks are read from the same files again and again
def _wrong_length(path: Path, frames: int, size: int, changed: int) -> str:
    with path.open("rb") as file:
        kind = file.read(4)
        if kind == b"fLaC":
            return _flac(file, frames, size)
        return _wav(file, kind, frames, size) if kind in (b"RIFF", b"RIFX", b"RF64", b"BW64") else ""


def _wav(file: BinaryIO, kind: bytes, frames: int, size: int) -> str:
    """Walk through the chunks, which must fill the file up to the end that it announces."""
    order = ">" if kind == b"RIFX" else "<"
    (riff,) = struct.unpack(f"{order}4xI", _at(file, 0, 8))
    data = 0  # bytes, of RF64
    block = None  # bytes of a sample of all channels
    position, samples = 12, None
    while position + 8 <= (size if riff in (0, _UNKNOWN) else min(size, riff + 8)):
        name, length = struct.unpack(f"{order}4sI", _at(file, position, 8))
        start = position + 8
        if name == b"ds64" and length >= 16:
            riff, data = struct.unpack("<QQ", _at(file, start, 16))
        elif name == b"fmt " and length >= 16:
            tag, channels, rate, per_second, block, bits = struct.unpack(f"{order}HHIIHH", _at(file, start, 16))
            if tag in _PLAIN and (block != channels * -(-bits // 8) or per_second != rate * block):
                return f"contradicts itself: {channels} channels of {bits} bits at {rate:,} Hz are not {per_second:,} bytes a second in blocks of {block}"
            block = block if tag in _PLAIN else None
        elif name == b"data":
            if samples is not None:
                return "holds samples in two places"
            if length == _UNKNOWN and kind in (b"RF64", b"BW64"):
                length = data
            elif length == _UNKNOWN:
                length = size - start
            if start + length > size:
                return f"is cut off: {size - start:,} bytes of samples, its header announces {length:,}"
            samples = length
        elif start + length > size or not all(32 <= letter < 127 for letter in name):
            return f"is damaged at byte {position:,}, {'before' if samples is None else 'after'} its samples"
        position = start + length + length % 2
    if samples is not None and block and samples != frames * block:
        return f"announces {samples:,} bytes of samples in blocks of {block}, of which {frames:,} can be read"
    if riff not in (0, _UNKNOWN) and position < min(size, riff + 8):
        return f"is damaged at byte {position:,}, after its samples"
    return ""


def _flac(file: BinaryIO, frames: int, size: int) -> str:
    """Hold the total of STREAMINFO against the number in the last frame."""
    block = _at(file, 4, 38)
    if len(block) < 38 or block[0] & 0x7F != 0:
        return "has no STREAMINFO"
    total = int.from_bytes(block[17:22], "big") & (2**36 - 1)
    if total == 0:
        return "does not say how long it is (0 samples in its STREAMINFO, as of a stream)"
    if total > (size // _SHORTEST_FRAME + 1) * _LONGEST_FRAME:
        return f"announces {total:,} samples, more than {size:,} bytes can hold"
    rate = int.from_bytes(block[14:17], "big") >> 4
    last = _last_frame(_at(file, max(42, size - _LAST_FRAMES), _LAST_FRAMES), int.from_bytes(block[4:6], "big"))
    if last is not None and last[1] not in (0, rate):
        return f"announces {rate:,} Hz and holds frames of {last[1]:,} Hz"
    end = frames if last is None else last[0]
    return f"announces {total:,} samples and holds {end:,}" if not total == end == frames else ""


def _last_frame(tail: bytes, fixed: int) -> tuple[int, int] | None:
    """The sample after the last frame, and its rate (0 where it does not say), None if no frame ends with the bytes ``tail`` (tags may follow it)."""
    start = len(tail)
    while (start := tail.rfind(b"\xff", 0, start)) >= 0:
        found = _frame(tail[start : start + 16], fixed) if tail[start + 1 : start + 2] in (b"\xf8", b"\xf9") else None
        if found is not None and _crc(tail[start:], 16, 0x8005) == 0:
            return found
    return None


def _frame(head: bytes, fixed: int) -> tuple[int, int] | None:
    """The sample after a frame and its rate, by its header; None if this is none. ``fixed``: samples per frame, where frames are counted, not samples."""
    try:
        first = head[4]
        more = 0 if first < 0x80 else 8 - (first ^ 0xFF).bit_length() - 1
        number = first & (0x7F >> (more + 1 if more else 0))
        for byte in head[5 : 5 + more]:
            number = number << 6 | byte & 0x3F
        at, size_code, rate_code = 5 + more, head[2] >> 4, head[2] & 15
        extra = {6: 1, 7: 2}.get(size_code, 0)
        samples = int.from_bytes(head[at : at + extra], "big") + 1 if extra else _BLOCKSIZES[size_code]
        at += extra
        width, unit = {12: (1, 1000), 13: (2, 1), 14: (2, 10)}.get(rate_code, (0, 0))
        rate = int.from_bytes(head[at : at + width], "big") * unit if width else _RATES[rate_code]
        at += width
        whole = _crc(head[: at + 1], 8, 0x07) == 0 and len(head) > at
    except (IndexError, KeyError):
        return None
    return ((number if head[1] & 1 else number * fixed) + samples, rate) if whole else None


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """Cyclic redundancy check, most significant bit first, from 0; 0 where the data end with their own."""
    value, table, mask = 0, _table(bits, polynomial), (1 << bits) - 1
    for byte in data:
        value = (value << 8 & mask) ^ table[(value >> (bits - 8)) ^ byte]
    return value


@lru_cache
def _table(bits: int, polynomial: int) -> tuple[int, ...]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    values = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 & mask) ^ (polynomial if value & top else 0)
        values.append(value)
    return tuple(values)


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position, os.SEEK_SET)
    return file.read(count)
