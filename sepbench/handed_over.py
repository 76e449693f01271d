"""Methods that a program hands over by itself, as a class or as an object: for one call they stand beside those of the entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

SEPARATOR_GROUP = "sepbench.separators"


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Stands in for the entry point of a method that a program hands over by itself, as a class or as an object.

    Attributes:
        name, group: as of an entry point.
        value: what it is, for messages.
        made_by: the class, or a function without arguments that gives a fresh copy of the object.
        state: SHA-256 of what the object holds besides its settings; stands among the settings of the run, for it decides numbers. Empty for a class.
    """

    name: str
    value: str
    made_by: Callable[..., Any]
    state: str = ""
    group: str = SEPARATOR_GROUP

    def load(self) -> Any:
        """What ``create`` calls."""
        return self.made_by


_handed_over: ContextVar[Mapping[str, HandedOver]] = ContextVar("sepbench methods of a program's own", default={})  # noqa: B039 - never changed in place


@contextmanager
def handed_over(methods: Iterable[HandedOver]) -> Iterator[None]:
    """In the block these methods are found by their names too; by this thread alone, and by no worker process."""
    token = _handed_over.set({**_handed_over.get(), **{method.name: method for method in methods}})
    try:
        yield
    finally:
        _handed_over.reset(token)


HELD = "(object)"
"""The setting that ``held_state`` adds; no constructor can have one of that name."""


def held_state(name: str) -> dict[str, str]:
    """What an object that was handed over holds besides its settings, as one more setting: ``{HELD: SHA-256}``; empty for all other methods."""
    method = methods_handed_over().get(name)
    return {HELD: method.state} if method is not None and method.state else {}


def methods_handed_over() -> Mapping[str, HandedOver]:
    """Name -> method, in the block of ``handed_over``; nothing outside."""
    return _handed_over.get()
