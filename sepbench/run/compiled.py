"""A class without a file, typed into a notebook or at a prompt: its code is what Python compiled of it.

What counts: the functions of the class and of those of its bases that were typed in too, the functions and classes of the same module that they name, and
numbers and texts that they take from there. Arrays and other objects that stand outside the class are not seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

_SIMPLE = (bool, int, float, complex, str, bytes, type(None))


def compiled_sha256(cls: type) -> str:
    """SHA-256 of the compiled code of a class, the same in every process of one version of Python; empty for what is no class with functions in Python."""
    if not isinstance(cls, type) or not any(isinstance(one, FunctionType) for base in cls.__mro__ for one in vars(base).values()):
        return ""
    parts = sorted(set(_of_class(cls, set())))
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()


def _of_class(cls: type, seen: set[int]) -> Iterator[str]:
    if id(cls) in seen:
        return
    seen.add(id(cls))
    for base in cls.__mro__:
        if base.__module__ != cls.__module__:
            yield f"{cls.__qualname__} is {base.__module__}.{base.__qualname__}"
            continue
        for name, value in vars(base).items():
            if not name.startswith("__pydantic"):
                yield from _of_value(f"{base.__qualname__}.{name}", value, cls.__module__, seen)


def _of_value(where: str, value: Any, module: str, seen: set[int]) -> Iterator[str]:
    """What a value says, if it says anything for certain; ``where`` is its name."""
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property):
        for part in (value.fget, value.fset):
            yield from _of_value(where, part, module, seen)
    elif isinstance(value, FunctionType):
        yield from _of_function(where, value, module, seen)
    elif isinstance(value, type) and value.__module__ == module:
        yield from _of_class(value, seen)
    elif _is_simple(value) and not where.endswith(("__doc__", "__module__", "__qualname__", "__firstlineno__")):
        yield f"{where} = {value!r}"


def _of_function(where: str, function: FunctionType, module: str, seen: set[int]) -> Iterator[str]:
    if id(function) in seen:
        return
    seen.add(id(function))
    yield f"{where}: {_of_code(function.__code__)}"
    for number, default in enumerate((*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())):
        yield from _of_value(f"{where}, default {number}", default, module, seen)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield from _of_value(f"{where} in {name}", cell.cell_contents, module, seen)
        except ValueError:  # an empty cell
            continue
    for name in _names(function.__code__):
        value = function.__globals__.get(name)
        if _is_simple(value) or getattr(value, "__module__", None) == module:
            yield from _of_value(f"{where} of {name}", value, module, seen)


def _names(code: CodeType) -> Iterator[str]:
    """Names that a function and those inside it look up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _of_code(code: CodeType) -> str:
    constants = [_of_code(one) if isinstance(one, CodeType) else _in_order(one) for one in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} ({', '.join(constants)})"


def _in_order(constant: Any) -> str:
    """A constant as text; sets have no order of their own."""
    return f"frozenset({sorted(map(repr, constant))})" if isinstance(constant, frozenset) else repr(constant)


def _is_simple(value: Any) -> bool:
    return isinstance(value, _SIMPLE) or (isinstance(value, (tuple, list)) and all(_is_simple(one) for one in value))
