"""Headers of WAV and FLAC by hand: chunks, frames and checks byte for byte, and the words for each that does not tell its length."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sepbench.data.readers.audio_headers import _crc, _frame, _last_frame, wrong_length


def chunk(name: bytes, data: bytes, order: str = "<", length: int | None = None) -> bytes:
    return name + struct.pack(f"{order}I", len(data) if length is None else length) + data + bytes(len(data) % 2)


def form(tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16, block: int = 2, per_second: int = 16_000, order: str = "<") -> bytes:
    return chunk(b"fmt ", struct.pack(f"{order}HHIIHH", tag, channels, rate, per_second, block, bits), order)


def wav(*chunks: bytes, kind: bytes = b"RIFF", riff: int | None = None, order: str = "<", behind: bytes = b"") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack(f"{order}I", len(body) if riff is None else riff) + body + behind


def problem(tmp_path: Path, content: bytes, frames: int = 10) -> str:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    return wrong_length(path, frames)


DATA = chunk(b"data", bytes(20))
UNKNOWN = 2**32 - 1


def ds64(data: int, riff: int, more: bytes = bytes(12)) -> bytes:
    return chunk(b"ds64", struct.pack("<QQ", riff, data) + more)


WHOLE = {
    "plain": wav(form(), DATA),
    "samples before the format": wav(DATA, form()),
    "big-endian": wav(form(order=">"), chunk(b"data", bytes(20), ">"), kind=b"RIFX", order=">"),
    "a chunk of odd length": wav(form(), chunk(b"LIST", b"odd"), DATA, chunk(b"id3 ", b"x")),
    "streamed": wav(form(), chunk(b"data", bytes(20), length=UNKNOWN), riff=UNKNOWN),
    "streamed, with 0": wav(form(), DATA, riff=0, behind=b"1234567"),
    "an end that is not known": wav(form(), DATA, riff=UNKNOWN, behind=b"1234567"),
    "something behind the end": wav(form(), DATA, behind=b"TAG" * 9),
    "RF64": wav(ds64(20, 4 + 36 + 24 + 28), form(), chunk(b"data", bytes(20), length=UNKNOWN), kind=b"RF64", riff=UNKNOWN),
    "BW64": wav(ds64(20, 4 + 36 + 24 + 28), form(), chunk(b"data", bytes(20), length=UNKNOWN), kind=b"BW64", riff=UNKNOWN),
    "RF64 that says its lengths": wav(form(), DATA, kind=b"RF64"),
    "24 bits, two channels": wav(form(bits=24, channels=2, block=6, per_second=48_000), chunk(b"data", bytes(60))),
    "20 bits in three bytes": wav(form(bits=20, block=3, per_second=24_000), chunk(b"data", bytes(30))),
    "floats": wav(form(3, bits=32, block=4, per_second=32_000), chunk(b"data", bytes(40))),
    "extensible": wav(form(0xFFFE, bits=32, block=4, per_second=32_000), chunk(b"data", bytes(40))),
    "a coding in blocks of its own": wav(form(17, bits=4, block=256, per_second=4055), chunk(b"data", bytes(256))),
    "a format too short to be one": wav(chunk(b"fmt ", bytes(14)), form(), DATA),
    "no file of these kinds": b"OggS" + bytes(40),
    "not even four bytes": b"RI",
}


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_files_that_tell_their_length(tmp_path: Path, content: bytes) -> None:
    assert problem(tmp_path, content) == ""


SELF = "contradicts itself: {} channels of {} bits at 8,000 Hz are not {} bytes a second in blocks of {}"
WRONG = {
    SELF.format(1, 16, "16,001", 2): wav(form(per_second=16_001), DATA),
    SELF.format(1, 16, "32,000", 4): wav(form(block=4, per_second=32_000), DATA),
    SELF.format(3, 20, "72,000", 8): wav(form(channels=3, bits=20, block=8, per_second=72_000), DATA),
    SELF.format(1, 32, "16,000", 2): wav(form(3, bits=32), DATA),
    SELF.format(2, 16, "16,000", 2): wav(form(0xFFFE, channels=2), DATA),
    "holds samples in two places": wav(form(), DATA, DATA),
    "is cut off: 20 bytes of samples, its header announces 21": wav(form(), chunk(b"data", bytes(20), length=21)),
    "is cut off: 20 bytes of samples, its header announces 4,000": wav(ds64(4000, 92), form(), chunk(b"data", bytes(20), length=UNKNOWN), kind=b"RF64"),
    "is damaged at byte 36, before its samples": wav(form(), chunk(b"da\x1fa", bytes(20)), DATA),
    "is damaged at byte 36, before its samples ": wav(form(), chunk(b"da\x7fa", bytes(20)), DATA),
    "is damaged at byte 64, after its samples": wav(form(), DATA, chunk(b"LIST", bytes(4), length=5)),
    "is damaged at byte 64, after its samples ": wav(form(), DATA, b"1234567"),
    "announces 20 bytes of samples in blocks of 2, of which 9 can be read": wav(form(), DATA),
    "announces 22 bytes of samples in blocks of 2, of which 10 can be read": wav(form(), chunk(b"data", bytes(22))),
    "announces 28 bytes of samples in blocks of 2, of which 10 can be read": wav(form(), chunk(b"data", bytes(28), length=UNKNOWN)),
}


@pytest.mark.parametrize(("told", "content"), WRONG.items(), ids=WRONG)
def test_files_that_do_not_tell_their_length(tmp_path: Path, told: str, content: bytes) -> None:
    assert problem(tmp_path, content, 9 if told.endswith("of which 9 can be read") else 10) == told.strip()


def test_a_file_that_was_changed_is_looked_at_again(tmp_path: Path) -> None:
    assert problem(tmp_path, wav(form(), DATA)) == ""
    assert problem(tmp_path, wav(form(), DATA, DATA)) == "holds samples in two places"
    assert problem(tmp_path, wav(form(), DATA), 9) != ""


# --- FLAC ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flac() -> bytes:
    """A hundred samples of silence at 8,000 Hz, in one frame: 98 bytes."""
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(100, np.int16), 8000, format="FLAC")
    return stream.getvalue()


def with_total(flac: bytes, total: int) -> bytes:
    return flac[:21] + bytes([flac[21] & 0xF0 | total >> 32]) + (total & UNKNOWN).to_bytes(4, "big") + flac[26:]


def test_what_a_flac_file_says_of_its_length(tmp_path: Path, flac: bytes) -> None:
    most = (len(flac) // 10 + 1) * 65_536
    cases = [
        (flac, 100, ""),
        (flac, 99, "announces 100 samples and holds 100"),
        (flac + b"TAG" + bytes(125), 100, ""),  # no frame ends with the file: what can be read counts
        (flac + b"TAG" + bytes(125), 99, "announces 100 samples and holds 99"),
        (with_total(flac, 0), 100, "does not say how long it is (0 samples in its STREAMINFO, as of a stream)"),
        (with_total(flac, 99), 99, "announces 99 samples and holds 100"),
        (with_total(flac, most + 1), 100, f"announces {most + 1:,} samples, more than {len(flac):,} bytes can hold"),
        (with_total(flac, most), most, f"announces {most:,} samples and holds 100"),
        (with_total(flac, 2**32 + 100), 100, f"announces 4,294,967,396 samples, more than {len(flac):,} bytes can hold"),
        (flac[:18] + bytes([flac[18], flac[19]]) + flac[20:], 100, ""),
        (flac[:18] + b"\x01\xf5" + flac[20:], 100, "announces 8,016 Hz and holds frames of 8,000 Hz"),
        (flac[:4] + bytes([flac[4] | 0x80]) + flac[5:], 100, ""),  # the only block of metadata
        (flac[:4] + b"\x04" + flac[5:], 100, "has no STREAMINFO"),
        (flac[:41], 100, "has no STREAMINFO"),
    ]
    for content, frames, told in cases:
        assert problem(tmp_path, content, frames) == told


def crc8(data: bytes) -> int:
    """Bit by bit, polynomial x^8 + x^2 + x + 1."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = ((value << 1) ^ 0x107) if value & 0x80 else value << 1
    return value


