"""ESC-10: rows of whole recordings, labels of silent chunks, and the real clips against their table."""

from __future__ import annotations

import csv
from pathlib import Path

import audio_layouts as layouts
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sepbench.data.files.fetch import locate
from sepbench.data.files.manifests import load_manifest
from sepbench.data.lists.recorded import HELD_OUT
from sepbench.data.readers.audio_files import read_vorbis, resample
from sepbench.data.readers.esc10 import CLASSES, FILE_RATE, LENGTH, SAMPLE_RATE, clips, read_esc10, recordings
from sepbench.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return layouts.make_esc10(tmp_path_factory.mktemp("esc"), silent=["rain/1-7-A"])


def test_a_clip_is_two_rows_at_the_rate_of_speech(folder: Path) -> None:
    signals, labels = read_esc10(folder, "train")
    assert (signals.shape, signals.dtype) == ((8, 1, LENGTH), torch.int16)
    order = ["dog/1-3-A", "rain/1-7-A", "dog/1-20-A", "dog/1-20-B"]
    wanted = torch.cat([resample(read_vorbis(folder / "audio" / f"{name}.ogg", FILE_RATE)[0], FILE_RATE, SAMPLE_RATE)[: 2 * LENGTH] for name in order])
    assert float((signals.flatten() / 32_768 - wanted).abs().max()) <= 0.5 / 32_768
    dog, rain = CLASSES.index("dog") + 1, CLASSES.index("rain") + 1
    assert labels.tolist() == [dog, dog, rain, 0, dog, dog, dog, dog]  # ESC-10 pads with zeros: the silent half of a clip is no noise
    assert len(read_esc10(folder, "test")[1]) == 4


def test_damage_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no clip of fold 1; lay ESC-10 out as"):
        read_esc10(tmp_path, "train")
    path = layouts.make_esc10(tmp_path) / "audio" / "dog" / "1-3-A.ogg"
    path.rename(path.with_name("other.ogg"))
    with pytest.raises(DataError, match=r"audio/dog/other\.ogg is no clip of ESC-10"):
        read_esc10(tmp_path / "esc10", "train")
    path.with_name("other.ogg").unlink()
    layouts.soundfile.write(path, layouts.chord("short", FILE_RATE, FILE_RATE), FILE_RATE, format="OGG", subtype="VORBIS")
    with pytest.raises(DataError, match=r"1-3-A\.ogg lasts 1\.00 s, a clip needs 4\.10 s"):
        read_esc10(tmp_path / "esc10", "train")


NAMES = st.builds("audio/{}/{}-{}-{}.ogg".format, st.sampled_from(CLASSES[:3]), st.sampled_from("12"), st.integers(1, 6), st.sampled_from("AB"))


@given(names=st.sets(NAMES, max_size=30), data=st.data())
def test_rows_do_not_depend_on_the_order_of_the_files(names: set[str], data: st.DataObject) -> None:
    listed = data.draw(st.permutations(sorted(names)))
    found = clips([*listed, "index.csv"], "train") + clips(listed, "test")
    assert sorted(clip.name for clip in found) == sorted(names)
    assert clips(sorted(names), "train") == clips(listed, "train")


def test_no_recording_is_on_both_sides_of_a_split() -> None:
    train, test = recordings("train"), recordings("test")
    assert (len(train), len(test)) == (160, 160)
    assert not set(train) & set(test)
    assert not set(train[:-HELD_OUT]) & set(train[-HELD_OUT:])


def test_the_real_clips_are_what_their_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    try:
        folder = locate(load_manifest("esc10"))
    except DataError as error:
        pytest.skip(f"needs data: {error}")
    if not (folder / "index.csv").is_file():
        pytest.skip("needs the table of the clips")
    with (folder / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = {clip.name: clip for split in ("train", "test") for clip in clips((row["file"] for row in rows), split)}
    assert len(found) == len(rows) == 160
    for row in rows[::8]:
        values = read_vorbis(folder / row["file"], FILE_RATE)
        assert values.shape == (1, int(row["frames"]))
        assert float(values.square().mean().sqrt()) == pytest.approx(float(row["rms"]), abs=1e-4)
        assert (found[row["file"]].kind, found[row["file"]].fold) == (row["label"], int(row["fold"]))
