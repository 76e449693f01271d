"""Lookup of methods and suites by name, through entry points, loaded only when asked for.

A third party registers in its own ``pyproject.toml``::

    [project.entry-points."sepbench.separators"]
    my-method = "my_package.my_module:MyMethod"

    [project.entry-points."sepbench.suites"]
    my-suite = "my_package:SUITE"        # a pathlib.Path (or str) of a suite's TOML file

The project's own methods in ``baselines/`` are registered in just this way.

A method that is another algorithm on another kind of signal has one implementation per domain, under one name::

    [project.entry-points."sepbench.separators"]
    my-method = "my_package.images:MyMethod"
    "my-method.audio" = "my_package.audio:MyAudioMethod"   # what suites of audio get for the name my-method

Names that end in ``.image``, ``.audio`` or ``.vector`` are such implementations and no methods of their own; each has settings of its own,
and ``info.name`` of all of them is the method's name. The plain entry serves all other domains; it may be missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, get_args

from sepbench.errors import MethodError, SepbenchError, SuiteError, UnknownNameError
from sepbench.protocols import Domain, MethodInfo, Separator
from sepbench.resources import suites_root

SEPARATOR_GROUP = "sepbench.separators"
SUITE_GROUP = "sepbench.suites"
TRAINER_GROUP = "sepbench.trainers"


def nearest(name: str, known: list[str], what: str) -> UnknownNameError:
    """The error for a name that is not known, with the closest ones."""
    close = get_close_matches(name, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return UnknownNameError(f"unknown {what} {name!r}; {hint}")


def _separators() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=SEPARATOR_GROUP)}


def separator_names() -> list[str]:
    """Names of all registered methods, sorted; nothing is imported."""
    return sorted({_method_and_domain(entry)[0] for entry in _separators()})


def separator_domains(name: str) -> list[Domain | None]:
    """The implementations of a method, each as the ``domain`` that ``separator_class`` gives it for: the plain one (None) first.

    Raises:
        UnknownNameError: no such method.
    """
    return list(_implementations(name))


def separator_class(name: str, domain: Domain | None = None) -> type:
    """The class behind a name: the implementation for ``domain`` if the method has one, else the plain one, else the first.

    Raises:
        UnknownNameError: no such method.
        MethodError: its module cannot be imported, or the entry point names something that cannot be called.
    """
    points = _implementations(name)
    point = points.get(domain) or points.get(None) or next(iter(points.values()))
    try:
        loaded = point.load()
    except (Exception, SystemExit) as error:  # whatever a third party's module raises, it must not take the command line down
        raise MethodError(f"method {name!r} ({point.value}) cannot be loaded: {_reason(error)}") from error
    if not callable(loaded):
        raise MethodError(f"method {name!r} ({point.value}) is of type {type(loaded).__name__}; its entry point must name the method's class")
    return loaded  # type: ignore[no-any-return]


def _method_and_domain(entry: str) -> tuple[str, Domain | None]:
    """``nmf.audio`` to ``nmf`` and ``audio``, ``nmf`` to ``nmf`` and None."""
    name, _, ending = entry.rpartition(".")
    return next(((name, domain) for domain in get_args(Domain) if name and domain == ending), (entry, None))


def _implementations(name: str) -> dict[Domain | None, EntryPoint]:
    points = _separators()
    keys: dict[Domain | None, str] = {None: name} | {domain: f"{name}.{domain}" for domain in get_args(Domain)}
    found = {domain: points[entry] for domain, entry in keys.items() if entry in points}
    if not found or _method_and_domain(name)[1] is not None:
        raise nearest(name, separator_names(), "method")
    return found


def flat(text: object) -> str:
    """A text of somebody else's on one line."""
    return " ".join(str(text).split())


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {flat(error)}" if flat(error) else type(error).__name__


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
        raise becomes(f"method {name!r} {failed}: {_reason(error)}") from error


def setting_names(cls: type) -> list[str]:
    """Keyword settings a method's constructor takes."""
    if is_dataclass(cls):
        return [f.name for f in fields(cls) if f.init]
    return [p.name for p in inspect.signature(cls).parameters.values() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]


def create_separator(name: str, settings: Mapping[str, Any] | None = None, domain: Domain | None = None) -> Separator:
    """An instance of a method, of the class that ``separator_class`` gives for ``domain``.

    Raises:
        UnknownNameError: no such method or no such setting.
        MethodError: it cannot be loaded, refuses its settings, cannot be created or does not offer the ``Separator`` contract.
    """
    cls = separator_class(name, domain)
    with method_code(name, "has no settings that can be listed"):
        known = setting_names(cls)
    for key in settings or {}:
        if key not in known:
            raise nearest(key, known, f"setting of {name}")
    separator: object
    with method_code(name, "cannot be created"):
        try:
            separator = cls(**(settings or {}))
        except (TypeError, ValueError) as error:
            raise MethodError(f"method {name!r} refuses its settings: {flat(error)}") from error
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


def settings_of(separator: object) -> dict[str, Any]:
    """The settings a run records: the constructor's fields where the method is a dataclass, else what ``settings`` holds."""
    if is_dataclass(separator) and not isinstance(separator, type):
        return {f.name: getattr(separator, f.name) for f in fields(separator) if f.init}
    return dict(getattr(separator, "settings", {}))


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
