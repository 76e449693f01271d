"""Lookup of methods and suites by name, through entry points, loaded only when asked for.

A third party registers in its own ``pyproject.toml``::

    [project.entry-points."sepbench.separators"]
    my-method = "my_package.my_module:MyMethod"

    my-method-fast = "my_package.my_module:PRESETS"    # a Mapping with the class under "my-method-fast"; see settings.presets

    [project.entry-points."sepbench.suites"]
    my-suite = "my_package:SUITE"        # a pathlib.Path (or str) of a suite's TOML file

The project's own methods in ``baselines/`` are registered in just this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from sepbench.errors import MethodError, SepbenchError, SuiteError, reason
from sepbench.errors import flat as flat
from sepbench.errors import nearest as nearest
from sepbench.protocols import MethodInfo, Separator
from sepbench.resources import suites_root
from sepbench.settings import create

SEPARATOR_GROUP = "sepbench.separators"
SUITE_GROUP = "sepbench.suites"
TRAINER_GROUP = "sepbench.trainers"


def _separators() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=SEPARATOR_GROUP)}


def separator_names() -> list[str]:
    """Names of all registered methods, sorted; nothing is imported."""
    return sorted(_separators())


def separator_class(name: str) -> type:
    """The class behind a name; an entry point may name it, or a table that holds it under the entry's name.

    Raises:
        UnknownNameError: no such method.
        MethodError: its module cannot be imported, or the entry point names something that cannot be called.
    """
    points = _separators()
    if name not in points:
        raise nearest(name, sorted(points), "method")
    try:
        loaded = points[name].load()
    except (Exception, SystemExit) as error:  # whatever a third party's module raises, it must not take the command line down
        raise MethodError(f"method {name!r} ({points[name].value}) cannot be loaded: {reason(error)}") from error
    if isinstance(loaded, Mapping):
        if name not in loaded:
            raise MethodError(
                f"method {name!r} ({points[name].value}) is not in the table that its entry point names; the table must hold the class under {name!r}"
            )
        loaded = loaded[name]
    if not callable(loaded):
        raise MethodError(f"method {name!r} ({points[name].value}) is of type {type(loaded).__name__}; its entry point must name the method's class")
    return loaded  # type: ignore[no-any-return]


@contextmanager
def method_code(name: str, failed: str, becomes: type[MethodError] = MethodError) -> Iterator[None]:
    """Around a call into a method: what it raises becomes one line, sepbench's own errors come through.

    Args:
        name: the method.
        failed: what did not work; stands in the message after the method's name.
        becomes: the error's class.

    Raises:
        MethodError: the method raised anything else, SystemExit included: it must not end the command as if all were well.
    """
    try:
        yield
    except SepbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise becomes(f"method {name!r} {failed}: {reason(error)}") from error


def create_separator(name: str, settings: Mapping[str, Any] | None = None) -> Separator:
    """An instance of a method.

    Raises:
        UnknownNameError: no such method or no such setting.
        SettingError: a setting of the wrong kind or out of bounds.
        MethodError: it cannot be loaded, refuses its settings, cannot be created or does not offer the ``Separator`` contract.
    """
    cls = separator_class(name)
    with method_code(name, "cannot be created"):
        separator = create(name, cls, settings or {})
    return _checked(name, separator)


def _checked(name: str, separator: Any) -> Separator:
    made = type(separator)
    with method_code(name, "cannot say its info"):
        # Read openly where the class has one: hasattr, by which a protocol asks, would call a property that fails a missing one.
        info: object = separator.info if hasattr(made, "info") else getattr(separator, "info", None)
        keeps_contract = isinstance(separator, Separator)
    if not keeps_contract:
        raise MethodError(f"method {name!r} ({made.__module__}.{made.__qualname__}) lacks info, supports, fit or separate; see sepbench.protocols.Separator")
    if not isinstance(info, MethodInfo):
        raise MethodError(f"method {name!r}: info must be a sepbench.protocols.MethodInfo, got {type(info).__name__}")
    return separator  # type: ignore[no-any-return]


def trainer(name: str) -> Callable[..., Path]:
    """The trainer of a kind of prior, for ``sepbench train``; see ``cli/train.py`` for what it is called with.

    Raises:
        UnknownNameError: no such trainer.
        MethodError: it cannot be loaded.
    """
    points = {point.name: point for point in entry_points(group=TRAINER_GROUP)}
    if name not in points:
        raise nearest(name, sorted(points), "trainer")
    try:
        loaded: Callable[..., Path] = points[name].load()
    except Exception as error:
        raise MethodError(f"trainer {name!r} ({points[name].value}) cannot be loaded: {type(error).__name__}: {error}") from error
    return loaded


def _suites() -> dict[str, Path | EntryPoint]:
    found: dict[str, Path | EntryPoint] = {path.stem: path for path in sorted(suites_root().glob("*.toml"))}
    for point in entry_points(group=SUITE_GROUP):
        found.setdefault(point.name, point)
    return found


def suite_names() -> list[str]:
    """Names of all suites, built-in and third-party, sorted."""
    return sorted(_suites())


def suite_path(name: str) -> Path:
    """The TOML file of a suite.

    Raises:
        UnknownNameError: no such suite.
        SuiteError: a third party's entry point does not lead to a file.
    """
    suites = _suites()
    if name not in suites:
        raise nearest(name, sorted(suites), "suite")
    found = suites[name]
    if isinstance(found, Path):
        return found
    try:
        path = Path(found.load())
    except Exception as error:
        raise SuiteError(f"suite {name!r} ({found.value}) cannot be loaded: {type(error).__name__}: {error}") from error
    if not path.is_file():
        raise SuiteError(f"suite {name!r} points at {path}, which is not a file")
    return path
