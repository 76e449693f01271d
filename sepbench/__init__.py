"""sepbench: the benchmark for methods that separate mixed signals.

What a program uses stands in ``__all__`` and is loaded when it is asked for: importing this package is cheap, neither torch nor any optional
dependency is loaded until something needs it. See docs/python.md.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sepbench.api.boards import leaderboard as leaderboard
    from sepbench.api.boards import methods as methods
    from sepbench.api.comparing import Comparison as Comparison
    from sepbench.api.comparing import compare as compare
    from sepbench.api.evaluating import evaluate as evaluate
    from sepbench.api.opened import Run as Run
    from sepbench.api.opened import open_run as open_run
    from sepbench.api.running import run as run
    from sepbench.api.separating import separate as separate
    from sepbench.api.suites import load_suite as load_suite
    from sepbench.api.telling import RunWarning as RunWarning
    from sepbench.errors import SepbenchError as SepbenchError

__version__ = "0.1.0"

# Name -> the module that holds it. A new function is one line here, one under TYPE_CHECKING above, and one in __all__.
_PUBLIC = {
    "Comparison": "sepbench.api.comparing",
    "Run": "sepbench.api.opened",
    "RunWarning": "sepbench.api.telling",
    "SepbenchError": "sepbench.errors",
    "compare": "sepbench.api.comparing",
    "evaluate": "sepbench.api.evaluating",
    "leaderboard": "sepbench.api.boards",
    "load_suite": "sepbench.api.suites",
    "methods": "sepbench.api.boards",
    "open_run": "sepbench.api.opened",
    "separate": "sepbench.api.separating",
}

__all__ = [
    "Comparison",
    "Run",
    "RunWarning",
    "SepbenchError",
    "compare",
    "evaluate",
    "leaderboard",
    "load_suite",
    "methods",
    "open_run",
    "run",
    "separate",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'sepbench' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    found = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    rooms = [name for name, value in globals().items() if isinstance(value, ModuleType) and value.__name__ == f"sepbench.{name}"]
    return sorted({*__all__, *rooms, *(name for name in globals() if name.startswith("__"))})


class _RunRoom(ModuleType):
    """The package ``sepbench.run`` has the name of the function, and Python puts a package there once anything imports it: so it can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``sepbench.api.running.run``, which says what it takes."""
        return import_module("sepbench.api.running").run(*args, **kwargs)

    @property
    def __signature__(self) -> Any:
        return import_module("inspect").signature(import_module("sepbench.api.running").run)


import_module("sepbench.run").__class__ = _RunRoom
