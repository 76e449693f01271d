"""Numbers that stand in the code of baselines, outside of settings: constants of modules, and what arguments are where a caller says nothing.

Estimates, weights that ship and figures of the documentation were made with them. Change one knowingly: run this file, which writes what is frozen.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import baselines

FILE = Path(__file__).parents[1] / "golden" / "constants.json"
FREE = {"baselines.networks.norm_kernel"}
"""Modules that want a package which is not everywhere."""


def modules() -> list[str]:
    return sorted(info.name for info in pkgutil.walk_packages(baselines.__path__, "baselines.") if not info.ispkg and info.name not in FREE)


def plain(value: Any) -> bool:
    """Whether a value is a number, a word, or a tuple of them."""
    return isinstance(value, (bool, int, float, str)) or (isinstance(value, (tuple, list)) and all(map(plain, value)))


def shown(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [shown(one) for one in value] if isinstance(value, (tuple, list)) else value


def arguments(module: ModuleType) -> dict[str, Any]:
    """``function(argument)`` of all functions, classes and methods that are defined in a module; the settings of methods are frozen by test_every_setting."""
    found = {}
    for name, member in vars(module).items():
        if getattr(member, "__module__", None) != module.__name__ or not callable(member) or hasattr(member, "info"):
            continue
        callables = {name: member}
        if inspect.isclass(member):
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
    upper = {key: value for key, value in vars(module).items() if key.strip("_").isupper() and plain(value)}
    tables = {
        key: value
        for key, value in vars(module).items()
        if key.strip("_").isupper() and isinstance(value, dict) and key != "STRICT" and all(map(plain, value.values()))
    }
    found = {key: shown(value) for key, value in upper.items()} | {
        f"{key}[{one}]": shown(value) for key, table in tables.items() for one, value in table.items()
    }
    return json.loads(json.dumps({**found, **arguments(module)}))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", modules())
def test_constants_are_those_that_results_were_made_with(name: str) -> None:
    frozen = json.loads(FILE.read_text(encoding="utf-8"))
    assert constants(name) == frozen.get(name, {})


if __name__ == "__main__":
    table = {name: found for name in modules() if (found := constants(name))}
    parts = [
        f"{json.dumps(name)}: {{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(found[key])}" for key in sorted(found)) + "\n}"
        for name, found in table.items()
    ]
    FILE.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8", newline="")