def number(value: int) -> bytes:
    """As UTF-8 writes a character, up to 36 bits."""
    if value < 0x80:
        return bytes([value])
    more = next(n for n in range(1, 7) if value < 1 << (6 - n + 6 * n))
    first = (0xFF << (7 - more) & 0xFF) | value >> 6 * more
    return bytes([first, *(0x80 | value >> 6 * place & 0x3F for place in range(more - 1, -1, -1))])


def head(size: int, rate: int, value: int, extra: bytes = b"", variable: bool = False) -> bytes:
    made = b"\xff" + (b"\xf9" if variable else b"\xf8") + bytes([size << 4 | rate, 0x08]) + number(value) + extra
    return made + bytes([crc8(made)])


def test_numbers_are_written_as_utf_8() -> None:
    assert all(number(value) == chr(value).encode() for value in (0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFFF, 0x10000, 0x10FFFF))
    assert number(2**36 - 1) == b"\xfe" + b"\xbf" * 6


@pytest.mark.parametrize("value", [0, 127, 128, 2047, 2048, 65_535, 65_536, 2**21 - 1, 2**21, 2**26 - 1, 2**26, 2**31 - 1, 2**31, 2**36 - 1])
def test_a_frame_counts_frames_or_samples(value: int) -> None:
    assert _frame(head(8, 4, value), 4096) == (value * 4096 + 256, 8000)
    assert _frame(head(8, 4, value, variable=True), 4096) == (value + 256, 8000)
    assert _frame(head(8, 4, value) + bytes(16), 1) == (value + 256, 8000)


