"""Configuration files as they are written: YAML, JSON or TOML by the ending, to and from plain values.

YAML is read by the core schema of YAML 1.2, which is what JSON means too: ``1e-3`` is a number, and ``no``, ``on``, ``1:30`` and ``2024-01-01`` are
words. PyYAML alone reads them by YAML 1.1, the other way round. A key that is given twice is refused in all three.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from sepbench.errors import SepbenchError, flat
from sepbench.files import replacing

ENDINGS = (".yaml", ".yml", ".json", ".toml")
WRITTEN = (".yaml", ".yml", ".json")
"""Python has no writer of TOML."""

_CORE_SCHEMA = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
)
"""YAML 1.2.2, section 10.3.2: tag, pattern, first characters. What no pattern takes is text. The first tag that fits counts, so whole numbers are ints."""


def read_file(path: Path) -> Mapping[str, Any]:
    """What a file says, a mapping at its top.

    Raises:
        SepbenchError: not readable, another ending, not of its format, a key twice, or no mapping.
    """
    if path.suffix.lower() not in ENDINGS:
        raise SepbenchError(f"{path}: a configuration file ends in .yaml, .json or .toml")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SepbenchError(f"{path} is not UTF-8 text") from error
    except OSError as error:
        raise SepbenchError(f"{path} cannot be read: {(error.strerror or flat(error)).lower()}; 'sepbench run --save-config FILE' writes one") from error
    kind = path.suffix.lower()
    try:
        found = tomllib.loads(text) if kind == ".toml" else json.loads(text, object_pairs_hook=_once) if kind == ".json" else _yaml_value(text)
    except (ValueError, RecursionError) as error:
        raise SepbenchError(f"{path} cannot be read: {flat(error)}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SepbenchError(f"{path} must hold keys with values, such as 'suite: digits-pairs'")
    return found


def file_text(values: Mapping[str, Any], ending: str, head: str = "") -> str:
    """Plain values as a file of this ending; ``head`` becomes a comment where the format has comments.

    Raises:
        SepbenchError: an ending that is not written.
    """
    if ending.lower() not in WRITTEN:
        raise SepbenchError("--save-config writes files that end in .yaml or .json")
    if ending.lower() == ".json":
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    import yaml  # type: ignore[import-untyped]

    loader, dumper = _yaml_classes()
    texts = (yaml.dump(values, Dumper=dumper, sort_keys=False, allow_unicode=plain, width=10_000) for plain in (True, False))
    text: str = next(text for text in texts if yaml.load(text, Loader=loader) == values)  # PyYAML does not bring back a NEL that is not escaped
    return (f"# {head}\n" if head else "") + text


def write_file(path: Path, text: str) -> None:
    """Write a file, unless another one is there.

    Raises:
        SepbenchError: a file with other contents is there, or the file cannot be written.
    """
    try:
        if path.exists():
            if path.read_text(encoding="utf-8", errors="replace") == text:
                return
            raise SepbenchError(f"{path} is there and says something else; remove it, or name another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as place:
            place.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise SepbenchError(f"{path} cannot be written: {(error.strerror or flat(error)).lower()}") from error


def _yaml_value(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_yaml_classes()[0])
    except yaml.YAMLError as error:
        raise ValueError(flat(error)) from error


@cache
def _yaml_classes() -> tuple[Any, Any]:
    """PyYAML's safe loader and dumper with the core schema of YAML 1.2."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the attribute of PyYAML

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        return _once([(loader.construct_object(key, deep=True), loader.construct_object(value, deep=True)) for key, value in node.value])

    def whole(loader: Any, node: Any) -> int:
        return int(node.value, 0 if node.value.startswith(("0o", "0x")) else 10)

    for one in (Loader, Dumper):
        for tag, pattern, first in _CORE_SCHEMA:
            one.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first)
    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    Loader.add_constructor("tag:yaml.org,2002:int", whole)
    return Loader, Dumper


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping of pairs.

    Raises:
        ValueError: a key that is given twice, or that is a list or a mapping.
    """
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, (str, int, float, bool)) and key is not None:
            raise ValueError(f"a key must be a word, got {key!r}")
        if key in found:
            raise ValueError(f"key {key!r} is given twice")
        found[key] = value
    return found
