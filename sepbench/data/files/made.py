"""Data sets that the package makes itself instead of downloading them: rendered into the user's cache when they are first needed.

A manifest says so with ``made_by``, the name of a module with a function ``make(names, folder, progress)`` that writes these files of the data set.
The files' digests stand in the manifest like those of any other data set: what a machine makes is compared with what was frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from sepbench.data.files.integrity import FileCheck, check_file
from sepbench.data.files.manifests import Manifest
from sepbench.errors import DataError


def make_missing(manifest: Manifest, part: str, folder: Path, stamps: Path, progress: Callable[[str, int, int], None] | None) -> None:
    """Make the files of a part that are missing or damaged in the cache.

    Args:
        manifest: of a data set with ``made_by``.
        part: a subfolder of the data set, or ``""`` for everything.
        folder: the data set's folder in the cache; it need not exist.
        stamps: the folder of stamps, see ``integrity``.
        progress: called with (file name, bytes so far, bytes in all).

    Raises:
        DataError: the cache cannot be written, or this machine makes other bytes than the frozen ones.
    """
    lacking = [check.name for check in _checks(manifest, part, folder, stamps) if not check.ok]
    if not lacking:
        return
    try:
        import_module(manifest.made_by).make(lacking, folder, progress)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}; free some space or set SEPBENCH_CACHE to a writable folder") from error
    for check in _checks(manifest, part, folder, stamps):
        if not check.ok:
            raise _not_the_frozen(manifest, check)


def _checks(manifest: Manifest, part: str, folder: Path, stamps: Path) -> list[FileCheck]:
    return [check_file(file, folder, stamps) for file in manifest.files if not part or file.name.startswith(f"{part}/")]


def _not_the_frozen(manifest: Manifest, check: FileCheck) -> DataError:
    other = f"{check.name} of {manifest.name} was made here with {check.found}, frozen is {check.expected}"
    remedy = f"copy {check.path.parent.parent} from a machine where it agrees, and report this together with the output of 'sepbench env'"
    return DataError(f"this machine computes other numbers: {other}; {remedy}")
