"""Files of cluster keys: what is written is read, and each way to damage one is told with its place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from sepbench.data.lists.clusters import clusters_csv, independent, of_names, of_signals, read_clusters
from sepbench.errors import SuiteError


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.csv"
    raw = clusters_csv([("b", "a"), ("c", "b"), ("b", "c")], "song", 2)
    assert raw.decode() == "example,song_0,song_1\n0,b,a\n1,c,b\n2,b,c\n"
    path.write_bytes(raw)
    found = read_clusters(path, hashlib.sha256(raw).hexdigest())
    assert (found.unit, len(found), found.n) == ("song", 3, 2)
    assert found.keys.tolist() == [[1, 0], [2, 1], [1, 2]]  # one number for one text, in whatever slot
    assert found.of(np.array([2, 0])).keys.tolist() == [[1, 2], [1, 0]]
    assert found.of(np.array([2, 0])).unit == "song"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("example,song_0\n0,a\n2,b\n", "line 3: wanted example 1 and 1 keys"),
        ("example,song_0,song_1\n0,a,b\n1,a\n", "line 3: wanted example 1 and 2 keys"),
        ("example,song_0,song_1\n0,a,\n", "line 2: wanted example 0 and 2 keys"),
        ("example,song_0\n", "has no examples"),
        ("", "must start with example,UNIT_0"),
        ("example\n0\n", "must start with example,UNIT_0.*found 'example'"),
        ("number,song_0\n0,a\n", "found 'number,song_0"),
        ("example,song_0,image_1\n0,a,b\n", "found 'example,song_0,image_1"),
        ("example,song_1\n0,a\n", "found 'example,song_1"),
        ('example,song_0\n0,"a\n', "not a CSV file"),
    ],
)
def test_a_damaged_file_is_told_with_its_place(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "keys.csv"
    path.write_text(content)
    with pytest.raises(SuiteError, match=told) as caught:
        read_clusters(path)
    assert str(path) in str(caught.value)


def test_another_file_than_the_frozen_one(tmp_path: Path) -> None:
    path = tmp_path / "keys.csv"
    path.write_text("example,song_0\n0,a\n")
    found, frozen = hashlib.sha256(path.read_bytes()).hexdigest(), "0" * 64
    with pytest.raises(SuiteError, match=f"have sha256 {found}, frozen is {frozen}"):
        read_clusters(path, frozen)
    with pytest.raises(SuiteError, match="cannot be read"):
        read_clusters(tmp_path / "none.csv")


def test_slots_share_signals_where_they_draw_from_one_pool() -> None:
    indices = np.array([[0, 1], [1, 2], [2, 0]])
    shared, apart = (of_signals(indices, pools, "image").keys for pools in (("a", "a"), ("a", "b")))
    assert shared[0, 1] == shared[1, 0]
    assert shared[1, 1] == shared[2, 0]
    assert shared[2, 1] == shared[0, 0]
    assert not set(apart[:, 0]) & set(apart[:, 1])
    assert of_signals(np.array([[0, 0], [0, 1], [0, 2]]), ("a", "b"), "image").n == 1  # of the slot that has fewest


def test_no_mixtures_and_independent_ones() -> None:
    assert independent(0).n == 0
    alone = independent(5)
    assert (alone.unit, alone.n, len(alone)) == ("mixture", 5, 5)
    assert of_names([["x"], ["x"]], "song").n == 1


def refused(path: Path, content: bytes, sha256: str = "") -> str:
    path.write_bytes(content)
    with pytest.raises(SuiteError) as caught:
        read_clusters(path, sha256)
    return str(caught.value)


def test_the_whole_line_of_what_is_refused(tmp_path: Path) -> None:
    path, first = tmp_path / "keys.csv", b"example,song_0,song_1\n"
    head = f"clusters {path} must start with example,UNIT_0,..,UNIT_K-1 (UNIT: song, image, ...), found "
    for content, found in (
        (b"", ""),
        (b"example\n", "example"),
        (b"example,Song_0\n", "example,Song_0"),
        (b"x" * 99, "x" * 80),
        (b"example,song_0,song_2\n", ""),
    ):
        assert refused(path, content) == f"{head}{found or content.decode().strip()!r}"
    for content, line, example in ((b"0,a,\n", 2, 0), (b"0,,b\n", 2, 0), (b"0,a,b\n1,a\n", 3, 1), (b"0,a,b\n1,a,b,c\n", 3, 1), (b"1,a,b\n", 2, 0)):
        assert refused(path, first + content) == f"clusters {path}, line {line}: wanted example {example} and 2 keys, none empty"
    assert refused(path, first) == f"the file of clusters {path} has no examples"
    found, frozen = hashlib.sha256(first).hexdigest(), "0" * 64
    assert refused(path, first, frozen) == f"clusters {path} have sha256 {found}, frozen is {frozen}; restore the file (reinstall sepbench)"
    assert refused(path, b"\xff").startswith(f"clusters {path} are not a CSV file: ")
    path.unlink()
    with pytest.raises(SuiteError) as caught:
        read_clusters(path)
    assert str(caught.value) == f"clusters {path} cannot be read: No such file or directory"


def test_units_are_words_and_go_with_the_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.csv"
    path.write_bytes(clusters_csv([("a,b", "é")], "original recording", 2).replace(b"a,b", b'"a,b"'))
    found = read_clusters(path)
    assert (found.unit, found.keys.tolist()) == ("original recording", [[0, 1]])
    assert of_signals(np.array([[3, 3]]), ("x", "x"), "image").unit == "image"
    assert of_signals(np.array([[3, 3]]), ("x", "x"), "image").keys.tolist() == [[0, 0]]
    assert of_signals(np.array([[7, 2], [2, 9]]), ("x", "y"), "tone").keys.tolist() == [[2, 1], [0, 3]]
    none = of_names([["x", "y"], ["z", "y"]], "song").of(np.array([], np.int64))
    assert (none.n, len(none), none.keys.shape) == (0, 0, (0, 2))
