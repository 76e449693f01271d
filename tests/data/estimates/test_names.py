"""Files are found by their names in any of three layouts; what cannot be told apart is a problem and never a guess."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from estimate_cases import DIGIT, SOUND

from sepbench.data.estimates.names import list_folder, read_index, slots_by_name
from sepbench.data.estimates.problems import EstimatesError, Problems
from sepbench.protocols import TaskSpec


def _found(folder: Path, names: list[str], spec: TaskSpec = SOUND, n: int = 20) -> tuple[dict[tuple[int, int], str], str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    problems = Problems()
    table = list_folder(folder, spec, n, problems)
    return {key: path.relative_to(folder).as_posix() for key, path in table.items()}, problems.text()


def test_by_number_by_class_and_in_stem_folders(tmp_path: Path) -> None:
    names = ["000012_1.wav", "000012_2.wav", "3_drums.wav", "03_bass.flac", "0007/drums.wav", "0007/2.wav", "0007/mixture.wav", "manifest.json", ".hidden"]
    table, problems = _found(tmp_path, names)
    assert table == {
        (12, 0): "000012_1.wav",
        (12, 1): "000012_2.wav",
        (3, 0): "3_drums.wav",
        (3, 1): "03_bass.flac",
        (7, 0): "0007/drums.wav",
        (7, 1): "0007/2.wav",
    }
    assert problems == ""


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    names = ["000001_1.wav", "1_1.wav", "000001_3.wav", "000020_1.wav", "000001-2.wav", "notes.txt", "000002_1.mp3", "songs/drums.wav", "000004/vocals.wav"]
    table, problems = _found(tmp_path, names)
    assert list(table) == [(1, 0)]
    assert problems == (
        "4 misnamed (000001-2.wav, 000002_1.mp3, notes.txt and 1 more), 3 extra (000001_3.wav, 000004/vocals.wav, 000020_1.wav), 1 there twice (1_1.wav)"
    )


def test_classes_that_say_nothing_are_no_names() -> None:
    assert slots_by_name(SOUND) == {"1": 0, "2": 1, "drums": 0, "bass": 1}
    assert slots_by_name(replace(SOUND, source_classes=("speech", "speech"))) == {"1": 0, "2": 1}
    # A class that is called 1 or 2 would be another source than the first or the second.
    assert slots_by_name(replace(SOUND, source_classes=("2", "1"))) == {"1": 0, "2": 1}
    assert slots_by_name(DIGIT)["5-9"] == 1


def _index(folder: Path, **columns: object) -> Path:
    pd.DataFrame(columns).to_parquet(folder / "index.parquet")
    return folder / "index.parquet"


def test_an_index_lists_any_names(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).touch()
    outside = str(tmp_path / "c.wav")
    path = _index(tmp_path, example=[0, 0, 5, 30, 5], source=["drums", "2", "1", "1", "1"], path=["a.wav", "b.wav", outside, "a.wav", "lost.wav"], note=[1] * 5)
    problems = Problems()
    table = read_index(path, SOUND, 20, problems)
    assert table == {(0, 0): tmp_path / "a.wav", (0, 1): tmp_path / "b.wav", (5, 0): tmp_path / "c.wav"}
    assert problems.text() == "1 extra (a.wav), 1 missing (lost.wav)"


def test_sources_of_an_index_may_be_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert list(read_index(_index(tmp_path, example=[2], source=[2], path=["a.wav"]), SOUND, 20, Problems())) == [(2, 1)]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"example": [0], "path": ["a.wav"]}, "has no column source"),
        ({"example": ["0"], "source": [1], "path": ["a.wav"]}, "column example must hold whole numbers"),
    ],
)
def test_an_index_without_its_columns(tmp_path: Path, columns: dict[str, object], words: str) -> None:
    with pytest.raises(EstimatesError, match=words):
        read_index(_index(tmp_path, **columns), SOUND, 20, Problems())


def test_an_index_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "index.parquet").write_bytes(b"example,source,path\n")
    with pytest.raises(EstimatesError, match="no readable Parquet file"):
        read_index(tmp_path / "index.parquet", SOUND, 20, Problems())


def test_an_index_whose_checksums_differ(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    options = {"compression": None, "use_dictionary": False, "write_statistics": False, "write_page_checksum": True}
    pd.DataFrame({"example": [0], "source": ["1"], "path": ["named.wav"]}).to_parquet(path, **options)
    content = path.read_bytes()
    place = content.index(b"named.wav")
    path.write_bytes(content[:place] + b"other" + content[place + 5 :])
    with pytest.raises(EstimatesError, match=r"is no readable Parquet file \(.*CRC.*\); write it anew"):
        read_index(path, SOUND, 20, Problems())


@pytest.mark.parametrize("suffix", [".wav", ".WAV", ".Wav", ".flac", ".FLAC"])
def test_suffixes_may_be_in_capitals_in_a_folder_and_in_an_index(tmp_path: Path, suffix: str) -> None:
    name = f"1_2{suffix}"
    assert _found(tmp_path, [name]) == ({(1, 1): name}, "")
    problems = Problems()
    table = read_index(_index(tmp_path, example=[1], source=["2"], path=[name]), SOUND, 20, problems)
    assert (table, problems.text()) == ({(1, 1): tmp_path / name}, "")
