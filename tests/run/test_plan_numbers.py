"""What a plan and a request say in numbers: bounds, devices, cuts of gaps, repetitions, and what of a cell is missing."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sepbench.metrics.catalogue import get_metric
from sepbench.protocols import MethodInfo, Support
from sepbench.run.backends.agenda import Shard
from sepbench.run.cell import begun, finished, missing
from sepbench.run.plan import (
    SupportError,
    _check_file_name,
    _check_info,
    ask_support,
    check_runnable,
    checked_metrics,
    make_plan,
    planned_examples,
    repeated_plans,
    resolve_device,
)
from sepbench.run.records import CellRecord
from sepbench.run.request import RequestError, RunRequest
from sepbench.run.timing import LATENCY_CALLS, Timer, latency
from sepbench.suites.loader import load_suite

SUITE = load_suite("digits-pairs")


def _plan(*methods: str, **asked: Any) -> Any:
    return make_plan(RunRequest("digits-pairs", methods, device="cpu", **asked), SUITE)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"limit": 0}, "--limit must be at least 1, got 0"),
        ({"shard_size": 0}, "--shard-size must be at least 1, got 0"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
        ({"seed": 2**63}, f"--seed must be below 2**63, got {2**63}"),
        ({"budget": "slow"}, "--budget must be quick or paper, got 'slow'"),
    ],
)
def test_bounds_of_a_request(asked: Mapping[str, Any], told: str) -> None:
    with pytest.raises(RequestError) as caught:
        RunRequest("digits-pairs", **asked)
    assert str(caught.value).startswith(told)
    RunRequest("digits-pairs", limit=1, shard_size=1, seed=2**63 - 1, budget="quick")
    fresh = RunRequest("digits-pairs")
    assert (fresh.budget, fresh.seed, fresh.fit_seed, fresh.keep_estimates, fresh.latency, fresh.retry_failed, fresh.refit) == (
        *("paper", 0, None, True),
        *(False, False, False),
    )


@pytest.mark.parametrize(
    ("gpus", "wanted", "found"),
    [(0, "auto", "cpu"), (2, "auto", "cuda"), (2, "cuda:1", "cuda:1"), (1, "cuda", "cuda"), (0, "cpu", "cpu"), (1, "cuda:0", "cuda:0")],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, gpus: int, wanted: str, found: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert resolve_device(wanted) == found


@pytest.mark.parametrize(
    ("gpus", "wanted", "told"),
    [
        (2, "cuda:2", "'cuda:2' was asked for, but there are only 2 GPUs (cuda:0 to cuda:1)"),
        (0, "cuda", "'cuda' was asked for, but this torch sees no CUDA GPU"),
        (2, "cuda:", "unknown device 'cuda:'"),
        (2, "cuda:x", "unknown device 'cuda:x'"),
        (2, "mps", "unknown device 'mps'"),
        (2, "cpu:0", "unknown device 'cpu:0'"),
    ],
)
def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch, gpus: int, wanted: str, told: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(RequestError) as caught:
        resolve_device(wanted)
    assert told in str(caught.value)


def test_mixtures_that_are_planned() -> None:
    assert [planned_examples(10, limit) for limit in (None, 3, 10, 11)] == [10, 3, 10, 10]
    plan = _plan("average", limit=3)
    assert {plan.n_planned(task) for task in plan.tasks} == {3}
    assert all(cell.n_planned == 3 for cell in plan.cells)
    assert [(cell.task.spec.name, cell.method) for cell in _plan("nmf", "average", "nmf").cells] == [
        (task, method) for task in SUITE.tasks if SUITE.tasks[task].split == "test" for method in ("nmf", "average")
    ]


@pytest.mark.parametrize(
    ("gap", "unit", "mixtures", "fixed", "cuts"),
    [
        ((0, 10), 4, 4, False, [0, 4, 8, 10]),
        ((0, 20), 4, 9, False, [0, 8, 16, 20]),
        ((0, 5), 4, 1, False, [0, 4, 5]),
        ((3, 11), 4, 4, False, [3, 4, 8, 11]),
        ((0, 20), 4, 100, True, [0, 4, 8, 12, 16, 20]),
        ((0, 20), 4, 100, False, [0, 20]),
    ],
)
def test_gaps_are_cut_at_whole_units(gap: tuple[int, int], unit: int, mixtures: int, fixed: bool, cuts: list[int]) -> None:
    cell = replace(_plan("average").cells[0], unit=unit, fixed=fixed)
    pieces = list(cell.pieces(Shard("t", "m", *gap), mixtures))
    assert [(one.start, one.stop) for one in pieces] == list(itertools.pairwise(cuts))
    assert {(one.task, one.method) for one in pieces} == {("t", "m")}


def test_batches_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("average", "basis-ncsn"):
        on_cpu = make_plan(RunRequest("mnist-pairs", (name,), device="cpu"), load_suite("mnist-pairs")).cells[0]
        on_gpu = make_plan(RunRequest("mnist-pairs", (name,), device="cuda"), load_suite("mnist-pairs")).cells[0]
        assert on_cpu.batch == (on_cpu.info.max_batch_cpu or on_cpu.info.max_batch)
        assert on_gpu.batch == on_gpu.info.max_batch
        assert on_cpu.unit == on_cpu.batch
        assert not on_cpu.fixed
    told = _plan("average", shard_size=7).cells[0]
    assert (told.unit, told.fixed) == (7, True)


def test_repetitions_are_of_random_methods_with_the_seeds_that_follow() -> None:
    plan = _plan("average", "nmf", "nmf-blind", seed=5, limit=2)
    random = [name for name, entry in plan.methods.items() if not entry.info.deterministic]
    assert random
    assert "average" not in random
    made = [(kind, list(one.methods), one.request.seed, one.request.fit_seed, one.request.limit) for kind, one in repeated_plans(plan, SUITE, 3, 1)]
    assert made == [("seeds", random, 6, 5, 2), ("seeds", random, 7, 5, 2)]
    learning = [name for name in random if plan.methods[name].info.supervision not in ("blind", "bound")]
    fits = [(kind, list(one.methods), one.request.seed, one.request.fit_seed) for kind, one in repeated_plans(plan, SUITE, 1, 3)]
    assert fits == [("fits", learning, 5, 6), ("fits", learning, 5, 7)] * bool(learning)
    assert list(repeated_plans(_plan("average"), SUITE, 4, 4)) == []
    other = replace(plan, request=replace(plan.request, fit_seed=9))
    assert [one.request.fit_seed for _, one in repeated_plans(other, SUITE, 2, 1)] == [9]


def test_a_plan_in_which_nothing_runs() -> None:
    plan = _plan("average", limit=1)
    check_runnable(plan)
    unable = tuple(replace(cell, support=Support(False, f"reason {n}")) for n, cell in enumerate(plan.cells))
    first = f"average on {plan.cells[0].task.spec.name}: reason 0"
    more = f" (and {len(unable) - 1:,} more)" if len(unable) > 1 else ""
    with pytest.raises(RequestError) as caught:
        check_runnable(replace(plan, cells=unable))
    assert f"nothing to run: {first}{more}; " in str(caught.value)
    with pytest.raises(RequestError) as caught:
        check_runnable(replace(plan, cells=unable[:1] * 1_235))
    assert " (and 1,234 more)" in str(caught.value)
    with pytest.raises(RequestError, match="nothing to run"):
        check_runnable(replace(plan, cells=()))
    check_runnable(replace(plan, cells=(*unable, plan.cells[0])))


@pytest.mark.parametrize("name", ["a--b", "a/b", ".a", ""])
def test_names_that_cannot_be_files(name: str) -> None:
    from sepbench.errors import SuiteError

    with pytest.raises(SuiteError) as caught:
        _check_file_name(name, "task", SuiteError)
    assert str(caught.value) == f"task name {name!r} cannot stand in a file name: it must not be empty, start with a dot or contain '/' or '--'"
    _check_file_name("a-b.c", "task", SuiteError)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"max_batch": 0}, "max_batch 0;"),
        ({"max_batch": 2.0}, "max_batch 2.0;"),
        ({"max_batch_cpu": 0}, "max_batch_cpu 0;"),
        ({"supervision": "none"}, "supervision 'none';"),
        ({"domains": "image"}, "domains 'image';"),
    ],
)
def test_what_a_plan_checks_of_a_method(changes: Mapping[str, Any], told: str) -> None:
    from sepbench.errors import MethodError

    info: MethodInfo = _plan("average").methods["average"].info
    _check_info("mine", replace(info, max_batch=1, max_batch_cpu=1))
    _check_info("mine", replace(info, max_batch_cpu=None))
    with pytest.raises(MethodError) as caught:
        _check_info("mine", replace(info, **changes))
    assert f"'mine' declares {told}" in str(caught.value)


def test_metrics_that_cannot_score_a_task() -> None:
    spec = next(iter(SUITE.tasks.values())).spec
    assert checked_metrics(["psnr", "ssim", "psnr"], [spec]) == ("psnr", "ssim")
    with pytest.raises(RequestError, match=f"'sdr' is defined for audio signals, task '{spec.name}' has image signals"):
        checked_metrics(["sdr"], [spec])
    with pytest.raises(RequestError, match=rf"'psnr_pad32' is defined for images up to 32x32, the task has 33x40; leave it out for task '{spec.name}'"):
        checked_metrics(["psnr_pad32"], [replace(spec, source_shape=(1, 33, 40))])
    with pytest.raises(RequestError, match=rf"'psnr' cannot score task '{spec.name}', whose results are posterior draws"):
        checked_metrics(["psnr"], [replace(spec, posterior_draws=5)])
    with pytest.raises(ValueError, match="up to 32x32, got 33x40"):
        get_metric("psnr_pad32").from_mse(torch.zeros(1).numpy(), (33, 40))  # type: ignore[attr-defined]
    assert checked_metrics(["psnr_pad32"], [replace(spec, source_shape=(1, 32, 32))]) == ("psnr_pad32",)


@pytest.mark.parametrize(
    ("here", "there", "ok", "note"), [(True, True, True, "a"), (True, False, False, "b"), (False, True, False, "a"), (False, False, False, "a")]
)
def test_a_task_and_a_device_must_both_do(here: bool, there: bool, ok: bool, note: str) -> None:
    method: Any = SimpleNamespace(supports=lambda task: Support(here, "a"), supports_device=lambda device: Support(there, "b"))
    spec = next(iter(SUITE.tasks.values())).spec
    answer = ask_support("m", method, spec, "cpu")
    assert (answer.ok, answer.note) == (ok, note)
    assert ask_support("m", method, spec).ok is here  # no device is asked about
    method.supports = lambda task: True
    with pytest.raises(SupportError, match=r"'m': supports.. must return a sepbench.protocols.Support, got bool"):
        ask_support("m", method, spec, "cpu")


# ---- what of a cell is missing ---------------------------------------------------------------------------------------------------------


def _found(start: int, stop: int, *, scored: bool = True, estimates: bool = True, damaged: bool = False, fit_failed: bool = False, failed: int = 0) -> Any:
    totals = SimpleNamespace(n_failed=failed)
    return SimpleNamespace(
        shard=Shard("t", "average", start, stop), scored=scored, estimates=estimates, damaged=damaged, fit_failed=fit_failed, totals=totals if scored else None
    )


def _missing(*found: Any, retry: bool = False, planned: int = 10) -> Any:
    return missing(replace(_plan("average").cells[0], n_planned=planned), found, retry)


def _ends(shards: Any) -> list[tuple[int, int]]:
    return [(one.start, one.stop) for one in shards]


def test_gaps_between_what_is_there() -> None:
    what = _missing(_found(2, 4), _found(6, 8))
    assert _ends(what.gaps) == [(0, 2), (4, 6), (8, 10)]
    assert (what.done, what.separates) == (4, 6)
    assert {one.task for one in what.gaps} == {next(iter(SUITE.tasks))}
    beyond = _missing(_found(0, 4), _found(12, 14))
    assert _ends(beyond.gaps) == [(4, 10)]
    assert beyond.done == 4
    assert _ends(_missing(_found(0, 14)).gaps) == []


def test_what_is_done_again() -> None:
    what = _missing(_found(0, 2, scored=False), _found(2, 4, failed=1), _found(4, 6, damaged=True), _found(6, 8, scored=False, estimates=False))
    assert _ends(what.unscored) == [(0, 2)]
    assert _ends(what.again) == [(4, 6), (6, 8)]
    assert _ends(what.gaps) == [(8, 10)]
    assert (what.done, what.separates) == (4, 6)
    assert _ends(_missing(_found(2, 4, failed=1), retry=True).again) == [(2, 4)]
    assert _ends(_missing(_found(2, 4, failed=0), retry=True).again) == []
    assert _missing(_found(8, 14, damaged=True)).done == 0  # only what is planned counts


def test_rows_of_a_fit_that_failed_are_gaps() -> None:
    what = _missing(_found(0, 5, fit_failed=True, estimates=False), _found(5, 10))
    assert (_ends(what.void), _ends(what.gaps), what.done) == ([(0, 5)], [(0, 5)], 5)
    assert _ends(_missing(_found(0, 10, fit_failed=True, estimates=True)).void) == []


# ---- how a cell went -------------------------------------------------------------------------------------------------------------------


def _totals(separated: int, failed: int = 0, seconds: float = 1.0, evaluations: int | None = None, error: str = "") -> Any:
    return SimpleNamespace(n_separated=separated, n_failed=failed, separate_seconds=seconds, evaluations=evaluations, error=error)


@pytest.mark.parametrize(
    ("totals", "fit_error", "state", "evaluations"),
    [
        ([_totals(4, evaluations=8), _totals(6, evaluations=12)], "", "done", 20),
        ([_totals(4, evaluations=8), _totals(6)], "", "done", None),
        ([_totals(4, evaluations=8), _totals(0), _totals(6, evaluations=1)], "", "done", 9),
        ([_totals(4, failed=1, error="x")], "", "partial", None),
        ([_totals(0, failed=10, error="x")], "", "failed", None),
        ([_totals(10)], "no fit", "failed", None),
        ([], "", "failed", None),
    ],
)
def test_the_state_follows_from_the_shards(totals: list[Any], fit_error: str, state: str, evaluations: int | None) -> None:
    record = CellRecord(n_planned=10, traceback="trace")
    finished(record, totals, fit_error)
    assert (record.state, record.evaluations) == (state, evaluations)
    assert record.n_separated == sum(one.n_separated for one in totals)
    assert record.n_failed == sum(one.n_failed for one in totals)
    assert record.separate_seconds == float(len(totals))
    assert record.error == (fit_error or next((one.error for one in totals if one.error), ""))
    assert record.traceback == ("" if state == "done" else "trace")


def test_a_record_begins_with_what_was_measured_before() -> None:
    cell = _plan("average", limit=3).cells[0]
    old = CellRecord(n_planned=7, state="done", error="x", separate_seconds=2.5, note="old")
    record = begun(cell, old)
    assert (record.n_planned, record.state, record.error, record.separate_seconds, record.note) == (7, "partial", "", 2.5, cell.support.note)
    assert record.supervision == cell.supervision
    assert begun(cell, None).n_planned == 3
    assert begun(replace(cell, support=Support(False, "why")), old).state == "unsupported"
    assert begun(replace(cell, support=Support(False, "why")), old).note == "why"


# ---- seconds ---------------------------------------------------------------------------------------------------------------------------


def test_the_latency_asks_every_call_once() -> None:
    asked: list[int] = []
    seconds = [9.0, 1.0, 5.0, 2.0]
    found = latency(lambda number: (asked.append(number), seconds[number])[1], 4)  # type: ignore[func-returns-value]
    assert asked == [0, 1, 2, 3]
    assert found == statistics.median(seconds)
    asked.clear()
    latency(lambda number: (asked.append(number), 0.0)[1])  # type: ignore[func-returns-value]
    assert asked == list(range(LATENCY_CALLS))


@pytest.mark.parametrize("fails", [False, True])
def test_a_gpu_is_waited_for_at_both_ends(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    try:
        with Timer("cuda:1") as timer:
            assert waited == ["cuda:1"]
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert waited == ["cuda:1"] * (1 if fails else 2)
    assert timer.seconds > 0
    with Timer("cpu"):
        pass
    assert len(waited) == (1 if fails else 2)
