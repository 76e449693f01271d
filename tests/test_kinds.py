"""Kinds of settings: values brought into the form of their kind, where a setting has one kind and only there; and kinds, bounds and values in words."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from sepbench.kinds import alternatives, bounds, choices, is_choice, is_simple, kind, phrase, shaped, shown


class Mode(Enum):
    fast = "fast"
    slow = "slow"


@pytest.mark.parametrize(
    ("hint", "value"),
    [(tuple[int, ...] | int, 3), (int | tuple[int, ...], [3]), (Path | str, "a"), (str | Path | None, "a"), (Mode | str, "fast"), (list[int] | bool, True)],
)
def test_a_value_that_may_be_of_several_kinds_stays_as_it_is(hint: Any, value: object) -> None:
    assert shaped(hint, value) is value


@pytest.mark.parametrize(
    ("hint", "value", "form"),
    [
        (tuple[int, ...], 3, (3,)),
        (tuple[int, ...] | None, [3, 4], (3, 4)),
        (list[str], ("a", "b"), ["a", "b"]),
        (tuple[Path, ...], ["a", "b"], (Path("a"), Path("b"))),
        (tuple[Mode, ...] | None, "slow", (Mode.slow,)),
        (Path, "a", Path("a")),
        (Path | None, "a", Path("a")),
        (Path | None, None, None),
        (Mode, "fast", Mode.fast),
        (Mode | None, "slow", Mode.slow),
        (Mode, "other", "other"),
        (int | None, "3", "3"),
    ],
)
def test_a_value_of_one_kind_takes_its_form(hint: Any, value: object, form: object) -> None:
    found = shaped(hint, value)
    assert (found, type(found)) == (form, type(form))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (None, "none"),
        (3, "3"),
        (0.5, "0.5"),
        ("word", "word"),
        ("", "''"),
        (Path("a/b"), "a/b"),
        (Mode.fast, "fast"),
        ((1, 2.5, True), "1,2.5,true"),
        ([Mode.fast, None], "fast,none"),
        ((1,), "(1,)"),
        ([], "[]"),
    ],
)
def test_a_value_is_shown_as_one_would_give_it(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    ("hint", "in_tables", "after_must_be"),
    [
        (bool, "true | false", "true or false"),
        (int, "int", "a whole number"),
        (float, "number", "a number"),
        (str, "text", "text"),
        (Path, "path", "a path"),
        (Any, "anything", "anything"),
        (int | None, "int | none", "a whole number or none"),
        (Literal["soft", "binary", True], "soft | binary | true", "one of soft, binary, true"),
        (Mode, "fast | slow", "one of fast, slow"),
        (tuple[int, ...], "ints", "ints with commas between"),
        (list[float], "numbers", "numbers with commas between"),
        (tuple[Path, ...] | None, "paths | none", "paths with commas between or none"),
        (tuple[int, int], "2 ints", "2 ints with commas between"),
        (tuple[int, str, int], "3 ints and texts", "3 ints and texts with commas between"),
        (tuple[bool, ...], "values that are true or false", "values that are true or false with commas between"),
        (tuple, "values", "values with commas between"),
        (Annotated[int, Field(ge=1)], "int", "a whole number"),
        (np.ndarray, "ndarray", "of kind ndarray"),
        (tuple[np.ndarray, ...], "values of kind ndarray", "values of kind ndarray with commas between"),
        (dict[str, int], "dict[str, int]", "of kind dict[str, int]"),
    ],
)
def test_a_kind_in_words(hint: Any, in_tables: str, after_must_be: str) -> None:
    assert (kind(hint), phrase(hint)) == (in_tables, after_must_be)


@pytest.mark.parametrize(
    ("hint", "limits", "text"),
    [
        (int, {}, ""),
        (int, {"ge": 1}, "from 1"),
        (float, {"gt": 0}, "above 0"),
        (float, {"gt": 0, "lt": 1}, "above 0, below 1"),
        (float, {"ge": 0, "le": 1}, "from 0 to 1"),
        (float, {"le": 1}, "up to 1"),
        (float, {"gt": 0, "le": 1}, "above 0, up to 1"),
        (float, {"ge": 0, "lt": 1e9}, "from 0, below 1000000000"),
        (tuple[int, ...], {"min_length": 1}, "at least 1"),
        (tuple[int, ...], {"min_length": 1, "max_length": 3}, "at least 1, at most 3"),
        (tuple[Annotated[int, Field(ge=0)], ...], {"min_length": 2}, "at least 2, each from 0"),
        (tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]] | None, {}, "each from 0, each from 1"),
        (Annotated[int, Field(ge=2, le=5)], {}, "from 2 to 5"),
    ],
)
def test_bounds_in_words(hint: Any, limits: dict[str, float], text: str) -> None:
    assert bounds(hint, [SimpleNamespace(**{name: value}) for name, value in limits.items()]) == text


@pytest.mark.parametrize(
    ("hint", "simple", "choice"),
    [
        (int, True, False),
        (Path | None, True, False),
        (tuple[int, ...], True, False),
        (tuple, True, False),
        (list[tuple[int, ...]], True, False),
        (Mode, True, True),
        (Literal["a"] | None, True, True),
        (Literal["a"] | int, True, False),
        (np.ndarray, False, False),
        (int | np.ndarray, False, False),
        (tuple[int, np.ndarray], False, False),
        (dict[str, int], False, False),
        (Any, False, False),
    ],
)
def test_what_a_command_line_can_give_and_what_is_a_choice(hint: Any, simple: bool, choice: bool) -> None:
    assert (is_simple(hint), is_choice(hint)) == (simple, choice)


def test_what_a_kind_consists_of() -> None:
    assert alternatives(Annotated[int | Annotated[str, Field()], Field()]) == (int, str)
    assert (choices(Mode), choices(Literal["a", 2]), choices(int)) == (("fast", "slow"), ("a", 2), ())
