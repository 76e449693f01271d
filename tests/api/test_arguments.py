"""Arguments of the API: what is taken, and the numbers and names in what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sepbench.api.arguments import choice, flag, names, one_name, path_of, public, several, shown, spoken, suite_name, whole
from sepbench.api.running import thread_count
from sepbench.errors import SepbenchError, UnknownNameError


@pytest.mark.parametrize(("value", "least"), [(3, None), (3, 3), (np.int64(4), 3), (-1, None), (0, 0)])
def test_whole_numbers(value: int, least: int | None) -> None:
    found = whole("n", value, least)
    assert found == value
    assert type(found) is int


@pytest.mark.parametrize("value", [True, 2.0, "3", None, np.float64(3)])
def test_what_is_no_whole_number(value: object) -> None:
    with pytest.raises(SepbenchError, match=r"^n must be a whole number, got "):
        whole("n", value)
    with pytest.raises(SepbenchError, match=r"^n must be a whole number of at least 2, got "):
        whole("n", value, 2)


def test_a_number_below_the_least() -> None:
    with pytest.raises(SepbenchError, match=r"^limit must be a whole number of at least 5, got 4$"):
        whole("limit", 4, 5)


def test_flags_and_choices() -> None:
    assert flag("f", True) is True
    assert flag("f", False) is False
    for value in (1, 0, "yes", None, np.True_):
        with pytest.raises(SepbenchError, match=r"^f must be True or False, got "):
            flag("f", value)
    assert choice("c", "b", iter(("a", "b"))) == "b"
    with pytest.raises(UnknownNameError, match="apple"):
        choice("c", "appel", ("apple", "pear"))
    with pytest.raises(SepbenchError, match=r"^c must be one of 'a', 'b', got 3$"):
        choice("c", 3, ("a", "b"))


def test_one_name_or_several() -> None:
    assert names("m", "nmf", "a name") == ("nmf",)
    assert names("m", ["nmf", "ica"], "a name") == ("nmf", "ica")
    assert several("m", ("b", "a"), "x") == ["b", "a"]
    with pytest.raises(SepbenchError, match=r"^m takes several as a list: m=\['nmf', 'ica'\], not 'nmf, ica,'$"):
        one_name("m", "nmf, ica,", "a name")
    for value in ("", 3, None):
        with pytest.raises(SepbenchError, match=r"^m must be a name, a text; got "):
            one_name("m", value, "a name")
    for value in ({"a": 1}, {"a"}, frozenset("a"), b"a", 3):
        with pytest.raises(SepbenchError, match=r"^m must be a name, or a list of such; got "):
            several("m", value, "a name")


def test_paths_and_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert path_of("out", "~/x") == Path("/home/somebody/x")
    assert path_of("out", Path("y")) == Path("y")
    for value in ("", 3, None):
        with pytest.raises(SepbenchError, match=r"^out must be a path, got "):
            path_of("out", value)

    class Bytes:
        def __fspath__(self) -> bytes:
            return b"x"

    with pytest.raises(SepbenchError, match=r"^out must be a path of text, got an object of type Bytes$"):
        path_of("out", Bytes())
    assert suite_name("digits-pairs") == "digits-pairs"
    assert suite_name(Path("a/b.toml")) == "a/b.toml"
    with pytest.raises(SepbenchError, match=r"got a/b.csv"):
        suite_name(Path("a/b.csv"))

    class Named:
        name = "digits-pairs"

    with pytest.raises(SepbenchError, match="an object of type Named; give its name, 'digits-pairs'"):
        suite_name(Named())
    with pytest.raises(SepbenchError, match=r"got 3$"):
        suite_name(3)


def test_wrong_values_are_shown_short() -> None:
    assert shown("x" * 78) == repr("x" * 78)
    assert shown("x" * 79) == repr("x" * 79)[:77] + "..."
    assert shown([1, 2]) == "[1, 2]"
    assert shown(None) == "None"
    assert shown("two\nlines").count("\n") == 0
    assert shown(np.zeros(3)) == "an object of type ndarray"


@pytest.mark.parametrize(
    ("command", "python"),
    [
        ("try --retry-failed", "try retry_failed="),
        ("try --no-keep-estimates", "try keep_estimates=False"),
        ("--set a=1", "settings= a=1"),
        ("run `sepbench run --limit 3` or --limit", "run `sepbench run --limit 3` or limit="),
        ("name --suite", "name the suite"),
    ],
)
def test_options_are_spoken_of_as_keywords(command: str, python: str) -> None:
    assert spoken(command) == python


@pytest.mark.parametrize("told", [True, False])
def test_errors_of_the_system_are_one_line(monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    from sepbench.api.arguments import TRACEBACK

    @public
    def full() -> None:
        raise OSError(28, "No space left on device", "/data/x")

    @public
    def wrong() -> None:
        raise SepbenchError("see --out")

    if told:
        monkeypatch.setenv(TRACEBACK, "1")
        with pytest.raises(OSError, match="No space"):
            full()
        with pytest.raises(SepbenchError, match=r"^see --out$"):
            wrong()
        return
    monkeypatch.delenv(TRACEBACK, raising=False)
    with pytest.raises(SepbenchError, match=r"^/data/x: no space left on device; "):
        full()
    with pytest.raises(SepbenchError, match=r"^see out=$"):
        wrong()


@pytest.mark.parametrize(("variable", "count"), [(None, 1), ("", 1), ("4", 4), ("3,2", 3), (" 5 ", 5), ("0", 1), ("x", 1), ("-2", 1)])
def test_threads_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str | None, count: int) -> None:
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert thread_count(None) == count
    assert thread_count(2) == 2
    with pytest.raises(SepbenchError, match="threads must be a whole number of at least 1, got 0"):
        thread_count(0)
