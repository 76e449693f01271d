"""Errors of others on one line, in words that need no knowledge of the library that found them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError, field_validator

from sepbench.errors import plain, reason


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
    ],
)
def test_prefixes_of_pydantic_go_where_it_puts_them(message: str, told: str) -> None:
    assert plain(message) == told
