"""Lookup by name, through entry points, loaded only when asked for: methods, suites, metrics, data sets, trainers and backends.

A third party registers in its own ``pyproject.toml``::

    [project.entry-points."sepbench.separators"]
    my-method = "my_package.my_module:MyMethod"
    my-method-fast = "my_package.my_module:PRESETS"    # a Mapping with the class under "my-method-fast"; see settings.presets

    [project.entry-points."sepbench.suites"]
    my-suite = "my_package:SUITE"        # a pathlib.Path (or str) of a suite's TOML file

    [project.entry-points."sepbench.metrics"]
    my_metric = "my_package:MY_METRIC"   # an object of one of the kinds in sepbench.metrics.kinds

    [project.entry-points."sepbench.datasets"]
    my-data = "my_package:MY_DATA"       # a sepbench.data.datasets.DataSet

The project registers its own methods, metrics and data sets in the same way. A name belongs to one distribution. If two claim it in one group, it is
listed, and whoever asks for it gets an error that names both. All other names work as ever.

A method may use another algorithm on another kind of signal. It then has one implementation per domain, under one name::

    [project.entry-points."sepbench.separators"]
    my-method = "my_package.images:MyMethod"
    "my-method.audio" = "my_package.audio:MyAudioMethod"   # what suites of audio get for the name my-method

Names that end in ``.image``, ``.audio`` or ``.vector`` are such implementations, and not methods of their own. Each has its own settings; ``info.name``
of all is the method's name. The plain entry serves all other domains. It may be missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NoReturn, get_args

from sepbench.errors import DataError, MethodError, MetricError, NameClaimedError, SepbenchError, SuiteError, UnknownNameError, reason
from sepbench.errors import flat as flat
from sepbench.errors import nearest as nearest
from sepbench.handed_over import SEPARATOR_GROUP as SEPARATOR_GROUP
from sepbench.handed_over import HandedOver, methods_handed_over
from sepbench.places import told
from sepbench.protocols import Domain, MethodInfo, Separator
from sepbench.resources import suites_root
from sepbench.settings import create
from sepbench.trainers import Trainer

SUITE_GROUP = "sepbench.suites"
METRIC_GROUP = "sepbench.metrics"
DATASET_GROUP = "sepbench.datasets"
TRAINER_GROUP = "sepbench.trainers"
BACKEND_GROUP = "sepbench.backends"
EXTRACTOR_GROUP = "sepbench.extractors"

# Group -> (what its names are, in messages; the error of an entry that cannot be loaded).
_GROUPS: Mapping[str, tuple[str, type[SepbenchError]]] = {
    SEPARATOR_GROUP: ("method", MethodError),
    SUITE_GROUP: ("suite", SuiteError),
    METRIC_GROUP: ("metric", MetricError),
    DATASET_GROUP: ("data set", DataError),
    TRAINER_GROUP: ("trainer", MethodError),
    BACKEND_GROUP: ("backend", SepbenchError),
    EXTRACTOR_GROUP: ("extractor", MetricError),
}


@dataclass(frozen=True, slots=True)
class Claimed:
    """Stands in for the entry point of a name that several distributions claim.

    Attributes:
        name, group: as of an entry point.
        claims: each distribution with what it registers.
    """

    name: str
    group: str
    claims: tuple[str, ...]

    @property
    def value(self) -> str:
        return " and ".join(self.claims)

    def load(self) -> NoReturn:
        """Refuse, because neither of them is the right one.

        Raises:
            NameClaimedError: always.
        """
        raise NameClaimedError(f"{_GROUPS[self.group][0]} {self.name!r} is claimed by {self.value}; uninstall all but one of them, or rename one")


Point = EntryPoint | Claimed | HandedOver


def points(group: str) -> dict[str, Point]:
    """All entries of a group by name; nothing is imported. What is installed is looked up once per ``sys.path``."""
    return dict(_points(group, tuple(sys.path)))


@cache  # 10 ms a time, and scoring asks for metrics at every block
def _points(group: str, path: tuple[str, ...]) -> dict[str, Point]:
    by_name: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=group):  # of a distribution that is found twice on the path, Python counts the first
        by_name.setdefault(point.name, []).append(point)
    return {name: _only_one(name, group, claimants) for name, claimants in by_name.items()}


def _only_one(name: str, group: str, claimants: list[EntryPoint]) -> Point:
    if len(claimants) > 1:  # asked only then: the name of a distribution stands in a file of its own
        claimants = list({_distribution(point): point for point in claimants}.values())
    return claimants[0] if len(claimants) == 1 else Claimed(name, group, tuple(claim for point in claimants for claim in _claims(point)))


def _claims(point: Point) -> tuple[str, ...]:
    return point.claims if isinstance(point, Claimed) else (f"{_distribution(point)} ({point.value})",)


def _distribution(point: EntryPoint | HandedOver) -> str:
    if isinstance(point, HandedOver):
        return "this program"
    return point.dist.name if point.dist is not None else "a package without a name"


def load_entry(group: str, name: str) -> Any:
    """What an entry of a group names.

    Raises:
        UnknownNameError: no such entry; the message offers the nearest names.
        NameClaimedError: several distributions claim the name; the message says which.
        SepbenchError: it cannot be imported; ``MethodError`` of methods and trainers, ``SuiteError``, ``MetricError`` or ``DataError``.
    """
    found = points(group)
    what, _ = _GROUPS[group]
    if not found:
        raise UnknownNameError(f"no {what} {name!r}: none is registered; if sepbench has been updated, install it again (pip install)")
    if name not in found:
        raise nearest(name, sorted(found), what)
    return _load(found[name])


def _load(point: Point) -> Any:
    what, becomes = _GROUPS[point.group]
    try:
        with _while_loading(point):
            return point.load()
    except (NameClaimedError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a third party's module raises, it must not take the command line down
        raise becomes(f"{what} {point.name!r} ({point.value}) cannot be loaded: {reason(error)}") from error


@contextmanager
def _alone() -> Iterator[None]:
    """Around somebody else's code: what it changes for the whole process is put back."""
    from sepbench.ambient import put_back  # imports torch, which lists of names do without

    with put_back():
        yield


