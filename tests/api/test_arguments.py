"""Arguments of the API: what is taken, and the numbers and names in what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sepbench.api.arguments import choice, flag, names, one_name, path_of, public, several, shown, spoken, suite_name, whole
from sepbench.api.running import thread_count
from sepbench.errors import ArgumentError, SepbenchError, UnknownNameError
from sepbench.places import TRACEBACK


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


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No Space Left", "/data/X"), "/data/X: no space left; check files, permissions and the room on the disk"),
        (OSError(28, "No Space Left"), "no space left; check files, permissions and the room on the disk"),
        (OSError("Odd\nthing"), "oserror: odd thing; check files, permissions and the room on the disk"),
        (PermissionError(13, "Permission denied", "a"), "a: permission denied; check files, permissions and the room on the disk"),
    ],
    ids=str,
)
def test_what_the_system_refuses_is_told_in_whole(monkeypatch: pytest.MonkeyPatch, error: OSError, line: str) -> None:
    @public
    def fails(number: int, *, word: str) -> None:
        """What it does."""
        raise error

    monkeypatch.delenv(TRACEBACK, raising=False)
    with pytest.raises(SepbenchError) as refused:
        fails(1, word="a")
    assert (str(refused.value), refused.value.__cause__, refused.value.__suppress_context__) == (line, None, True)
    assert (fails.__name__, fails.__doc__) == ("fails", "What it does.")


def test_a_public_function_hands_on_what_it_is_given_and_keeps_other_errors() -> None:
    @public
    def echo(*given: object, **named: object) -> tuple[object, object]:
        if not given:
            raise ValueError("no fault of the user's")
        return given, named

    assert echo(1, 2, a=3) == ((1, 2), {"a": 3})
    with pytest.raises(ValueError, match="no fault"):
        echo()


def test_an_unknown_name_stays_one_of_its_kind_and_is_told_in_keywords(monkeypatch: pytest.MonkeyPatch) -> None:
    @public
    def fails() -> None:
        raise UnknownNameError("no --no-keep-estimates of `run --suite x` with --fit-seed or --suite")

    monkeypatch.delenv(TRACEBACK, raising=False)
    with pytest.raises(UnknownNameError) as refused:
        fails()
    assert str(refused.value) == "no keep_estimates=False of `run --suite x` with fit_seed= or the suite"
    assert refused.value.__traceback__ is not None
    inside = refused.value.__traceback__.tb_next
    assert inside is not None
    assert inside.tb_next is None  # its way through the library is left out


@pytest.mark.parametrize("value", [2.0, 2.5, np.float32(2), None, "2", [2]], ids=str)
def test_what_is_no_whole_number_is_shown(value: object) -> None:
    with pytest.raises(ArgumentError) as refused:
        whole("n", value, 1)
    assert str(refused.value) == f"n must be a whole number of at least 1, got {shown(value)}"


@pytest.mark.parametrize("value", [(1, 2), {"a": 1}, 1.5, True, None, ["x"]], ids=str)
def test_plain_values_are_shown_as_python_writes_them(value: object) -> None:
    assert shown(value) == repr(value)


def test_a_suite_is_a_name_or_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        name = 3

    monkeypatch.setenv("HOME", "/home/somebody")
    assert suite_name(Path("~/s.toml")) == "/home/somebody/s.toml"
    for value, told in ((Path("folder"), "folder"), (Odd(), "an object of type Odd"), (None, "None"), (b"s", "an object of type bytes")):
        with pytest.raises(ArgumentError) as refused:
            suite_name(value)
        assert str(refused.value) == f"suite must be a name or the path of a TOML file, got {told}"
    with pytest.raises(ArgumentError, match=r"^suite must be a path, got "):
        suite_name(Empty())


class Empty:
    """A path of nothing."""

    def __fspath__(self) -> str:
        return ""


@pytest.mark.parametrize(("value", "each"), [("a,b", "['a', 'b']"), (" a , ,b ", "['a', 'b']"), (",", "[]")])
def test_several_names_in_one_text_are_told_as_a_list(value: str, each: str) -> None:
    for call in (one_name, names):
        with pytest.raises(ArgumentError) as refused:
            call("m", value, "x")
        assert str(refused.value) == f"m takes several as a list: m={each}, not {value!r}"
    with pytest.raises(ArgumentError, match=r"^m must be x, a text; got 3$"):
        names("m", ["a", 3], "x")
