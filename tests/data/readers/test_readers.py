"""What all readers share: lists of folders without gaps, and one line for what cannot be read or is corrupt; the folder layouts that rest on it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sepbench.data.lists.rules import SILENT_RMS
from sepbench.data.readers import corrupt, listed, unreadable
from sepbench.data.readers.sounding import sounding_seconds
from sepbench.data.readers.speech_folder import read_speech_folder
from sepbench.errors import DataError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# --- lists of folders -----------------------------------------------------------------------------------------------------------------


def test_a_folder_is_listed_by_name_with_links_that_lead_somewhere(tmp_path: Path) -> None:
    touch(*(tmp_path / "a" / name for name in ("b", "B", "10", "9", ".hidden", "c.wav")))
    (tmp_path / "a" / "sub").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "sub")
    (tmp_path / "a" / ".gone").symlink_to("nowhere")  # hidden, so of no account
    assert listed(tmp_path / "a") == [tmp_path / "a" / name for name in ("10", "9", "B", "b", "c.wav", "link", "sub")]
    (tmp_path / "empty").mkdir()
    assert listed(tmp_path / "empty") == []


def test_a_link_that_leads_nowhere_is_named_whatever_lies_beside_it(tmp_path: Path) -> None:
    touch(tmp_path / "a", tmp_path / "z")
    (tmp_path / "m").symlink_to("b")
    with pytest.raises(DataError) as caught:
        listed(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'm'} is a link to b, which is not there; mend or remove it"


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error"), OSError("no reason given")])
def test_a_folder_that_cannot_be_listed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(self: Path) -> None:
        raise error

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError) as caught:
        listed(tmp_path)
    assert str(caught.value) == f"{tmp_path} cannot be read: {error.strerror or error}; check that the file is there and readable"
    assert caught.value.__cause__ is error


def test_a_file_or_nothing_instead_of_a_folder(tmp_path: Path) -> None:
    touch(tmp_path / "file")
    for name, why in (("file", os.strerror(20)), ("none", os.strerror(2))):
        with pytest.raises(DataError) as caught:
            listed(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} cannot be read: {why}; check that the file is there and readable"


def test_what_is_said_of_files() -> None:
    assert str(corrupt("a.zip:b", 12_345, "it ends")) == "a.zip:b is corrupt at byte 12,345: it ends; replace the file"
    assert str(unreadable(Path("a"), OSError(2, "No such file"))) == "a cannot be read: No such file; check that the file is there and readable"
    assert str(unreadable("a", OSError("odd"))) == "a cannot be read: odd; check that the file is there and readable"


# --- speech in folders of words -------------------------------------------------------------------------------------------------------


def test_words_are_labels_and_every_split_has_its_folder(tmp_path: Path) -> None:
    for word in ("YES", "NO"):
        for split, number in (("train", 3), ("val", 1), ("test", 2)):
            touch(*(tmp_path / word / split / f"{word}_{n}.wav" for n in range(number)))
    touch(tmp_path / "NO" / "val" / "NO_9.FLAC", tmp_path / "NO" / "val" / "NO_9.txt", tmp_path / "readme.txt", tmp_path / ".git" / "x")
    found = read_speech_folder(tmp_path, "validation")
    assert [(*(path.relative_to(tmp_path).as_posix() for path in one.files), one.label) for one in found] == [
        *(("NO/val/NO_0.wav", 0), ("NO/val/NO_9.FLAC", 0), ("YES/val/YES_0.wav", 1))
    ]
    assert [one.label for one in read_speech_folder(tmp_path, "train")] == [0, 0, 0, 1, 1, 1]
    assert [one.files[0].parent.name for one in read_speech_folder(tmp_path, "test")] == ["test"] * 4


def test_speech_that_is_not_laid_out_says_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path / "file", tmp_path / "empty" / "x.wav", tmp_path / "words" / "A" / "train" / "1.mp4", tmp_path / "words" / "B" / "val")
    (tmp_path / "words" / "A" / "test").mkdir()
    words = tmp_path / "words"
    cases = {
        (tmp_path / "none", "test"): f"{tmp_path / 'none'} has no folders of words; lay the speech out as {tmp_path / 'none'}/<WORD>/test/<WORD>_00001.wav",
        (tmp_path / "file", "train"): f"{tmp_path / 'file'} has no folders of words; lay the speech out as {tmp_path / 'file'}/<WORD>/train/<WORD>_00001.wav",
        (tmp_path / "empty", "validation"): f"{tmp_path / 'empty'} has no folders of words; lay the speech out as {tmp_path / 'empty'}/<WORD>/val/",
        (words, "validation"): f"{words / 'A' / 'val'} is missing; every word needs the folders train, val, test",
        (words, "train"): f"{words / 'A' / 'train'} has no WAV or FLAC files; extract the sound of its videos first: ffmpeg -i X.mp4 -ac 1 -ar 16000 X.wav",
        (words, "test"): f"{words / 'A' / 'test'} has no WAV or FLAC files; fill it",
    }
    for (folder, split), told in cases.items():
        with pytest.raises(DataError) as caught:
            read_speech_folder(folder, split)
        assert str(caught.value).startswith(told)


# --- which seconds sound --------------------------------------------------------------------------------------------------------------


def test_seconds_that_sound_are_bits_and_a_silent_chunk_has_none() -> None:
    rate, least = 8, int(np.ceil(SILENT_RMS * 32_768))  # a sample of 178 has the RMS of a second that sounds, 177 is silent

    def bits(*seconds: float, rest: int = 0) -> int:
        chunk = np.concatenate([np.full(rate, level) for level in seconds] + [np.full(rest, 32_767 if rest else 0)]).astype(np.int16)
        return int(sounding_seconds(chunk[None, None], rate)[0])

    assert least == 178
    assert [bits(least, least, least), bits(0, 0, 9000), bits(0, 9000, 0), bits(9000, 0, 9000)] == [7, 4, 2, 5]
    assert [bits(-least), bits(least - 1), bits(0, 0)] == [1, 0, 0]
    assert bits(least, 0) == 0  # a second sounds, but the chunk as a whole does not
    assert bits(0, rest=5) == 0  # and one that sounds in no whole second is silent
    assert bits(0, 300, rest=3) == 2
    both = np.stack([np.full((1, rate), 200), np.zeros((1, rate))]).astype(np.int16)
    assert sounding_seconds(both, rate).tolist() == [1, 0]
    assert sounding_seconds(both, rate).dtype == np.int64