def test_every_code_of_size_and_rate() -> None:
    sizes = {1: 192, 2: 576, 3: 1152, 4: 2304, 5: 4608, 8: 256, 9: 512, 10: 1024, 11: 2048, 12: 4096, 13: 8192, 14: 16_384, 15: 32_768}
    for code, samples in sizes.items():
        assert _frame(head(code, 0, 3), 4096) == (3 * 4096 + samples, 0)
    rates = {1: 88_200, 2: 176_400, 3: 192_000, 4: 8000, 5: 16_000, 6: 22_050, 7: 24_000, 8: 32_000, 9: 44_100, 10: 48_000, 11: 96_000}
    for code, rate in rates.items():
        assert _frame(head(1, code, 0), 0) == (192, rate)
    assert _frame(head(6, 1, 0, b"\x63"), 0) == (100, 88_200)
    assert _frame(head(7, 1, 0, b"\x01\x00"), 0) == (257, 88_200)
    assert _frame(head(6, 12, 0, b"\x00\x0c"), 0) == (1, 12_000)
    assert _frame(head(7, 13, 0, b"\x00\x00\x56\x23"), 0) == (1, 22_051)
    assert _frame(head(1, 14, 0, b"\x19\x9a"), 0) == (192, 65_540)
    assert _frame(head(0, 1, 0), 0) is None
    assert _frame(head(1, 15, 0), 0) is None


def test_a_head_that_is_cut_or_altered_is_none() -> None:
    whole = head(7, 14, 1000, b"\x01\x02\x03\x04")
    assert _frame(whole, 1) == (1000 + 0x103, 7720)
    assert all(_frame(whole[:length], 1) is None for length in range(len(whole)))
    for place in range(len(whole)):
        assert _frame(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :], 1) is None


def test_checks_are_the_published_ones() -> None:
    """The values of CRC catalogues for the digits 1 to 9."""
    assert _crc(b"123456789", 8, 0x07) == 0xF4
    assert _crc(b"123456789", 16, 0x8005) == 0xFEE8
    assert _crc(b"123456789\xfe\xe8", 16, 0x8005) == 0


def test_the_last_frame_is_the_one_that_ends_with_the_file() -> None:
    def frame(start: bytes, body: bytes) -> bytes:
        return start + body + _crc(start + body, 16, 0x8005).to_bytes(2, "big")

    first, last = frame(head(8, 4, 0), b"\xff\xf8\x00"), frame(head(6, 4, 1, b"\x09"), b"\x00\xff\xf8\xff")
    assert _last_frame(first + last, 256) == (256 + 10, 8000)
    assert _last_frame(last, 256) == (266, 8000)
    assert _last_frame(first, 256) == (256, 8000)
    assert _last_frame(frame(head(8, 5, 300, variable=True), b""), 256) == (556, 16_000)
    assert _last_frame(first + last + b"\x01", 256) is None
    assert _last_frame(frame(b"\xff\xf7" + head(8, 4, 0)[2:], b""), 256) is None
    assert _last_frame(b"", 256) is None
