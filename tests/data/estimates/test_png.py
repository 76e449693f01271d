"""PNG files of 16 bits: what is written is read back, whatever filters another program chose; what would be changed is refused."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.data.estimates.png import png_bytes, read_png
from sepbench.data.estimates.problems import KIND, UNREADABLE, FileProblem


def _random(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 65_536, (channels, height, width)).astype(np.uint16)


def _by_pillow(image: PIL.Image.Image, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG", **options)  # type: ignore[arg-type]
    return stream.getvalue()


@settings(max_examples=25, deadline=None)
@given(channels=st.sampled_from([1, 3]), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 1000))
def test_what_is_written_is_read(channels: int, height: int, width: int, seed: int) -> None:
    pixels = _random(channels, height, width, seed)
    np.testing.assert_array_equal(read_png(png_bytes(pixels)), pixels)


def test_pillow_reads_what_is_written() -> None:
    pixels = _random(1, 5, 7)
    with PIL.Image.open(BytesIO(png_bytes(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels[0])


def test_sixteen_bits_by_another_program() -> None:
    smooth = (np.add.outer(np.arange(40), np.arange(30)) * 700).astype(np.uint16)  # libpng chooses filters for such a picture
    data = _by_pillow(PIL.Image.fromarray(smooth))
    np.testing.assert_array_equal(read_png(data)[0], smooth)


@pytest.mark.parametrize("kind", range(5), ids=["none", "sub", "up", "average", "Paeth"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_filter(kind: int, channels: int) -> None:
    pixels = _random(channels, 6, 5, kind)
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0)).astype(">u2").reshape(6, -1).view(np.uint8).astype(int)
    step, lines = 2 * channels, []
    for y, row in enumerate(rows):
        above = rows[y - 1] if y else np.zeros_like(row)
        left, corner = (np.concatenate([np.zeros(step, int), line[:-step]]) for line in (row, above))
        p = left + above - corner
        nearest = np.argmin(np.abs(np.stack([p - left, p - above, p - corner])), axis=0)  # the first of equals, as the specification says
        predicted = [0 * row, left, above, (left + above) // 2, np.choose(nearest, [left, above, corner])][kind]
        lines.append(bytes([kind]) + ((row - predicted) % 256).astype(np.uint8).tobytes())
    data = png_bytes(pixels)
    start, length = 33, struct.unpack(">I", data[33:37])[0]
    body = zlib.compress(b"".join(lines))
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    np.testing.assert_array_equal(read_png(data[:start] + chunk + data[start + 12 + length :]), pixels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_eight_bits(mode: str) -> None:
    pixels = (_random(3 if mode == "RGB" else 1, 4, 6) % 256).astype(np.uint8)
    image = PIL.Image.fromarray(pixels.transpose(1, 2, 0).squeeze(-1) if mode == "L" else pixels.transpose(1, 2, 0))
    found = read_png(_by_pillow(image))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


def _other(mode: str, **options: object) -> bytes:
    return _by_pillow(PIL.Image.new(mode, (4, 4)), **options)


def _interlaced(data: bytes) -> bytes:
    header = b"IHDR" + data[16:28] + b"\1"
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


GOOD = png_bytes(_random(3, 8, 8))


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (_other("P"), KIND, "a palette"),
        (_other("RGBA"), KIND, "transparency"),
        (_other("LA"), KIND, "transparency"),
        (_other("1"), KIND, "1 bits per channel"),
        (_other("L", transparency=0), KIND, "transparent pixels"),
        (_interlaced(GOOD), KIND, "interlaced"),
        (GOOD[:-30], UNREADABLE, "cut off"),
        (GOOD[:60] + bytes([GOOD[60] ^ 255]) + GOOD[61:], UNREADABLE, "damaged at byte 33"),
        (_other("L")[:50], UNREADABLE, ""),
        (b"GIF89a" + bytes(40), UNREADABLE, "no PNG file"),
        (b"", UNREADABLE, "no PNG file"),
    ],
    ids=["palette", "RGBA", "LA", "1 bit", "tRNS", "interlaced", "cut off", "damaged", "8 bits cut off", "GIF", "empty"],
)
def test_what_would_be_changed_is_refused(data: bytes, kind: str, words: str) -> None:
    with pytest.raises(FileProblem) as caught:
        read_png(data)
    assert caught.value.kind == kind
    assert words in caught.value.detail
