"""What stands in the code outside of settings: constants of modules, and what arguments are where a caller says nothing.

Numbers, words, sets of words, types of numbers, and functions by their name.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import math
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

GOLDEN = Path(__file__).parent / "golden"
FREE = {"baselines.networks.norm_kernel", "sepbench.noise_kernel", "sepbench.ambient"}
"""Modules that want a package which is not everywhere, or hold numbers of the operating system."""


def modules(package: ModuleType) -> list[str]:
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return sorted(info.name for info in found if not info.ispkg and info.name not in FREE)


def plain(value: Any) -> bool:
    """Whether a value is a number, a word, nothing, a type of numbers, a function with a name, or several of them."""
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(plain, value))
    if inspect.isroutine(value):
        return "<" not in value.__qualname__
    return value is None or (isinstance(value, bool | int | float | str | torch.dtype) and not isinstance(value, enum.Enum))


def shown(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(map(shown, value))
    if isinstance(value, tuple | list):
        return [shown(one) for one in value]
    if inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value) if isinstance(value, torch.dtype) or (isinstance(value, float) and not math.isfinite(value)) else value


def arguments(module: ModuleType) -> dict[str, Any]:
    """``function(argument)`` of all functions, classes and methods that are defined in a module; the settings of methods are frozen by test_every_setting."""
    found = {}
    for name, member in vars(module).items():
        if getattr(member, "__module__", None) != module.__name__ or not callable(member) or hasattr(member, "info"):
            continue
        callables = {} if inspect.isclass(member) else {name: member}
        if inspect.isclass(member):
            if inspect.isfunction(vars(member).get("__init__")):  # an inherited one may be Python's own
                callables[name] = member
            callables |= {f"{name}.{key}": value for key, value in vars(member).items() if inspect.isfunction(value) and not key.startswith("__")}
        for key, value in callables.items():
            try:
                parameters = inspect.signature(value).parameters.values()
            except (TypeError, ValueError):
                continue
            found |= {f"{key}({one.name})": shown(one.default) for one in parameters if one.default is not one.empty and plain(one.default)}
    return found


def constants(name: str) -> dict[str, Any]:
    module = importlib.import_module(name)
    named = {key: value for key, value in vars(module).items() if key.strip("_").isupper() and key != "TYPE_CHECKING"}
    # A list or set that is empty at first is filled while a program runs: it is no constant.
    upper = {key: value for key, value in named.items() if plain(value) and not (isinstance(value, list | set) and not value)}
    tables = {
        key: value
        for key, value in vars(module).items()
        if key.strip("_").isupper() and isinstance(value, dict) and key != "STRICT" and all(map(plain, value.values()))
    }
    found = {key: shown(value) for key, value in upper.items()} | {
        f"{key}[{one}]": shown(value) for key, table in tables.items() for one, value in table.items()
    }
    return json.loads(json.dumps({**found, **arguments(module)}))  # type: ignore[no-any-return]


@cache
def frozen(file: str) -> dict[str, dict[str, Any]]:
    return json.loads((GOLDEN / file).read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def freeze(file: str, package: ModuleType) -> None:
    table = {name: found for name in modules(package) if (found := constants(name))}
    parts = [
        f"{json.dumps(name)}: {{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(found[key])}" for key in sorted(found)) + "\n}"
        for name, found in table.items()
    ]
    (GOLDEN / file).write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8", newline="")
