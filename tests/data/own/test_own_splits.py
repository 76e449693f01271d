"""The law of the split: every file in one part, the parts add up, files that share content stay together."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sepbench.data.own.signals import OwnSignals, check_no_shared_content, distinct_signals
from sepbench.data.own.splits import SPLITS, groups_for, share_for, split_groups, split_sizes
from sepbench.errors import DataError

SHARES = st.integers(0, 20).map(lambda n: n / 20)


def sounds(contents: list[list[int]], name: str = "a") -> OwnSignals:
    """Files whose pieces are numbers: equal numbers are equal content."""
    values = np.array([[value, 7] for file in contents for value in file], dtype=np.int16)
    file = np.array([number for number, file in enumerate(contents) for _ in file], dtype=np.int64)
    ones = np.ones(len(file), dtype=np.int64)
    return OwnSignals(name, values, tuple(f"{n}.wav" for n in range(len(contents))), file, 0 * ones, ones, file)


@given(st.integers(1, 500), SHARES, SHARES, st.integers(1, 4))
def test_the_parts_add_up_and_none_that_is_wanted_is_empty(n: int, validation: float, test: float, least: int) -> None:
    assume(test > 0 and validation + test <= 1)
    trains = validation + test < 1 - 1e-9
    needed = int(trains) + least * (1 + (validation > 0))
    if n < needed:
        with pytest.raises(DataError, match="cannot be split"):
            split_sizes(n, validation, test, least)
        return
    sizes = dict(zip(SPLITS, split_sizes(n, validation, test, least), strict=True))
    assert sum(sizes.values()) == n
    assert sizes["test"] >= least
    assert sizes["validation"] >= least if validation else sizes["validation"] == 0
    assert sizes["train"] >= 1 if trains else sizes["train"] == 0
    if n >= 40 * least:  # enough files for the shares themselves
        assert abs(sizes["test"] - test * n) <= 1
        assert abs(sizes["validation"] - validation * n) <= 1


@given(st.lists(st.integers(1, 120), min_size=1, max_size=4), SHARES, st.integers(1, 30), st.integers(1, 4))
def test_the_share_named_is_the_smallest_that_is_enough(groups: list[int], validation: float, enough: int, least: int) -> None:
    def tests_of(share: float) -> int:
        try:
            return min(split_sizes(n, validation, share, least)[2] for n in groups)
        except DataError:
            return 0

    share = share_for(enough, groups, validation, least)
    enough_at = [k / 100 for k in range(1, 100) if validation + k / 100 < 1 - 1e-9 and tests_of(k / 100) >= enough]
    assert share == (enough_at[0] if enough_at else None)
    n = groups_for(enough, 0.1, 0.2, least)
    assert split_sizes(n, 0.1, 0.2, least)[2] >= enough
    with pytest.raises((DataError, AssertionError)):
        assert split_sizes(n - 1, 0.1, 0.2, least)[2] >= enough


@given(st.lists(st.integers(0, 30), min_size=4, max_size=60), st.text("abc", max_size=5))
def test_groups_are_never_apart(groups: list[int], name: str) -> None:
    assume(len(set(groups)) >= 3)
    numbers = np.array(groups, dtype=np.int64)
    places = split_groups(name, numbers, 0.1, 0.2)
    assert len(places) == len(groups)
    found = defaultdict(set)
    for group, place in zip(groups, places.tolist(), strict=True):
        found[group].add(place)
    assert all(len(places) == 1 for places in found.values())
    sizes = [sum(places == {place} for places in found.values()) for place in range(3)]
    assert tuple(sizes) == split_sizes(len(found), 0.1, 0.2)


@pytest.mark.parametrize(
    ("validation", "test", "says"),
    [
        (0.1, 1.0, "--val 0.1 and --test 1 are more than all files; .* --val 0 --test 1"),
        (0.1, 0.0, "--test 0 leaves nothing"),
        (-0.1, 0.5, "--val is a share"),
        (0.1, float("nan"), "--test is a share"),
        (0.1, 20.0, "--test is a share"),
    ],
)
def test_shares_that_cannot_be(validation: float, test: float, says: str) -> None:
    with pytest.raises(DataError, match=says):
        split_sizes(100, validation, test)


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=4), min_size=1, max_size=15))
def test_no_content_is_kept_twice_and_no_two_groups_share_any(contents: list[list[int]]) -> None:
    kept, told = distinct_signals(sounds(contents))
    values = kept.values[:, 0].tolist()
    assert sorted(values) == sorted({value for file in contents for value in file})
    group_of = dict(zip(kept.file.tolist(), kept.group.tolist(), strict=True))
    for first, mine in enumerate(contents):
        for second, other in enumerate(contents):
            if set(mine) & set(other) and first in group_of and second in group_of:
                assert group_of[first] == group_of[second]
    assert bool(told) == (len(values) < sum(map(len, contents)))


def test_copies_are_told() -> None:
    kept, told = distinct_signals(sounds([[1, 2], [3], [2, 4], [5, 5]]))
    assert told == ["2.wav (as 0.wav)", "3.wav (repeats itself)"]
    assert kept.group.tolist() == [0, 0, 1, 0, 3]


def test_content_of_two_classes_is_refused() -> None:
    check_no_shared_content([sounds([[1], [2]]), sounds([[3]], "b")])
    with pytest.raises(DataError, match=r"a piece of the same content: a/1\.wav and b/0\.wav, a/0\.wav and b/1\.wav\. .* is pieces .* remove one of each two"):
        check_no_shared_content([sounds([[1], [2]]), sounds([[2, 3], [1]], "b")])


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.0, 0.5), (0.1, 0.6), (0.0, 0.8), (0.1, 0.9), (0.0, 1.0), (0.4, 0.4)])
@pytest.mark.parametrize(("enough", "least"), [(1, 1), (5, 1), (10, 2), (30, 4)])
def test_the_number_of_groups_named_is_the_smallest_that_is_enough(enough: int, least: int, validation: float, test: float) -> None:
    def tested(n: int) -> int:
        try:
            return split_sizes(n, validation, test, least)[2]
        except DataError:
            return 0

    assert groups_for(enough, validation, test, least) == next(n for n in range(1, 1000) if tested(n) >= enough)
