"""Lines that users read: names that are close, lists that are cut, and words of others and of pydantic on one line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError, field_validator

from sepbench.errors import MOST, SepbenchError, UnknownNameError, flat, nearest, plain, reason, some


class _Sizes(BaseModel):
    width: int = 2
    height: int = 2

    @field_validator("width", "height")
    @classmethod
    def _even(cls, value: int) -> int:
        if value == 13:
            raise ValueError("13 is never\nbuilt")
        if value % 2:
            raise AssertionError(f"{value} is odd")  # pydantic has a prefix for these too
        return value


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"width": 13}, "ValidationError: width: 13 is never built"),
        ({"height": 3}, "ValidationError: height: 3 is odd"),
        ({"width": 13, "height": 3}, "ValidationError: width: 13 is never built and 1 more"),
        ({"width": "x"}, "ValidationError: width: must be a whole number"),
        ({"width": None}, "ValidationError: width: must be a valid integer"),
    ],
)
def test_what_pydantic_refuses_is_told_in_the_words_of_the_check(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _Sizes(**given)
    assert reason(refused.value) == line


def test_a_value_without_a_name_is_told_without_one() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(int).validate_python("x")
    assert reason(refused.value) == "ValidationError: must be a whole number"


def test_an_error_of_the_same_name_keeps_its_words() -> None:
    class ValidationError(Exception):
        pass

    assert reason(ValidationError("Value error, mine")) == "ValidationError: Value error, mine"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Value error, 'blend' is none", "'blend' is none"),
        ("invalid value for '--n': Assertion failed, no", "invalid value for '--n': no"),
        ("it said 'Value error, x' itself", "it said 'Value error, x' itself"),
        ("'--n': Input should be greater than 3", "'--n': must be greater than 3"),
        ("two\nlines", "two lines"),
        ("Input should be a valid number, unable to parse string as a number", "must be a number"),
        ("'--n': Input should be a valid integer, unable to parse string as an integer", "'--n': must be a whole number"),
        ("it says that Input should be seen", "it says that Input should be seen"),
    ],
)
def test_prefixes_of_pydantic_go_where_it_puts_them(message: str, told: str) -> None:
    assert plain(message) == told


class Silent(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Pressed(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("names", "most", "told"),
    [
        ([], 3, ""),
        (["a"], 3, "a"),
        ("abcd", 3, "a, b, c, d"),
        ("abcde", 3, "a, b, c and 2 more"),
        ("abc", 1, "a and 2 more"),
        ("ab", 1, "a, b"),
        (range(1_005), 3, "0, 1, 2 and 1,002 more"),
    ],
)
def test_of_many_names_the_first_are_named_and_the_others_counted(names: list[object], most: int, told: str) -> None:
    assert some(iter(names), most) == told


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("avrage", ["average", "other"], "did you mean average?"),
        ("psnr2", ["psnr", "psnr1", "psnr3", "psnr4", "zzz"], "did you mean psnr or psnr4 or psnr3?"),
        ("aaaaaaaaaaaaabbbbbbb", ["aaaaaaaaaaaaaccccccc"], "did you mean aaaaaaaaaaaaaccccccc?"),  # 13 letters of 20: a share of 0.65
        ("aaaaaaaaaaaabbbbbbbb", ["aaaaaaaaaaaacccccccc"], "known: aaaaaaaaaaaacccccccc"),  # 12 of 20
        ("nmf.rank-of-the-factorisation", ["nmf", "rank"], "did you mean nmf?"),
        ("nmfrank-of-the-factorisation", ["nmf", "rank"], "known: nmf, rank"),
        ("mix", ["mixture-as-the-estimate-of-all", "other"], "did you mean mixture-as-the-estimate-of-all?"),
        ("mi", ["mixture-as-the-estimate-of-all", "other"], "known: mixture-as-the-estimate-of-all, other"),
        (
            "mix",
            [f"mixture-as-the-estimate-of-all-{n}" for n in range(4)],
            "did you mean " + " or ".join(f"mixture-as-the-estimate-of-all-{n}" for n in range(3)) + "?",
        ),
        ("zzz", ["aa", "bb", "cc", "dd", "ee"], "known: aa, bb, cc and 2 more"),
    ],
)
def test_names_that_are_close_are_offered(name: str, known: list[str], hint: str) -> None:
    error = nearest(name, known, "thing")
    assert type(error) is UnknownNameError
    assert str(error) == f"unknown thing {name!r}; {hint}"


def test_where_none_is_close_the_caller_s_words_come_before_a_list() -> None:
    assert str(nearest("zzz", ["aa"], "thing", "look elsewhere")) == "unknown thing 'zzz'; look elsewhere"
    assert str(nearest("aab", ["aab1"], "thing", "look elsewhere")) == "unknown thing 'aab'; did you mean aab1?"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n  b\tc ", "a b c"),
        ("é 音", "é 音"),
        ("a\x1b[31m\x00b", r"a\x1b[31m\x00b"),
        ("\udce9", r"\udce9"),
        (3, "3"),
        ("", ""),
        (Silent(), "a Silent that cannot be shown"),
    ],
)
def test_words_of_others_are_one_printable_line(text: object, line: str) -> None:
    assert flat(text) == line
    assert str(SepbenchError(text)) == line


def test_ctrl_c_comes_through_while_an_error_is_read() -> None:
    with pytest.raises(KeyboardInterrupt):
        flat(Pressed())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no\nluck"), "ValueError: no luck"),
        (ValueError(), "ValueError"),
        (SystemExit(0), "SystemExit: 0"),
        (Silent(), "Silent: a Silent that cannot be shown"),
    ],
)
def test_an_error_of_others_is_its_kind_and_its_words(error: BaseException, told: str) -> None:
    assert reason(error) == told


def test_an_error_without_words_is_empty() -> None:
    assert str(SepbenchError()) == ""


@pytest.mark.parametrize("more", [1_000, 1_001])
def test_many_faults_are_counted_in_thousands(more: int) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(list[int]).validate_python(["x"] * (more + 1))
    assert reason(refused.value) == f"ValidationError: 0: must be a whole number and {more:,} more"


@pytest.mark.parametrize("letters", [MOST - 12, MOST - 11, 70_000])
def test_of_long_words_the_beginning_and_the_end_are_quoted(letters: int) -> None:
    text = "a" * 700 + "b" * (letters - 700)
    whole = f"ValueError: {text}"
    if len(whole) <= MOST:
        assert reason(ValueError(text)) == whole
    else:
        assert reason(ValueError(text)) == f"{whole[:500]} [...] {whole[-493:]}"
        assert len(reason(ValueError(text))) == MOST


def test_the_place_of_a_fault_is_told_from_the_outside_in() -> None:
    """Of what lies in a list of a table, with the number of faults that follow."""
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(dict[str, list[int]]).validate_python({"a": [1, "x"], "b": "y", "c": [2.5]})
    assert reason(refused.value) == "ValidationError: a.1: must be a whole number and 2 more"
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(int).validate_python("x")
    assert reason(refused.value) == "ValidationError: must be a whole number"
