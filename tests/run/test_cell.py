"""The record of a cell: what is written before and after its work, and which estimates are let go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sepbench.protocols import Support
from sepbench.run.cell import announce, begun, claim, close, finished, missing
from sepbench.run.fit_cache import FitFacts
from sepbench.run.plan import Plan, Shard
from sepbench.run.records import CellRecord
from sepbench.run.request import RequestError
from sepbench.run.sink import FoundShard, ShardTotals
from sepbench.run.worker import FitReport

Planned = Callable[..., Plan]
METRICS = ("psnr", "ssim")


class Kept:
    """A run's folder in memory: shards that are there, records of cells, and what was asked of it."""

    def __init__(self, *found: FoundShard, cells: dict[tuple[str, str], CellRecord] | None = None) -> None:
        self.found, self.cells = list(found), dict(cells or {})
        self.removed: list[int] = []
        self.written: list[tuple[str, str, CellRecord]] = []
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []

    def find(self, task: str, method: str, metrics: Any) -> list[FoundShard]:
        self.asked.append((task, method, metrics))
        return self.found

    def remove_estimates(self, shard: Shard) -> None:
        self.removed.append(shard.start)

    def read_cell(self, task: str, method: str) -> CellRecord | None:
        return self.cells.get((task, method))

    def write_cell(self, task: str, method: str, record: CellRecord) -> None:
        self.written.append((task, method, record))


def _shard(start: int, stop: int, *, totals: ShardTotals | None, estimates: bool = True, fit_failed: bool = False) -> FoundShard:
    return FoundShard(Shard("class-split", "halves", start, stop), estimates, False, totals, fit_failed)


def _totals(separated: int, failed: int = 0, error: str = "", evaluations: float | None = None) -> ShardTotals:
    return ShardTotals(separated, failed, float(separated), error, evaluations)


def test_estimates_of_what_is_scored_are_let_go_whatever_became_of_the_rest_of_the_cell(planned: Planned) -> None:
    """With ``--no-keep-estimates``: those of an unfinished cell too, but none that still has to be scored or stands for a fit that failed."""
    plan = planned("halves", keep_estimates=False)
    there = (
        _shard(0, 4, totals=_totals(4)),
        _shard(4, 6, totals=None),
        _shard(6, 8, totals=_totals(1, 1, "bad"), estimates=False),
        _shard(8, 9, totals=_totals(0, 1, "no fit"), fit_failed=True),
        _shard(9, 10, totals=_totals(0, 1, "worse")),
    )
    sink: Any = Kept(*there)
    record = close(plan.cells[0], plan, sink, CellRecord(n_planned=10), None, "")
    assert sink.removed == [0, 9]
    assert sink.asked == [("class-split", "halves", plan.metrics)]
    assert (record.state, record.n_separated, record.n_failed, record.error, record.separate_seconds) == ("partial", 5, 3, "bad", 5.0)
    kept: Any = Kept(*there)
    close(plan.cells[0], planned("halves"), kept, CellRecord(n_planned=10), None, "")
    assert kept.removed == []


@pytest.mark.parametrize(("start", "counts"), [(0, True), (8, True), (10, False), (36, False)])
def test_what_lies_beyond_the_mixtures_that_were_asked_for_is_left_alone(planned: Planned, start: int, counts: bool) -> None:
    """Of 10; a shard that reaches beyond them is done again as it is."""
    cell = planned("halves", limit=10).cells[0]
    kinds = {
        "again": _shard(start, start + 4, totals=_totals(3, 1, "bad")),
        "unscored": _shard(start, start + 4, totals=None),
        "void": _shard(start, start + 4, totals=_totals(0, 4, "no fit"), estimates=False, fit_failed=True),
    }
    for name, item in kinds.items():
        lacking = missing(cell, [item], retry_failed=True)
        assert {part: getattr(lacking, part) for part in kinds} == dict.fromkeys(kinds, ()) | {name: (item.shard,) * counts}
        there = min(start + 4, 10) - start if counts and name != "void" else 0
        assert sum(len(gap) for gap in lacking.gaps) == 10 - there
        assert lacking.done == (there if name == "unscored" else 0)


