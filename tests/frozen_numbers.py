"""Numbers and words that stand in code: constants of modules, and what arguments are where a caller says nothing. Tests freeze them in JSON files."""

from __future__ import annotations

import importlib
import inspect
import json
import math
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any


def plain(value: Any) -> bool:
    """Whether a value is a number, a word, or a tuple of them."""
    return isinstance(value, (bool, int, float, str)) or (isinstance(value, (tuple, list)) and all(map(plain, value)))


def shown(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [shown(one) for one in value] if isinstance(value, (tuple, list)) else value


def arguments(module: ModuleType, nothing: bool = False) -> dict[str, Any]:
    """``function(argument)`` of all functions, classes and methods that are defined in a module; the settings of methods are frozen by test_every_setting.

    Args:
        nothing: also arguments that are None.
    """
    found = {}
    for name, member in vars(module).items():
        if getattr(member, "__module__", None) != module.__name__ or not callable(member) or hasattr(member, "info"):
            continue
        callables = {name: member}
        if inspect.isclass(member):
            made_by = getattr(member.__init__, "__module__", None)
            if issubclass(member, Enum) or (nothing and made_by != module.__name__ and not hasattr(member, "model_fields")):
                del callables[name]  # a library's own arguments, which change with its versions
            callables |= {f"{name}.{key}": value for key, value in vars(member).items() if inspect.isfunction(value) and not key.startswith("__")}
        for key, value in callables.items():
            try:
                parameters = inspect.signature(value).parameters.values()
            except (TypeError, ValueError):
                continue
            given = [one for one in parameters if one.default is not one.empty]
            found |= {f"{key}({one.name})": shown(one.default) for one in given if plain(one.default) or (nothing and one.default is None)}
    return found


def constants(name: str, nothing: bool = False) -> dict[str, Any]:
    """Of one module, by name; ``nothing``: see ``arguments``."""
    module = importlib.import_module(name)
    upper = {key: value for key, value in vars(module).items() if key.strip("_").isupper() and plain(value)}
    if nothing:
        upper.pop("TYPE_CHECKING", None)
    tables = {
        key: value
        for key, value in vars(module).items()
        if key.strip("_").isupper() and isinstance(value, dict) and key != "STRICT" and all(map(plain, value.values()))
    }
    found = {key: shown(value) for key, value in upper.items()} | {
        f"{key}[{one}]": shown(value) for key, table in tables.items() for one, value in table.items()
    }
    return json.loads(json.dumps({**found, **arguments(module, nothing)}))  # type: ignore[no-any-return]


def write(path: Path, modules: Iterable[str], nothing: bool = False) -> None:
    """Freeze what modules hold: one line for each constant and argument, modules without any left out."""
    table = {name: found for name in modules if (found := constants(name, nothing))}
    parts = [
        f"{json.dumps(name)}: {{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(found[key])}" for key in sorted(found)) + "\n}"
        for name, found in table.items()
    ]
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8", newline="")
