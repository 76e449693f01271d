"""The regression gate: do new results hold against old ones?

Every row of OLD must be found in NEW with the same value in the columns that must agree (``columns.COLUMNS``: suite version, task digest, unit,
supervision, seed, budget, number of planned examples ...), with a mean, and with no fewer examples scored. Then, with differences oriented so
that higher is better:

* where both sides have per-example scores (two run folders), a row is a regression if the upper end of the 95 % paired-bootstrap interval
  of new - old lies below ``-tolerance``;
* otherwise (a CSV on either side), if the mean is worse by more than ``tolerance``.

The tolerance is there because the same code gives other last digits with AVX2 than with AVX-512, with other numbers of threads, or on
another device; it must be larger than that and smaller than anything worth knowing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sepbench.errors import SepbenchError
from sepbench.registry import nearest
from sepbench.results import columns
from sepbench.results.columns import key_names
from sepbench.results.compare import differences, pair_up
from sepbench.results.statistics import PairedDifference
from sepbench.results.target import Results

Status = Literal["holds", "improvement", "new", "regression", "not comparable"]
Basis = Literal["paired bootstrap", "means", ""]

TOLERANCES: Mapping[str, float] = {"dB": 0.01, "1": 0.001}
"""Default tolerance per unit."""
OTHER_TOLERANCE = 0.001
"""Default tolerance for any other unit."""


@dataclass(frozen=True, slots=True)
class GateRow:
    """The finding on one (suite, task, method, metric).

    Attributes:
        old, new: means, in the metric's unit.
        difference: new - old, not oriented; ``ci_low, ci_high``: its paired 95 % interval where ``basis`` is ``paired bootstrap``, else NaN.
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


def check_results(new: Results, old: Results, tolerances: Mapping[str, float] | None = None) -> GateReport:
    """Hold NEW against OLD.

    Args:
        tolerances: by metric, instead of the default of its unit.

    Raises:
        SepbenchError: OLD has no rows, or NEW is of another suite.
        UnknownNameError: a tolerance for a metric that OLD does not have.
    """
    tolerances = tolerances or {}
    if not len(old.frame):
        raise SepbenchError(f"{old.label} has no rows: there is nothing to check against")
    suites_old, suites_new = (", ".join(sorted(set(frame["suite"]))) for frame in (old.frame, new.frame))
    if suites_old != suites_new:
        raise SepbenchError(f"not comparable: {new.label} is of suite {suites_new or 'none'}, {old.label} of {suites_old}")
    known = list(dict.fromkeys(old.frame["metric"]))
    for metric in tolerances:
        if metric not in known:
            raise nearest(metric, known, f"metric (--tolerance; metrics of {old.label})")
    rows_old, rows_new = _by_key(old), _by_key(new)
    obstacles = {key: _obstacle(rows_new.get(key), row) for key, row in rows_old.items()}
    pairs = _pairs([key for key, obstacle in obstacles.items() if not obstacle], new, old)
    findings = []
    for key, row in rows_old.items():
        tolerance = tolerances.get(row["metric"], TOLERANCES.get(row["unit"], OTHER_TOLERANCE))
        findings.append(_finding(key, rows_new.get(key), row, obstacles[key], pairs.get(key), tolerance))
    findings += [_row(key, "new", row, None, reason="not in OLD") for key, row in rows_new.items() if key not in rows_old]
    return GateReport(findings, list(dict.fromkeys(_notes(rows_new, rows_old))))


_Key = tuple[str, str, str, str]
_Record = Mapping[str, Any]


def _by_key(results: Results) -> dict[_Key, _Record]:
    return {tuple(record[name] for name in key_names()): record for record in results.frame.to_dict("records")}  # type: ignore[misc]


def _row(key: _Key, status: Status, new: _Record | None, old: _Record | None, **more: Any) -> GateRow:
    unit = str((old or new or {}).get("unit", ""))
    return GateRow(*key, status, unit, old["mean"] if old else math.nan, new["mean"] if new else math.nan, **more)


def _pairs(keys: Sequence[_Key], new: Results, old: Results) -> dict[_Key, PairedDifference]:
    """Paired differences new - old where both sides have per-example scores."""
    if new.values is None or old.values is None:
        return {}
    values_new, values_old = new.values, old.values
    keys = sorted(keys)  # the metrics of a cell one after another: it is read once
    return dict(zip(keys, differences(pair_up(values_new.of(*key[1:]), values_old.of(*key[1:])) for key in keys), strict=True))


def _finding(key: _Key, new: _Record | None, old: _Record, obstacle: str, paired: PairedDifference | None, tolerance: float) -> GateRow:
    if new is None or obstacle:
        return _row(key, "not comparable", new, old, reason=obstacle)
    if not math.isfinite(old["mean"]):
        return _row(key, "new", new, old, reason="no value in OLD")
    if paired is not None and paired.n < old["n_scored"]:
        return _row(key, "not comparable", new, old, reason=f"{old['n_scored'] - paired.n} examples scored in OLD have no value in NEW")
    sign = 1.0 if old["higher_is_better"] else -1.0
    if paired is not None and paired.n >= 2:
        worst, best = sorted((sign * paired.ci_low, sign * paired.ci_high))
        ends = {"ci_low": paired.ci_low, "ci_high": paired.ci_high}
        return _row(key, _status(worst, best, tolerance), new, old, difference=paired.mean, tolerance=tolerance, basis="paired bootstrap", **ends)
    # A CSV has six significant digits: both sides are rounded to them, so that a run equals the CSV that was written from it.
    difference = float(f"{new['mean']:.6g}") - float(f"{old['mean']:.6g}")
    gain = sign * difference
    return _row(key, _status(gain, gain, tolerance), new, old, difference=difference, tolerance=tolerance, basis="means")


def _status(worst: float, best: float, tolerance: float) -> Status:
    """What gains between ``worst`` and ``best`` (positive is better) amount to."""
    return "regression" if best < -tolerance else "improvement" if worst > tolerance else "holds"


def _obstacle(new: _Record | None, old: _Record) -> str:
    """Why two rows cannot be compared; empty if they can."""
    if new is None:
        return "missing in NEW"
    other = next(_differences(new, old, "agree"), "")
    if other:
        return other
    if not math.isfinite(new["mean"]):
        return "no value (NaN) in NEW"
    if new["n_scored"] < old["n_scored"]:
        return f"{old['n_scored']} examples scored in OLD, {new['n_scored']} in NEW"
    return ""


def _brief(value: object) -> str:
    text = str(value)
    return (text if len(text) <= 16 else text[:12] + "...") or "none"


def _differences(new: _Record, old: _Record, gate: Literal["agree", "note"]) -> Iterator[str]:
    """Columns that must agree and do not, or that have two values of which the difference is worth a note."""
    for column in columns.COLUMNS:
        a, b = old[column.name], new[column.name]
        empty = _is_empty(a) + _is_empty(b)
        if column.gate == gate and a != b and empty < (2 if gate == "agree" else 1):
            yield f"{column.word} {_brief(a)} in OLD, {_brief(b)} in NEW"


def _is_empty(value: object) -> bool:
    return value == "" or (isinstance(value, float) and math.isnan(value))


def _notes(rows_new: Mapping[_Key, _Record], rows_old: Mapping[_Key, _Record]) -> Iterator[str]:
    for key, old in rows_old.items():
        new = rows_new.get(key)
        yield from (f"{old['method']}: {difference}" for difference in (_differences(new, old, "note") if new is not None else ()))
