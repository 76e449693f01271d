"""Rows over time: a committed leaderboard over its git history, or several runs of one suite in the order they were given.

What has become worse is said by the gate itself (``results/gate.py``), each state against the one before. Where one of the two has no values per
mixture, the gate holds means against its tolerance alone: such rows stand apart, for chance is not ruled out. A row that was made on another device
has other last digits, which can be more than the tolerance (rows of an H100 in commit f68edfc: up to 0.035 dB, where standard errors are 0.26 dB).
"""

from __future__ import annotations

import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sepbench.errors import SepbenchError
from sepbench.report.html import charts
from sepbench.report.numbers import with_interval
from sepbench.results.gate import GateReport, GateRow, check_results
from sepbench.results.published_scores import scores_path
from sepbench.results.target import Results, open_csv
from sepbench.results.values import Values

NOT_TESTED = charts.NOT_TESTED


@dataclass(frozen=True, slots=True)
class State:
    """Results at one time; ``when`` tells it from the others in a few words."""

    when: str
    what: str
    results: Results


@dataclass(frozen=True, slots=True)
class Step:
    """One state against the one before.

    Attributes:
        verdict: of the gate.
        counts: numbers of rows by finding.
        regressions: rows that became worse by the paired test.
        untested: rows whose means became worse by more than the tolerance, which no test could look at.
        notes: what else differs, such as the device.
    """

    when: str
    what: str
    verdict: str
    counts: str
    regressions: tuple[str, ...]
    notes: tuple[str, ...]
    untested: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class History:
    """All of the section: a chart per task."""

    steps: tuple[Step, ...]
    charts: tuple[tuple[str, charts.Chart], ...]


def history(states: Sequence[State]) -> History | None:
    """The section; None of fewer than two states.

    Raises:
        SepbenchError: states of different suites.
    """
    if len(states) < 2:
        return None
    steps: list[Step] = []
    flags: dict[tuple[str, str, str, str], str] = {}
    steps.append(Step(states[0].when, states[0].what, "", f"{len(states[0].results.frame):,} rows", (), ()))
    for old, new in pairwise(states):
        try:
            report = check_results(new.results, old.results)
        except SepbenchError as error:
            steps.append(Step(new.when, new.what, "not comparable", str(error), (), ()))
            continue
        steps.append(_step(new, report))
        flags |= {(new.when, row.task, row.method, row.metric): _flag(row) for row in report.rows}
    return History(tuple(steps), tuple(_charts(states, flags)))


def _flag(row: GateRow) -> str:
    """The gate's finding; ``NOT_TESTED`` where it is a regression by means alone."""
    return NOT_TESTED if row.status == "regression" and row.basis != "paired test" else row.status


def _step(state: State, report: GateReport) -> Step:
    flags = [_flag(row) for row in report.rows]
    counts = {flag: flags.count(flag) for flag in charts.FLAGS}
    worse = {flag: tuple(_said(row) for row, own in zip(report.rows, flags, strict=True) if own == flag) for flag in ("regression", NOT_TESTED)}
    verdict = NOT_TESTED if report.verdict == "regression" and not worse["regression"] else report.verdict
    said = ", ".join(f"{count:,} {flag}" for flag, count in counts.items() if count)
    return Step(state.when, state.what, verdict, said, worse["regression"], tuple(report.notes), worse[NOT_TESTED])


def _said(row: GateRow) -> str:
    p = f", adjusted p {row.p_worse:.2g}" if math.isfinite(row.p_worse) else f", tolerance {row.tolerance:g}"
    return f"{row.task}, {row.method}, {row.metric}: {row.old:.6g} to {row.new:.6g}{p}"


def _charts(states: Sequence[State], flags: dict[tuple[str, str, str, str], str]) -> Iterator[tuple[str, charts.Chart]]:
    last = states[-1].results
    metric = last.ranking_metric
    for task in dict.fromkeys(last.frame["task"]):
        rows: list[dict[str, Any]] = []
        for number, state in enumerate(states):
            frame = state.results.frame
            for record in frame[(frame["task"] == task) & (frame["metric"] == metric)].to_dict("records"):
                if math.isfinite(record["mean"]):
                    key = (state.when, str(task), str(record["method"]), metric)
                    row = {"method": record["method"], "when": state.when, "step": number, "mean": record["mean"], "text": with_interval(record)}
                    rows.append(row | {"flag": flags.get(key, "new")})
        if rows:
            yield str(task), charts.history(rows, metric, f"{metric} of every method on {task} over {len(states)} states; the table names what the gate found")


def git_states(csv: Path, most: int, warn: Callable[[str], None]) -> list[State]:
    """The last states of a committed leaderboard, oldest first, with the per-example scores that lay beside it.

    None where the file is not in a git repository, or git is not there. A state that this version cannot read is left out, with a warning.
    """
    csv = csv.resolve()
    log = _git(csv.parent, "log", f"-{most}", "--format=%H%x09%cs%x09%s", "--", csv.name)
    states = []
    with tempfile.TemporaryDirectory() as folder:
        for line in reversed(log.decode("utf-8", "replace").splitlines()):
            sha, day, subject = line.split("\t", 2)
            place = Path(folder) / sha / csv.name
            for path in (csv, scores_path(csv)):
                content = _git(csv.parent, "show", f"{sha}:./{path.relative_to(csv.parent)}")
                if content:
                    target = place.parent / path.relative_to(csv.parent)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
            try:
                results = open_csv(place, sha[:7])
            except SepbenchError as error:
                warn(f"history of {csv.name}: {sha[:7]} is left out: {error}")
                continue
            states.append(State(f"{day} {sha[:7]}", subject, _read_now(results)))
    return states


def _read_now(results: Results) -> Results:
    """Results whose values lie in memory, so that their files may go."""
    if results.values is None:
        return results
    cells = {(task, method): dict(results.values.cell(task, method)) for task, method in {*zip(results.frame["task"], results.frame["method"], strict=True)}}
    return replace(results, values=Values(lambda task, method: cells.get((task, method), {})))


def _git(folder: Path, *arguments: str) -> bytes:
    """What git prints; nothing where it fails."""
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return b""
