"""Which files of a user's folder become signals: all images, or all sounds, of the folder and its subfolders, in natural order of their paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sepbench.data.readers import listed, unreadable
from sepbench.data.readers.image_folder import SUFFIXES as IMAGES
from sepbench.data.readers.image_folder import natural_key
from sepbench.errors import DataError, flat
from sepbench.protocols import Domain

SOUNDS = frozenset({".wav", ".flac"})
_NAMED = 3
_ENDINGS = {"image": IMAGES, "audio": SOUNDS}


@dataclass(frozen=True, slots=True)
class OwnFolder:
    """A folder whose files are of one class.

    Attributes:
        path: the folder.
        files: its images or sounds, in order.
        others: files of other kinds, which are passed over; hidden files are not told of.
    """

    path: Path
    files: tuple[Path, ...]
    others: tuple[Path, ...]

    def name(self, file: Path) -> str:
        """A file's path within the folder, in characters that every terminal takes."""
        return flat(file.relative_to(self.path))


def first_three(texts: Sequence[str]) -> str:
    """``a, b, c and 4 more``."""
    rest = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")


def open_folders(paths: Sequence[Path]) -> tuple[Domain, list[OwnFolder]]:
    """What a suite's folders hold, and of which kind their files are.

    Raises:
        DataError: no folder, a folder that is or lies in another one of them, a link that leads nowhere or back, no images and no sounds, or both.
    """
    _check_apart(paths)
    found = [(path, _files(path)) for path in paths]
    kinds = {kind: sum(file.suffix.lower() in endings for _, files in found for file in files) for kind, endings in _ENDINGS.items()}
    if kinds["image"] and kinds["audio"]:
        raise DataError(f"the folders have both images ({kinds['image']:,}) and sounds ({kinds['audio']:,}); make one suite of each kind")
    domain: Domain = "audio" if kinds["audio"] else "image"
    return domain, [_folder(path, files, _ENDINGS[domain]) for path, files in found]


def _check_apart(paths: Sequence[Path]) -> None:
    seen: list[tuple[Path, Path]] = []
    for path in paths:
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; --sources takes the folders that hold the files, one per class")
        real = path.resolve()
        for other, before in seen:
            if real == before:
                raise DataError(f"{path} is given twice{'' if path == other else f', also as {other}'}; every class needs a folder of its own")
            if before in real.parents or real in before.parents:
                inner, outer = (path, other) if before in real.parents else (other, path)
                raise DataError(f"{inner} is a folder within {outer}, so its files would be of two classes; give folders that are beside each other")
        seen.append((path, real))


def _folder(path: Path, files: list[Path], endings: frozenset[str]) -> OwnFolder:
    wanted = sorted((file for file in files if file.suffix.lower() in endings), key=lambda file: natural_key(file.relative_to(path).as_posix()))
    others = tuple(file for file in files if file.suffix.lower() not in endings)
    if not wanted:
        kinds = Counter(file.suffix.lower() or "no ending" for file in others).most_common()
        holds = f"has only {first_three([f'{count:,} of {flat(ending)}' for ending, count in kinds])}" if kinds else "has no files"
        wanted_kinds = f"images ({', '.join(sorted(IMAGES))}) or sounds ({', '.join(sorted(SOUNDS))})"
        raise DataError(f"the folder {path} {holds}; put {wanted_kinds} there, or convert its files to those")
    return OwnFolder(path, tuple(wanted), others)


def _files(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, hidden ones left out. Links are followed; no folder is read twice."""
    found: list[Path] = []
    seen: dict[tuple[int, int], Path] = {}
    pending = [folder]
    while pending:
        here = pending.pop(0)
        try:
            status = here.stat()
        except OSError as error:
            raise unreadable(here, error) from error
        key = (status.st_dev, status.st_ino)
        if key in seen:
            raise DataError(f"{here} and {seen[key]} are one folder, reached by a link; remove the link, or its files would count twice")
        seen[key] = here
        entries = listed(here)
        found += [path for path in entries if path.is_file()]
        pending += [path for path in entries if path.is_dir()]
    return found
