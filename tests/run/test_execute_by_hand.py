"""Plans and runs without a method: what is handed on to backends, what is scored again, and what is refused before anything is changed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.errors import SepbenchError
from sepbench.run import execute as executing
from sepbench.run.execute import Outcome, RescoreError, check_data, execute, rescore
from sepbench.run.plan import Shard
from sepbench.run.records import CellRecord
from sepbench.run.sink import FoundShard, ShardTotals, Silent
from sepbench.suites.loader import load_suite

SUITE = load_suite("digits-pairs")


def test_cells_in_a_state_and_what_a_plan_needs() -> None:
    cells = tuple((SimpleNamespace(number=number), CellRecord(state=state)) for number, state in enumerate(("done", "failed", "done")))  # type: ignore[arg-type]
    outcome = Outcome(cells)  # type: ignore[arg-type]
    assert [cell.number for cell in outcome.in_state("done")] == [0, 2]  # type: ignore[attr-defined]
    task = SimpleNamespace(mixture_set=lambda: range(5), spec=SimpleNamespace(name="t"), n_examples=9)
    for planned, told in ((5, None), (6, "task 't' promises 9 mixtures, its list holds 5")):
        plan: Any = SimpleNamespace(tasks={"t": task}, n_planned=lambda name, planned=planned: planned)
        if told is None:
            check_data(plan)
        else:
            with pytest.raises(SepbenchError) as refused:
                check_data(plan)
            assert str(refused.value) == told


def test_a_plan_is_handed_to_the_backend_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[Any] = []
    plan, sink, progress = (SimpleNamespace(name=name) for name in ("plan", "sink", "progress"))
    progress.start = lambda *given: order.append(("start", *given))
    backend: Any = SimpleNamespace(workers=3, run=lambda *given: order.append(("run", *given)) or ["a cell"])
    monkeypatch.setattr(executing, "announce", lambda *given: order.append(("announce", *given)))
    assert execute(plan, sink, progress, backend, "a command", "abc").cells == ("a cell",)  # type: ignore[arg-type,comparison-overlap]
    assert order == [("announce", plan, sink), ("start", plan, 3), ("run", plan, sink, progress, "a command", "abc")]
    order.clear()
    monkeypatch.setattr(executing, "LocalBackend", lambda: backend)
    execute(plan, sink)  # type: ignore[arg-type]
    assert isinstance(order[1][3], Silent)
    assert order[1][4:] == ("", "")


TASK = SUITE.tasks["class-split"]


def record(**facts: Any) -> Any:
    """Of a run of methods m and n on one task."""
    task = SimpleNamespace(pairs_sha256=TASK.pairs_sha256, mixtures_sha256=TASK.mixtures_sha256, n_planned=4)
    known = {"suite": SimpleNamespace(name="digits-pairs", version=SUITE.version), "tasks": {"class-split": task}, "metrics": ("psnr",)}
    return SimpleNamespace(**(known | facts), methods_on=lambda task: ["m", "n"])


class Folder:
    """A run's folder in memory: ``m`` was separated in two shards, ``n`` could not be fitted and has one."""

    def __init__(self) -> None:
        self.cells = {"m": CellRecord(n_planned=4, state="done"), "n": CellRecord(n_planned=4, state="failed", error="no fit")}
        self.spans = {"m": ((0, 3, True), (3, 4, True)), "n": ((0, 4, False),)}
        self.written: list[Any] = []

    def read_cell(self, task: str, method: str) -> CellRecord | None:
        return self.cells.get(method)

    def find(self, task: str, method: str, metrics: Any) -> list[FoundShard]:
        return [FoundShard(Shard(task, method, start, stop), there, False, None, False) for start, stop, there in self.spans[method]]

    def read_estimates(self, shard: Shard) -> str:
        return f"estimates {shard.start}"

    def write_scores(self, shard: Shard, scores: Any) -> None:
        self.written.append((shard.method, shard.start, scores))

    def read_totals(self, shard: Shard) -> ShardTotals:
        return ShardTotals(len(shard), 0, 0.5, "") if shard.method == "m" else ShardTotals(0, len(shard), 0.0, "of a row")

    def write_cell(self, task: str, method: str, cell: CellRecord) -> None:
        self.written.append((method, cell.state, cell.error, cell.n_separated, cell.separate_seconds))


@pytest.mark.parametrize(("asked", "chosen"), [((), SUITE.metrics), (("psnr",), ("psnr",))])
def test_all_that_has_estimates_is_scored_again_and_a_failed_fit_stays_one(monkeypatch: pytest.MonkeyPatch, asked: Any, chosen: Any) -> None:
    folder: Any = Folder()
    advanced: list[str] = []
    sets: list[Any] = []
    monkeypatch.setattr(executing, "prepare_sets", lambda task, metrics, device, sink: sets.append((task.spec.name, metrics, device, sink is folder)) or "sets")
    monkeypatch.setattr(executing, "score_shard", lambda shard, estimates, mixtures, task, metrics, sets: (estimates, len(mixtures), metrics, sets))
    monkeypatch.setattr(executing, "failed_scores", lambda shard, error, metrics: (error, metrics))
    assert tuple(rescore(record(), SUITE, asked, folder, lambda shard: advanced.append(f"{shard.method}{shard.start}"), "cuda:1")) == tuple(chosen)
    assert folder.written == [
        ("m", 0, ("estimates 0", 1_000, tuple(chosen), "sets")),
        ("m", 3, ("estimates 3", 1_000, tuple(chosen), "sets")),
        ("m", "done", "", 4, 1.0),
        ("n", 0, ("no fit", tuple(chosen))),
        ("n", "failed", "no fit", 0, 0.0),
    ]
    assert advanced == ["m0", "m3", "n0"]
    assert sets == [("class-split", tuple(chosen), "cuda:1", True)] * 2


