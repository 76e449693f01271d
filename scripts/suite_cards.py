"""Cards of suites for the documents: data, licence, tasks, digests, the leaderboard and the papers' figures beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from sepbench.data.datasets import manifest_of
from sepbench.data.files.manifests import Manifest, load_manifest
from sepbench.metrics.catalogue import get_metric, metric_names
from sepbench.registry import create_separator, separator_domains, separator_names
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite, Task

LEADERBOARDS = Path(__file__).resolve().parent.parent / "leaderboards"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(str(cell).replace('|', '/').replace(chr(10), ' ') for cell in row)} |" for row in rows]
    return "\n".join(lines)


@cache
def board(suite: str) -> pd.DataFrame | None:
    """The committed leaderboard of a suite, None where there is none."""
    path = LEADERBOARDS / f"{suite}.csv"
    return read_leaderboard(path) if path.exists() else None


def number(value: Any) -> str:
    """Four significant digits at the most, nothing for nothing."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def with_interval(row: Any) -> str:
    """``30.13 [29.62, 30.65]``."""
    interval = f" [{number(row.ci_low)}, {number(row.ci_high)}]" if math.isfinite(row.ci_low) else ""
    return number(row.mean) + interval


def seconds(row: Any) -> tuple[str, str, str]:
    """Of fitting and of separating one mixture, and the timing group; empty where they were not measured."""
    fit, each = (f"{value:.3g}" if value > 0 else "" for value in (row.fit_seconds, row.seconds_per_mixture))
    return fit, each, row.timing_group if each else ""


def suite_card(name: str) -> str:
    """Everything that a file of the project says of a suite."""
    suite = load_suite(name)
    tests = [task for task in suite.tasks.values() if task.split == "test"]
    parts = [_facts(suite), "## Data\n\n" + _data(suite), "## Tasks\n\n" + _tasks(suite, tests), _figures(suite, tests), _published(suite)]
    return "\n\n".join(part for part in parts if part)


def _manifests(suite: Suite) -> list[Manifest]:
    names = {manifest_of(dataset) for task in suite.tasks.values() for dataset in task.spec.datasets}
    return [load_manifest(name) for name in sorted(names - {""})]


def _where(manifest: Manifest) -> str:
    if manifest.shipped_with:
        return f"comes with {manifest.shipped_with}"
    if manifest.made_by:
        return "made by the package"
    size = sum(file.size for file in manifest.files_of(manifest.download_form or "") if file.urls)
    if size and any(file.urls for file in manifest.files):
        return f"download, {size / 1e6:,.1f} MB"
    return "your own copy"


def _facts(suite: Suite) -> str:
    metrics = ", ".join(f"**`{m}`** (ranks)" if m == suite.ranking_metric else f"`{m}`" for m in suite.metrics)
    rows = [
        ("version", suite.version),
        ("signals", suite.domain),
        ("metrics", metrics),
        ("methods by default", ", ".join(f"`{method}`" for method in suite.methods)),
    ]
    return f"{' '.join(suite.description.split())}\n\n" + table(("", suite.title), rows)


def _data(suite: Suite) -> str:
    manifests = _manifests(suite)
    if not manifests:
        return "The package generates the sources from a stated distribution; nothing is read."
    rows = [(f"`{m.name}`", m.title, m.licence, _where(m), f"[home]({m.homepage})" if m.homepage.startswith("http") else "") for m in manifests]
    notes = [f"* `{m.name}`: {' '.join(m.notes.split())}" for m in manifests if m.notes]
    return table(("data set", "title", "licence", "how it comes here", ""), rows) + ("\n\n" + "\n".join(notes) if notes else "")


def _tasks(suite: Suite, tests: Sequence[Task]) -> str:
    rows = []
    for task in tests:
        spec = task.spec
        scored = ", ".join(str(k) for k in spec.scored_sources) if len(spec.scored_sources) < spec.n_sources else "all"
        digest = f"`{task.digest[:12]}`" if task.frozen and task.digest else "not frozen"
        shape = " x ".join(str(side) for side in spec.source_shape)
        row = (f"`{spec.name}`", ", ".join(spec.source_classes), shape, spec.operator, spec.assignment, scored, f"{task.n_examples:,}", digest)
        rows.append(row)
    text = table(("task", "sources", "shape", "operator", "assignment", "scored", "mixtures", "digest"), rows)
    validation = [f"`{task.spec.name}` ({task.n_examples:,})" for task in suite.tasks.values() if task.split == "validation"]
    return text + (f"\n\nFor choosing settings: {', '.join(validation)}, made of training signals that no training view hands out." if validation else "")


def _figures(suite: Suite, tests: Sequence[Task]) -> str:
    frame = board(suite.name)
    if frame is None:
        return "## Figures\n\nNo leaderboard is committed: nobody here has the data."
    parts = [f"## Figures\n\nFrom `leaderboards/{suite.name}.csv`: `{suite.ranking_metric}`, 95 % intervals in brackets. Bounds are in italics and not ranked."]
    for task in tests:
        found = frame[(frame.task == task.spec.name) & (frame.metric == suite.ranking_metric)]
        if len(found):
            ordered = found.sort_values("mean", ascending=not bool(found.higher_is_better.iloc[0]))
            rows = [(_styled(row), row.supervision, f"{int(row.n_scored):,}", with_interval(row), *seconds(row), row.budget) for row in ordered.itertuples()]
            head = ("method", "may learn from", "mixtures", suite.ranking_metric, "s/fit", "s/mixture", "timing group", "budget")
            parts.append(f"### `{task.spec.name}`\n\n" + table(head, rows))
    return "\n\n".join(parts)


def _styled(row: Any) -> str:
    return f"*`{row.method}`*" if row.method in _bounds() else f"`{row.method}`"


@cache
def _bounds() -> frozenset[str]:
    made = {name: create_separator(name, domain=domain) for name in separator_names() for domain in separator_domains(name)}
    return frozenset(name for name, separator in made.items() if separator.info.bound)


def _published(suite: Suite) -> str:
    if not suite.published:
        return ""
    frame, rows = board(suite.name), []
    for one in suite.published:
        printed = number(one.value) + (f" (std {number(one.std)})" if one.std else "")
        ours = _ours(frame, one.task, one.method, one.metric)
        rows.append((f"`{one.task}`", one.title, one.source, f"`{one.metric}`", printed, ours, " ".join(one.notes.split())))
    head = ("task", "row of the paper", "source", "metric", "printed", "ours", "what to know")
    return "## Published figures\n\n" + table(head, rows)


def _ours(frame: pd.DataFrame | None, task: str, method: str, metric: str) -> str:
    if frame is None or not method:
        return ""
    found = frame[(frame.task == task) & (frame.method == method) & (frame.metric == metric)]
    return "; ".join(f"`{method}` {with_interval(row)}, n = {int(row.n_scored):,}" for row in found.itertuples())


def metric_table() -> str:
    """What every metric says of itself."""
    rows = []
    for name in metric_names():
        info = get_metric(name).info
        better = "higher" if info.higher_is_better else "lower"
        rows.append(
            (f"`{name}`", info.per, ", ".join(sorted(info.domains)), info.unit, better, f"`{info.assigned_by}`" if info.assigned_by else "", info.source)
        )
    return table(("metric", "value per", "signals", "unit", "better", "assigned by", "source"), rows)