def test_a_record_is_written_if_anything_about_it_has_changed(planned: Planned) -> None:
    plan = planned("halves")
    whole = _shard(0, 10, totals=_totals(10))
    sink: Any = Kept(whole)
    first = close(plan.cells[0], plan, sink, CellRecord(n_planned=10), None, "")
    assert sink.written == [("class-split", "halves", first)]
    assert first.state == "done"
    again: Any = Kept(whole)
    close(plan.cells[0], plan, again, first.model_copy(), first, "")
    assert again.written == []
    broken: Any = Kept(whole)
    failed = close(plan.cells[0], plan, broken, first.model_copy(), first, "ValueError: x")
    assert (failed.state, failed.error, len(broken.written)) == ("failed", "ValueError: x", 1)


def test_a_cell_that_is_not_supported_is_written_as_it_is(planned: Planned) -> None:
    plan = planned("halves", keep_estimates=False)
    sink: Any = Kept(_shard(0, 10, totals=_totals(10)))
    record = close(plan.cells[0], plan, sink, CellRecord(state="unsupported", note="why"), None, "")
    assert (record.state, record.note, record.n_separated) == ("unsupported", "why", 0)
    assert (sink.asked, sink.removed, len(sink.written)) == ([], [], 1)


def test_cells_that_grow_are_announced_before_the_first_runs(planned: Planned) -> None:
    plan = planned("halves", "noisy", "oracle", "broken", "picky", limit=10)
    states = {"halves": ("done", 4), "noisy": ("failed", 9), "oracle": ("done", 10), "broken": ("partial", 12)}
    records = {("class-split", name): CellRecord.model_validate({"state": state, "n_planned": n, "error": name}) for name, (state, n) in states.items()}
    sink: Any = Kept(cells=records)
    announce(plan, sink)
    assert [(task, method, record.state, record.n_planned, record.error) for task, method, record in sink.written] == [
        ("class-split", "halves", "partial", 10, "halves"),
        ("class-split", "noisy", "failed", 10, "noisy"),
    ]
    assert records["class-split", "halves"].n_planned == 4  # a copy is written


FIT = FitReport(FitFacts(7.0, 0.5, "fitted there"), cached=True, kept=False, samples=4, weights_sha256="ab", prior="a prior", training_sha256="12")
SAID = {
    **{"samples": 4, "weights_sha256": "ab", "prior": "a prior", "fit_seconds": 7.0, "load_seconds": 0.5, "fit_cached": True},
    **{"fit_timing_group": "fitted there", "training_sha256": "12"},
}


def test_a_fit_is_noted_once(planned: Planned) -> None:
    cell, sink = planned("halves").cells[0], Kept()
    claim(cell, sink, METRICS, FIT)  # type: ignore[arg-type]
    ((task, method, record),) = sink.written
    assert (task, method, record) == ("class-split", "halves", begun(cell, None).model_copy(update=SAID))
    sink.cells[task, method] = record
    claim(cell, sink, METRICS, replace(FIT, facts=FitFacts(9.0, 9.0, "elsewhere"), cached=False))  # type: ignore[arg-type] - another worker
    assert len(sink.written) == 1
    sink.cells[task, method] = CellRecord(state="done", fit_seconds=1.0, peak_mb=5.0)  # an earlier version wrote no digest
    claim(cell, sink, METRICS, FIT)  # type: ignore[arg-type]
    assert sink.written[1][2] == CellRecord(state="done", peak_mb=5.0).model_copy(update=SAID)
    assert sink.asked == []  # the files of a folder are looked at only where digests differ


@pytest.mark.parametrize(("known", "now", "changed"), [("12", "34", True), ("12", "12", False), ("12", "", False), ("", "34", False)])
def test_other_training_data_are_refused_where_both_are_known(planned: Planned, known: str, now: str, changed: bool) -> None:
    """An earlier version's record lacks them, and a method that reads what it learnt need not open them."""
    cell = planned("halves").cells[0]
    record = CellRecord(weights_sha256="ab", fit_seconds=1.0, training_sha256=known)
    sink = Kept(_shard(0, 4, totals=_totals(4)), cells={("class-split", "halves"): record})
    if changed:
        with pytest.raises(RequestError) as refused:
            claim(cell, sink, METRICS, replace(FIT, training_sha256=now, weights_sha256="cd"))  # type: ignore[arg-type] - it has learnt other weights from them
        assert str(refused.value) == "the training data of halves on class-split have changed since this run began; restore them, or choose another --out"
        assert sink.written == []
    else:
        claim(cell, sink, METRICS, replace(FIT, training_sha256=now))  # type: ignore[arg-type]
        assert [one.training_sha256 for _, _, one in sink.written] == ([] if known else [now])


