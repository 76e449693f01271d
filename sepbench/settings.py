"""Settings of methods. A method declares a setting once, on the field, and everybody checks it by that declaration.

The command line, the plan, ``validate``, ``list`` and third parties all use this module. A method declares a setting like this::

    from pydantic import Field
    from pydantic.dataclasses import dataclass
    from sepbench.settings import STRICT

    @dataclass(config=STRICT)
    class MyMethod:
        atoms: int = Field(16, ge=1, description="atoms per class")

A plain dataclass or class works too. Its annotations and defaults then give the kind of each value, without bounds.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import pydantic.dataclasses
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sepbench.errors import MethodError, SettingError, flat, nearest, plain, reason
from sepbench.files import file_sha256
from sepbench.kinds import bounds, is_choice, is_simple, kind, phrase, shaped, shown
from sepbench.protocols import Domain, MethodInfo, Supervision, TaskSpec

STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
"""How settings are declared: ``@pydantic.dataclasses.dataclass(config=STRICT)``, one ``pydantic.Field`` each with bounds and
description. NaN, infinity, unknown names and values of another kind (3 for true, 2.5 for a count) are refused."""

REQUIRED: Any = MISSING
"""The default of a setting that has none."""

_BROKEN_BOUNDS = {
    "greater_than_equal": "must be at least {ge:.12g}",
    "greater_than": "must be above {gt:.12g}",
    "less_than_equal": "must be at most {le:.12g}",
    "less_than": "must be below {lt:.12g}",
    "multiple_of": "must be a multiple of {multiple_of:.12g}",
    "finite_number": "must be a finite number",
    "too_short": "must be at least {min_length} in number",
    "too_long": "must be at most {max_length} in number",
}
"""pydantic's names of what is wrong with a value of the right kind."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a method, in words.

    Attributes:
        name: the constructor's keyword.
        kind: ``int``, ``number``, ``true | false``, ``soft | binary`` ...
        default: its value, or ``REQUIRED``.
        range: bounds in words, empty if there are none.
        description: one line on what it does, empty if the method says nothing.
        hint: the annotation that the first three come from; ``Any`` if there is none to rely on.
    """

    name: str
    kind: str
    default: Any
    range: str
    description: str
    hint: Any = field(default=Any, repr=False)

    @property
    def summary(self) -> str:
        """``int from 1, default 16: atoms per class``."""
        told = " ".join(filter(None, (self.kind, self.range))) + (", no default" if self.default is REQUIRED else f", default {shown(self.default)}")
        return f"{told}: {self.description}" if self.description else told


def describe(cls: Callable[..., Any]) -> list[Setting]:
    """The settings of a method in the order of its constructor.

    Args:
        cls: a pydantic dataclass, a plain dataclass, or anything that takes keywords.

    Raises:
        MethodError: a plain dataclass on a pydantic one, whose defaults would be declarations and not values.
        ValueError, TypeError: it has no signature.
    """
    if not (isinstance(cls, type) and is_dataclass(cls)):
        hints = _hints(getattr(cls, "__init__", None) if isinstance(cls, type) else cls)
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        found = [parameter for parameter in inspect.signature(cls).parameters.values() if parameter.kind in kinds]
        return [_plain(p.name, hints, REQUIRED if p.default is inspect.Parameter.empty else p.default) for p in found]
    declared: Mapping[str, FieldInfo] = getattr(cls, "__pydantic_fields__", {})
    if declared and "__dataclass_fields__" in cls.__dict__ and "__pydantic_fields__" not in cls.__dict__:
        raise MethodError(f"{cls.__qualname__} is a plain dataclass based on a pydantic one; decorate it with pydantic.dataclasses.dataclass(config=STRICT)")
    hints = _hints(cls)
    settings = []
    for one in fields(cls):
        if one.init and one.name in declared:
            settings.append(_declared(one.name, declared[one.name]))
        elif one.init:
            settings.append(_plain(one.name, hints, one.default if one.default_factory is MISSING else one.default_factory()))
    return settings


def setting_names(cls: Callable[..., Any]) -> list[str]:
    """Names of the settings that a method's constructor takes."""
    return [setting.name for setting in describe(cls)]


def settings_of(separator: object) -> dict[str, Any]:
    """The settings that a run records: the constructor's fields if the method is a dataclass, else the attribute ``settings``."""
    if is_dataclass(separator) and not isinstance(separator, type):
        return {f.name: getattr(separator, f.name) for f in fields(separator) if f.init}
    return dict(getattr(separator, "settings", {}))


