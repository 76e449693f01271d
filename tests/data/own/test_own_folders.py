"""Which files of a folder count: kinds, subfolders, links, and folders that are given carelessly."""

from __future__ import annotations

from pathlib import Path

import pytest

from sepbench.data.own.folders import first_three, open_folders
from sepbench.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_images_of_subfolders_count_in_natural_order_and_other_kinds_are_told(tmp_path: Path) -> None:
    a, b = touch(tmp_path / "a", "10.png", "9.PNG", "deep/er/1.jpg", "notes.txt", ".hidden.png", "Makefile"), touch(tmp_path / "b", "x.tif")
    kind, (first, second) = open_folders([a, b])
    assert kind == "image"
    assert [first.name(file) for file in first.files] == ["9.PNG", "10.png", "deep/er/1.jpg"]
    assert sorted(first.name(file) for file in first.others) == ["Makefile", "notes.txt"]
    assert [second.name(file) for file in second.files] == ["x.tif"]
    assert open_folders([touch(tmp_path / "c", "1.wav", "2.flac")])[0] == "audio"


def test_a_linked_file_and_folder_count_once(tmp_path: Path) -> None:
    real = touch(tmp_path / "elsewhere", "1.png")
    a = touch(tmp_path / "a", "2.png")
    (a / "more").symlink_to(real)
    (a / "0.png").symlink_to(real / "1.png")
    assert [file.name for file in open_folders([a])[1][0].files] == ["0.png", "2.png", "1.png"]


def _twice(root: Path) -> list[Path]:
    return [touch(root / "a", "1.png"), root / "a"]


def _twice_by_link(root: Path) -> list[Path]:
    (root / "b").symlink_to(touch(root / "a", "1.png"))
    return [root / "a", root / "b"]


def _nested(root: Path) -> list[Path]:
    return [touch(root / "a" / "b", "1.png"), root / "a"]


def _loop(root: Path) -> list[Path]:
    touch(root / "a", "1.png")
    (root / "a" / "again").symlink_to(root / "a")
    return [root / "a"]


def _itself(root: Path) -> list[Path]:
    touch(root / "a", "1.png")
    (root / "a" / "self").symlink_to("self")
    return [root / "a"]


CASES = {
    "no folder": (lambda root: [root / "nowhere"], r"nowhere is not a folder"),
    "a file": (lambda root: [touch(root, "1.png") / "1.png"], r"1\.png is not a folder"),
    "empty": (lambda root: [touch(root / "a", ".DS_Store")], r"the folder .*a has no files; put images \(.*\) or sounds \(.*\) there"),
    "other kinds": (lambda root: [touch(root / "a", "1.ogg", "2.ogg", "3.md")], r"only 2 of \.ogg, 1 of \.md; put images"),
    "both kinds": (lambda root: [touch(root / "a", "1.png", "2.png"), touch(root / "b", "1.wav")], r"both images \(2\) and sounds \(1\)"),
    "twice": (_twice, r"a is given twice; every class"),
    "twice by a link": (_twice_by_link, r"b is given twice, also as .*a; every class"),
    "one in the other": (_nested, r"a/b is a folder within .*a, so its files would be of two classes"),
    "a loop": (_loop, r"again and .*a are one folder, reached by a link"),
    "a link to itself": (_itself, r"self is a link to self, which is not there"),
}


@pytest.mark.parametrize(("make", "says"), CASES.values(), ids=CASES.keys())
def test_careless_folders_are_one_line(tmp_path: Path, make, says: str) -> None:
    with pytest.raises(DataError, match=says):
        open_folders(make(tmp_path))


def test_three_are_named_and_the_rest_counted() -> None:
    assert first_three(["a"]) == "a"
    assert first_three(["a", "b", "c"]) == "a, b, c"
    assert first_three(list("abcde")) == "a, b, c and 2 more"
