"""What the registered methods say of themselves, remembered between calls: lists and tables need not import every method, and torch with them.

They are kept in ``methods.json`` of the cache folder, under a digest of what they come from: the entry points, sepbench's version, and name, size
and time of every Python file of the packages that the entry points name. Any change of those asks the methods again. Methods that fail are asked
every time.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from sepbench import __version__
from sepbench.data.files.fetch import cache_folder
from sepbench.errors import SepbenchError
from sepbench.files import write_atomically
from sepbench.handed_over import methods_handed_over
from sepbench.protocols import MethodInfo
from sepbench.registry import SEPARATOR_GROUP, create_separator, points, separator_domains

FILE = "methods.json"

Infos = list[MethodInfo]
"""One for each kind of signal that a method has another algorithm for, as ``separator_domains`` orders them."""


def method_infos(names: Iterable[str]) -> dict[str, Infos | SepbenchError]:
    """What methods say of themselves, by name; instead of one that cannot be made, why."""
    wanted, own, key = list(names), methods_handed_over(), _sources()
    kept = _read(key) if key else {}
    found: dict[str, Infos | SepbenchError] = {name: kept[name] for name in wanted if name in kept and name not in own}
    asked = {name: _ask(name) for name in wanted if name not in found}
    new = {name: infos for name, infos in asked.items() if not isinstance(infos, SepbenchError) and name not in own}
    if key and new:
        _write(key, kept | new)
    return {name: (found | asked)[name] for name in wanted}


def _ask(name: str) -> Infos | SepbenchError:
    try:
        return [create_separator(name, domain=domain).info for domain in separator_domains(name)]
    except SepbenchError as error:
        return error


def _sources() -> str:
    """Digest of what the infos come from; empty where that cannot be told: a package that is no folder of files."""
    entries = [point for point in points(SEPARATOR_GROUP).values() if isinstance(point, EntryPoint)]
    told = hashlib.sha256(repr((__version__, sorted((point.name, point.value) for point in entries))).encode())
    for package in ["sepbench", *sorted({point.module.partition(".")[0] for point in entries})]:
        try:
            spec = importlib.util.find_spec(package)
            places = [Path(place) for place in (spec.submodule_search_locations or [spec.origin or ""])] if spec else []
            files = sorted(path for place in places for path in (place.rglob("*.py") if place.is_dir() else [place]))
            for path in files:
                status = path.stat()
                told.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
        except (ImportError, OSError, ValueError):
            return ""
        if not files:
            return ""
    return told.hexdigest()


def _read(key: str) -> dict[str, Infos]:
    """Nothing where there is no such file, or it is another version's or damaged: the methods are asked again then."""
    try:
        content = json.loads((cache_folder() / FILE).read_text(encoding="utf-8"))
        methods: Mapping[str, list[dict[str, Any]]] = content["methods"] if content["sources"] == key else {}
        return {name: [MethodInfo(**{**info, "domains": frozenset(info["domains"])}) for info in infos] for name, infos in methods.items()}
    except (SepbenchError, OSError, ValueError, TypeError, KeyError):
        return {}


def _write(key: str, infos: Mapping[str, Infos]) -> None:
    """Where it cannot be written, or a method says what JSON cannot hold, the next call asks again."""
    try:
        methods = {name: [{**asdict(info), "domains": sorted(info.domains)} for info in several] for name, several in infos.items()}
        text = json.dumps({"sources": key, "methods": methods})
        write_atomically(cache_folder() / FILE, lambda path: path.write_text(text, encoding="utf-8"))
    except (SepbenchError, OSError, TypeError, ValueError):
        return
