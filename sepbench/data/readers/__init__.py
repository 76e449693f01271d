"""Readers: one file per format, strict about every byte. All return uint8 or float32 images ``(N, C, H, W)`` and int64 labels ``(N,)``."""

from __future__ import annotations

from pathlib import Path

from sepbench.errors import DataError


def corrupt(where: Path | str, offset: int, problem: str) -> DataError:
    """The error for a file that is not what it should be.

    Args:
        where: the file, or ``archive:member``.
        offset: byte at which the problem shows; in compressed files it counts the unpacked bytes.
        problem: what is wrong there.
    """
    return DataError(f"{where} is corrupt at byte {offset:,}: {problem}; replace the file")


def unreadable(where: Path | str, error: OSError) -> DataError:
    """The error for a file that cannot be opened or read at all."""
    return DataError(f"{where} cannot be read: {error.strerror or error}; check that the file is there and readable")


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, hidden entries left out, by name.

    Raises:
        DataError: the folder cannot be read, or a link in it leads nowhere: passed over, it would change the set without a word.
    """
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        lost = next((path for path in entries if path.is_symlink() and not path.exists()), None)
    except OSError as error:
        raise unreadable(folder, error) from error
    if lost is not None:
        raise DataError(f"{lost} is a link to {lost.readlink()}, which is not there; mend or remove it")
    return entries
