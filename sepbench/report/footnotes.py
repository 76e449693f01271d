"""What stands below the tables of a page, each thing once: how intervals were made, what signs mean, on which machines, which priors, what papers say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sepbench.metrics.catalogue import cap_of
from sepbench.report.numbers import Record, clusters_text
from sepbench.results.columns import OLD_INTERVAL
from sepbench.results.statistics import MIN_CLUSTERS
from sepbench.run.records import CellRecord
from sepbench.run.supplied import SUPPLIED, UNSTATED

if TYPE_CHECKING:
    from sepbench.report.rows import TaskLayout, TaskTable

Kind = Literal["interval", "sign", "seconds", "prior", "samples", "row", "unsupported", "paper"]
_ORDER: tuple[Kind, ...] = ("interval", "sign", "seconds", "prior", "samples", "row", "unsupported", "paper")
_UNAWARE = ", as if no two shared a signal"


@dataclass(frozen=True, slots=True)
class Footnote:
    """One remark on a table.

    Attributes:
        kind: what it is about; notes of one kind stand together.
        text: the remark.
        methods: whom it is about; empty: no method in particular.
        local: it holds for its own task; else methods of several tasks share the line.
        clusters: of an interval: fewest and most clusters, and what a cluster is; several tasks share the line.
    """

    kind: Kind
    text: str
    methods: tuple[str, ...] = ()
    local: bool = False
    clusters: tuple[int, int, str] = (0, 0, "")

    @property
    def key(self) -> Footnote:
        """Notes with the same key share a line."""
        return Footnote(self.kind, self.text, self.methods * self.local, self.local, (0, 0, self.clusters[2]))


def page_notes(tables: Sequence[TaskTable]) -> tuple[str, ...]:
    """The footnotes of a page with these tables."""
    return note_texts({table.task: table.notes for table in tables})


def note_texts(notes: Mapping[str, Sequence[Footnote]]) -> tuple[str, ...]:
    """Notes of several tasks as lines: equal ones once; those that hold for some of the tasks only name them."""
    found: dict[Footnote, dict[str, Footnote]] = {}
    for task, own in notes.items():
        for note in own:
            found.setdefault(note.key, {})[task] = note
    lines, samples = [], [key for key in found if key.kind == "samples"]
    for key, tasks in sorted(found.items(), key=lambda item: _ORDER.index(item[0].kind)):
        if key.kind != "samples":
            lines.append(_line(key, tasks, all_tasks=len(tasks) == len(notes)))
        elif len(samples) == 1:
            lines.append(f"{', '.join(_methods(tasks))}: {key.text} samples per mixture")
        elif key is samples[0]:
            counts = (f"{', '.join(_methods(found[one]))} {one.text}" for one in sorted(samples, key=lambda one: int(one.text)))
            lines.append(f"samples per mixture: {'; '.join(counts)}")
    return tuple(lines)


def _methods(tasks: Mapping[str, Footnote]) -> list[str]:
    return list(dict.fromkeys(method for note in tasks.values() for method in note.methods))


def _line(key: Footnote, tasks: Mapping[str, Footnote], all_tasks: bool) -> str:
    if key.kind == "unsupported":
        return f"not on {', '.join(tasks)}: {key.text}"
    if key.kind == "interval":
        counts = [note.clusters for note in tasks.values()]
        over = clusters_text(min(least for least, *_ in counts), max(most for _, most, _ in counts), key.clusters[2])
        return f"{key.text}{over}{_UNAWARE * key.text.endswith(OLD_INTERVAL)}"
    where = f"{', '.join(tasks)}: " if key.local and not all_tasks else ""
    methods = ", ".join(_methods(tasks))
    return where + ": ".join(filter(None, (key.text, methods) if key.kind == "prior" else (methods, key.text)))


def task_notes(layout: TaskLayout) -> Iterator[Footnote]:
    """The notes on a task's table."""
    yield from _interval_notes(layout)
    yield from _signs(layout)
    yield from _at_the_cap(layout)
    yield from _seconds(layout)
    yield from (Footnote("seconds", star) for star in layout.stars)
    for prior in dict.fromkeys(record["prior"] for record in layout.first.values() if record["prior"]):
        yield Footnote("prior", f"prior {prior}", tuple(method for method, record in layout.first.items() if record["prior"] == prior))
    for count in dict.fromkeys(record["samples"] for record in layout.first.values() if record["samples"] > 1):
        yield Footnote("samples", str(count), tuple(method for method, record in layout.first.items() if record["samples"] == count))
    remarks: dict[tuple[str, bool], list[str]] = {}
    for method, record in layout.first.items():
        for text, local in _row_remarks(layout, method, record):
            remarks.setdefault((text, local), []).append(method)
    for (text, local), methods in remarks.items():
        yield Footnote("row", text, tuple(methods), local)
    yield from _unsupported(layout)
    for remark, number in layout.remarks.items():
        yield Footnote("paper", f"({number}) {remark}")


