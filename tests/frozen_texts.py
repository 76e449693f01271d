"""Golden files of what the program writes: texts without times, paths, versions and hashes, held against ``tests/golden/outputs/``.

Numbers with a point may differ by one in their last place: other processors round the other way.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sepbench import __version__

FOLDER = Path(__file__).parent / "golden" / "outputs"
AGAIN = "python tests/test_frozen_outputs.py"
SHOWN = 40
recording = False
"""True while the files are written anew; False in tests."""

NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[-+]?\d+)?(?![\w.])")
CHANGING = re.compile(
    r"seconds|latency|_mb$|created|sha256|digest|started|finished|^date$|packages|git_|timing_group|^command$|^path$|_version$|host|cpu$|made"
)
"""Keys and columns whose values differ between machines, days and states of the source. That they are there is held, and whether they are empty."""
WORDS: tuple[tuple[str, str], ...] = (
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+\d\d:\d\d| UTC)?", "TIME"),
    (r"\b[0-9a-f]{64}\b|\b[0-9a-f]{40}\b|\b[0-9a-f]{16}\b|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{12}\b", "HASH"),
    (r"\b\d[\d.,]*(e-?\d+)? (s|ms|min|h|seconds)\b", "N s"),
    (r"\b\d[\d.,]* [kMG]i?B\b", "N MB"),
    (r"\b(Vega(-Lite)?|[Aa]ltair|vl-convert(-python)?) v?\d+(\.\d+)+", r"\1 VERSION"),
    (r"schema/vega-lite/v[\d.]+json", "schema/vega-lite/VERSION.json"),
    (r"\b\d+ threads?\b", "N threads"),
    (r"\bcpu, [^,\n]+, N threads", "cpu, PROCESSOR, N threads"),
    (r"\bcpu:[^:\n\"]+:\d+threads", "cpu:PROCESSOR:Nthreads"),
    (r"(?m)^[^\n]*, Python \d+\.\d+\.\d+[^\n]*$", "ENVIRONMENT"),
    (r"HASH-dirty", "HASH"),
    (r"working tree\nhad changes that were not committed\n", ""),
    (r"\S*/site-packages", "SITE-PACKAGES"),
)


def plain(text: str, *folders: Path) -> str:
    """A text without what differs from call to call; ``folders`` are written FOLDER."""
    for folder in folders:
        text = text.replace(str(folder), "FOLDER")
    text = text.replace(f"sepbench {__version__}", "sepbench VERSION").replace(str(Path(__file__).parents[1]), "REPOSITORY")
    for pattern, word in WORDS:
        text = re.sub(pattern, word, text)
    text = re.sub(r"(?<![\w.])-?\d+\.\d{5,}(e[-+]?\d+)?(?![\w.])", lambda found: rounded(float(found[0])), text)
    return "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"


def rounded(value: float) -> str:
    """Four digits, and nothing below a millionth."""
    return f"{0.0 if abs(value) < 1e-6 else value:.4g}"


def facts(value: Any, key: str = "") -> Any:
    """JSON with floats of four digits, and ``~`` in place of what differs between machines."""
    if key and CHANGING.search(key) and value not in ("", None, [], {}) and not isinstance(value, bool):
        return "~"
    if key == "environment" and isinstance(value, Mapping):
        return sorted(value)
    if isinstance(value, Mapping):
        return {name: facts(one, str(name)) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [facts(one) for one in value]
    if isinstance(value, float):
        return float(rounded(value)) if value == value and abs(value) != float("inf") else str(value)
    return value


def as_text(value: Any) -> str:
    """JSON, one line for every list or object without another in it."""
    return _lines(value, "") + "\n"


def _lines(value: Any, margin: str) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    nested = isinstance(value, dict | list) and any(isinstance(one, dict | list) for one in (value.values() if isinstance(value, dict) else value))
    if (not nested and len(flat) < 400) or len(flat) < 100 or not isinstance(value, dict | list) or not value:
        return flat
    inner = margin + " "
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{inner}{json.dumps(str(key))}: {_lines(one, inner)}" for key, one in value.items()) + f"\n{margin}}}"
    return "[\n" + ",\n".join(inner + _lines(one, inner) for one in value) + f"\n{margin}]"


def table(text: str) -> str:
    """A CSV file with its changing columns masked."""
    rows = list(csv.reader(io.StringIO(text)))
    head, out = rows[0], [",".join(rows[0])]
    for row in rows[1:]:
        out.append(",".join("~" if one and CHANGING.search(name) else _number(one) for name, one in zip(head, row, strict=True)))
    return "\n".join(out) + "\n"


def _number(word: str) -> str:
    return rounded(float(word)) if NUMBER.fullmatch(word) else word


def files(folder: Path, *folders: Path, whole: bool = True) -> str:
    """Every file of a folder, by name; the content of those of text."""
    out = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        name = path.relative_to(folder).as_posix()
        content = _content(path) if whole else ""
        out.append(f"-- {name}\n{content}")
    return plain("".join(out), *folders)


def _content(path: Path) -> str:
    if path.suffix not in {".json", ".csv", ".toml", ".py", ".md", ".txt", ".yaml"}:
        return ""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return as_text(facts(json.loads(text)))
    return table(text) if path.suffix == ".csv" else text


class _Shown(HTMLParser):
    """Words of a page in their order, elements with what scripts and readers take from them, and the charts."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._script: str | None = None
        self._data = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "style"}:
            self._script, self._data = dict(attrs).get("type") or tag, ""
        kept = [f"{name}={'DATA' if (value or '').startswith('data:') else value}" for name, value in attrs if not name.startswith("on") and name not in DRAWN]
        if kept and tag not in {"path", "line", "meta"}:
            self.lines.append(plain(f"<{tag} {' '.join(kept)}>").strip())

    def handle_data(self, data: str) -> None:
        self._data += data
        if self._script is None and data.strip():
            self.lines.append(" ".join(data.split()))

    def handle_endtag(self, tag: str) -> None:
        if self._script == "application/json":
            self.lines.append(chart(json.loads(self._data)).strip())
        self._script = None if tag in {"script", "style"} else self._script


