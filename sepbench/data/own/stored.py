"""``beside:PATH``: signals that lie beside a suite's file, so that the suite's folder can be moved as a whole.

``PATH/train.npy``, ``PATH/validation.npy`` and ``PATH/test.npy``, relative to the folder of the suite's file: images ``(N, H, W)`` or ``(N, H, W, 3)``, or
sounds ``(N, T)`` int16. ``PATH`` never leaves that folder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath

from sepbench.data.own.splits import SPLITS
from sepbench.data.readers.npy import read_npy_images, read_npy_sounds
from sepbench.data.signals import ArraySignals
from sepbench.errors import DataError
from sepbench.protocols import Domain, SignalSet
from sepbench.torch_later import torch

BESIDE = "beside:"
_CACHED = 8  # splits


def split_file(folder: Path, name: str, split: str) -> Path:
    """Where a split lies.

    Args:
        folder: of the suite's file.
        name: ``beside:PATH``.
        split: one of ``SPLITS``.

    Raises:
        DataError: PATH leaves the folder, or there is no such split.
    """
    inside = PurePosixPath(name.removeprefix(BESIDE))
    if not inside.parts or inside.is_absolute() or ".." in inside.parts:
        raise DataError(f"data set {name!r}: the part after the colon must be a path within the folder of the suite's file")
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; data set {name!r} has {', '.join(SPLITS)}")
    return folder / inside / f"{split}.npy"


def open_beside(folder: Path, name: str, split: str, domain: Domain) -> ArraySignals:
    """One split of ``beside:PATH``; the last few are kept.

    Raises:
        DataError: see ``split_file``; the file is missing or no array of such signals.
    """
    path = split_file(folder, name, split)
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"data set {name!r} has no {split} split: {path} cannot be read ({error.strerror}); copy the suite's folder as a whole") from error
    return _read(path, name, split, domain, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=_CACHED)
def _read(path: Path, name: str, split: str, domain: Domain, size: int, changed: int) -> ArraySignals:
    signals = read_npy_sounds(path) if domain == "audio" else read_npy_images(path)
    return ArraySignals(name, split, domain, signals, torch.zeros(len(signals), dtype=torch.int64))


def beside(folder: Path, domain: Domain, opener: Callable[[str, str], SignalSet]) -> Callable[[str, str], SignalSet]:
    """An opener of a suite's data sets: those beside its file in ``folder``, and all others by ``opener``."""
    return lambda name, split: open_beside(folder, name, split, domain) if name.startswith(BESIDE) else opener(name, split)