@pytest.mark.parametrize("weights", ["cd", ""])
@pytest.mark.parametrize(
    ("found", "holds"),
    [
        ([], False),
        ([("all", 1)], True),
        ([("none", 0)], False),
        ([("unscored", 0)], True),
        ([("by other metrics", 0)], True),
        ([("damaged", 0)], False),
        ([("damaged and scored", 1)], True),
        ([("no fit", 0)], False),
        ([("no fit, unscored", 0)], True),
        ([("no fit", 0), ("all", 1)], True),
    ],
    ids=str,
)
def test_other_weights_are_refused_where_anything_of_the_old_ones_is_there(planned: Planned, found: list[tuple[str, int]], holds: bool, weights: str) -> None:
    there = [
        FoundShard(
            Shard("class-split", "halves", 4 * number, 4 * number + 4),
            estimates=what in ("all", "none", "unscored", "no fit, unscored"),
            damaged=what.startswith("damaged"),
            totals=_totals(separated, 1, "bad") if what in ("all", "none", "damaged and scored", "no fit", "no fit, unscored") else None,
            fit_failed=what.startswith("no fit"),
        )
        for number, (what, separated) in enumerate(found)
    ]
    cell = planned("halves").cells[0]
    sink = Kept(*there, cells={("class-split", "halves"): CellRecord(weights_sha256="ab", fit_seconds=1.0)})
    other = replace(FIT, weights_sha256=weights)
    if holds:
        with pytest.raises(RequestError) as refused:
            claim(cell, sink, METRICS, other)  # type: ignore[arg-type]
        assert str(refused.value) == "the weights of halves have changed since this run began; restore them, or choose another --out"
        assert sink.written == []
    else:
        claim(cell, sink, METRICS, other)  # type: ignore[arg-type]
        assert sink.written[0][2].weights_sha256 == weights
    assert sink.asked == [("class-split", "halves", METRICS)]


def test_a_new_record_says_what_the_plan_knows(planned: Planned) -> None:
    cell = planned("oracle", limit=3).cells[0]
    record = begun(replace(cell, support=Support(True, "with care")), None)
    assert record == CellRecord(state="partial", supervision="bound", note="with care", n_planned=3)
    grown = begun(cell, CellRecord(n_planned=2, latency_seconds=0.5, peak_mb=7.0, weights_sha256="ab", error="old"))
    assert (grown.n_planned, grown.latency_seconds, grown.peak_mb, grown.weights_sha256, grown.error) == (3, 0.5, 7.0, "ab", "")


@pytest.mark.parametrize(
    ("evaluations", "sum_of_all"),
    [([3.0, 4.0], 7.0), ([3.0, None], None), ([None, None], None), ([0.0, 0.0], 0.0), ([], None)],
)
def test_evaluations_are_summed_where_every_shard_counted(evaluations: list[float | None], sum_of_all: float | None) -> None:
    record = CellRecord(n_planned=4, evaluations=99.0, error="old", traceback="old")
    finished(record, [_totals(2, evaluations=one) for one in evaluations])
    assert record.evaluations == sum_of_all
    assert record.error == ""
    assert record.state == ("done" if evaluations else "failed")
    assert record.traceback == ("" if evaluations else "old")


@pytest.mark.parametrize(
    ("totals", "fit_failed", "scored"),
    [(None, False, False), (_totals(1), False, True), (_totals(0, 1), True, False), (None, True, False)],
)
def test_rows_of_a_fit_that_failed_are_no_scores(totals: ShardTotals | None, fit_failed: bool, scored: bool) -> None:
    assert _shard(0, 1, totals=totals, fit_failed=fit_failed).scored is scored


def test_a_shard_in_words() -> None:
    shard = Shard("by-role", "nmf", 4, 9)
    assert (str(shard), len(shard)) == ("by-role, nmf, mixtures 4 to 8", 5)