DRAWN = {"d", "style", "viewbox", "charset"}
"""Attributes of what is drawn, and not said."""


def page(path: Path, *folders: Path) -> str:
    """What a page shows, and its charts."""
    shown = _Shown()
    shown.feed(path.read_text(encoding="utf-8"))
    return plain("\n".join(shown.lines), *folders)


def chart(spec: Any) -> str:
    """A chart's specification; names that Altair makes up are numbered in order, and what it adds of its own is left out."""
    if isinstance(spec, dict):
        spec = {name: one for name, one in spec.items() if name not in {"$schema", "config"}}
    text = as_text(facts(spec))
    for pattern in (r"data-[0-9a-f]{32}", r"\bparam_\d+\b", r"\bview_\d+\b"):
        names = list(dict.fromkeys(re.findall(pattern, text)))
        for place, name in enumerate(names):
            text = re.sub(rf"\b{name}\b", f"{pattern[:4].strip(chr(92))}#{place}", text)
    return text


def same(found: str, golden: str) -> bool:
    """Equal but for one in the last place of numbers with a point."""
    if found == golden:
        return True
    if NUMBER.split(found) != NUMBER.split(golden):
        return False
    pairs = zip(NUMBER.findall(found), NUMBER.findall(golden), strict=True)
    return all(abs(float(one) - float(other)) <= 1.01 * max(_place(one), _place(other)) for one, other in pairs)


def _place(number: str) -> float:
    mantissa, _, power = number.partition("e")
    return float(10.0 ** (int(power or 0) - len(mantissa.partition(".")[2])))


def hold(name: str, found: str) -> None:
    """Fails where an output is not what its golden file says."""
    path = FOLDER / name
    if recording:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
        return
    golden = path.read_text(encoding="utf-8") if path.is_file() else ""
    if same(found, golden):
        return
    lines = list(difflib.unified_diff(golden.splitlines(), found.splitlines(), "frozen", "found", n=1, lineterm=""))
    more = f"\n... and {len(lines) - SHOWN} lines more" if len(lines) > SHOWN else ""
    shown = "\n".join(line[:300] for line in lines[:SHOWN])
    raise AssertionError(f"{name} is not what was frozen; if that is meant, run {AGAIN} and read the difference\n{shown}{more}")
