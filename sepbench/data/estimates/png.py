"""PNG files of 8 and 16 bits per channel, grey or colour, to and from arrays.

pillow decodes 8 bits. It drops the lower eight bits of 16-bit colour without a word, so that files of 16 bits are read here, by the PNG
specification (third edition, sections 7 and 9), and written here too. Palettes, transparency, interlacing and other depths are refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from sepbench.data.estimates.problems import KIND, UNREADABLE, FileProblem
from sepbench.errors import SepbenchError, reason

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3}
"""Colour type: grey and RGB."""
_KINDS = {3: "a palette", 4: "grey with transparency", 6: "colour with transparency"}


def read_png(data: bytes) -> npt.NDArray[np.generic]:
    """Pixels ``(C, H, W)``, uint8 or uint16, C = 1 or 3.

    Raises:
        FileProblem: no PNG file, damaged, or of a kind that is not taken.
        SepbenchError: pillow is not installed.
    """
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR" or len(data) < 33:
        raise FileProblem(UNREADABLE, "no PNG file")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    if colour not in _CHANNELS:
        raise FileProblem(KIND, f"{_KINDS.get(colour, f'colour type {colour}')}, not grey or RGB")
    if depth not in (8, 16):
        raise FileProblem(KIND, f"{depth} bits per channel, not 8 or 16")
    chunks = list(_chunks(data))
    if any(name == b"tRNS" for name, _ in chunks):
        raise FileProblem(KIND, "transparent pixels")
    if depth == 8:
        return _by_pillow(data)
    if interlaced:
        raise FileProblem(KIND, "interlaced, which is read for 8 bits only")
    try:
        raw = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    except zlib.error as error:
        raise FileProblem(UNREADABLE, reason(error)) from error
    rows = _unfiltered(raw, height, width, 2 * _CHANNELS[colour])
    pixels = rows.view(">u2").astype(np.uint16).reshape(height, width, _CHANNELS[colour])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _by_pillow(data: bytes) -> npt.NDArray[np.generic]:
    try:
        import PIL.Image
        import PIL.ImageFile
    except ImportError as error:
        raise SepbenchError("reading images needs pillow, which is not installed; run: pip install 'sepbench[report]'") from error
    PIL.ImageFile.LOAD_TRUNCATED_IMAGES = False  # some package may have set it, and half an image would be grey without a word
    try:
        with PIL.Image.open(BytesIO(data), formats=("PNG",)) as image:
            if getattr(image, "n_frames", 1) != 1:
                raise FileProblem(KIND, "several pictures")
            array = np.asarray(image)
    except FileProblem:
        raise
    except Exception as error:  # pillow's decoders raise whatever their format's parser does
        raise FileProblem(UNREADABLE, reason(error)) from error
    return array[None].copy() if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of every chunk up to IEND, each held against its checksum."""
    position = 8
    while position + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8])
        body, checksum = data[position + 8 : position + 8 + length], data[position + 8 + length : position + 12 + length]
        if len(checksum) < 4:
            break
        if zlib.crc32(name + body) != struct.unpack(">I", checksum)[0]:
            raise FileProblem(UNREADABLE, f"damaged at byte {position:,}")
        yield name, body
        if name == b"IEND":
            return
        position += 12 + length
    raise FileProblem(UNREADABLE, "cut off")


def _unfiltered(raw: bytes, height: int, width: int, pixel: int) -> npt.NDArray[np.uint8]:
    """Rows of bytes without their filters; ``pixel``: bytes per pixel."""
    length = width * pixel
    if len(raw) != height * (length + 1):
        raise FileProblem(UNREADABLE, f"{len(raw):,} bytes of pixels instead of {height * (length + 1):,}")
    lines = np.frombuffer(raw, np.uint8).reshape(height, length + 1)
    rows = np.zeros((height, length), np.uint8)
    above = np.zeros(length, np.uint8)
    for y in range(height):
        rows[y] = above = _unfiltered_row(int(lines[y, 0]), lines[y, 1:], above, pixel)
    return rows


def _unfiltered_row(kind: int, line: npt.NDArray[np.uint8], above: npt.NDArray[np.uint8], pixel: int) -> npt.NDArray[np.uint8]:
    """Section 9.2: none, sub, up, average, Paeth."""
    if kind == 0:
        return line
    if kind == 1:
        return np.add.accumulate(line.reshape(-1, pixel), axis=0, dtype=np.uint8).reshape(-1)
    if kind == 2:
        return np.asarray(line + above, np.uint8)  # modulo 256
    if kind not in (3, 4):
        raise FileProblem(UNREADABLE, f"filter {kind}")
    up = [0] * pixel + above.tolist()  # of the pixel before the first too, so that indices need no bounds
    row = [0] * pixel
    for x, value in enumerate(line.tolist(), pixel):
        left, b = row[x - pixel], up[x]
        row.append((value + ((left + b) // 2 if kind == 3 else _paeth(left, b, up[x - pixel]))) & 255)
    return np.array(row[pixel:], np.uint8)


def _paeth(a: int, b: int, c: int) -> int:
    """Which of left, above and upper left is nearest to ``a + b - c``."""
    p = a + b - c
    pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
    return a if pa <= pb and pa <= pc else b if pb <= pc else c


def png_bytes(pixels: npt.NDArray[Any]) -> bytes:
    """A PNG file of ``(C, H, W)`` uint16 pixels, 16 bits per channel, C = 1 or 3. The same pixels give the same bytes with the same zlib."""
    channels, height, width = pixels.shape
    colour = {count: kind for kind, count in _CHANNELS.items()}[channels]
    rows = np.ascontiguousarray(pixels.transpose(1, 2, 0)).astype(">u2").reshape(height, -1).view(np.uint8)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return _SIGNATURE + b"".join(_chunk(name, body) for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(raw, 6)), (b"IEND", b"")))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
