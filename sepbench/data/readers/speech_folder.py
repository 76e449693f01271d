"""Speech in folders as LRW has it: ``<WORD>/{train,val,test}/<WORD>_NNNNN.wav`` (or ``.flac``). The label is the word's number in alphabetical order.

LRW itself holds MP4 videos, whose sound has to be extracted first: ``ffmpeg -i X.mp4 -ac 1 -ar 16000 X.wav`` for each.
"""

from __future__ import annotations

from pathlib import Path

from sepbench.data.readers import listed
from sepbench.data.readers.chunks import Recording
from sepbench.errors import DataError

SPLITS = {"train": "train", "validation": "val", "test": "test"}
"""Our names of the splits -> the folders'."""

_SUFFIXES = (".wav", ".flac")


def read_speech_folder(folder: Path, split: str) -> list[Recording]:
    """One chunk from the middle of every file (in LRW the word is spoken there), in the order of words and file names. No file is opened.

    Raises:
        DataError: no words, a word without this split, or no WAV and FLAC files in it.
    """
    words = [path for path in listed(folder) if path.is_dir()] if folder.is_dir() else []
    if not words:
        raise DataError(f"{folder} has no folders of words; lay the speech out as {folder}/<WORD>/{SPLITS[split]}/<WORD>_00001.wav")
    return [Recording((path,), label) for label, word in enumerate(words) for path in _files(word / SPLITS[split])]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; every word needs the folders {', '.join(SPLITS.values())}")
    files = [path for path in listed(folder) if path.suffix.lower() in _SUFFIXES]
    if not files:
        hint = "extract the sound of its videos first: ffmpeg -i X.mp4 -ac 1 -ar 16000 X.wav"
        raise DataError(f"{folder} has no WAV or FLAC files; {hint}" if any(folder.glob("*.mp4")) else f"{folder} has no WAV or FLAC files; fill it")
    return files
