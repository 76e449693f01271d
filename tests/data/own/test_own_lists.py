"""Lists of a user's own signals by hand: how many, of what, with which keys and gains; and what is said of folders and files, in full."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sepbench.data.own.folders import OwnFolder, _files, open_folders
from sepbench.data.own.images import read_images
from sepbench.data.own.lists import ListPlan, make_lists
from sepbench.data.own.signals import OwnSignals, check_no_shared_content
from sepbench.errors import DataError

PLAN = ListPlan("own", False, 2, False, 0.0, None, "image")


def of(name: str, n: int, values: np.ndarray | None = None, groups: list[int] | None = None, sounding: list[int] | None = None) -> OwnSignals:
    """``n`` signals of as many files."""
    numbers = np.arange(n, dtype=np.int64)
    columns = [numbers if one is None else np.array(one, dtype=np.int64) for one in (None, [0] * n, sounding or [1] * n, groups)]
    return OwnSignals(name, np.zeros((n, 2, 2), np.uint8) if values is None else values, tuple(f"{k}.png" for k in range(n)), *columns)


def rows(content: bytes) -> list[list[str]]:
    return [line.split(",") for line in content.decode().splitlines()]


# --- lists ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("splits", "changes", "sizes", "training"),
    [
        ([{"test": 4}, {"test": 5}], {}, {"class-split": 20}, False),
        ([{"test": 40}, {"test": 40}], {}, {"class-split": 1000}, False),
        ([{"test": 4, "validation": 2}, {"test": 4, "validation": 3}], {"mixtures": 15}, {"class-split": 15, "class-split-val": 3}, False),
        ([{"test": 4, "validation": 2}, {"test": 4, "validation": 3}], {"mixtures": 4}, {"class-split": 4, "class-split-val": 1}, False),
        ([{"test": 4, "validation": 1}, {"test": 4, "validation": 1}], {"mixtures": 15}, {"class-split": 15, "class-split-val": 1}, False),
        ([{"test": 4, "validation": 2}, {"test": 4}], {}, {"class-split": 16}, False),  # of both classes or not at all
        ([{"test": 2, "train": 3}, {"test": 2, "train": 2}], {}, {"class-split": 4}, True),
        ([{"test": 2, "train": 3}, {"test": 2}], {}, {"class-split": 4}, False),
        ([{"test": 2, "train": 3}, {"test": 2, "train": 1}], {}, {"class-split": 4}, False),  # one file has no halves
        ([{"test": 2, "train": 3}] * 3, {"n_sources": 3}, {"class-split": 8}, False),
        ([{"test": 4, "train": 4, "validation": 2}], {"agnostic": True}, {"class-agnostic": 6, "class-agnostic-val": 1}, False),
        ([{"test": 4, "validation": 1}], {"agnostic": True}, {"class-agnostic": 6}, False),  # one file makes no mixture
        ([{"test": 4, "validation": 3}], {"agnostic": True, "n_sources": 3}, {"class-agnostic": 4, "class-agnostic-val": 1}, False),
    ],
)
def test_which_lists_there_are_and_how_long(splits: list[dict[str, int]], changes: dict[str, Any], sizes: dict[str, int], training: bool) -> None:
    plan = replace(PLAN, **changes)
    made = make_lists(plan, [{split: of("xyz"[k], n) for split, n in part.items()} for k, part in enumerate(splits)])
    assert made.sizes == sizes
    assert list(made.clusters) == list(sizes) == list(made.used)
    trained = [f"{plan.task}.train-mixtures", f"{plan.task}.train-observed"] if training else []
    assert list(made.pairs) == [*sizes, *trained]
    for name, n in sizes.items():
        assert len(rows(made.pairs[name])) == len(rows(made.clusters[name])) == n + 1
        assert len(rows(made.pairs[name])[0]) == plan.n_sources + 1


def test_keys_are_groups_of_files_and_the_fewest_of_a_source_are_told() -> None:
    parts = [{"test": of("low", 3, groups=[7, 7, 9])}, {"test": of("high", 2, groups=[4, 4])}]
    made = make_lists(PLAN, parts)
    keys = {0: "low/7", 1: "low/7", 2: "low/9"}
    found = [(f"low/{'7' if int(low) < 2 else '9'}", "high/4") for _, low, _ in rows(made.pairs["class-split"])[1:]]
    assert [tuple(row[1:]) for row in rows(made.clusters["class-split"])[1:]] == found
    assert rows(made.clusters["class-split"])[0] == ["example", "image_0", "image_1"]
    assert made.used == {"class-split": 1}
    assert len({keys[int(row[1])] for row in rows(made.pairs["class-split"])[1:]}) == 2
    one = make_lists(replace(PLAN, agnostic=True), [{"test": of("low", 4, groups=[1, 1, 2, 3])}])
    assert one.sizes == {"class-agnostic": 5}  # six pairs, one of which is of one group
    assert one.used == {"class-agnostic": min(len({row[k] for row in rows(one.clusters["class-agnostic"])[1:]}) for k in (1, 2))}


def test_halves_of_the_second_class_are_observed_or_mixed_by_group() -> None:
    groups = [0, 0, 0, 0, 0, 1, 2, 3]
    made = make_lists(PLAN, [{"test": of("x", 2), "train": of("x", 3)}, {"test": of("y", 2), "train": of("y", 8, groups=groups)}])
    observed = [int(row[1]) for row in rows(made.pairs["class-split.train-observed"])[1:]]
    mixed = [int(row[2]) for row in rows(made.pairs["class-split.train-mixtures"])[1:]]
    assert observed == sorted(observed)
    assert len(observed) in (2, 6)  # two groups of four, of which one has five signals
    assert sorted(observed + mixed) == list(range(8))
    assert not {groups[row] for row in observed} & {groups[row] for row in mixed}
    assert {int(row[1]) for row in rows(made.pairs["class-split.train-mixtures"])[1:]} <= {0, 1, 2}
    one = make_lists(PLAN, [{"test": of("x", 2), "train": of("x", 3)}, {"test": of("y", 2), "train": of("y", 2, groups=[5, 5])}])
    assert list(one.pairs) == ["class-split"]  # one group has no halves


def test_gains_bring_sounds_to_their_level() -> None:
    sounds = [np.full((2, 4), level, np.int16) for level in (8000, 2000)]
    parts = [{split: of(name, 2, values) for split in ("test", "train")} for name, values in zip("xy", sounds, strict=True)]
    plan = replace(PLAN, gains=True, snr_db=20.0)
    made = make_lists(plan, parts)
    for name in ("class-split", "class-split.train-mixtures"):
        head, *lines = rows(made.pairs[name])
        assert head == ["example", "source_0", "source_1", "gain_0", "gain_1"]
        assert {tuple(row[3:]) for row in lines} == {("1.0", "0.4")}  # four times as loud, less twenty decibels
    assert rows(make_lists(PLAN, parts).pairs["class-split"])[0] == ["example", "source_0", "source_1"]
    assert rows(made.pairs["class-split.train-observed"])[0] == ["example", "source_0"]


def test_sounds_are_mixed_where_both_sound() -> None:
    made = make_lists(PLAN, [{"test": of("x", 3, sounding=[1, 2, 3])}, {"test": of("y", 2, sounding=[1, 2])}])
    assert {tuple(row[1:]) for row in rows(made.pairs["class-split"])[1:]} == {("0", "0"), ("1", "1"), ("2", "0"), ("2", "1")}


def test_the_order_hangs_on_the_suites_name_and_the_task() -> None:
    parts = [{"test": of("x", 9), "validation": of("x", 9)}, {"test": of("y", 9), "validation": of("y", 9)}]
    one, other = make_lists(replace(PLAN, mixtures=45), parts), make_lists(replace(PLAN, mixtures=45, suite="another"), parts)
    assert one.pairs["class-split"] != other.pairs["class-split"]
    assert one.pairs["class-split"] == make_lists(replace(PLAN, mixtures=45), parts).pairs["class-split"]
    assert rows(one.pairs["class-split"])[:9] != rows(one.pairs["class-split-val"])[:9]


@pytest.mark.parametrize(
    ("splits", "changes", "told"),
    [
        ([2, 3], {"mixtures": 7}, "the test files (2 of x and 3 of y) make 6 different mixtures, not 7; ask for at most 6, add files, or give a larger --test"),
        ([1], {"agnostic": True}, "the test files (1 of x) make 0 different mixtures, not 1; add files, or give a larger --test"),
        ([1], {"agnostic": True, "mixtures": 5}, "the test files (1 of x) make 0 different mixtures, not 5; add files, or give a larger --test"),
        ([2, 2], {"mixtures": -1}, "--mixtures must be at least 1, got -1"),
        ([2, 2], {"mixtures": 0}, "--mixtures must be at least 1, got 0"),
    ],
)
def test_mixtures_that_cannot_be_made(splits: list[int], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        make_lists(replace(PLAN, **changes), [{"test": of("xy"[k], n)} for k, n in enumerate(splits)])
    assert str(caught.value) == told


def test_files_that_share_content_count_once_in_what_is_said() -> None:
    with pytest.raises(DataError, match=r"^the test files \(2 of x\) make 2 different mixtures, not 5; ask for at most 2, "):
        make_lists(replace(PLAN, agnostic=True, mixtures=5), [{"test": of("x", 3, groups=[1, 1, 2])}])


# --- content of two classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (np.uint8, "have the same content: x/0.png and y/1.png. What is compared is images, as they are cut and resized for the suite; remove one of the two"),
        (
            np.int16,
            "have a piece of the same content: x/0.png and y/1.png. "
            "What is compared is pieces of sounds, as they are cut and converted for the suite; remove one of the two",
        ),
    ],
)
def test_shared_content_is_told_in_full(kind: type, told: str) -> None:
    first, second = of("x", 2, np.array([[1], [2]], kind)), of("y", 3, np.array([[3], [1], [1]], kind))
    second = replace(second, file=np.array([0, 1, 1]))
    with pytest.raises(DataError) as caught:
        check_no_shared_content([first, second])
    assert str(caught.value) == f"two classes {told}"


# --- folders --------------------------------------------------------------------------------------------------------------------------


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_what_is_said_of_folders(tmp_path: Path) -> None:
    a, b, c, d = (tmp_path / name for name in "abcd")
    touch(a / "1.png", a / "2.jpg", b / "1.wav", c / "1.txt", c / "x", d / ".hidden", a / "in" / "3.bmp")
    kinds = "images (.bmp, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp) or sounds (.flac, .wav)"
    cases: list[tuple[list[Path], str]] = [
        ([a / "1.png"], f"{a / '1.png'} is not a folder; --sources takes the folders that hold the files, one per class"),
        ([a, a], f"{a} is given twice; every class needs a folder of its own"),
        ([a, a / "in"], f"{a / 'in'} is a folder within {a}, so its files would be of two classes; give folders that are beside each other"),
        ([a, b], "the folders have both images (3) and sounds (1); make one suite of each kind"),
        ([a, c], f"the folder {c} has only 1 of .txt, 1 of no ending; put {kinds} there, or convert its files to those"),
        ([a, d], f"the folder {d} has no files; put {kinds} there, or convert its files to those"),
    ]
    for paths, told in cases:
        with pytest.raises(DataError) as caught:
            open_folders(paths)
        assert str(caught.value) == told


def test_a_folder_that_vanished_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _files(tmp_path / "gone")
    assert str(caught.value) == f"{tmp_path / 'gone'} cannot be read: No such file or directory; check that the file is there and readable"


def test_files_of_subfolders_come_after_those_beside_them(tmp_path: Path) -> None:
    touch(*(tmp_path / name for name in ("b/2.txt", "b/d/3.txt", "z.txt", "a/1.txt", "c/4.png")))
    (found,) = open_folders([tmp_path])[1]
    assert [found.name(file) for file in found.others] == ["z.txt", "a/1.txt", "b/2.txt", "b/d/3.txt"]


# --- images ---------------------------------------------------------------------------------------------------------------------------

images = pytest.importorskip("PIL.Image", reason="pillow is not installed")


def pictures(folder: Path, *sizes: tuple[int, int], channels: int = 3) -> OwnFolder:
    folder.mkdir(exist_ok=True)
    files = []
    for number, (width, height) in enumerate(sizes):
        shape = (height, width, channels) if channels > 1 else (height, width)
        values = np.random.default_rng(number).integers(0, 255, shape, dtype=np.uint8)
        files.append(folder / f"{number}.png")
        images.fromarray(values).save(files[-1])
    return OwnFolder(folder, tuple(files), ())


@pytest.mark.parametrize("size", [7, 4097, 0, -8])
def test_sizes_that_cannot_be(tmp_path: Path, size: int) -> None:
    with pytest.raises(DataError) as caught:
        read_images([pictures(tmp_path / "a", (9, 9))], ["a"], size, False)
    assert str(caught.value) == f"--size must be from 8 to 4096 pixels, got {size}"


def test_images_of_the_least_size_are_read_and_enlarged_ones_told(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", (8, 20), (9, 8), (30, 7), (9, 9))
    (made,), notes = read_images([folder], ["name"], 8, False)
    assert (made.name, made.values.shape, made.file_names) == ("name", (4, 8, 8, 3), ("0.png", "1.png", "2.png", "3.png"))
    assert (made.file.tolist(), made.start.tolist(), made.sounding.tolist(), made.group.tolist()) == ([0, 1, 2, 3], [0] * 4, [1] * 4, [0, 1, 2, 3])
    assert notes == [f"smaller than 8 x 8 and enlarged: {folder.files[2]}"]
    assert read_images([pictures(tmp_path / "b", (8, 9))], ["b"], None, False)[0][0].values.shape == (1, 9, 8, 3)


def test_images_of_several_sizes_or_too_small_are_told(tmp_path: Path) -> None:
    first, second = pictures(tmp_path / "a", (9, 10), (9, 10)), pictures(tmp_path / "b", (10, 9))
    with pytest.raises(DataError) as caught:
        read_images([first, second], ["a", "b"], None, False)
    where = f"9 x 10 ({first.files[0]}), 10 x 9 ({second.files[0]})"
    assert str(caught.value) == f"the images have 2 sizes: {where}; --size 64 brings all to 64 x 64"
    for size in ((20, 7), (7, 20)):
        with pytest.raises(DataError) as caught:
            read_images([pictures(tmp_path / "c", size)], ["c"], None, False)
        told = f"the images are {size[0]} x {size[1]}; at least 8 x 8 are needed: --size brings them to another size"
        assert str(caught.value) == told


def test_one_grey_image_among_colour(tmp_path: Path) -> None:
    colour, grey = pictures(tmp_path / "a", (9, 9), (9, 9)), pictures(tmp_path / "b", (9, 9), channels=1)
    with pytest.raises(DataError) as caught:
        read_images([colour, grey], ["a", "b"], None, False)
    assert str(caught.value) == f"1 of 3 images is grey, the others colour: {grey.files[0]}; --convert gives them three equal channels"
    (_, made), notes = read_images([colour, grey], ["a", "b"], None, True)
    assert notes == [f"grey among colour, given three equal channels: {grey.files[0]}"]
    assert np.array_equal(made.values[0, ..., 0], made.values[0, ..., 2])
    assert read_images([grey], ["b"], None, False)[0][0].values.shape == (1, 9, 9)
