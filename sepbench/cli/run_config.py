"""``sepbench run --config FILE`` and ``--save-config FILE``: a run's options in a file.

The options of the command are the one list of what a file may say: the model that checks a file is made of the command's signature. A key is the
option without its two dashes (``shard-size``; ``shard_size`` will do). What the command line says wins over the file, setting by setting for ``set``.
"""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

import typer

from sepbench.errors import SepbenchError, flat, nearest

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

OF_THE_CALL = ("config", "save_config", "dry_run")
"""Options that are about this call and not about the run: the command line alone says them."""
LISTS = ("methods", "tasks")
"""Options whose text is names with commas; a file may give a list."""
NUMBERS = ("workers",)
"""Options whose text may be a number; a file need not quote it."""
SETTINGS = "settings"
_FROM_FILE = "sepbench.cli.run_config.settings"

Values = Mapping[str, Any]
"""Parameter of the command -> its value, as the command gets it."""


def load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Callback of ``--config``: what the file says becomes the default of the options.

    Raises:
        SepbenchError: see ``read_config``.
    """
    if path is not None and not ctx.resilient_parsing:  # a shell that completes words reads no files
        values = dict(read_config(path, inspect.unwrap(ctx.command.callback or load_config)))
        ctx.meta[_FROM_FILE] = values.pop(SETTINGS, [])
        ctx.default_map = values
    return path


def settings_of(ctx: typer.Context) -> list[str]:
    """What ``--set`` and the file give, METHOD.SETTING=VALUE each: the file's first, those left out that the command line gives too."""
    given = list(ctx.params.get(SETTINGS) or ())
    said = {_address(text) for text in given}
    return [*(text for text in ctx.meta.get(_FROM_FILE, ()) if _address(text) not in said), *given]


def read_config(path: Path, command: Callable[..., Any]) -> Values:
    """What a file says, as the command's own values.

    Args:
        path: a file in YAML, JSON or TOML.
        command: the function of ``sepbench run``.

    Raises:
        SepbenchError: not readable, an unknown key, or a value of the wrong kind; the message names file and key.
    """
    from pydantic import ValidationError

    from sepbench.cli.config_files import read_file

    model = options_model(command)
    names = {_key(name, field): name for name, field in model.model_fields.items()}
    values: dict[str, Any] = {}
    for key, value in read_file(path).items():
        option = str(key).replace("_", "-")
        if option in (name.replace("_", "-") for name in OF_THE_CALL):
            raise SepbenchError(f"{path}: {option} is about one call, and belongs on the command line")
        if option not in names:
            keys = f"the keys are the options of 'sepbench run' without dashes: {', '.join(names)}"
            raise SepbenchError(f"{path}: {nearest(option, list(names), 'key', keys)}")
        if names[option] in values:
            raise SepbenchError(f"{path} gives {option} twice")
        values[names[option]] = value
    try:
        checked = model.model_validate({name: value for name, value in values.items() if value is not None}, by_name=True)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        name = str(detail["loc"][0])
        field = model.model_fields[name]
        raise SepbenchError(f"{path}: {field.alias} must be {_must(name, field, detail)}, got {flat(repr(values[name]))[:200]}") from error
    return {name: _as_given(name, getattr(checked, name)) for name in checked.model_fields_set}


def _must(name: str, field: FieldInfo, detail: ErrorDetails) -> str:
    """What a value has to be, in words."""
    from sepbench.kinds import alternatives, phrase

    if name == SETTINGS:
        return "METHOD: {SETTING: VALUE}, or a list of METHOD.SETTING=VALUE"
    if name in LISTS:
        return "names, such as [nmf, ica]"
    if detail["type"] == "greater_than_equal":
        return f"at least {detail['ctx']['ge']}"
    return " or ".join(phrase(one) for one in alternatives(field.annotation) if one is not type(None))


@cache
def options_model(command: Callable[..., Any]) -> type[BaseModel]:
    """What a file may say: one field per option of the command, of the option's kind and with its bounds and help."""
    from pydantic import ConfigDict, Field, create_model

    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        option = next((one for one in getattr(hint, "__metadata__", ()) if hasattr(one, "param_decls")), None)
        if option is None or name in OF_THE_CALL:
            continue
        words = (word for word in (option.default, *(option.param_decls or ())) if isinstance(word, str))  # typer takes the first one for a default
        spelled = next((word for word in words if word.startswith("--")), f"--{name}").partition("/")[0]
        field = Field(default=None, alias=spelled[2:].replace("_", "-"), ge=option.min, le=option.max, description=option.help)
        fields[name] = (_kind(name, hint.__origin__) | None, field)
    return create_model("RunConfig", __config__=ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True), **fields)


