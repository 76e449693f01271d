"""Values brought into the form of their kind: where a setting has one kind, and only there."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from sepbench.kinds import shaped


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
