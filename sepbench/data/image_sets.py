"""The data sets of images that are too many to be read at once: files are decoded when they are asked for. Entry points name every object here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sepbench.data.files.fetch import FoundData
from sepbench.data.readers.celeba import Faces, read_partition

_CACHED = 3  # one of each split


@dataclass(frozen=True, slots=True)
class FaceSet:
    """CelebA at 32 x 32."""

    manifest: str = "celeba"

    @property
    def splits(self) -> tuple[str, ...]:
        return ("train", "validation", "test")

    def open(self, name: str, split: str, found: FoundData | None) -> Faces:
        """One split. It is kept and shared between callers, with what is decoded."""
        if found is None:
            raise ValueError(f"data set {name!r} is read from the files of {self.manifest!r}, and was handed none")
        return _opened(name, split, found.folder)


@lru_cache(maxsize=_CACHED)
def _opened(name: str, split: str, folder: Path) -> Faces:
    return Faces(name, split, read_partition(folder, split))


CELEBA32 = FaceSet()
