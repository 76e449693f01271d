"""Cards of trained weights: the JSON that lies beside them, as facts and tables. What stands in it may be a stranger's; only its shape is read here."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sepbench.report.html.media import Media

Facts = tuple[tuple[str, str], ...]

FOLDER = "weights"
"""Where a package keeps its weights, within the folder of the package."""
LARGEST_CARD, LARGEST_PICTURE = 1 << 18, 1 << 21
"""Bytes; larger files are no cards and no pictures of samples."""
_PNG = b"\x89PNG\r\n\x1a\n"
_FIRST = ("kind", "parameters", "shape", "notes")
_APART = ("config", "recipe", "network", "hardware", "packages")
"""Parts that few will ask for: folded away."""


@dataclass(frozen=True, slots=True)
class WeightsCard:
    """A card as the page shows it.

    Attributes:
        name: of the weights.
        facts: what stands at the top of the card.
        parts: heading and facts of every group of it, such as the training data.
        folded: the same of groups that are folded away.
        heads, rows: one table of all groups that hold a number per noise level; empty if there are none.
        picture: address of samples of the prior, "" if there are none.
    """

    name: str
    facts: Facts
    parts: tuple[tuple[str, Facts], ...]
    folded: tuple[tuple[str, Facts], ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    picture: str = ""


def cards_in(folders: Iterable[Path]) -> dict[str, Path]:
    """SHA-256 of weights -> their card, of all cards in some folders. What cannot be read is no card."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            content = _read(path)
            if isinstance(content.get("weights_sha256"), str):
                found.setdefault(content["weights_sha256"], path)
    return found


def card(path: Path, media: Media) -> WeightsCard | None:
    """The card, and the picture that lies beside it under the same name, if the budget has room. None if it cannot be read."""
    content = _read(path)
    if not content:
        return None
    groups = list(_groups(content))
    levels = {heading: group for heading, group in groups if _is_levels(group)}
    heads, rows = _table(levels)
    rest = [(heading, tuple(_facts(group))) for heading, group in groups if heading not in levels]
    folded = [group for group in rest if group[0].rpartition(": ")[2] in _APART]
    plain = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    first = {key: plain[key] for key in _FIRST if key in plain}
    facts = tuple(_facts(first | {key: value for key, value in plain.items() if key not in ("format", "name")}))
    name = str(content.get("name") or path.stem)
    return WeightsCard(
        name, facts, tuple(group for group in rest if group not in folded), tuple(folded), heads, rows, _picture(path.with_suffix(".png"), media)
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= LARGEST_CARD else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _groups(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Groups of the card and groups within them, in order: ``training``, ``training: config``."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            heading = f"{before}{_words(key)}"
            if any(not isinstance(entry, Mapping) for entry in value.values()):
                yield heading, value
            yield from _groups(value, f"{heading}: ")


def _facts(group: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Entries that are no groups themselves and say something."""
    for key, value in group.items():
        text = "" if isinstance(value, Mapping) else _shown(value)
        if text:
            yield _words(key), text


def _words(key: Any) -> str:
    return str(key).replace("_", " ")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_shown(entry) for entry in value)
    return "" if value is None else str(value)


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _is_levels(group: Mapping[str, Any]) -> bool:
    """Whether a group has a number under every number: figures by noise level."""
    return len(group) > 1 and all(math.isfinite(_number(key)) and isinstance(value, int | float) for key, value in group.items())


def _table(groups: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """One row per noise level, highest first, and one column per group."""
    by_number = [{_number(key): value for key, value in group.items()} for group in groups.values()]
    levels = sorted({level for group in by_number for level in group}, reverse=True)
    rows = tuple((f"{level:g}", *(_shown(group.get(level)) for group in by_number)) for level in levels)
    return (("noise level", *groups), rows) if groups else ((), ())


def _picture(path: Path, media: Media) -> str:
    try:
        content = path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST_PICTURE else b""
    except OSError:
        return ""
    if not content.startswith(_PNG):
        return ""
    from sepbench.report.html.board import slug

    address = f"media/weights/{slug(path.stem)}.png"
    if media.files.get(address) == content:  # another method of the report has the same weights
        return address
    return address if address not in media.files and media.add({address: content}) else ""