def _interval_notes(layout: TaskLayout) -> Iterator[Footnote]:
    """How the intervals were made."""
    made: dict[tuple[str, str], list[str]] = {}
    for method, record in ((method, layout.records.get((method, layout.ranking))) for method in layout.first):
        if record is not None and math.isfinite(record["ci_low"]):
            made.setdefault((record["interval"], record["cluster"]), []).append(method)
    for (interval, unit), methods in made.items():
        counts = [layout.records[method, layout.ranking]["n_clusters"] for method in methods]
        whose = "intervals" if len(made) == 1 else f"intervals of {', '.join(methods)}"
        yield Footnote("interval", f"{whose}: {interval}", clusters=(min(counts), max(counts), unit))


def _signs(layout: TaskLayout) -> Iterator[Footnote]:
    """What the signs in the column of ranks mean."""
    if layout.equal:
        yield Footnote("sign", "=: the best method does not beat it (paired one-sided test, 5 % for all rows together)")
    if layout.shorter:
        yield Footnote("sign", "+: ranked on fewer mixtures than others")
    untested = tuple(method for method in layout.shown if method in layout.untested)
    if untested:
        text = f"ranked by its mean alone: it has no {layout.ranking} of the same mixtures to test against the best method"
        yield Footnote("sign", text, untested, local=True)
    if "size" in layout.marks_shown:
        yield Footnote("sign", f"size: {layout.ranking} depends on the number of mixtures, and others have {layout.most:,}: not ranked", local=True)
    if "never" in layout.marks_shown:
        yield Footnote("sign", f"never: {layout.ranking} does not rank, its windows move by tens of dB with the samples' last bit; rank by 'sdr'")
    few = next((method for method in layout.shown if layout.ranks[method] == "few"), None)
    if few is not None:
        yield Footnote("sign", f"few: not ranked below {MIN_CLUSTERS} {layout.records[few, layout.ranking]['cluster']}s")


def _at_the_cap(layout: TaskLayout) -> Iterator[Footnote]:
    """Methods with values at the cap of the ranking metric: exact estimates that a cap turned into a number, which may carry a mean."""
    cap = cap_of(layout.ranking)
    if layout.evidence is None or math.isinf(cap):
        return
    unit = layout.records[layout.methods[0], layout.ranking]["unit"] if (layout.methods[0], layout.ranking) in layout.records else ""
    for method in layout.shown:
        values = layout.evidence.values.of(layout.task, method, layout.ranking)
        count = int((values.values >= cap).sum())
        if count and not layout.is_bound(method):
            text = f"{count:,} of {int(values.scored.sum()):,} values are at the cap of {cap:g} {unit}".rstrip()
            yield Footnote("sign", text, (method,), local=True)


def _seconds(layout: TaskLayout) -> Iterator[Footnote]:
    letters = layout.marks.timing
    for group in dict.fromkeys(layout.groups()):
        alone, machine = len(letters) == 1, machine_words(group)
        yield Footnote("seconds", f"seconds on {machine}" if alone else f"{letters[group]}: seconds on {machine}; compare only with the same letter")


def machine_words(group: str) -> str:
    """A timing group for people: ``cpu:AMD EPYC:1threads:float32`` as ``cpu, AMD EPYC, 1 thread, float32``, ``mixed`` as ``several machines``."""
    if group == "mixed":
        return "several machines"
    counted = re.sub(r"\b(\d+)(thread|worker)s\b", lambda found: f"{found[1]} {found[2]}{'' if found[1] == '1' else 's'}", group)
    return ", ".join(counted.split(":"))


def _row_remarks(layout: TaskLayout, method: str, record: Record) -> Iterator[tuple[str, bool]]:
    """Remarks on one method, and whether they hold for this task alone."""
    main = layout.records.get((method, layout.ranking), record)
    cell = layout.cells.get((layout.task, method), CellRecord())
    if record["estimates_sha256"]:
        unstated = "; what their method learns from is not stated" if record["supervision"] == UNSTATED else ""
        yield f"{SUPPLIED}, sha256 {record['estimates_sha256'][:12]}{unstated}", True
    if main["n_scored"] < main["n_expected"]:
        missing = main["n_expected"] - main["n_scored"] - main["n_failed"]
        parts = [f"{main['n_failed']:,} failed"] * bool(main["n_failed"]) + [f"{missing:,} not reached"] * (missing > 0)
        error = f" ({cell.error})" if cell.error else ""
        yield f"{main['n_scored']:,} of {main['n_expected']:,} mixtures scored, {', '.join(parts)}{error}", True
    if record["n_expected"] < layout.frozen and layout.lengths_differ:
        yield f"first {record['n_expected']:,} of {layout.frozen:,} mixtures", True
    if record["budget"] == "quick" and any(other["budget"] != "quick" for other in layout.first.values()):
        yield "quick budget", False
    if cell.note and cell.state != "unsupported":
        yield cell.note, True


def _unsupported(layout: TaskLayout) -> Iterator[Footnote]:
    """One line for all methods of the run that do not take the task, those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for (task, method), cell in layout.cells.items():
        asked = not layout.selection.methods or method in layout.selection.methods
        if task == layout.task and cell.state == "unsupported" and asked:
            reasons.setdefault(cell.note, []).append(method)
    if reasons:
        text = "; ".join(", ".join(methods) + (f" ({reason})" if reason else "") for reason, methods in reasons.items())
        yield Footnote("unsupported", text)
