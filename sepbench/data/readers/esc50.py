"""ESC-50: ``meta/esc50.csv`` and ``audio/*.wav``, 2,000 clips of environmental sound, 5 s each, mono, 44,100 Hz, in 5 folds.

The folds are the authors' (clips of one source recording share a fold); which fold is which split is ours: 1 to 3 train, 4 validation, 5 test.
"""

from __future__ import annotations

from pathlib import Path

from sepbench.data.readers.audio_files import audio_info
from sepbench.data.readers.chunks import Recording
from sepbench.errors import DataError

FOLDS = {"train": (1, 2, 3), "validation": (4,), "test": (5,)}
SAMPLE_RATE = 44_100

_COLUMNS = ("filename", "fold", "target")


def read_esc50(folder: Path, split: str) -> list[Recording]:
    """The clips of a split in the CSV's order, labelled with their target (0 to 49). Headers are read, no samples.

    Raises:
        DataError: the CSV is missing or malformed; a clip is missing, unreadable or of another rate.
    """
    import pandas as pd

    path = folder / "meta" / "esc50.csv"
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}; check that the data set is complete") from error
    if lacking := [column for column in _COLUMNS if column not in table.columns]:
        raise DataError(f"{path} has no column {lacking[0]!r}; replace the file by ESC-50's")
    if not pd.api.types.is_integer_dtype(table["fold"]) or not pd.api.types.is_integer_dtype(table["target"]):
        raise DataError(f"{path}: fold and target must be whole numbers; replace the file by ESC-50's")
    chosen = table[table["fold"].isin(FOLDS[split])]
    # Several clips were cut from one Freesound recording, whose number is src_file.
    origins = chosen["src_file"] if "src_file" in chosen.columns else chosen["filename"]
    named = zip(chosen["filename"], chosen["target"], origins, strict=True)
    return [_recording(folder / "audio" / str(name), int(target), str(origin)) for name, target, origin in named]


def _recording(path: Path, label: int, group: str) -> Recording:
    info = audio_info(path)
    if info.sample_rate != SAMPLE_RATE:
        raise DataError(f"{path} has {info.sample_rate:,} Hz, ESC-50 has {SAMPLE_RATE:,} Hz; use the files as they were published")
    return Recording((path,), label, info, group)