def test_what_takes_no_task_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Any = Folder()
    folder.cells |= {"m": CellRecord(state="unsupported"), "n": CellRecord(state="unsupported")}
    rescore(record(), SUITE, ("psnr",), folder)
    assert folder.written == []


def test_a_cell_that_takes_no_task_does_not_keep_the_next_one_from_being_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Any = Folder()
    folder.cells["m"] = CellRecord(state="unsupported")
    devices: list[str] = []
    monkeypatch.setattr(executing, "prepare_sets", lambda task, metrics, device, sink: devices.append(device))
    monkeypatch.setattr(executing, "failed_scores", lambda shard, error, metrics: error)
    rescore(record(), SUITE, ("psnr",), folder)
    assert folder.written == [("n", 0, "no fit"), ("n", "failed", "no fit", 0, 0.0)]
    assert devices == ["cpu"]


def test_a_fit_that_failed_in_a_later_session_leaves_what_was_separated_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Any = Folder()
    folder.spans["n"] = ((0, 3, True), (3, 4, False))
    monkeypatch.setattr(executing, "prepare_sets", lambda *given: None)
    monkeypatch.setattr(executing, "score_shard", lambda shard, *given: "scores")
    monkeypatch.setattr(executing, "failed_scores", lambda shard, error, metrics: error)
    rescore(record(), SUITE, ("psnr",), folder)
    assert folder.written[3:] == [("n", 0, "scores"), ("n", 3, "no fit"), ("n", "failed", "no fit", 0, 0.0)]


def test_what_is_there_is_looked_up_by_the_run_s_metrics_and_the_new_ones_checked_on_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """More estimates than a cell's record counts are no reason to refuse: a run that grew and was cut short has them."""
    folder: Any = Folder()
    folder.cells["m"] = CellRecord(n_planned=3, state="partial")
    asked: list[Any] = []
    find = folder.find
    folder.find = lambda task, method, metrics: asked.append(metrics) or find(task, method, metrics)
    monkeypatch.setattr(executing, "checked_metrics", lambda metrics, specs: asked.append((metrics, [spec.name for spec in specs])) or ("psnr",))
    monkeypatch.setattr(executing, "prepare_sets", lambda *given: None)
    monkeypatch.setattr(executing, "score_shard", lambda shard, *given: "scores")
    monkeypatch.setattr(executing, "failed_scores", lambda shard, error, metrics: error)
    rescore(record(metrics=("ssim",)), SUITE, ("psnr",), folder)
    assert asked == [(("psnr",), ["class-split"]), ("ssim",), ("ssim",)]
    assert [entry[:2] for entry in folder.written[:3]] == [("m", 0), ("m", 3), ("m", "partial")]


SUITE_RECORD = SimpleNamespace(name="digits-pairs", version=0)
OTHER_TASK = {"gone": SimpleNamespace(pairs_sha256="", mixtures_sha256="", n_planned=4)}
NOW = f"this sepbench has version {SUITE.version}; run the suite again"
LACKS = "mixtures of m on class-split have no estimates: finish the run with its own command first, "
UNFIT: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "version": ({"suite": SUITE_RECORD}, {}, f"the run was made on version 0 of suite 'digits-pairs', {NOW}"),
    "task": ({"tasks": OTHER_TASK}, {}, "the run's task 'gone' is not in suite 'digits-pairs' of this sepbench; run the suite again"),
    **{
        key: (
            {"tasks": {"class-split": SimpleNamespace(**({"pairs_sha256": TASK.pairs_sha256, "mixtures_sha256": TASK.mixtures_sha256} | {key: "x"}))}},
            {},
            f"the mixtures of task 'class-split' have changed since the run ({key} differs); run the suite again",
        )
        for key in ("pairs_sha256", "mixtures_sha256")
    },
    "some": ({}, {"spans": {"m": ((0, 3, True), (3, 4, False)), "n": ()}}, f"1 of 4 {LACKS}"),
    "none": ({}, {"cells": {}, "spans": {"m": (), "n": ()}}, f"4 of 4 {LACKS}"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_cannot_be_scored_again_is_told_and_nothing_is_changed(case: str) -> None:
    facts, changes, line = UNFIT[case]
    folder: Any = Folder()
    for name, value in changes.items():
        setattr(folder, name, value)
    rest = "or, if it was made with --no-keep-estimates, run it again without that option in another --out" if "own command" in line else ""
    with pytest.raises(RescoreError) as refused:
        rescore(record(**facts), SUITE, (), folder)
    assert str(refused.value) == line + rest
    assert folder.written == []
