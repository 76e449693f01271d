"""Why a folder does not go on: what differs, the run's value before ours, and the option that sets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sepbench.results.another_run import another_run

RUN = Path("runs/x")


@pytest.mark.parametrize(
    ("key", "there", "here", "told", "remedy"),
    [
        ("seed", 3, 5, "seed is 3 in runs/x and 5 here", "give --seed 3 to go on"),
        ("shard_size", 4, None, "shard_size is 4 in runs/x and null here", "give --shard-size 4 to go on"),
        ("timing_group", "a", "b", "timing_group is a in runs/x and b here", "choose another --out"),
        ("source_sha256 of method nmf", "a" * 64, "b" * 64, f"is {'a' * 12} in runs/x and {'b' * 12} here", "the code of nmf has changed"),
        ("version of method nmf", "1", "2", "version of method nmf is 1 in runs/x and 2 here", "choose another --out"),
    ],
)
def test_what_differs(key: str, there: object, here: object, told: str, remedy: str) -> None:
    text = another_run(RUN, key, there, here)
    assert text.startswith("runs/x holds another run: ")
    assert told in text
    assert remedy in text
    assert "\n" not in text


def test_settings_that_differ_are_named_alone() -> None:
    there = {"atoms": 3, "same": 1, "mode": "x", "gone": 1}
    text = another_run(RUN, "settings of method nmf", there, {"atoms": 4, "same": 1, "mode": "x", "gone": 1})
    assert "run of method nmf: atoms is 3 in runs/x and 4 here; give --set nmf.atoms=3 to go on" in text
    assert "same" not in text
    two = another_run(RUN, "settings of method nmf", there, {"atoms": 4, "same": 1, "mode": "y", "gone": 1})
    assert "atoms is 3 in runs/x and 4 here, mode is x in runs/x and y here; choose another" in two
    assert "gone is 1 in runs/x and not a setting here" in another_run(RUN, "settings of method nmf", there, {k: v for k, v in there.items() if k != "gone"})
    many = another_run(RUN, "settings of method nmf", dict.fromkeys("abcde", 1), dict.fromkeys("abcde", 2))
    assert "c is 1" in many
    assert "d is" not in many
    assert "2 more settings differ" in many


def test_long_values_are_cut() -> None:
    assert f"is {'x' * 40} in" in another_run(RUN, "k", "x" * 40, "y")
    assert f"is {'x' * 40}... in" in another_run(RUN, "k", "x" * 41, "y")
    assert 'is "" in' in another_run(RUN, "k", "", "y")
