"""Parquet files of scores that show their damage: every page has a checksum, and so has the whole file.

Parquet knows checksums of pages alone. Their heads and the footer (names of columns, numbers of rows, a shard's counters) have none: of the bits of a small
file that are flipped there one in forty passed for something else. So the CRC-32 of all other bytes lies before the footer, where readers of
Parquet look at nothing. Files of earlier versions, and those that other programs write, have none and are read as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_MARK = b"\0sepbench CRC-32 "
"""What stands before the checksum. No text in our files has a zero byte."""
_DIGITS = 8
_TAIL = 8
"""Bytes behind the footer: its length, and Parquet's own mark."""


def write_parquet(table: pa.Table, path: Path, **options: Any) -> None:
    """Write a table with its checksums.

    Args:
        options: of ``pyarrow.parquet.write_table``.

    Raises:
        OSError: the file cannot be written.
    """
    pq.write_table(table, path, write_page_checksum=True, **options)
    content = path.read_bytes()
    footer = len(content) - _TAIL - int.from_bytes(content[-_TAIL : -_TAIL + 4], "little")
    head, foot = content[:footer] + _MARK, content[footer:]
    path.write_bytes(head + _checksum(head, foot) + foot)


def checked(path: Path) -> pa.BufferReader:
    """The bytes of a file, which are those that were written, as far as its checksum can tell.

    Raises:
        ValueError: they are not.
        OSError: the file cannot be read.
    """
    return pa.BufferReader(_content(path)[0])


def checked_schema(path: Path) -> pa.Schema:
    """The schema, with its metadata, of a file all of whose rows can be read; only one without a checksum needs to be read for that.

    Raises:
        ValueError, OSError, pa.ArrowException: see ``open_parquet``; also if the rows cannot be read.
    """
    content, summed = _content(path)
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    if not summed:
        file.read(use_threads=False)
    return file.schema_arrow


def open_parquet(path: Path, texts: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a file, checked.

    Args:
        texts: columns that stay numbers of words.

    Raises:
        ValueError, OSError: see ``checked``.
        pa.ArrowException: no Parquet file; also when it is read, if a page's checksum differs.
    """
    return pq.ParquetFile(checked(path), read_dictionary=list(texts), page_checksum_verification=True)


def _content(path: Path) -> tuple[bytes, bool]:
    """The bytes of a file, and whether they have a checksum, which then is right."""
    content = path.read_bytes()
    mark = content.rfind(_MARK)
    if mark >= 0:
        view, place = memoryview(content), mark + len(_MARK)
        if view[place : place + _DIGITS] != _checksum(view[:place], view[place + _DIGITS :]):
            raise ValueError("its bytes are not those that were written: the checksum differs")
    return content, mark >= 0


def _checksum(head: bytes | memoryview, foot: bytes | memoryview) -> bytes:
    """CRC-32 of what lies before it and behind it, as eight hexadecimal digits."""
    return b"%08x" % zlib.crc32(foot, zlib.crc32(head))
