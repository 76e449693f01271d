"""Why a folder's run cannot take what is asked now, in one line: what differs, both values, and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NAMED = 3
_LONGEST = 40
_UNSET = object()
_OPTIONS = ("seed", "budget", "device", "shard_size")
"""Entries of a run's identity that an option of their name sets."""


def another_run(path: Path, key: str, there: object, here: object, instead: str = "") -> str:
    """The line.

    Args:
        path: folder of the run.
        key: what differs, as ``provenance.identity`` names it.
        there: its value in the run.
        here: its value now.
        instead: what may be done instead of choosing another folder, if that is known.
    """
    otherwise = f"{instead}, or choose another --out" if instead else "choose another --out"
    where, _, method = key.partition(" of method ")
    if where == "settings" and isinstance(there, Mapping) and isinstance(here, Mapping):
        return _settings(path, method, there, here, otherwise)
    told = f"{path} holds another run: {key} is {_shown(there)} in {path} and {_shown(here)} here"
    if key in _OPTIONS:
        return f"{told}; give --{key.replace('_', '-')} {_shown(there)} to go on with that run, or choose another --out"
    if where in ("source", "source_sha256"):
        return f"{told}: the code of {method} has changed since; {otherwise}"
    return f"{told}; {otherwise}"


def _settings(path: Path, method: str, there: Mapping[str, Any], here: Mapping[str, Any], otherwise: str) -> str:
    """The settings that differ, not all that there are."""
    names = [name for name in dict.fromkeys([*here, *there]) if there.get(name, _UNSET) != here.get(name, _UNSET)]
    parts = [f"{name} is {_shown(there.get(name, _UNSET))} in {path} and {_shown(here.get(name, _UNSET))} here" for name in names[:_NAMED]]
    more = [f"{len(names) - _NAMED} more settings differ"] if len(names) > _NAMED else []
    told = f"{path} holds another run of method {method}: {', '.join([*parts, *more])}"
    if len(names) == 1 and isinstance(value := there.get(names[0]), bool | int | float | str) and value != "":
        return f"{told}; give --set {method}.{names[0]}={_shown(value)} to go on with that run, or {otherwise}"
    return f"{told}; {otherwise}"


def _shown(value: object) -> str:
    """Plain words as they are, anything else as JSON, and of long ones the beginning."""
    if value is _UNSET:
        return "not a setting"
    text = value if isinstance(value, str) and value.isprintable() and value.strip() else json.dumps(value, default=str)
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text[:12]
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
