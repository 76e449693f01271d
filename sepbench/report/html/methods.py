"""A method's page: settings, prior and its weights, seconds, provenance, and the command that makes its rows again."""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sepbench.errors import SepbenchError
from sepbench.protocols import SUPERVISION_LEVELS
from sepbench.registry import create_separator, method_code, separator_class
from sepbench.report.footnotes import machine_words
from sepbench.report.html.board import Board, Record, TaskView
from sepbench.report.html.cards import FOLDER, WeightsCard, card, cards_in
from sepbench.report.html.media import Media
from sepbench.report.numbers import size_text, with_interval
from sepbench.resources import resource_root
from sepbench.settings import REQUIRED, describe

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting: the value of the run (empty where it is not known, as of a leaderboard), the default, and what it does."""

    name: str
    value: str
    default: str
    kind: str
    description: str


@dataclass(frozen=True, slots=True)
class TaskRows:
    """A method's rows on one task: metric, value, n; and how long it took there."""

    task: str
    rank: str
    rows: tuple[tuple[str, str, str, str], ...]
    seconds: Facts


@dataclass(frozen=True, slots=True)
class MethodPage:
    """All that the page says."""

    name: str
    title: str
    about: Facts
    settings: tuple[SettingRow, ...]
    settings_told: str
    prior: Facts
    cards: tuple[WeightsCard, ...]
    provenance: Facts
    commands: tuple[str, ...]
    tasks: tuple[TaskRows, ...]

    @property
    def settings_known(self) -> bool:
        """Whether the page knows what the rows were made with."""
        return any(setting.value for setting in self.settings)


class MethodPages:
    """Collects what the tasks of a board say of each method."""

    def __init__(self, board: Board, media: Media) -> None:
        self.board, self.media = board, media
        self._tasks: dict[str, list[TaskRows]] = {}
        self._records: dict[str, list[Record]] = {}
        self._priors: dict[str, dict[str, str]] = {}

    def add(self, view: TaskView) -> None:
        """Take in a task."""
        for line in view.lines:
            if line.from_paper:
                continue
            rows = []
            for metric in view.metrics:
                record = view.records.get((line.method, metric.name))
                if record is not None:
                    unit = "" if metric.unit in ("", "1") else metric.unit
                    rows.append((metric.name, with_interval(record) or "no value", unit, f"{record['n_scored']:,} of {record['n_expected']:,}"))
            first = view.first(line.method)
            self._tasks.setdefault(line.method, []).append(TaskRows(view.task, line.rank, tuple(rows), tuple(_seconds(view, line.method, first))))
            self._records.setdefault(line.method, []).append(first)

    def pages(self) -> Iterator[MethodPage]:
        """One page per method, in the order in which they came."""
        for method, records in self._records.items():
            title, about = self._about(method, records[0])
            settings, told = self._settings(method)
            commands = tuple(dict.fromkeys(str(record["command"]) for record in records if record["command"]))
            yield MethodPage(
                method,
                title,
                about,
                settings,
                told,
                tuple(_prior(records)),
                tuple(self._cards(method, records)),
                tuple(self._provenance(method, records)),
                commands,
                tuple(self._tasks[method]),
            )

    def _domain(self) -> Any:
        return self.board.results.suite.domain if self.board.results.suite is not None else None

    def _about(self, method: str, record: Record) -> tuple[str, Facts]:
        level = str(record["supervision"])
        learns = ("learns from", f"{level}, {SUPERVISION_LEVELS.get(level, '')}".rstrip(", ") or "not known")
        try:
            separator = create_separator(method, domain=self._domain())
        except SepbenchError:  # of a package that is not installed here
            entry = self.board.record.methods.get(method) if self.board.record is not None else None
            return (entry.title if entry is not None else ""), (learns, ("installed", "no: what it says of itself is not known here"))
        info, words = separator.info, " ".join((type(separator).__doc__ or "").partition("\n\n")[0].split())
        about = "" if words.startswith(f"{type(separator).__name__}(") else words
        seeds = "" if info.deterministic else "the estimates depend on the seed"
        bound = f"{info.bound} bound, a row for comparison, never ranked" if info.bound else ""
        facts = (("about", about), ("paper", info.paper), learns, ("bound", bound), ("chance", seeds))
        return info.title, tuple((label, text) for label, text in facts if text)

    def _settings(self, method: str) -> tuple[tuple[SettingRow, ...], str]:
        entry = self.board.record.methods.get(method) if self.board.record is not None else None
        values: Mapping[str, Any] = entry.settings if entry is not None else {}
        told = "as the run had them" if entry is not None else "defaults of the installed version; what a row had instead stands in its command after --set"
        try:
            with method_code(method, "has a setting that cannot be shown"):
                known = list(describe(separator_class(method, self._domain())))
        except SepbenchError:
            return tuple(SettingRow(name, str(value), "", "", "") for name, value in values.items()), told
        found = []
        for one in known:
            default = "required" if one.default is REQUIRED else _shown(one.default)
            value = _shown(values[one.name]) if one.name in values else ""
            found.append(SettingRow(one.name, value, default, ", ".join(filter(None, (one.kind, one.range))), one.description))
        return tuple(found), told

    def _cards(self, method: str, records: list[Record]) -> Iterator[WeightsCard]:
        """Cards of the weights of some rows: those that ship with the method's package, and those beside files that its settings name."""
        wanted = _digests(records)
        if not wanted:
            return
        entry = self.board.record.methods.get(method) if self.board.record is not None else None
        files = {path for paths in entry.files.values() for path in paths} if entry is not None else set()
        folders = [*_weights_folders(method, self._domain()), *sorted({Path(file).parent for file in files})]
        found = cards_in(folders)
        for digest in wanted:
            shown = card(found[digest], self.media) if digest in found else None
            if shown is not None:
                yield shown

    def _provenance(self, method: str, records: list[Record]) -> Iterator[tuple[str, str]]:
        for label, column in (
            ("suite version", "suite_version"),
            ("method version", "method_version"),
            ("sepbench", "sepbench_version"),
            ("commit", "git_sha"),
            ("seed", "seed"),
            ("budget", "budget"),
            ("device", "device"),
            ("timing group", "timing_group"),
            ("task digests", "task_digest"),
        ):
            texts = dict.fromkeys(str(record[column]) for record in records if str(record[column]))
            if texts and column == "timing_group":
                yield label, "; ".join(map(machine_words, texts))
            elif texts:
                yield label, ", ".join(texts)
        entry = self.board.record.methods.get(method) if self.board.record is not None else None
        if entry is not None and self.board.record is not None:
            machine = self.board.record.environment
            yield from ((label, text) for label, text in (("source", entry.source), ("source SHA-256", entry.source_sha256)) if text)
            parts = (machine.cpu, machine.instruction_set, machine.gpu, machine.platform, f"Python {machine.python}" if machine.python else "")
            yield "machine", ", ".join(filter(None, parts))
            if machine.git_dirty:
                yield "working tree", "had changes that were not committed"