def _while_loading(point: Point) -> AbstractContextManager[None]:
    """Around the import of what an entry names. Modules of this package change nothing, and need not wait for torch, of which there is much to put back."""
    return nullcontext() if isinstance(point, EntryPoint) and point.module.startswith("sepbench.") else _alone()


def _separators() -> dict[str, Point]:
    own = dict(methods_handed_over())
    return {entry: point for entry, point in points(SEPARATOR_GROUP).items() if _method_and_domain(entry)[0] not in own} | own


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

    An entry point may name the class, or a table that holds it under the method's name.

    Raises:
        UnknownNameError: no such method.
        MethodError: its module cannot be imported, or the entry point names something that cannot be called.
    """
    points = _implementations(name)
    point = points.get(domain) or points.get(None) or next(iter(points.values()))
    try:
        with _while_loading(point):
            loaded = point.load()
    except (NameClaimedError, KeyboardInterrupt):
        raise
    except BaseException as error:  # whatever a third party's module raises, it must not take the command line down
        raise MethodError(f"method {name!r} ({point.value}) cannot be loaded: {reason(error)}") from error
    if isinstance(loaded, Mapping):
        if name not in loaded:
            raise MethodError(f"method {name!r} ({point.value}) is not in the table that its entry point names; the table must have the class under {name!r}")
        loaded = loaded[name]
    if not callable(loaded):
        raise MethodError(f"method {name!r} ({point.value}) is of type {type(loaded).__name__}; its entry point must name the method's class")
    return loaded  # type: ignore[no-any-return]


def _method_and_domain(entry: str) -> tuple[str, Domain | None]:
    """``nmf.audio`` to ``nmf`` and ``audio``, ``nmf`` to ``nmf`` and None."""
    name, _, ending = entry.rpartition(".")
    return next(((name, domain) for domain in get_args(Domain) if name and domain == ending), (entry, None))


def _implementations(name: str) -> dict[Domain | None, Point]:
    points = _separators()
    keys: dict[Domain | None, str] = {None: name} | {domain: f"{name}.{domain}" for domain in get_args(Domain)}
    found = {domain: points[entry] for domain, entry in keys.items() if entry in points}
    if not found or _method_and_domain(name)[1] is not None:
        raise unknown_method(name)
    return found


def unknown_method(name: str, others: Sequence[str] = (), what: str = "method") -> UnknownNameError:
    """The error for a method that is not there: what is close, or where methods come from; ``others``: words that would do as well."""
    if (Path(name) / "pyproject.toml").is_file():  # as new-method leaves it
        return UnknownNameError(f"unknown {what} {name!r}; the package in the folder {name} is not installed: run 'pip install -e ./{name}'")
    if len(name.split()) > 1:
        return UnknownNameError(f"unknown {what} {name!r}; separate names by commas: {','.join(name.split())}")
    otherwise = "no installed package brings it ('sepbench list methods' shows what there is); install yours with 'pip install -e FOLDER', "
    return nearest(name, [*others, *separator_names()], what, f"{otherwise}or begin one with 'sepbench new-method'")


@contextmanager
def method_code(name: str, failed: str, becomes: type[MethodError] = MethodError) -> Iterator[None]:
    """Around a call into a method: what it raises becomes one line, sepbench's own errors come through.

    Args:
        name: the method.
        failed: what did not work; stands in the message after the method's name.
        becomes: the error's class.

    Raises:
        MethodError: the method raised anything else, SystemExit included: it must not end the command as if all were well. Ctrl-C alone comes through.
    """
    try:
        with _alone():
            yield
    except (SepbenchError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise becomes(f"method {name!r} {failed}: {told(error, any_frame=False)}") from error


def create_separator(name: str, settings: Mapping[str, Any] | None = None, domain: Domain | None = None) -> Separator:
    """An instance of a method, of the class that ``separator_class`` gives for ``domain``.

    Raises:
        UnknownNameError: no such method or no such setting.
        SettingError: a setting of the wrong kind or out of bounds.
        MethodError: it cannot be loaded, refuses its settings, cannot be created or does not offer the ``Separator`` contract.
    """
    cls = separator_class(name, domain)
    with method_code(name, "cannot be created"):
        separator = create(name, cls, settings or {})
    return _checked(name, separator)


def _checked(name: str, separator: Any) -> Separator:
    made = type(separator)
    with method_code(name, "cannot say its info"):
        # Read openly where the class has one: hasattr, by which a protocol asks, would call a property that fails a missing one.
        info: object = separator.info if hasattr(made, "info") else getattr(separator, "info", None)
        lacking = ["info"] * (not hasattr(separator, "info")) + [part for part in ("supports", "fit", "separate") if getattr(separator, part, None) is None]
    if lacking:
        raise MethodError(f"method {name!r} ({made.__module__}.{made.__qualname__}) lacks {', '.join(lacking)}; see sepbench.protocols.Separator")
    if not isinstance(info, MethodInfo):
        raise MethodError(f"method {name!r}: info must be a sepbench.protocols.MethodInfo, got {type(info).__name__}")
    return separator  # type: ignore[no-any-return]


def trainer(name: str) -> Trainer:
    """The trainer of a kind of prior, for ``sepbench train``.

    Raises:
        UnknownNameError: no such trainer.
        NameClaimedError: several distributions claim the name.
        MethodError: it cannot be loaded or called.
    """
    loaded = load_entry(TRAINER_GROUP, name)
    if not callable(loaded):
        raise MethodError(f"trainer {name!r} ({points(TRAINER_GROUP)[name].value}) is of type {type(loaded).__name__}; see sepbench.trainers.Trainer")
    return loaded  # type: ignore[no-any-return]


SUITES_VARIABLE = "SEPBENCH_SUITES"
SUITE_FILE = "suite.toml"


def suite_folders() -> list[Path]:
    """Where suites of the user's own are looked up, each in a folder of its name: the folders of ``SEPBENCH_SUITES`` (``:`` between them), then ``suites``.

    Raises:
        SuiteError: one begins with ``~`` and nobody knows that home folder.
    """
    given = os.environ.get(SUITES_VARIABLE, "")
    try:
        named = [Path(part).expanduser() for part in given.split(os.pathsep) if part.strip()]
    except RuntimeError as error:  # nobody knows that home folder
        raise SuiteError(f"{SUITES_VARIABLE}={given}: the home folder is not known; set HOME, or give whole paths") from error
    return list({path.resolve(): path.absolute() for path in [Path("suites"), *reversed(named)]}.values())[::-1]


def _suites() -> dict[str, Path | Point]:
    found: dict[str, Path | Point] = {path.stem: path for path in sorted(suites_root().glob("*.toml"))}
    for name, point in points(SUITE_GROUP).items():
        found[name] = Claimed(name, SUITE_GROUP, ("sepbench (built in)", *_claims(point))) if name in found else point
    for folder in suite_folders():
        for path in _suites_in(folder):
            name = path.parent.name
            found[name] = Claimed(name, SUITE_GROUP, (*_suite_claims(found[name]), str(path.parent))) if name in found else path
    return found


def _suites_in(folder: Path) -> list[Path]:
    """The suites' files of a folder; hidden folders are suites that were not finished."""
    try:
        return sorted(path for path in folder.glob(f"*/{SUITE_FILE}") if not path.parent.name.startswith("."))
    except OSError:  # a folder that cannot be read holds none for us
        return []