def _key(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _kind(name: str, hint: Any) -> Any:
    """What a file may give for an option: words for paths and choices, lists of names, numbers where the command takes them as text."""
    if name == SETTINGS:
        return dict[str, dict[str, Any]] | list[str]
    if name in LISTS:
        return list[str] | str
    bare = next((one for one in (getattr(hint, "__args__", None) or (hint,)) if one is not type(None)), hint)
    if isinstance(bare, type) and issubclass(bare, Enum):
        return Literal[tuple(member.value for member in bare)]
    if bare is Path:
        return str
    return int | str if name in NUMBERS else bare


def _as_given(name: str, value: Any) -> Any:
    """A file's value as the command line would give it."""
    if name == SETTINGS:
        return value if isinstance(value, list) else setting_texts(value)
    if isinstance(value, list):
        return ",".join(value)
    return str(value) if name in NUMBERS else value


def setting_texts(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """``{"nmf": {"rank": 50}}`` to ``["nmf.rank=50"]``; text is quoted where it would be read as something else."""
    from sepbench.settings import parse_settings

    def text(address: str, value: Any) -> str:
        plain = f"{address}={value}"
        read = parse_settings([plain]) if isinstance(value, str) else None
        same = read is not None and [*next(iter(read.values())).values()] == [value]
        return plain if same else f"{address}={value!r}"

    return [text(f"{method}.{name}", value) for method, own in settings.items() for name, value in own.items()]


def _address(text: str) -> str:
    return text.partition("=")[0].strip()


# -- what a command said


def said(ctx: typer.Context) -> dict[str, Any]:
    """The options that the command line or the file gave, in the command's order: parameter -> value, without those of the call."""
    values = {}
    for name in (parameter.name for parameter in ctx.command.params):
        if name is None or name in OF_THE_CALL or name not in ctx.params:
            continue
        source = getattr(ctx.get_parameter_source(name), "name", "")
        value = settings_of(ctx) if name == SETTINGS else ctx.params[name]
        if source in ("COMMANDLINE", "DEFAULT_MAP") or (name == SETTINGS and value):
            values[name] = value.value if isinstance(value, Enum) else value
    return values


def command_line(ctx: typer.Context, arguments: list[str]) -> str:
    """The command that a run's record keeps: as it was given, or with all that its file said spelled out, so that it does not need the file.

    Args:
        ctx: of the call.
        arguments: what was given after ``sepbench``.
    """
    if ctx.params.get("config") is None:
        return shlex.join(["sepbench", *arguments])
    options = {parameter.name: parameter for parameter in ctx.command.params}
    words = ["sepbench", "run"]
    for name, value in said(ctx).items():
        option: Any = options[name]
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(one, bool):
                words.append(option.opts[0] if one else option.secondary_opts[0])
            else:
                words += [option.opts[0], str(one)]
    return shlex.join(words)


def config_text(values: Values, command: Callable[..., Any], ending: str) -> str:
    """The file that says these values.

    Raises:
        SepbenchError: an ending that is not written, or settings that are none.
    """
    from sepbench import __version__
    from sepbench.cli.config_files import file_text

    model = options_model(command)
    plain = {_key(name, model.model_fields[name]): _plain(name, value) for name, value in values.items()}
    return file_text(plain, ending, f"sepbench {__version__}: sepbench run --config THIS-FILE")


def save_config(ctx: typer.Context, path: Path) -> None:
    """Write the file that repeats this call.

    Raises:
        SepbenchError: another file is there, it cannot be written, or it has an ending that is not written.
    """
    from sepbench.cli.config_files import write_file

    write_file(path, config_text(said(ctx), inspect.unwrap(ctx.command.callback or save_config), path.suffix))


def _plain(name: str, value: Any) -> Any:
    """A value as a file holds it: names as a list, settings by method where that gives the same values back."""
    from sepbench.settings import parse_settings

    if name == SETTINGS:
        nested = parse_settings(value)
        return nested if _survives(nested) and repr(parse_settings(setting_texts(nested))) == repr(nested) else list(value)
    if name in LISTS:
        names = [part.strip() for part in value.split(",")]
        return names if all(names) else value
    if isinstance(value, Path):
        return str(value)
    return int(value) if name in NUMBERS and value.isdecimal() and str(int(value)) == value else value


def _survives(value: Any) -> bool:
    """Whether files of every format give a value back as it is."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _survives(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(_survives, value))
    return value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and abs(value) < float("inf"))
