"""Annotations of settings as people read them: kinds and bounds in words, and values brought into the form of their kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_NAMES: dict[Any, tuple[str, str, str]] = {
    bool: ("true | false", "true or false", "values that are true or false"),
    int: ("int", "a whole number", "ints"),
    float: ("number", "a number", "numbers"),
    str: ("text", "text", "texts"),
    Path: ("path", "a path", "paths"),
    NoneType: ("none", "none", "none"),
    Any: ("anything", "anything", "values"),
}
"""How a kind is read in a table, after "must be", and where there are several."""


def shown(value: object) -> str:
    """A value as one would write it after ``--set``."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (tuple, list)) and len(value) > 1:
        return ",".join(map(shown, value))
    if isinstance(value, Enum):
        return str(value.value)
    return str(value) if isinstance(value, (str, Path)) and str(value) else repr(value)


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The kinds that a union joins, or the one kind; bounds are left out."""
    hint = _bare(hint)
    return tuple(_bare(one) for one in get_args(hint)) if get_origin(hint) in (Union, UnionType) else (hint,)


def choices(hint: Any) -> tuple[Any, ...]:
    """The values of one kind that is a choice; empty for any other kind."""
    if _is_enum(hint):
        return tuple(member.value for member in hint)
    return get_args(hint) if get_origin(hint) is Literal else ()


def is_choice(hint: Any) -> bool:
    """Whether an annotation allows certain values only."""
    return all(choices(one) or one is NoneType for one in alternatives(hint))


def is_simple(hint: Any) -> bool:
    """Whether an annotation is made of words, numbers and lists of them: what a command line can give."""

    def simple(one: Any) -> bool:
        within = _elements(one)
        if within is not None:
            return all(part is Any or is_simple(part) for part in within)
        return one in (bool, int, float, str, Path, NoneType) or bool(choices(one))

    return all(simple(one) for one in alternatives(hint))


def shaped(hint: Any, value: Any) -> Any:
    """A value in the form of its kind, as far as the form is all that differs.

    One value stands for a tuple of one, as the command line gives it. Lists become tuples, which files hold as lists. Words become
    paths and choices.
    """
    kinds = [one for one in alternatives(hint) if one is not NoneType]
    if value is None or len(kinds) != 1:
        return value
    kind, within = kinds[0], _elements(kinds[0])
    if within is not None:
        values = value if isinstance(value, (tuple, list)) else (value,)
        return (get_origin(kind) or kind)(shaped(within[0], one) if len(within) == 1 else one for one in values)
    if kind is Path and isinstance(value, str):
        return Path(value)
    return next((member for member in kind if member.value == value), value) if _is_enum(kind) else value


def kind(hint: Any) -> str:
    """``int``, ``true | false``, ``soft | binary``, ``numbers`` ..."""
    return " | ".join(_word(one, 0) for one in alternatives(hint))


def phrase(hint: Any) -> str:
    """What a value must be: ``a whole number``, ``one of soft, binary``, ``numbers with commas between or none`` ..."""
    return " or ".join(_word(one, 1) for one in alternatives(hint))


def bounds(hint: Any, limits: Iterable[Any]) -> str:
    """Bounds in words, those of the elements of a tuple included: ``from 1``, ``above 0, below 1``, ``each from 0`` ...

    Args:
        hint: the annotation.
        limits: what stands beside it: objects with ``ge``, ``gt``, ``le``, ``lt``, ``min_length`` or ``max_length``.
    """
    texts = [_interval([*limits, *_limits(hint)])]
    for one in alternatives(hint):
        within = {_interval(_limits(part)) for part in _elements(one) or ()}
        texts += [f"each {text}" for text in sorted(within - {""})]
    return ", ".join(filter(None, texts))


def _bare(hint: Any) -> Any:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)


def _elements(hint: Any) -> tuple[Any, ...] | None:
    """Kinds of the elements of a tuple or list, ``(Any,)`` if it does not say; None for anything else."""
    if hint in (tuple, list):
        return (Any,)
    return tuple(one for one in get_args(hint) if one is not ...) if get_origin(hint) in (tuple, list) else None


def _word(hint: Any, form: Literal[0, 1, 2]) -> str:
    """One kind in a form of ``_NAMES``."""
    within = _elements(hint)
    if within is not None:
        several = " and ".join(dict.fromkeys(_word(_bare(one), 2) for one in within))
        count = f"{len(within)} " if get_origin(hint) is tuple and ... not in get_args(hint) else ""
        return count + several + (" with commas between" if form == 1 else "")
    if choices(hint):
        return ("one of " if form else "") + (", " if form else " | ").join(map(shown, choices(hint)))
    if isinstance(hint, type) and hint in _NAMES:
        return _NAMES[hint][form]
    name = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
    return (name, f"of kind {name}", f"values of kind {name}")[form]


def _limits(hint: Any) -> list[Any]:
    """The bounds that an ``Annotated`` carries; a pydantic ``Field`` in it carries several."""
    return [limit for one in getattr(hint, "__metadata__", ()) for limit in getattr(one, "metadata", (one,))]


def _interval(limits: Sequence[Any]) -> str:
    names = ("ge", "gt", "le", "lt", "min_length", "max_length")
    bound = {name: getattr(one, name) for one in limits for name in names if getattr(one, name, None) is not None}
    texts = {"ge": "from {:.12g}", "gt": "above {:.12g}", "le": "to {:.12g}" if "ge" in bound else "up to {:.12g}", "lt": "below {:.12g}"}
    told = [text.format(bound[name]) for name, text in texts.items() if name in bound]
    many = [f"at {word} {bound[name]}" for name, word in (("min_length", "least"), ("max_length", "most")) if name in bound]
    return ", ".join([*([" ".join(told)] if "ge" in bound and "le" in bound else told), *many])
