"""Arguments of the Python API: checked at the door, so that a wrong one is one clear error there and none from deep inside."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from sepbench.errors import ArgumentError, MethodError, SepbenchError, flat, nearest, reason
from sepbench.places import from_the_method_on, place, wants_traceback

P = ParamSpec("P")
T = TypeVar("T")

_OPTION = re.compile(r"--(no-)?([a-z][a-z-]*)")
_KEYWORDS: Mapping[str, str] = {"set": "settings=", "suite": "the suite"}
"""Options of the command line whose keyword has another name."""


def public(function: Callable[P, T]) -> Callable[P, T]:
    """A function of the API: its errors end here, in one line that speaks of keywords where the command line has options.

    What a method raised is their cause, with the frames of its own code.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except SepbenchError as error:
            if wants_traceback():
                raise
            error.args = (spoken(str(error)),)
            raise error.with_traceback(None) from _raised_by_a_method(error)
        except OSError as error:
            if wants_traceback():
                raise
            where = f"{error.filename}: " if error.filename else ""
            what = (error.strerror or reason(error)).lower()
            raise SepbenchError(f"{where}{what}; check files, permissions and the room on the disk") from None

    return called


def _raised_by_a_method(error: SepbenchError) -> BaseException | None:
    """What a method raised, with the frames of its own code, which its author looks for; None for all other causes."""
    cause = error.__cause__
    if not isinstance(error, MethodError) or cause is None or isinstance(cause, SepbenchError) or not place(cause):
        return None
    return cause.with_traceback(from_the_method_on(cause))


def spoken(text: str) -> str:
    """``--retry-failed`` as ``retry_failed=``, ``--no-keep-estimates`` as ``keep_estimates=False``; commands between backticks stay what they are."""

    def keyword(found: re.Match[str]) -> str:
        no, name = found.groups()
        return _KEYWORDS.get(name, f"{name.replace('-', '_')}={'False' if no else ''}")

    return "`".join(part if number % 2 else _OPTION.sub(keyword, part) for number, part in enumerate(text.split("`")))


def whole(name: str, value: object, least: int | None = None) -> int:
    """A whole number; numpy's are taken, bools are not.

    Raises:
        ArgumentError: it is none, or below ``least``.
    """
    bound = f" of at least {least}" if least is not None else ""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise ArgumentError(f"{name} must be a whole number{bound}, got {shown(value)}")
    number = int(value.__index__())  # type: ignore[attr-defined]
    if least is not None and number < least:
        raise ArgumentError(f"{name} must be a whole number{bound}, got {number}")
    return number


def flag(name: str, value: object) -> bool:
    """True or False.

    Raises:
        ArgumentError: it is something else, which would count as one of them.
    """
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, got {shown(value)}")
    return value


def choice(name: str, value: object, known: Iterable[str]) -> str:
    """One of several words.

    Raises:
        UnknownNameError: another word; the nearest is offered.
        ArgumentError: no word at all.
    """
    words = list(known)
    if not isinstance(value, str):
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, words))}, got {shown(value)}")
    if value not in words:
        raise nearest(value, words, f"value of {name}")
    return value


def one_name(name: str, value: object, what: str) -> str:
    """A name.

    Raises:
        ArgumentError: it is no text, or several names in one text.
    """
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{name} must be {what}, a text; got {shown(value)}")
    if "," in value:
        each = [part.strip() for part in value.split(",") if part.strip()]
        raise ArgumentError(f"{name} takes several as a list: {name}={each!r}, not {value!r}")
    return value


def names(name: str, value: object, what: str) -> tuple[str, ...]:
    """One name, or several as a list or tuple.

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(value, str):
        return (one_name(name, value, what),)
    return tuple(one_name(name, one, what) for one in several(name, value, what))


def several(name: str, value: object, what: str) -> list[Any]:
    """The elements of a list, tuple or other ordered thing.

    Raises:
        ArgumentError: it is none.
    """
    if isinstance(value, (bytes, Mapping, set, frozenset)) or not isinstance(value, Iterable):
        raise ArgumentError(f"{name} must be {what}, or a list of such; got {shown(value)}")
    return list(value)


def path_of(name: str, value: object) -> Path:
    """A path.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ArgumentError(f"{name} must be a path, got {shown(value)}")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise ArgumentError(f"{name} must be a path of text, got {shown(value)}")
    return Path(text).expanduser()


def suite_name(value: object) -> str:
    """What ``load_suite`` takes: a registered name, or the path of a TOML file.

    Raises:
        ArgumentError: neither.
    """
    if isinstance(value, os.PathLike):
        path = path_of("suite", value)
        if path.suffix != ".toml":
            raise ArgumentError(f"suite must be a name or the path of a TOML file, got {path}")
        return str(path)
    if not isinstance(value, str):
        own = getattr(value, "name", None)
        hint = f"; give its name, {own!r}" if isinstance(own, str) else ""
        raise ArgumentError(f"suite must be a name or the path of a TOML file, got {shown(value)}{hint}")
    return value


def shown(value: object) -> str:
    """A wrong value in a message, short."""
    text = flat(repr(value)) if isinstance(value, (str, int, float, bool, type(None), tuple, list, dict)) else f"an object of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
