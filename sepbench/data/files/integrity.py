"""Whether a file on disk is the one its manifest names: sizes, digests, and stamps that spare hashing it again.

A stamp is a small JSON file in the user's cache that says: this path, at this size and modification time, had this digest. Sizes are
looked at every time; a file is hashed again only if its size or time changed, or if ``verify`` is asked for. A data set of many files has one
stamp for all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sepbench.data.files.manifests import DataFile
from sepbench.errors import DataError
from sepbench.files import file_digest, write_atomically

MANY_FILES = 100
"""From here on a data set's files share a stamp, and are counted rather than listed."""

FileState = Literal["ok", "missing", "wrong size", "wrong sha256", "wrong md5"]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What was found of one file.

    Attributes:
        name: the file's name in the manifest.
        path: where it was looked for.
        state: ``ok`` or what is wrong.
        expected, found: bytes (``wrong size``) or hex digests (``wrong sha256``, ``wrong md5``, ``ok``); empty if missing.
    """

    name: str
    path: Path
    state: FileState
    expected: str = ""
    found: str = ""

    @property
    def ok(self) -> bool:
        return self.state == "ok"

    def describe(self) -> str:
        """One line that names the file and what is wrong with it."""
        if self.state in ("ok", "missing"):
            return f"{self.path} is {self.state}"
        if self.state == "wrong size":
            return f"{self.path} has the wrong size: {int(self.found):,} bytes, expected {int(self.expected):,}"
        return f"{self.path} has the {self.state} {self.found}, expected {self.expected}"


def read_digest(path: Path, algorithm: str) -> str:
    """Hex digest of a data set's file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return file_digest(path, algorithm)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check its permissions and its disk") from error


def check_size(file: DataFile, folder: Path) -> FileCheck:
    """Presence and size only; nothing is read."""
    path = folder / file.name
    if not path.is_file():
        return FileCheck(file.name, path, "missing")
    size = path.stat().st_size
    if size != file.size:
        return FileCheck(file.name, path, "wrong size", expected=str(file.size), found=str(size))
    return FileCheck(file.name, path, "ok")


def check_file(file: DataFile, folder: Path, stamps: Path, *, rehash: bool = False) -> FileCheck:
    """Presence, size and digest; the digest through the stamp unless ``rehash``.

    Args:
        file: the manifest's entry.
        folder: the data set's folder.
        stamps: the folder of stamps; it need not exist or be writable.
        rehash: read the file even where a stamp vouches for it.
    """
    check = check_size(file, folder)
    if not check.ok:
        return check
    path = check.path
    stamp = _stamp_path(path, stamps)
    wanted = _stamp_content(path, file.algorithm, file.digest)
    if not rehash and _read_stamp(stamp) == wanted:
        return FileCheck(file.name, path, "ok", expected=file.digest, found=file.digest)
    check = _check_digest(file, path)
    if check.ok:
        _write_stamp(stamp, wanted)
    else:
        _drop_stamp(stamp)
    return check


def check_files(files: Sequence[DataFile], folder: Path, stamps: Path, *, rehash: bool = False) -> list[FileCheck]:
    """What is wrong with a data set's files, in order; nothing where they are right. With ``rehash`` a check of every file, right or wrong.

    From ``MANY_FILES`` files on, one stamp vouches for all of them.
    """
    if len(files) < MANY_FILES:
        checks = [check_file(file, folder, stamps, rehash=rehash) for file in files]
        return [check for check in checks if rehash or not check.ok]
    stamp, wanted = _stamp_path(folder, stamps), _folder_stamp_content(files, folder)
    if wanted and not rehash and _read_stamp(stamp) == wanted:
        return []
    checks = [check_size(file, folder) for file in files]
    if rehash or all(check.ok for check in checks):  # else a size has told already what is wrong
        checks = [_check_digest(file, check.path) if check.ok else check for file, check in zip(files, checks, strict=True)]
    if wanted and all(check.ok for check in checks):
        _write_stamp(stamp, wanted)
    else:
        _drop_stamp(stamp)
    return [check for check in checks if rehash or not check.ok]


def _check_digest(file: DataFile, path: Path) -> FileCheck:
    found = read_digest(path, file.algorithm)
    if found != file.digest:
        return FileCheck(file.name, path, "wrong sha256" if file.algorithm == "sha256" else "wrong md5", expected=file.digest, found=found)
    return FileCheck(file.name, path, "ok", expected=file.digest, found=found)


def _folder_stamp_content(files: Sequence[DataFile], folder: Path) -> dict[str, str | int]:
    """Names, sizes, times and digests in one digest; empty if a file is missing."""
    sha = hashlib.sha256()
    try:
        for file in files:
            status = os.stat(f"{folder}/{file.name}")  # noqa: PTH116 - thousands of files: a Path each takes five times as long
            sha.update(f"{file.name} {status.st_size} {status.st_mtime_ns} {file.digest}\n".encode())
    except OSError:
        return {}
    return {"path": str(folder.resolve()), "files": len(files), "state": sha.hexdigest()}


def _stamp_path(path: Path, stamps: Path) -> Path:
    return stamps / (hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32] + ".json")


def _stamp_content(path: Path, algorithm: str, digest: str) -> dict[str, str | int]:
    status = path.stat()
    return {"path": str(path.resolve()), "size": status.st_size, "mtime_ns": status.st_mtime_ns, "algorithm": algorithm, "digest": digest}


def _read_stamp(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_stamp(stamp: Path, content: dict[str, str | int]) -> None:
    """Best effort: without a writable cache the file is hashed again next time, which is slower but right."""
    try:
        write_atomically(stamp, lambda temporary: temporary.write_text(json.dumps(content), encoding="utf-8"))
    except OSError:
        return


def _drop_stamp(stamp: Path) -> None:
    """Best effort too: what is wrong with the file matters more than a cache that cannot be written or is no folder."""
    try:
        stamp.unlink(missing_ok=True)
    except OSError:
        return