def checked(name: str, cls: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the constructor wants them, see ``kinds.shaped``.

    A pydantic dataclass checks what it declares when it is made (``create``). The kinds of all others are checked here.

    Args:
        name: the method, for messages.
        cls: its class.
        given: as the command line or a file gives them.

    Raises:
        UnknownNameError: no such setting.
        SettingError: a value of the wrong kind.
        MethodError: the method's settings cannot be listed, or it is declared in a way that cannot work.
    """
    try:
        known = {setting.name: setting for setting in describe(cls)}
    except MethodError as error:
        raise MethodError(f"method {name!r}: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # signatures and defaults are somebody else's code
        raise MethodError(f"method {name!r} has no settings that can be listed: {reason(error)}") from error
    values = {}
    for key, value in given.items():
        if key not in known:
            if not known:
                raise SettingError(f"{name} has no settings, got {key!r}; leave {name}.{key} out ('sepbench list NAME' shows a method's settings)")
            raise nearest(key, list(known), f"setting of {name}")
        values[key] = shaped(known[key].hint, value)
        if key not in getattr(cls, "__pydantic_fields__", {}) and is_simple(known[key].hint):
            try:
                values[key] = _adapter(known[key].hint).validate_python(values[key])
            except ValidationError as error:
                raise _refusal(name, known[key], error.errors(include_url=False)[0], value) from error
    return values


def create(name: str, cls: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """An instance of a method.

    Raises:
        UnknownNameError: no such setting.
        SettingError: a value of the wrong kind or out of bounds.
        MethodError: settings that do not go together, or that the method refuses by an error of its own.
    """
    values = checked(name, cls, given)
    try:
        return cls(**values)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        known = {setting.name: setting for setting in describe(cls)} if hasattr(cls, "__pydantic_fields__") else {}
        key = str(detail["loc"][0]) if detail["loc"] else ""
        if key in known:
            raise _refusal(name, known[key], detail, given.get(key, REQUIRED)) from error
        raise MethodError(f"method {name!r} refuses its settings: {plain(detail['msg'])}") from error
    except (TypeError, ValueError) as error:
        raise MethodError(f"method {name!r} refuses its settings: {flat(error)}") from error


def _refusal(name: str, setting: Setting, detail: ErrorDetails, value: object) -> SettingError:
    """The line about one setting. A single bad element of several is shown alone where it breaks a bound."""
    wrong = detail["type"]
    if wrong in _BROKEN_BOUNDS:
        must, value = _BROKEN_BOUNDS[wrong].format(**detail.get("ctx", {})), detail["input"]
    elif wrong.startswith("missing"):
        must = "must be given"
    elif wrong.endswith(("_type", "_parsing", "literal_error", "enum", "is_instance_of", "int_from_float", "is_subclass_of")):
        must = f"must be {phrase(setting.hint)}"
    else:
        must = plain(detail["msg"])
    got = "" if value is REQUIRED else f", got {flat(repr(value))[:200]}"
    return SettingError(f"{name}.{setting.name} {must}{got} ({setting.summary})")


def _declared(name: str, info: FieldInfo) -> Setting:
    default = REQUIRED if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
    return Setting(name, kind(info.annotation), default, bounds(info.annotation, info.metadata), info.description or "", info.annotation)


def _plain(name: str, hints: Mapping[str, Any], default: Any) -> Setting:
    """A setting without a declaration: its annotation if that is simple and its own default fits it, else the kind of its default."""
    kind_of_default = type(default) if type(default) in (bool, int, float, str) else Any
    hint = hints.get(name, kind_of_default)
    if not is_simple(hint):
        hint = hint if kind_of_default is Any else kind_of_default
    elif default is not REQUIRED:
        try:
            _adapter(hint).validate_python(default)
        except ValidationError:
            hint = kind_of_default
    return Setting(name, kind(hint), default, bounds(hint, ()), "", hint)


def _hints(annotated: Any) -> dict[str, Any]:
    """Annotations with names resolved; none where one cannot be."""
    try:
        return get_type_hints(annotated, include_extras=True)
    except Exception:  # a name that only type checkers import, or any code in an annotation
        return {}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(strict=True))


def setting_files(cls: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Which settings name files or folders, and the SHA-256 of what those hold: other content under a path is another run.

    sepbench looks at texts and paths, at the parts of a text with commas, and at the elements of lists, tuples and dicts. It does not look at the
    words of a choice.

    Args:
        cls: the method's class, which says what is a choice.
        settings: name to value.

    Returns:
        setting -> path as given -> digest; only settings that name something that exists.

    Raises:
        SettingError: a file that cannot be read.
    """
    try:
        choices = {setting.name for setting in describe(cls) if is_choice(setting.hint)}
    except KeyboardInterrupt:
        raise
    except BaseException:  # a class that is made by a factory need not have a signature
        choices = set()
    found: dict[str, dict[str, str]] = {}
    for name, value in settings.items():
        digests = {} if name in choices else {path: digest for path in _paths(value) if (digest := _content_sha256(name, path))}
        if digests:
            found[name] = digests
    return found


def _paths(value: object) -> Iterator[str]:
    if isinstance(value, (str, Path)):
        text = str(value)
        yield from dict.fromkeys(part for part in (text, *(part.strip() for part in text.split(","))) if part.strip())
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _paths(one)


def _content_sha256(setting: str, text: str) -> str:
    """SHA-256 of a file, or of a folder's names, sizes and contents; empty if there is neither."""
    try:
        path = Path(text).expanduser()
        if path.is_file():
            return file_sha256(path)
        if not path.is_dir():
            return ""
        digest = hashlib.sha256()
        for file in sorted(one for one in path.rglob("*") if one.is_file()):
            line = f"{file.relative_to(path).as_posix()} {file.stat().st_size} {file_sha256(file)}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()
    except PermissionError as error:
        raise SettingError(f"setting {setting} names {error.filename or text}, which cannot be read: permission denied") from error
    except (OSError, ValueError, RuntimeError):  # no path at all: too long a text, one with a NUL, a home folder that nobody has
        return ""


@dataclass(frozen=True, slots=True)
class Preset:
    """A row of a table of presets: a name under which a method is registered once more, with other defaults.

    Attributes:
        title, paper: as in ``MethodInfo``.
        reason: why the row is there.
        settings: the defaults that differ from the class's own.
        supervision, max_batch_cpu, domains: of ``MethodInfo``, where they differ.
    """

    title: str
    paper: str
    reason: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    supervision: Supervision | None = None
    max_batch_cpu: int | None = None
    domains: frozenset[Domain] | None = None


@dataclass(frozen=True, slots=True)
class FitScope:
    """What a kept fit depends on, where that is less than the whole method and task: all that agree in it share one fit.

    Optional; a method that is ``Fitted`` states it in a class attribute ``fit_scope``. Training data, seed, budget and arithmetic always count.

    Attributes:
        task: the attributes of ``TaskSpec`` that count.
        name: what the fits are kept under; empty: the method's name.
        version: raised whenever the fit may change; empty: the method's.
        code: the class whose ``fit``, ``save`` and ``load`` they are; None: the method's. Its settings count, and the code of its module and of those that
            it rests on.
    """

    task: frozenset[str]
    name: str = ""
    version: str = ""
    code: type | None = None


OF_SIGNALS = FitScope(frozenset(attribute.name for attribute in fields(TaskSpec)) - {"suite", "name", "assignment", "scored_sources"})
"""The scope of a fit that does not ask how estimates will be scored: tasks share it that differ in nothing else."""


M = TypeVar("M")


def presets(cls: type[M], rows: Mapping[str, Preset]) -> Mapping[str, type[M]]:
    """Methods that differ in their settings alone: the class itself under its own name, and a class of its own for every row.

    An entry point names the table. It takes the class under its own name from it.

    Args:
        cls: a pydantic dataclass with ``info``.
        rows: registered name to preset.

    Raises:
        ValidationError: a setting that the class does not have, or a default that it does not take.
    """
    made: dict[str, type[M]] = {cast(MethodInfo, cls.info).name: cls}  # type: ignore[attr-defined]
    for name, row in rows.items():
        declared: Mapping[str, FieldInfo] = cls.__pydantic_fields__  # type: ignore[attr-defined]
        cls(**row.settings)  # defaults are not checked when they are declared
        info: MethodInfo = cls.info  # type: ignore[attr-defined]
        level, batch, domains = row.supervision or info.supervision, row.max_batch_cpu or info.max_batch_cpu, row.domains or info.domains
        own = replace(info, name=name, title=row.title, paper=row.paper, supervision=level, max_batch_cpu=batch, domains=domains)
        body: dict[str, Any] = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}[{name}]", "__doc__": row.reason, "info": own}
        body["__annotations__"] = {key: declared[key].annotation for key in row.settings}
        for key, value in row.settings.items():
            body[key] = copy.copy(declared[key])
            body[key].default = value
        made[name] = cast(type[M], pydantic.dataclasses.dataclass(config=STRICT)(type(cls.__name__, (cls,), body)))
    return made


def parse_settings(assignments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["nmf.rank=50", "nmf.sparse=true"]`` to ``{"nmf": {"rank": 50, "sparse": True}}``.

    Values are Python literals, ``true``, ``false``, ``none``, or else plain text.

    Raises:
        SettingError: not of the form METHOD.SETTING=VALUE, or the same setting twice.
    """
    parsed: dict[str, dict[str, Any]] = {}
    for text in assignments:
        address, equals, value = text.partition("=")
        method, dot, setting = address.strip().partition(".")
        if not (equals and dot and method and setting):
            raise SettingError(f"--set takes METHOD.SETTING=VALUE (for example nmf.atoms=50), got {text!r}")
        settings = parsed.setdefault(method, {})
        if setting in settings:
            raise SettingError(f"--set gives {method}.{setting} twice")
        settings[setting] = _literal(value.strip())
    return parsed


_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None, "null": None}


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