def _suite_claims(found: Path | Point) -> tuple[str, ...]:
    if isinstance(found, Path):
        return ("sepbench (built in)" if found.parent == suites_root() else str(found.parent),)
    return _claims(found)


def suite_names() -> list[str]:
    """Names of all suites, built-in, third-party and the user's own, sorted."""
    return sorted(_suites())


def own_suite(name: str) -> Path | None:
    """The file of a suite that no package brings: asked for by a path, or found by its name in ``suite_folders``. None for all others, known or not.

    Raises:
        SuiteError: the path of a folder without a ``suite.toml``.
    """
    if name.endswith(".toml"):
        return Path(name)
    if "/" in name or os.sep in name:
        path = Path(name).expanduser() / SUITE_FILE
        if not path.is_file():
            raise SuiteError(f"{name} is not the folder of a suite: it has no {SUITE_FILE}; 'sepbench list suites' shows the suites")
        return path
    found = _suites().get(name)
    return found if isinstance(found, Path) and found.parent != suites_root() else None


def suite_path(name: str) -> Path:
    """The TOML file of a suite.

    Raises:
        UnknownNameError: no such suite.
        NameClaimedError: several distributions claim the name, sepbench with its built-in suites among them.
        SuiteError: a third party's entry point does not lead to a file.
    """
    suites = _suites()
    if name not in suites:
        where = " and ".join(map(str, suite_folders()))
        raise nearest(
            name,
            sorted(suites),
            "suite",
            f"it does not come with an installed package, and is not in {where} ({SUITES_VARIABLE} names more folders); "
            "'sepbench list suites' shows all, 'sepbench new-suite' makes one",
        )
    found = suites[name]
    if isinstance(found, Path):
        return found
    loaded = _load(found)
    if not isinstance(loaded, (str, Path)):
        raise SuiteError(f"suite {name!r} ({found.value}) is of type {type(loaded).__name__}; its entry point must name the path of a TOML file")
    path = Path(loaded)
    if not path.is_file():
        raise SuiteError(f"suite {name!r} points at {path}, which is not a file")
    return path
