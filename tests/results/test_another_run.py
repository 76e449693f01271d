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


def test_what_may_be_done_instead_stands_before_another_folder() -> None:
    end = "choose another --out"
    cases: list[tuple[str, object, object]] = [("source of method m", "a", "b"), ("version of method m", "1", "2"), ("settings of method m", {}, {"a": 1})]
    for key, there, here in [*cases, ("settings of method m", {"a": 2}, {"a": 1})]:
        plain = another_run(RUN, key, there, here)
        assert another_run(RUN, key, there, here, "give --x") == plain.replace(end, f"give --x, or {end}")


def test_long_values_are_cut() -> None:
    assert f"is {'x' * 40} in" in another_run(RUN, "k", "x" * 40, "y")
    assert f"is {'x' * 40}... in" in another_run(RUN, "k", "x" * 41, "y")
    assert 'is "" in' in another_run(RUN, "k", "", "y")


@pytest.mark.parametrize(
    ("key", "there", "here", "line"),
    [
        ("seed", 3, 5, "key is 3 in R and 5 here; give --seed 3 to go on with that run, or choose another --out"),
        ("budget", "quick", "paper", "key is quick in R and paper here; give --budget quick to go on with that run, or choose another --out"),
        ("device", "cuda", "cpu", "key is cuda in R and cpu here; give --device cuda to go on with that run, or choose another --out"),
        ("shard_size", 4, 5, "key is 4 in R and 5 here; give --shard-size 4 to go on with that run, or choose another --out"),
        ("fit_seed", 4, None, "key is 4 in R and null here; choose another --out"),
        ("source of method nmf", "a:A", "b:B", "key is a:A in R and b:B here: the code of nmf has changed since; choose another --out"),
        (
            "source_sha256 of method x",
            "a" * 64,
            "b" * 63 + "g",
            f"key is {'a' * 12} in R and {'b' * 40}... here: the code of x has changed since; choose another --out",
        ),
        ("a list", [1, "é"], {"a": None}, 'key is [1, "\\u00e9"] in R and {"a": null} here; choose another --out'),
        ("blank", " ", "a\nb", 'key is " " in R and "a\\nb" here; choose another --out'),
        ("path", Path("a"), True, 'key is "a" in R and true here; choose another --out'),
        ("settings of method nmf", None, {"a": 1}, 'key is null in R and {"a": 1} here; choose another --out'),
        ("settings of method nmf", {"a": 1}, None, 'key is {"a": 1} in R and null here; choose another --out'),
    ],
)
def test_the_whole_line(key: str, there: object, here: object, line: str) -> None:
    assert another_run(Path("R"), key, there, here) == f"R holds another run: {line.replace('key', key, 1)}"


@pytest.mark.parametrize(
    ("there", "here", "line"),
    [
        ({"a": 1}, {"a": 2}, "a is 1 in R and 2 here; give --set m.a=1 to go on with that run, or choose another --out"),
        ({"a": True}, {"a": False}, "a is true in R and false here; give --set m.a=true to go on with that run, or choose another --out"),
        ({"a": "x"}, {"a": "y"}, "a is x in R and y here; give --set m.a=x to go on with that run, or choose another --out"),
        ({"a": 0.5}, {}, "a is 0.5 in R and not a setting here; give --set m.a=0.5 to go on with that run, or choose another --out"),
        ({"a": ""}, {"a": "y"}, 'a is "" in R and y here; choose another --out'),
        ({"a": None}, {"a": 1}, "a is null in R and 1 here; choose another --out"),
        ({"a": None}, {}, "a is null in R and not a setting here; choose another --out"),
        ({"a": [1]}, {"a": [2]}, "a is [1] in R and [2] here; choose another --out"),
        ({}, {"a": 1}, "a is not a setting in R and 1 here; choose another --out"),
        (
            {"z": 1, "b": 1},
            {"b": 2, "a": 1},
            "b is 1 in R and 2 here, a is not a setting in R and 1 here, z is 1 in R and not a setting here; choose another --out",
        ),
        (
            dict.fromkeys("abcd", 1),
            {},
            ", ".join(f"{name} is 1 in R and not a setting here" for name in "abc") + ", 1 more settings differ; choose another --out",
        ),
    ],
)
def test_the_whole_line_about_settings(there: dict[str, object], here: dict[str, object], line: str) -> None:
    assert another_run(Path("R"), "settings of method m", there, here) == f"R holds another run of method m: {line}"
