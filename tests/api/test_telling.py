"""Warnings of the API: of the line that called, each time, and in the words of Python."""

from __future__ import annotations

import contextlib
import functools
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sepbench.api.telling import RunWarning, tell


def inside(name: str | None, code: str, **known: Any) -> dict[str, Any]:
    """A module of this name that holds ``code``."""
    module: dict[str, Any] = {"__name__": name, **known}
    exec(compile(code, f"<{name}>", "exec"), module)
    return module


def told(call: Callable[[], object], times: int = 1) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        for _ in range(times):
            call()
    return found


@pytest.mark.parametrize("name", ["sepbench", "sepbench.run.worker", "contextlib", "functools"])
def test_the_line_is_the_callers_and_no_line_of_ours(name: str) -> None:
    ours = inside(name, "def call(tell):\n    tell('try --retry-failed')\n")
    (one,) = told(lambda: ours["call"](tell))
    assert Path(one.filename).name == "test_telling.py"
    assert one.category is RunWarning
    assert str(one.message) == "try retry_failed="


@pytest.mark.parametrize("name", ["sepbenchmark", "my.sepbench", None])
def test_other_modules_are_callers_whatever_they_are_called(name: str | None) -> None:
    theirs = inside(name, "def call(tell):\n\n    tell('odd')\n")
    (one,) = told(lambda: theirs["call"](tell))
    assert (one.filename, one.lineno) == (f"<{name}>", 3)


def test_the_same_warning_is_shown_each_time() -> None:
    assert [str(one.message) for one in told(lambda: tell("again"), 3)] == ["again"] * 3


def test_it_goes_through_wrappers_and_blocks() -> None:
    ours = inside("sepbench.api.x", "@wrapped\ndef call():\n    with stack() as later:\n        later.callback(tell, 'late')\n", **_around())
    (one,) = told(ours["call"])
    assert Path(one.filename).name == "test_telling.py"


def _around() -> dict[str, Any]:
    def wrapped(function: Callable[[], None]) -> Callable[[], None]:
        return functools.partial(function)

    return {"wrapped": wrapped, "stack": contextlib.ExitStack, "tell": tell}


def test_where_all_is_ours_the_outermost_line_is_told() -> None:
    """A program whose first frame is a module of ours, as ``python -m sepbench.x`` would be: no frame is left to go to."""
    from sepbench.api import telling

    outermost = types.SimpleNamespace(f_back=None, f_globals={"__name__": "sepbench.x"}, f_code=types.SimpleNamespace(co_filename="x.py"), f_lineno=7)
    inner = types.SimpleNamespace(f_back=outermost, f_globals={"__name__": "sepbench.y"}, f_code=types.SimpleNamespace(co_filename="y.py"), f_lineno=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(telling, "sys", types.SimpleNamespace(_getframe=lambda depth: inner))
        (one,) = told(lambda: tell("alone"))
    assert (one.filename, one.lineno) == ("x.py", 7)
