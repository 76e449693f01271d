"""Strict reading of TOML tables: a missing, mistyped or misspelt key gives one clear line that names the file and the key."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from sepbench.errors import SuiteError

T = TypeVar("T")
_REQUIRED = object()
_KINDS: Mapping[type, str] = {str: "text", int: "a whole number", list: "a list", dict: "a table"}


class Table:
    """One table of a TOML file. Every read key is ticked off; ``close`` complains of those that nobody read."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = dict(values)
        self._known: set[str] = set()
        self.where = where

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def _get(self, key: str, kind: type[T], default: object) -> T:
        self._known.add(key)
        value = self._values.get(key, default)
        if value is _REQUIRED:
            raise SuiteError(f"{self.where}: key {key!r} is missing")
        if key in self._values and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise SuiteError(f"{self.where}: key {key!r} must be {_KINDS[kind]}, found {value!r}")
        return cast(T, value)

    def text(self, key: str, default: object = _REQUIRED) -> str:
        return self._get(key, str, default)

    def integer(self, key: str, default: object = _REQUIRED) -> int:
        return self._get(key, int, default)

    def optional_integer(self, key: str) -> int | None:
        self._known.add(key)
        return self.integer(key) if key in self._values else None

    def choice(self, key: str, choices: tuple[str, ...], default: object = _REQUIRED) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise SuiteError(f"{self.where}: key {key!r} must be one of {', '.join(choices)}; found {value!r}")
        return value

    def texts(self, key: str, default: object = _REQUIRED) -> tuple[str, ...]:
        return self._sequence(key, str, default)

    def integers(self, key: str, default: object = _REQUIRED) -> tuple[int, ...]:
        return self._sequence(key, int, default)

    def rows(self, key: str) -> tuple[int, int] | None:
        """``[start, stop]``, or None where the key is absent."""
        self._known.add(key)
        if key not in self._values:
            return None
        values = self.integers(key)
        if len(values) != 2 or not 0 <= values[0] < values[1]:
            raise SuiteError(f"{self.where}: key {key!r} must be [start, stop] with 0 <= start < stop; found {list(values)}")
        return values[0], values[1]

    def table(self, key: str, default: object = _REQUIRED) -> Table:
        return Table(self._get(key, dict, default), f"{self.where} [{key}]")

    def tables(self, key: str, default: object = _REQUIRED) -> dict[str, Table]:
        """A table of named tables."""
        outer = self.table(key, default)
        return {name: outer.table(name) for name in outer._values}

    def array(self, key: str) -> list[Table]:
        """An array of tables; empty where the key is absent."""
        return [Table(values, f"{self.where} [[{key}]] {n}") for n, values in enumerate(self._sequence(key, dict, []), 1)]

    def raw(self) -> dict[str, Any]:
        """All values as they are; nothing is left to tick off."""
        self._known |= set(self._values)
        return dict(self._values)

    def close(self) -> None:
        """Raise SuiteError for a key that the format does not know."""
        for key in self._values:
            if key not in self._known:
                close = get_close_matches(key, sorted(self._known), n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(self._known))}"
                raise SuiteError(f"{self.where}: unknown key {key!r}; {hint}")

    def _sequence(self, key: str, kind: type[T], default: object) -> tuple[T, ...]:
        values = self._get(key, list, default)
        for value in values:
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise SuiteError(f"{self.where}: key {key!r} must be a list of {_KINDS[kind].removeprefix('a ')}, found {value!r} in it")
        return tuple(values)


@lru_cache(maxsize=16)  # all suites share a file of digests, of which one suite's parsing took 8 ms; nobody writes into what a Table holds
def _parsed(text: str) -> Mapping[str, Any]:
    return tomllib.loads(text)


def read_table(path: Path) -> Table:
    """A TOML file.

    Raises:
        SuiteError: unreadable or not TOML.
    """
    try:
        return Table(_parsed(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error.strerror}; 'sepbench list suites' shows the suites") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} is not valid TOML: {error}") from error
