"""What a run says where it cannot go on, each line in whole: it names what is wrong, and what to do next."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sepbench.errors import MethodError, SepbenchError, SuiteError
from sepbench.protocols import MethodInfo, Support
from sepbench.run.backends.ray import _ray
from sepbench.run.cell import missing
from sepbench.run.execute import RescoreError, _check_suite, _scorable
from sepbench.run.fit_cache import FitFacts, KeptFit
from sepbench.run.plan import Plan, Shard, SupportError, _check_file_name, _check_info, ask_support, check_runnable, checked_metrics, make_plan, resolve_device
from sepbench.run.records import CellRecord
from sepbench.run.request import RequestError, RunRequest
from sepbench.run.session import Tell, Teller, keep_fit
from sepbench.run.sink import FoundShard, ShardTotals
from sepbench.suites.model import Suite

Planned = Callable[..., Plan]


def told(kind: type[Exception], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


# ---- requests and plans ----------------------------------------------------------------------------------------------------------------


def test_requests() -> None:
    assert told(RequestError, lambda: RunRequest("s", limit=0)) == "--limit must be at least 1, got 0; leave it out to run every mixture"
    assert told(RequestError, lambda: RunRequest("s", shard_size=-2)) == "--shard-size must be at least 1, got -2"


@pytest.mark.parametrize(
    ("gpus", "wanted", "line"),
    [
        (1, "gpu", "unknown device 'gpu'; choose cpu, cuda, cuda:N or auto"),
        (1, "cuda:-1", "unknown device 'cuda:-1'; choose cpu, cuda, cuda:N or auto"),
        (0, "cuda:0", "device 'cuda:0' was asked for, but this torch sees no CUDA GPU; use --device cpu"),
        (1, "cuda:1", "device 'cuda:1' was asked for, but there are only 1 GPUs (cuda:0 to cuda:0)"),
    ],
)
def test_devices(monkeypatch: pytest.MonkeyPatch, gpus: int, wanted: str, line: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert told(RequestError, lambda: resolve_device(wanted)) == line


def test_plans(digits: Suite, planned: Planned) -> None:
    line = "--set names method 'noisy', which is not part of this run (halves, picky)"
    assert told(RequestError, lambda: planned("halves", "picky", settings={"noisy": {"nap": 1.0}})) == line
    whole = replace(digits, ranking_metric="fid_mnistnet")
    line = "suite 'digits-pairs' ranks by 'fid_mnistnet', one value of many mixtures together; rank by a metric of each mixture"
    assert told(SuiteError, lambda: make_plan(RunRequest("digits-pairs", ("halves",), device="cpu"), whole)) == line
    task = digits.tasks["class-split"]
    empty = replace(digits, tasks={"none": SimpleNamespace(n_examples=0, split="test", spec=task.spec)})  # type: ignore[dict-item]
    line = "task 'none' of suite 'digits-pairs' has no mixtures"
    assert told(SuiteError, lambda: make_plan(RunRequest("digits-pairs", ("halves",), device="cpu"), empty)) == line
    line = "nothing to run: the suite names no method, or has no test task; name some with --methods and --tasks"
    assert told(RequestError, lambda: check_runnable(replace(planned("halves"), cells=()))) == line
    rule = "it must not be empty, start with a dot or contain '/' or '--'"
    assert told(MethodError, lambda: _check_file_name("a--b", "method", MethodError)) == f"method name 'a--b' cannot stand in a file name: {rule}"


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"max_batch": None}, "max_batch None; it must be a whole number of at least 1"),
        ({"max_batch_cpu": -1}, "max_batch_cpu -1; it must be a whole number of at least 1, or None"),
        ({"max_batch_cpu": 1.5}, "max_batch_cpu 1.5; it must be a whole number of at least 1, or None"),
        ({"domains": 3}, "domains 3; it must be a frozenset of image, audio, vector"),
    ],
)
def test_methods(facts: dict[str, Any], what: str) -> None:
    info = replace(MethodInfo("m", "M", "1", frozenset({"image"}), "blind", "", True), **facts)
    assert told(MethodError, lambda: _check_info("mine", info)) == f"method 'mine' declares {what}"


def test_metrics(digits: Suite) -> None:
    spec = digits.tasks["class-split"].spec
    line = "metric 'c2st' cannot score task 'class-split', whose results are estimates; leave it out"
    assert told(RequestError, lambda: checked_metrics(["c2st"], [spec])) == line
    line = "metric 'psnr' cannot score task 'class-split', whose results are posterior draws; leave it out"
    assert told(RequestError, lambda: checked_metrics(["psnr"], [replace(spec, posterior_draws=4)])) == line


def test_a_device_is_asked_about_only_where_the_task_is_taken(digits: Suite) -> None:
    spec, asked = digits.tasks["class-split"].spec, list[str]()
    method: Any = SimpleNamespace(supports=lambda task: Support(False, "two\nlines"), supports_device=lambda device: asked.append(device) or Support(True))
    assert ask_support("m", method, spec, "cpu") == Support(False, "two lines")
    assert asked == []
    method.supports = lambda task: Support(True)
    assert ask_support("m", method, spec, "cuda:1") == Support(True)
    assert asked == ["cuda:1"]
    method.supports_device = lambda device: True
    line = "method 'm': supports() must return a sepbench.protocols.Support, got bool"
    assert told(SupportError, lambda: ask_support("m", method, spec, "cpu")) == line


# ---- cells, backends and fits ----------------------------------------------------------------------------------------------------------


def _found(start: int, stop: int, **facts: Any) -> FoundShard:
    given = {"estimates": True, "damaged": False, "totals": ShardTotals(stop - start, 0, 1.0, ""), "fit_failed": False} | facts
    return FoundShard(Shard("class-split", "halves", start, stop), *given.values())


def test_shards_that_overlap_leave_no_gap_twice_and_damage_is_done_again(planned: Planned) -> None:
    """Shards of another size may lie over each other; damaged estimates of a fit that failed are no rows of a failed fit."""
    cell = planned("halves").cells[0]
    inside = missing(cell, [_found(0, 6), _found(2, 4)], False)
    assert [(gap.start, gap.stop) for gap in inside.gaps] == [(6, 10)]
    assert inside.done == 6
    damaged = missing(cell, [_found(0, 4, estimates=False, damaged=True, fit_failed=True)], False)
    assert ([one.start for one in damaged.again], damaged.void, [(gap.start, gap.stop) for gap in damaged.gaps]) == ([0], (), [(4, 10)])


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert told(SepbenchError, _ray) == "--backend ray needs Ray: pip install 'sepbench[ray]'"


def test_another_process_that_fits_the_same_is_waited_for_as_a_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path))

    class Busy(KeptFit):
        @contextlib.contextmanager
        def locked(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
            waiting()
            with super().locked(waiting):
                yield

    heard: list[Tell] = []
    fit = Busy("m", {"seed": 0})
    with fit.locked(lambda: None):
        fit.keep(lambda folder: None, FitFacts(1.0, 0.0, "here"))
    method: Any = SimpleNamespace(save=lambda folder: None, load=lambda folder, ctx: None, fit_scope=None)
    nothing: Any = None
    _, facts, loaded = keep_fit(lambda: method, nothing, nothing, fit, Teller(heard.append))
    assert (facts.seconds, loaded) == (1.0, True)
    assert [one.stage for one in heard] == ["wait for another process that fits the same", "load the fit"]


# ---- scoring again ---------------------------------------------------------------------------------------------------------------------


def test_a_run_that_cannot_be_scored_again(digits: Suite) -> None:
    record: Any = SimpleNamespace(suite=SimpleNamespace(name="digits-pairs", version=7), tasks={})
    line = f"the run was made on version 7 of suite 'digits-pairs', this sepbench has version {digits.version}; run the suite again"
    assert told(RescoreError, lambda: _check_suite(record, digits)) == line
    record.suite.version, record.tasks = digits.version, {"gone": None}
    line = "the run's task 'gone' is not in suite 'digits-pairs' of this sepbench; run the suite again"
    assert told(RescoreError, lambda: _check_suite(record, digits)) == line


@pytest.mark.parametrize(("state", "planned", "lacks"), [("done", 1200, "1,196 of 1,200"), ("partial", 5, "1 of 5"), ("failed", 5, ""), ("done", 4, "")])
def test_estimates_that_are_no_longer_there(state: Any, planned: int, lacks: str) -> None:
    run: Any = SimpleNamespace(metrics=("psnr",), tasks={"t": SimpleNamespace(n_planned=9)})
    there = [_found(0, 4), _found(4, 8, estimates=False)]
    sink: Any = SimpleNamespace(read_cell=lambda task, method: CellRecord(state=state, n_planned=planned), find=lambda *about: there)
    if not lacks:
        assert _scorable("t", "m", run, sink)[1] == there
        return
    line = (
        f"{lacks} mixtures of m on t have no estimates: finish the run with its own command first, "
        "or, if it was made with --no-keep-estimates, run it again without that option in another --out"
    )
    assert told(RescoreError, lambda: _scorable("t", "m", run, sink)) == line
    sink.read_cell = lambda task, method: None
    assert told(RescoreError, lambda: _scorable("t", "m", run, sink)).startswith("5 of 9 mixtures of m on t have no estimates")