def _shown(value: Any) -> str:
    from sepbench.kinds import shown

    return shown(tuple(value) if isinstance(value, list) else value) or "(empty)"


def _seconds(view: TaskView, method: str, record: Record) -> Iterator[tuple[str, str]]:
    cell = view.cell(method)
    cached = " (of the fit that was read from the cache)" if record["fit_cached"] else ""
    for label, value, note in (
        ("fit", float(record["fit_seconds"]), f" s{cached}"),
        ("separation", float(record["seconds_per_mixture"]), " s per mixture"),
        ("one mixture alone", math.nan if cell.latency_seconds is None else cell.latency_seconds, " s"),
        ("warm-up", math.nan if cell.warm_up_seconds is None else cell.warm_up_seconds, " s"),
        ("evaluations of the prior", float(record["evaluations_per_mixture"]), " per mixture and source"),
        ("peak memory", float(record["peak_mb"]), " MB"),
    ):
        if math.isfinite(value):
            yield label, f"{value:,.3g}{note}" if abs(value) < 1000 else f"{value:,.0f}{note}"
    if cell.error:
        yield "first error", cell.error
    if cell.note:
        yield "note", cell.note


def _prior(records: list[Record]) -> Iterator[tuple[str, str]]:
    for text in dict.fromkeys(str(record["prior"]) for record in records if record["prior"]):
        yield "prior", text
    for digest in _digests(records):
        entry = _shipped().get(digest)
        if entry is not None:
            about = f"{entry['name']}: trained on {entry['dataset']}{' ' + entry['classes'] if entry['classes'] else ''}, signals of {entry['shape']}"
            yield "weights", f"{about}, {size_text(int(entry['size']))}, ships with sepbench"
        yield "weights SHA-256", digest


def _digests(records: list[Record]) -> list[str]:
    """Of all weights of some rows; a method of one prior per class names several with commas."""
    return list(dict.fromkeys(digest for record in records for digest in str(record["weights_sha256"]).split(",") if digest))


def _weights_folders(method: str, domain: Any) -> Iterator[Path]:
    """Where the package of a method keeps its weights; nowhere if it is not installed here."""
    try:
        package = sys.modules[separator_class(method, domain).__module__.partition(".")[0]]
    except (SepbenchError, KeyError):
        return
    yield from (Path(place) / FOLDER for place in getattr(package, "__path__", ()))


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Mapping[str, Any]]:
    """The weights that ship, by digest."""
    path = resource_root("data_manifests") / "weights.toml"
    if not path.is_file():
        return {}
    try:
        return {entry["sha256"]: entry for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("weights", [])}
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise SepbenchError(f"{path} is damaged ({error}); install sepbench again") from error
