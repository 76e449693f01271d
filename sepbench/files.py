"""Files that are whole or absent, and their digests."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

TEMPORARY = ".tmp"
"""How names of unfinished files end; whoever owns a folder may delete such files."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write through a temporary name, flush to the disk and rename: after a crash ``path`` holds its old content or all of the new.

    The temporary name carries host and process, so that several machines may write into one shared folder. Missing folders are made.

    Args:
        path: the file.
        write: writes the content to the path that it is given.

    Raises:
        OSError: the file cannot be written; nothing is left of it then.
        Exception: whatever ``write`` raises.
    """
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}{TEMPORARY}")
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            flush(path.parent.parent)
        write(temporary)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
