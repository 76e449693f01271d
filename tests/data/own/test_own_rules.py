"""Rules of a user's own data by hand: shares, folders, copies, lists, and the counts in what is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sepbench.data.own.sounds
from sepbench.data.own.folders import first_three, open_folders
from sepbench.data.own.lists import ListPlan, make_lists
from sepbench.data.own.signals import OwnSignals, check_no_shared_content, distinct_signals
from sepbench.data.own.sounds import _checked, _counted, _rate, _stop_at
from sepbench.data.own.splits import check_shares, groups_for, share_for, split_groups, split_sizes
from sepbench.data.own.stored import split_file
from sepbench.data.readers.image_folder import list_images, natural_key
from sepbench.errors import DataError

# ---- shares ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "validation", "test", "least", "sizes"),
    [
        (10, 0.1, 0.2, 1, (7, 1, 2)),
        (10, 0.0, 0.25, 1, (7, 0, 3)),  # halves are rounded up
        (10, 0.0, 1.0, 1, (0, 0, 10)),
        (10, 0.5, 0.5, 1, (0, 5, 5)),
        (3, 0.01, 0.01, 1, (1, 1, 1)),
        (5, 0.01, 0.01, 2, (1, 2, 2)),
        (10, 0.0, 0.99, 1, (1, 0, 9)),  # one is left for training
        (10, 0.5, 0.49, 1, (1, 4, 5)),
        (9, 0.1, 0.9, 1, (0, 1, 8)),
    ],
)
def test_sizes_of_splits(n: int, validation: float, test: float, least: int, sizes: tuple[int, int, int]) -> None:
    assert split_sizes(n, validation, test, least) == sizes


def test_too_few_files_for_the_shares() -> None:
    for n, file in ((1, "1 different file "), (4, "4 different files ")):
        with pytest.raises(DataError) as caught:
            split_sizes(n, 0.1, 0.2, 2)
        assert str(caught.value).startswith(
            f"{file}cannot be split by --val 0.1 --test 0.2, which take at least 1 for training, 2 for validation and 2 for test"
        )
    assert split_sizes(5, 0.1, 0.2, 2) == (1, 2, 2)
    with pytest.raises(DataError, match="take at least 0 for training, 0 for validation and 2 for test"):
        split_sizes(1, 0.0, 1.0, 2)


@pytest.mark.parametrize(
    ("validation", "test", "told"),
    [
        (-0.1, 0.2, "--val is a share .* got -0.1"),
        (0.1, 1.5, "--test is a share .* got 1.5"),
        (0.1, 0.0, "--test 0 leaves"),
        (0.7, 0.4, "--val 0.7 and --test 0.4"),
    ],
)
def test_shares_that_cannot_be(validation: float, test: float, told: str) -> None:
    with pytest.raises(DataError, match=told):
        check_shares(validation, test)
    check_shares(0.7, 0.3)
    check_shares(0.0, 1.0)


def test_the_smallest_share_and_number_that_do() -> None:
    share = share_for(3, [10, 20], 0.1)
    assert share == 0.25  # of ten groups 2.5 are rounded up to three
    assert split_sizes(10, 0.1, share)[2] == 3
    assert split_sizes(10, 0.1, share - 0.01)[2] == 2
    assert share_for(9, [10], 0.1) is None
    assert groups_for(3, 0.1, 0.2) == 13  # 0.2 of 13 is 2.6
    assert split_sizes(12, 0.1, 0.2)[2] == 2


def test_groups_are_never_apart() -> None:
    groups = np.repeat([3, 8, 9, 20, 21], [2, 1, 3, 1, 2])
    chosen = split_groups("a name", groups, 0.2, 0.4)
    by_group = {int(group): {int(one) for one in chosen[groups == group]} for group in np.unique(groups)}
    assert all(len(parts) == 1 for parts in by_group.values())
    assert sorted(next(iter(parts)) for parts in by_group.values()) == [0, 0, 1, 2, 2]
    assert np.array_equal(chosen, split_groups("a name", groups, 0.2, 0.4))
    assert len({tuple(split_groups(f"name {n}", groups, 0.2, 0.4)) for n in range(20)}) > 3


# ---- folders ---------------------------------------------------------------------------------------------------------------------------


def _files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_files_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    a = _files(tmp_path / "a", "img10.png", "img2.PNG", "sub/img1.jpg", ".hidden.png", "notes.txt", ".git/x.png")
    b = _files(tmp_path / "b", "x.png")
    domain, (first, second) = open_folders([a, b])
    assert domain == "image"
    assert [first.name(file) for file in first.files] == ["img2.PNG", "img10.png", "sub/img1.jpg"]
    assert [file.name for file in first.others] == ["notes.txt"]
    assert [second.name(file) for file in second.files] == ["x.png"]
    assert second.path == b
    assert open_folders([_files(tmp_path / "c", "x.FLAC")])[0] == "audio"


def test_folders_that_cannot_be_classes(tmp_path: Path) -> None:
    a, b = _files(tmp_path / "a", "1.png", "2.png", "in/3.png"), _files(tmp_path / "b", "1.wav")
    other = _files(tmp_path / "c", "1.txt", "2.TXT", "3.doc", "x")
    link = tmp_path / "link"
    link.symlink_to(a)
    for paths, told in (
        ([a, b], r"both images \(3\) and sounds \(1\)"),
        ([a, a], f"{a} is given twice; "),
        ([a, link], f"{link} is given twice, also as {a}; "),
        ([a, a / "in"], f"{a / 'in'} is a folder within {a}, "),
        ([a / "in", a], f"{a / 'in'} is a folder within {a}, "),
        ([tmp_path / "none"], f"{tmp_path / 'none'} is not a folder"),
        ([a, other], r"has only 2 of \.txt, 1 of \.doc, 1 of no ending; "),
        ([a, _files(tmp_path / "d", ".hidden")], "has no files; "),
    ):
        with pytest.raises(DataError, match=told):
            open_folders(paths)
    (a / "back").symlink_to(a)
    with pytest.raises(DataError, match=f"{a / 'back'} and {a} are one folder"):
        open_folders([a])


def test_the_first_three_of_many() -> None:
    assert first_three(["a"]) == "a"
    assert first_three(["a", "b", "c"]) == "a, b, c"
    assert first_three([*"abc", *["x"] * 1234]) == "a, b, c and 1,234 more"


def test_natural_order_and_class_folders(tmp_path: Path) -> None:
    names = ["b1", "a10", "A2", "a02", "2", "10", "a"]
    assert sorted(names, key=natural_key) == ["2", "10", "a", "A2", "a02", "a10", "b1"]
    folder = _files(tmp_path / "x", "c10/1.png", "c2/b.PNG", "c2/a.png", "c2/readme.md", "c2/.h.png")
    assert [(path.name, label) for path, label in list_images(folder)] == [("a.png", 0), ("b.PNG", 0), ("1.png", 1)]
    with pytest.raises(DataError, match=r"has images of its own \(z\.png\) and class folders \(c2\)"):
        list_images(_files(folder, "z.png"))
    with pytest.raises(DataError, match="nested too deeply"):
        list_images(_files(tmp_path / "y", "c/d/1.png"))
    with pytest.raises(DataError, match=r"has no images \(\.bmp, \.jpeg"):
        list_images(_files(tmp_path / "z", "1.txt"))


# ---- content ---------------------------------------------------------------------------------------------------------------------------


def _signals(name: str, values: Sequence[int], files: Sequence[int]) -> OwnSignals:
    n = len(values)
    images = np.array(values, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), dtype=np.uint8)
    names = tuple(f"{chr(97 + number)}.png" for number in range(max(files) + 1))
    file = np.array(files, dtype=np.int64)
    return OwnSignals(name, images, names, file, 10 * np.arange(n), np.arange(n) + 1, file)


def test_copies_are_left_out_and_their_files_are_one_group() -> None:
    """File a holds 1, 2; b holds 2, 3; c holds 3, 3; d holds 4: a, b and c hang together through b."""
    found, told = distinct_signals(_signals("x", [1, 2, 2, 3, 3, 3, 4], [0, 0, 1, 1, 2, 2, 3]))
    assert found.values[:, 0, 0].tolist() == [1, 2, 3, 4]
    assert found.file.tolist() == [0, 0, 1, 3]
    assert found.start.tolist() == [0, 10, 30, 60]
    assert found.sounding.tolist() == [1, 2, 4, 7]
    assert len(set(found.group[:3].tolist())) == 1
    assert found.group[3] not in found.group[:3]
    assert told == ["b.png (as a.png)", "c.png (as b.png)"]
    assert distinct_signals(_signals("x", [1, 1], [0, 0]))[1] == ["a.png (repeats itself)"]


def test_content_of_two_classes() -> None:
    first, second = _signals("x", [1, 2], [0, 1]), _signals("y", [3, 2], [0, 1])
    with pytest.raises(DataError, match=r"two classes have the same content: x/b\.png and y/b\.png\. .*remove one of the two$"):
        check_no_shared_content([first, second])
    check_no_shared_content([first, _signals("y", [3, 4], [0, 1])])
    check_no_shared_content([_signals("x", [1, 1], [0, 1])])
    with pytest.raises(DataError, match=r"x/a\.png and y/a\.png, x/b\.png and y/b\.png\. .*remove one of each two$"):
        check_no_shared_content([first, _signals("y", [1, 2], [0, 1])])


# ---- lists -----------------------------------------------------------------------------------------------------------------------------


def _plan(**changes: Any) -> ListPlan:
    return ListPlan(**({"suite": "own", "agnostic": False, "n_sources": 2, "gains": False, "snr_db": 0.0, "mixtures": None, "unit": "file"} | changes))


def _parts(test: int, train: int = 0, validation: int = 0) -> list[dict[str, OwnSignals]]:
    made = []
    for name in ("x", "y"):
        part, first = {}, 0
        for split, count in (("test", test), ("train", train), ("validation", validation)):
            if count:
                signals = _signals(name, list(range(first, first + count)), list(range(first, first + count)))
                part[split] = replace(signals, sounding=np.ones(count, dtype=np.int64))
                first += count
        made.append(part)
    return made


def test_lists_of_two_classes() -> None:
    made = make_lists(_plan(mixtures=4), _parts(3, train=4, validation=2))
    assert made.sizes == {"class-split": 4, "class-split-val": 1}
    rows = made.pairs["class-split"].decode().splitlines()[1:]
    assert len(rows) == len(set(rows)) == 4
    assert make_lists(_plan(), _parts(3)).sizes == {"class-split": 9}  # all that three and three files make
    mixed, observed = (
        [[int(cell) for cell in row.split(",")] for row in made.pairs[f"class-split.train-{kind}"].decode().splitlines()[1:]]
        for kind in ("mixtures", "observed")
    )
    assert not {row[-1] for row in mixed} & {row[-1] for row in observed}
    assert len(mixed) + len(observed) == 4
    assert len({row[-1] for row in mixed}) == len(mixed)
    assert not any("train" in stem for stem in make_lists(_plan(), _parts(3)).pairs)
    keys = made.clusters["class-split"].decode().splitlines()
    assert keys[0] == "example,file_0,file_1"
    pairs = [row.split(",") for row in rows]
    assert [row.split(",")[1:] for row in keys[1:]] == [[f"x/{pair[-2]}", f"y/{pair[-1]}"] for pair in pairs]


def test_validation_has_a_fifth_as_many_or_what_there_is() -> None:
    assert make_lists(_plan(mixtures=16), _parts(4, validation=3)).sizes["class-split-val"] == 3
    assert make_lists(_plan(mixtures=16), _parts(4, validation=1)).sizes["class-split-val"] == 1
    agnostic = make_lists(_plan(agnostic=True, mixtures=3), _parts(3)[:1])
    assert agnostic.sizes == {"class-agnostic": 3}


@pytest.mark.parametrize(
    ("plan", "test", "told"),
    [
        ({"mixtures": 10}, 3, "the test files (3 of x and 3 of y) make 9 different mixtures, not 10; ask for at most 9, "),
        ({"mixtures": 0}, 3, "--mixtures must be at least 1, got 0"),
    ],
)
def test_more_mixtures_than_the_files_make(plan: dict[str, Any], test: int, told: str) -> None:
    with pytest.raises(DataError) as caught:
        make_lists(_plan(**plan), _parts(test))
    assert str(caught.value).startswith(told)
    with pytest.raises(DataError, match=r"\(1 of x\) make 0 different mixtures, not 1; add files"):
        make_lists(_plan(agnostic=True), _parts(1)[:1])


# ---- sounds ----------------------------------------------------------------------------------------------------------------------------


def _folders(*files: tuple[str, int, int, int, str]) -> tuple[list[Any], list[Any]]:
    folder = SimpleNamespace(files=[Path(name) for name, *_ in files])
    return [folder], [[SimpleNamespace(sample_rate=rate, length=length, channels=channels, coding=coding) for _, rate, length, channels, coding in files]]


GOOD = ("a.wav", 8000, 8000, 1, "PCM_16")


def test_the_rate_of_sounds() -> None:
    folders, infos = _folders(GOOD, ("b.wav", 16000, 8000, 1, "PCM_16"), ("c.wav", 8000, 9, 1, "PCM_16"))
    with pytest.raises(DataError, match=r"different rates: 2 of 8,000 Hz, 1 of 16,000 Hz; choose one with --rate 8000"):
        _rate(None, folders, infos)
    assert _rate(8000, folders, infos) == 8000
    assert _rate(4000, folders, infos) == 4000
    with pytest.raises(DataError, match=r"--rate 9000 is above the rate of 2 files: a\.wav has 8,000 Hz, c\.wav has 8,000 Hz; choose --rate 8000"):
        _rate(9000, folders, infos)
    with pytest.raises(DataError, match="at least 1 Hz, got 0"):
        _rate(0, folders, infos)
    assert _rate(None, *_folders(GOOD)) == 8000
    with pytest.raises(DataError, match="the rate of 1 file: "):
        _rate(8001, *_folders(GOOD))


def test_what_is_said_of_sounds_that_do_not_fit() -> None:
    assert _checked(*_folders(GOOD), 8000, 8000, False) == []
    odd = ("b.wav", 16000, 32000, 2, "PCM_24")
    with pytest.raises(DataError, match=r"^1 file is not 8,000 Hz, mono, 16 bits: b\.wav has 16,000 Hz, 2 channels, PCM_24 samples; "):
        _checked(*_folders(GOOD, odd), 8000, 8000, False)
    (note,) = _checked(*_folders(GOOD, odd), 8000, 8000, True)
    assert "8,000 Hz" in note
    assert "b.wav has 16,000 Hz, 2 channels, PCM_24 samples" in note
    assert "a.wav" not in note
    short = ("c.wav", 8000, 6000, 1, "PCM_16")
    with pytest.raises(
        DataError, match=r"^1 file is shorter than --seconds 1: c\.wav lasts 0\.75 s; --seconds 0\.75 keeps all 2 files; with --convert, --seconds 1 drops 1$"
    ):
        _checked(*_folders(GOOD, short), 8000, 8000, False)
    (note,) = _checked(*_folders(GOOD, short), 8000, 8000, True)
    assert "1 s" in note
    assert "c.wav lasts 0.75 s" in note
    with pytest.raises(DataError) as refused:
        _checked(*_folders(GOOD, short), 8000, 16000, True)
    told = "all 2 files are shorter than --seconds 2, they last 0.75 to 1 s; --seconds 0.75 keeps all 2 files; with --convert, --seconds 1 drops 1"
    assert str(refused.value) == told
    with pytest.raises(DataError, match=r"^the only file is shorter than --seconds 2; --seconds 0\.75 keeps it$"):
        _checked(*_folders(short), 8000, 16000, True)


@pytest.mark.parametrize(
    ("lengths", "keeps", "drops"),
    [
        ([100, *range(1000, 10_000, 500), 20_000], "0.01", "--seconds 0.15 drops 2, --seconds 0.55 drops 10"),  # hundredths, rounded down
        ([9_990] * 9 + [10_100], "0.99", ""),
        ([3, 4_000, 9_000], "0.0003", "--seconds 0.4 drops 1"),
    ],
)
def test_the_seconds_that_are_proposed_and_what_they_drop(lengths: list[int], keeps: str, drops: str) -> None:
    """What all files have comes first; then what nine tenths and half of them have."""
    files = [(f"{number}.wav", 10_000, length, 1, "PCM_16") for number, length in enumerate(lengths)]
    with pytest.raises(DataError) as refused:
        _checked(*_folders(*files), 10_000, 30_000, False)
    _, _, proposed = str(refused.value).partition("; ")
    assert proposed == f"--seconds {keeps} keeps all {len(lengths)} files" + (f"; with --convert, {drops}" if drops else "")
    for text in [keeps, *re.findall(r"--seconds (\S+) drops", drops)]:
        dropped = sum(length < round(float(text) * 10_000) for length in lengths)
        assert dropped == int(dict(re.findall(r"--seconds (\S+) drops (\d+)", drops)).get(text, 0))


def test_floats_beyond_full_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {"b.wav": 1.0, "c.wav": 2.5, "d.wav": 1.25}
    monkeypatch.setattr(sepbench.data.own.sounds, "_peak", lambda path, info: peaks[path.name])
    folders, infos = _folders(GOOD, *((name, 8000, 8000, 1, "FLOAT") for name in peaks))
    with pytest.raises(DataError, match=r"^2 files are of floats beyond full scale, 1: c\.wav reaches 2\.5, d\.wav reaches 1\.25; "):
        _checked(folders, infos, 8000, 8000, True)
    peaks |= dict.fromkeys(peaks, 1.0)
    (note,) = _checked(folders, infos, 8000, 8000, True)
    assert "b.wav has FLOAT samples" in note


def test_counts_of_faults() -> None:
    assert (_counted(["a"]), _counted(["a"] * 1500)) == ("1 file is", "1,500 files are")
    _stop_at([])
    with pytest.raises(DataError, match=r"^a; b; c$"):
        _stop_at([*"abc"])
    with pytest.raises(DataError, match=r"^a; b; c; and 2 more files$"):
        _stop_at([*"abcde"])


# ---- stored ----------------------------------------------------------------------------------------------------------------------------


def test_where_a_split_lies(tmp_path: Path) -> None:
    assert split_file(tmp_path, "beside:data/x", "test") == tmp_path / "data" / "x" / "test.npy"
    for name in ("beside:", "beside:/data", "beside:../x", "beside:a/../../x"):
        with pytest.raises(DataError, match=f"'{name}'"):
            split_file(tmp_path, name, "test")
    with pytest.raises(DataError, match="unknown split 'tset'; data set 'beside:x' has train, validation, test"):
        split_file(tmp_path, "beside:x", "tset")
