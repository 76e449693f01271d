"""The regression gate: are new results at least as good as old ones?

Every row of OLD must be found in NEW with the same value in the columns that must agree (``columns.COLUMNS``: suite version, task digest, unit,
supervision, budget, number of planned examples ...), with a mean, and with no fewer examples scored. Then, with differences oriented so
that higher is better:

* where both sides have per-example scores, a row is a regression if its mean is worse by more than ``tolerance`` **and** chance does not explain it.
  A check is one decision over all its rows: each has the one-sided p-value of a paired t test that knows the clusters (``intervals``), and Holm's
  adjusted p-value must lie below ``ALARM``. Without any true change an alarm is then at most that likely, however many rows there are
  (``benchmarks/results/false_alarms.csv``);
* otherwise (a CSV without scores on either side), if the mean is worse by more than ``tolerance``.

The tolerance is there because the same code gives other last digits with AVX2 than with AVX-512, with other numbers of
threads, or on another device. It must be larger than that, and smaller than anything worth knowing. If a row has fewer
than ``MIN_CLUSTERS`` clusters, it holds if its mean does. If its mean is worse, it is not comparable: so few clusters
cannot tell a change from chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sepbench.errors import SepbenchError, some
from sepbench.registry import nearest
from sepbench.results import columns
from sepbench.results.columns import key_names
from sepbench.results.pairing import bare_sides, difference, no_parts, pair_up
from sepbench.results.statistics import MIN_CLUSTERS, PairedDifference, holm
from sepbench.results.target import Results

Status = Literal["holds", "improvement", "new", "regression", "not comparable"]
Basis = Literal["paired test", "means", ""]

TOLERANCES: Mapping[str, float] = {"dB": 0.01, "1": 0.001}
"""Default tolerance per unit."""
ALARM = 0.05
"""Probability of any false regression in one check."""
OTHER_TOLERANCE = 0.001
"""Default tolerance for any other unit."""


@dataclass(frozen=True, slots=True)
class GateRow:
    """The finding on one (suite, task, method, metric).

    Attributes:
        old, new: means, in the metric's unit.
        difference: new - old, not oriented; ``ci_low, ci_high``: its own paired 95 % interval where ``basis`` is ``paired test``, else NaN.
        p_worse: p-value of a change for the worse, adjusted for all rows of the check; NaN where ``basis`` is not ``paired test``.
        tolerance: by how much the row may be worse.
        reason: why it is not comparable, or new.
    """

    suite: str
    task: str
    method: str
    metric: str
    status: Status
    unit: str = ""
    old: float = math.nan
    new: float = math.nan
    difference: float = math.nan
    ci_low: float = math.nan
    ci_high: float = math.nan
    p_worse: float = math.nan
    tolerance: float = math.nan
    basis: Basis = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GateReport:
    """All findings, in the order of OLD and then NEW, and notes on what changed without breaking comparability."""

    rows: Sequence[GateRow]
    notes: Sequence[str]

    def count(self, status: Status) -> int:
        return sum(row.status == status for row in self.rows)

    @property
    def exit_code(self) -> int:
        """0 holds, 1 regression, 2 not comparable; 2 goes before 1: what cannot be compared must not pass as an ordinary regression."""
        return 2 if self.count("not comparable") else 1 if self.count("regression") else 0

    @property
    def verdict(self) -> str:
        """One word or two."""
        return ("holds", "regression", "not comparable")[self.exit_code]


def parse_tolerances(assignments: Sequence[str]) -> dict[str, float]:
    """``["psnr=0.05"]`` to ``{"psnr": 0.05}``.

    Raises:
        SepbenchError: not of the form METRIC=VALUE with a finite value >= 0, or a metric twice.
    """
    tolerances: dict[str, float] = {}
    for text in assignments:
        metric, equals, number = (part.strip() for part in text.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (metric and equals and math.isfinite(value) and value >= 0):
            raise SepbenchError(f"--tolerance takes METRIC=VALUE with a value >= 0 (for example psnr=0.05), got {text!r}")
        if metric in tolerances:
            raise SepbenchError(f"--tolerance gives {metric} twice")
        tolerances[metric] = value
    return tolerances


@dataclass(frozen=True, slots=True)
class Scope:
    """What is held against OLD.

    Attributes:
        tasks, methods: only these; empty for all.
        subset: only rows that both sides have, on the examples that both have, instead of everything that OLD has. Figures that cannot be made
            anew of these examples are passed over, with a note.
    """

    tasks: Sequence[str] = ()
    methods: Sequence[str] = ()
    subset: bool = False


def check_results(new: Results, old: Results, tolerances: Mapping[str, float] | None = None, scope: Scope | None = None) -> GateReport:
    """Hold NEW against OLD.

    Args:
        tolerances: by metric, instead of the default of its unit.
        scope: default: everything that OLD has.

    Raises:
        SepbenchError: OLD has no rows (of the scope), NEW is of another suite, or a subset has nothing in common that can be compared.
        UnknownNameError: a tolerance for a metric, a task or a method that OLD does not have.
    """
    tolerances, scope = tolerances or {}, scope or Scope()
    rows_new, rows_old = _rows_of_scope(new, old, tolerances, scope)
    values = {key: _paired_values(new, old, key) for key in sorted(rows_old)}  # the metrics of a cell one after another: it is read once
    obstacles = {key: _obstacle(rows_new.get(key), row, values[key].both, scope.subset and values[key].both, values[key].bare) for key, row in rows_old.items()}
    passed = {key: values[key].bare for key in rows_old if scope.subset and values[key].bare and not obstacles[key]}
    if len(passed) == len(rows_old):
        raise SepbenchError(f"nothing is left to check: {'; '.join(dict.fromkeys(passed.values()))}")
    judged = [key for key in rows_old if key not in passed]
    pairs = _pairs([key for key in judged if values[key].both and not obstacles[key]], new, old)
    adjusted = _adjusted(pairs, rows_old)
    findings = []
    for key in judged:
        row = rows_old[key]
        tolerance = tolerances.get(row["metric"], TOLERANCES.get(row["unit"], OTHER_TOLERANCE))
        evidence = _Evidence(pairs.get(key), *adjusted.get(key, (1.0, 1.0)), tolerance, scope.subset)
        findings.append(_finding(key, rows_new.get(key), row, obstacles[key], evidence))
    findings += [_row(key, "new", row, None, reason="not in OLD") for key, row in rows_new.items() if key not in rows_old]
    return GateReport(findings, list(dict.fromkeys([*_notes(rows_new, rows_old), *_passed_over(passed)])))


def _rows_of_scope(new: Results, old: Results, tolerances: Mapping[str, float], scope: Scope) -> tuple[dict[_Key, _Record], dict[_Key, _Record]]:
    """The rows of NEW and of OLD that are held against each other, for a subset those of OLD that NEW has too. Raises: see ``check_results``."""
    if not len(old.frame):
        raise SepbenchError(f"{old.label} has no rows: there is nothing to check against")
    suites_old, suites_new = (", ".join(sorted(set(frame["suite"]))) for frame in (old.frame, new.frame))
    if suites_old != suites_new:
        raise SepbenchError(f"not comparable: {new.label} is of suite {suites_new or 'none'}, {old.label} of {suites_old}")
    _check_known(tolerances, old, "metric", "--tolerance; ")
    _check_known(scope.tasks, old, "task", "--tasks; ")
    _check_known(scope.methods, old, "method", "--methods; ")
    rows_old, rows_new = _by_key(old, scope), _by_key(new, scope)
    if scope.subset:
        rows_old = {key: row for key, row in rows_old.items() if key in rows_new}
    if not rows_old:
        raise SepbenchError(f"{new.label} and {old.label} have no row in common; check what --tasks and --methods name")
    return rows_new, rows_old


def _check_known(names: Iterable[str], old: Results, column: str, where: str) -> None:
    known = list(dict.fromkeys(old.frame[column]))
    for name in names:
        if name not in known:
            raise nearest(name, known, f"{column} ({where}{column}s of {old.label})")


_Key = tuple[str, str, str, str]
_Record = Mapping[str, Any]


def _by_key(results: Results, scope: Scope) -> dict[_Key, _Record]:
    """The rows of the scope."""
    frame = results.frame
    for column, wanted in (("task", scope.tasks), ("method", scope.methods)):
        frame = frame[frame[column].isin(wanted)] if wanted else frame
    return {tuple(record[name] for name in key_names()): record for record in frame.to_dict("records")}  # type: ignore[misc]


def _row(key: _Key, status: Status, new: _Record | None, old: _Record | None, **more: Any) -> GateRow:
    unit = str((old or new or {}).get("unit", ""))
    return GateRow(*key, status, unit, old["mean"] if old else math.nan, new["mean"] if new else math.nan, **more)


@dataclass(frozen=True, slots=True)
class _PairedValues:
    """Whether a row has per-example scores on both sides (those beside a leaderboard may be of some rows only).

    Attributes:
        both: it has.
        bare: why the figure of the examples that both have cannot be made, and what to do; empty if it can.
    """

    both: bool
    bare: str = ""


def _paired_values(new: Results, old: Results, key: _Key) -> _PairedValues:
    if new.values is None or old.values is None:
        return _PairedValues(False)
    a, b = new.values.of(*key[1:]), old.values.of(*key[1:])
    if not (len(a) and len(b)):
        return _PairedValues(False)
    if a.undefined:
        return _PairedValues(True, f"the {a.undefined:,} mixtures of NEW are too few for {key[3]}; run NEW again with more")
    sides = [{"a": "NEW", "b": "OLD"}[side] for side in bare_sides(a, b)]
    return _PairedValues(True, no_parts(key[3], sides) if sides else "")


def _pairs(keys: Sequence[_Key], new: Results, old: Results) -> dict[_Key, PairedDifference]:
    """Paired differences new - old of rows that have per-example scores on both sides."""
    if new.values is None or old.values is None:
        return {}
    found, designs = {}, (new if new.suite is not None else old).designs.task
    for key in sorted(keys):
        found[key] = difference(pair_up(new.values.of(*key[1:]), old.values.of(*key[1:])), designs(key[1]))
    return found


def _adjusted(pairs: Mapping[_Key, PairedDifference], rows: Mapping[_Key, _Record]) -> dict[_Key, tuple[float, float]]:
    """Holm's p-values of a change for the worse and for the better, over all rows that can be judged: each is a family of its own."""
    judged = {key: paired for key, paired in pairs.items() if paired.n >= 2 and paired.decidable}
    lower, higher = ([getattr(paired, name) for paired in judged.values()] for name in ("p_lower", "p_higher"))
    up = [bool(rows[key]["higher_is_better"]) for key in judged]
    worse = holm(np.array([low if good else high for low, high, good in zip(lower, higher, up, strict=True)]))
    better = holm(np.array([high if good else low for low, high, good in zip(lower, higher, up, strict=True)]))
    return {key: (float(worse[place]), float(better[place])) for place, key in enumerate(judged)}


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What decides a row that can be compared.

    Attributes:
        paired: the paired difference new - old, None without per-example scores.
        p_worse, p_better: adjusted over the check.
        tolerance: by how much the mean may be worse.
        subset: fewer examples than OLD has are no obstacle.
    """

    paired: PairedDifference | None
    p_worse: float
    p_better: float
    tolerance: float
    subset: bool


def _finding(key: _Key, new: _Record | None, old: _Record, obstacle: str, evidence: _Evidence) -> GateRow:
    if new is not None and _both_undefined(new, old):
        return _row(key, "holds", new, old, reason="no value of so few mixtures on either side")
    if new is None or obstacle:
        return _row(key, "not comparable", new, old, reason=obstacle)
    if not math.isfinite(old["mean"]):
        return _row(key, "new", new, old, reason="no value in OLD")
    paired, tolerance = evidence.paired, evidence.tolerance
    if paired is not None and not evidence.subset and paired.n < old["n_scored"]:
        return _row(key, "not comparable", new, old, reason=f"{old['n_scored'] - paired.n} examples scored in OLD have no value in NEW")
    if evidence.subset and paired is not None and not paired.n:
        return _row(key, "not comparable", new, old, reason="no example that both have scored")
    sign = 1.0 if old["higher_is_better"] else -1.0
    if paired is not None and paired.n >= 2:
        return _judged(key, new, old, paired, evidence, sign * paired.mean)
    # A CSV has six significant digits: both sides are rounded to them, so that a run equals the CSV that was written from it.
    difference = float(f"{new['mean']:.6g}") - float(f"{old['mean']:.6g}")
    return _row(key, _status(sign * difference, tolerance), new, old, difference=difference, tolerance=tolerance, basis="means")


def _both_undefined(new: _Record, old: _Record) -> bool:
    """Metrics of sets that need more mixtures than both sides have."""
    return not math.isfinite(new["mean"]) and not math.isfinite(old["mean"]) and 0 < new["n_scored"] == old["n_scored"]


def _judged(key: _Key, new: _Record, old: _Record, paired: PairedDifference, evidence: _Evidence, gain: float) -> GateRow:
    """A row of paired scores: a change must be larger than the tolerance and more than chance."""
    status, reason = _status(gain, evidence.tolerance), ""
    if not paired.decidable and status == "regression":
        few = f"{paired.n_clusters} {paired.unit}s are too few to tell a change from chance, {MIN_CLUSTERS} are needed"
        status, reason = "not comparable", few if paired.n_clusters < MIN_CLUSTERS else "no interval tells a change from chance: use more mixtures"
    elif (status == "regression" and evidence.p_worse >= ALARM) or (status == "improvement" and not evidence.p_better < ALARM):
        status = "holds"
    numbers = {"difference": paired.mean, "ci_low": paired.ci_low, "ci_high": paired.ci_high, "p_worse": evidence.p_worse, "tolerance": evidence.tolerance}
    return _row(key, status, new, old, basis="paired test", reason=reason, **numbers)


def _status(gain: float, tolerance: float) -> Status:
    """What a gain (positive is better) amounts to by its size."""
    return "regression" if gain < -tolerance else "improvement" if gain > tolerance else "holds"


def _obstacle(new: _Record | None, old: _Record, paired: bool, other_lengths: bool, bare: str = "") -> str:
    """Why two rows cannot be compared; empty if they can, or if a subset only lacks what to make their figure of.

    Args:
        paired: both sides have per-example scores.
        other_lengths: they are compared on the examples that both have.
        bare: see ``_PairedValues``.
    """
    if new is None:
        return "missing in NEW"
    other = next(_differences(new, old, "agree", "n_expected" if other_lengths else ""), "")
    if other and not next(_differences(new, old, "agree", "n_expected"), ""):  # the number of mixtures alone
        step = "--subset compares those that both have" if paired else "run NEW again with as many mixtures"
        return f"{other}; {bare or step}"
    if other:
        return other
    if not paired and new["seed"] != old["seed"]:
        return f"seed {old['seed']} in OLD, {new['seed']} in NEW, and no per-example scores to tell chance from change"
    if not math.isfinite(new["mean"]) and not (other_lengths and bare):
        return "no value (NaN) in NEW"
    if new["n_scored"] < old["n_scored"] and not other_lengths:
        return f"{old['n_scored']} examples scored in OLD, {new['n_scored']} in NEW"
    return "" if other_lengths else bare


def _brief(value: object) -> str:
    text = str(value)
    return (text if len(text) <= 16 else text[:12] + "...") or "none"


def _differences(new: _Record, old: _Record, gate: Literal["agree", "note"], but: str = "") -> Iterator[str]:
    """Columns that must agree and do not, or that have two values of which the difference is worth a note."""
    for column in columns.COLUMNS:
        a, b = old[column.name], new[column.name]
        empty = _is_empty(a) + _is_empty(b)
        if column.gate == gate and column.name != but and a != b and empty < (2 if gate == "agree" else 1):
            yield f"{column.word} {_brief(a)} in OLD, {_brief(b)} in NEW"


def _is_empty(value: object) -> bool:
    return value == "" or (isinstance(value, float) and math.isnan(value))


def _passed_over(passed: Mapping[_Key, str]) -> Iterator[str]:
    """The figures that a subset passes over, those of one reason together."""
    cells: dict[tuple[str, str], list[str]] = {}
    for (_, task, method, metric), reason in passed.items():
        cells.setdefault((metric, reason), []).append(f"{task} {method}")
    yield from (f"{metric} is passed over for {some(names)}: {reason}" for (metric, reason), names in cells.items())


def _notes(rows_new: Mapping[_Key, _Record], rows_old: Mapping[_Key, _Record]) -> Iterator[str]:
    for key, old in rows_old.items():
        new = rows_new.get(key)
        yield from (f"{old['method']}: {difference}" for difference in (_differences(new, old, "note") if new is not None else ()))
