"""Checks of a method's settings when it is made: a mistake must show as one line before the first mixture, not as a failed row hours later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from pydantic import ConfigDict

STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
"""How a method's settings are declared: ``@pydantic.dataclasses.dataclass(config=STRICT)``, one ``pydantic.Field`` each with bounds and description."""

_FROM_ZERO = ("slot",)
"""Counts are at least 1, but source slots are numbered from 0."""


def check_settings(method: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Each field of a dataclass against its annotation: numbers are finite, counts at least 1, flags true or false.

    One value stands for a tuple of one, as the command line gives it.

    Args:
        method: a dataclass instance whose annotations are strings (``from __future__ import annotations``).
        choices: allowed words of the settings that are words.

    Raises:
        ValueError: a setting that cannot be meant.
    """
    for setting in fields(method):
        if not setting.init:
            continue
        name, kind, value = setting.name, str(setting.type), getattr(method, setting.name)
        if name in choices and value not in choices[name]:
            raise ValueError(f"{name} must be one of {', '.join(choices[name])}, got {value!r}")
        if kind.startswith("tuple["):
            value = tuple(value) if isinstance(value, (list, tuple)) else (value,)
            if not all(_is_number(number) for number in value):
                raise ValueError(f"{name} takes numbers with commas between, got {getattr(method, name)!r}")
            setattr(method, name, value)
        elif kind == "float" and not _is_number(value):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
        elif kind == "int":
            least = 0 if name in _FROM_ZERO else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be at least {least}, got {value!r}")
        elif kind in ("bool", "bool | None") and not (isinstance(value, bool) or (value is None and kind != "bool")):
            raise ValueError(f"{name} must be true or false, got {value!r}")


def check_positive(method: Any, *names: str, or_zero: bool = False) -> None:
    """Settings that must lie above zero, or at it.

    Raises:
        ValueError: one that does not.
    """
    for name in names:
        value = getattr(method, name)
        if value < 0 or (value == 0 and not or_zero):
            raise ValueError(f"{name} must {'not be negative' if or_zero else 'be positive'}, got {value}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
