"""Backends without processes: what stands in a cell's record, what goes through pipes, and what is told when one dies."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_pool import GROUP, Counting, MemorySink, report

from sepbench.errors import SepbenchError
from sepbench.run.backends import agenda, chosen, local
from sepbench.run.backends.agenda import Agenda, Team
from sepbench.run.backends.chosen import make_backend
from sepbench.run.backends.dispatch import Event
from sepbench.run.fit_cache import FitFacts
from sepbench.run.plan import Plan, Shard
from sepbench.run.records import CellRecord
from sepbench.run.request import RequestError
from sepbench.run.session import Tell
from sepbench.run.worker import FitReport, Job, Report

Planned = Callable[..., Plan]


# ---- a cell's record -------------------------------------------------------------------------------------------------------------------


def desk(planned: Planned, old: CellRecord | None = None, workers: int = 3, **options: Any) -> Agenda:
    plan, sink = planned("halves", **({"limit": 12, "shard_size": None} | options)), MemorySink()
    if old is not None:
        sink.cells["class-split", "halves"] = old
    return Agenda(plan.cells[0], plan, sink, Counting(), Team(workers, "a command", "sha", GROUP))


def separated(one: Agenda, **facts: Any) -> None:
    job = one.take(True)
    assert job is not None
    one.sink.separated(job.shard)  # type: ignore[attr-defined]
    one.sink.scored(job.shard)  # type: ignore[attr-defined]
    one.take_in(replace(report(job), **facts))


FIT = FitReport(FitFacts(7.0, 0.5, "fitted there"), cached=True, kept=False, samples=4, weights_sha256="ab", prior="a prior")


def test_the_first_report_of_a_cell_says_how_it_was_fitted_and_every_one_what_it_took(planned: Planned) -> None:
    one = desk(planned)
    separated(one, fit=FIT, warm_up_seconds=0.25, peak_mb=300.0, timing_group="worker's", traceback="of the first")
    known = {
        **{"samples": 4, "weights_sha256": "ab", "prior": "a prior", "command": "a command", "git_sha": "sha", "workers": 3, "timing_group": "worker's"},
        **{"fit_seconds": 7.0, "load_seconds": 0.5, "fit_cached": True, "fit_timing_group": "fitted there", "warm_up_seconds": 0.25, "peak_mb": 300.0},
    }
    written = one.sink.read_cell("class-split", "halves")
    assert written is not None
    assert {key: getattr(written, key) for key in known} == known | {"peak_mb": None}  # at once, before it is told of memory
    assert {key: getattr(one.record, key) for key in known} == known
    later = replace(FIT, facts=FitFacts(9.0, 9.0, "elsewhere"), cached=False, samples=5)
    separated(one, fit=later, warm_up_seconds=9.0, peak_mb=200.0, timing_group=GROUP, traceback="", warning="careful")
    assert {key: getattr(one.record, key) for key in known} == known | {"samples": 5}
    assert one.record.traceback == "of the first"
    separated(one, fit=later, peak_mb=None, timing_group="a third", warning="careful once more")  # of every shard, and told once
    assert (one.record.timing_group, one.record.peak_mb) == ("mixed", 300.0)
    assert one.progress.warnings == ["careful"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("before", "workers", "after"), [(5, 3, 5), (2, 3, 3)])
def test_a_record_keeps_the_most_workers_and_the_largest_peak_of_all_sessions(planned: Planned, before: int, workers: int, after: int) -> None:
    one = desk(planned, CellRecord(workers=before, peak_mb=100.0 * before), workers)
    separated(one, peak_mb=250.0, timing_group=GROUP)
    assert (one.record.workers, one.record.peak_mb, one.record.timing_group) == (after, max(100.0 * before, 250.0), "")


@pytest.mark.parametrize(("measured", "asked", "wants"), [(None, True, True), (0.5, True, False), (None, False, False)])
def test_latency_is_measured_once(planned: Planned, measured: float | None, asked: bool, wants: bool) -> None:
    one = desk(planned, CellRecord(latency_seconds=measured), limit=4, latency=asked)
    separated(one)
    assert one.wants_latency == wants
    assert one.over != wants
    if wants:
        assert one.latency_job() == Job("latency", Shard("class-split", "halves", 0, 4))


def test_a_worker_may_die_once_at_single_mixtures_and_no_mixture_fails_for_it(planned: Planned) -> None:
    one = desk(planned, limit=4, latency=True)
    separated(one)
    for still in (True, False):
        one.died(one.latency_job(), "signal SIGKILL")
        assert (one.wants_latency, one.over) == (still, not still)
    shard = "class-split, halves, mixtures 0 to 3"
    ends = ("it is done again", "its mixtures count as failed")
    assert one.progress.warnings == [f"a worker died (signal SIGKILL) at {shard}; {end}" for end in ends]  # type: ignore[attr-defined]
    assert one.end().state == "done"
    assert one.record.latency_seconds is None


def test_rows_of_a_fit_that_failed_make_room_for_separating_alone(planned: Planned) -> None:
    one = desk(planned)
    void = Shard("class-split", "halves", 0, 12)
    one.sink.scored(void)  # type: ignore[attr-defined]
    one._void = (void,)
    one._start(Job("score", void))
    assert void in one.sink.scores  # type: ignore[attr-defined]
    one._start(Job("separate", void))
    assert void not in one.sink.scores  # type: ignore[attr-defined]


def test_a_fit_that_fails_gives_rows_to_what_was_damaged_too_and_measures_no_latency(planned: Planned) -> None:
    """Of two damaged shards one is at work, the other waits, and so do the gaps around them."""
    plan, sink, told = planned("halves", limit=20, shard_size=None, latency=True), MemorySink(), Counting()
    sink.damaged |= {Shard("class-split", "halves", start, start + 4) for start in (0, 8)}
    one = Agenda(plan.cells[0], plan, sink, told, Team(1, "a command", "sha", GROUP))
    job = one.take(False)
    assert job == Job("separate", Shard("class-split", "halves", 0, 4))
    one.take_in(Report(job, fit_error="ValueError: singular", timing_group=GROUP))
    assert (one.over, one.wants_latency, one.take(True)) == (True, False, None)
    assert sink.covered() == list(range(20))
    assert sink.void == set(sink.scores)
    assert told.mixtures == {("class-split", "halves"): 20}
    assert one.end().error == "ValueError: singular"


def test_shards_of_half_a_minute_of_a_thousand_mixtures_or_32_mebibytes_at_most() -> None:
    assert (agenda.SHARD_SECONDS, agenda.MAX_SHARD, agenda.MAX_SHARD_BYTES) == (30.0, 1_000, 33_554_432)


@pytest.mark.parametrize(("draws", "most"), [(0, 12), (3, 4)])
def test_draws_count_in_the_bytes_of_a_shard(planned: Planned, monkeypatch: pytest.MonkeyPatch, draws: int, most: int) -> None:
    monkeypatch.setattr(agenda, "MAX_SHARD_BYTES", 12 * 4 * 64 * 2)
    one = desk(planned, limit=40)
    task = one.cell.task
    one.cell = replace(one.cell, task=SimpleNamespace(spec=replace(task.spec, posterior_draws=draws)))  # type: ignore[arg-type]
    assert len(one._next(1_000)) == most


# ---- which backend ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "workers", "made"), [("local", "", None), ("local", "auto", 7), ("local", "4", 4), ("ray", "", None), ("ray", "auto", None), ("ray", "2", 2)]
)
def test_the_number_of_workers_that_a_backend_is_made_with(monkeypatch: pytest.MonkeyPatch, name: str, workers: str, made: int | None) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(chosen, "load_entry", lambda group, given: lambda count: asked.append((group, given, count)) or "a backend")
    monkeypatch.setattr(chosen, "_usable", {"cuda:1": 7}.__getitem__)
    assert make_backend(name, workers, "cuda:1") == "a backend"  # type: ignore[comparison-overlap]
    assert asked == [("sepbench.backends", name, made)]


@pytest.mark.parametrize("workers", ["0", "-1", "two", "1.5", " ", "auto "])
def test_what_is_no_number_of_workers_is_one_line(workers: str) -> None:
    with pytest.raises(RequestError) as refused:
        make_backend("local", workers, "cpu")
    assert str(refused.value) == f"--workers must be a number of at least 1, or auto, got {workers!r}"


@pytest.mark.parametrize(("device", "gpus", "count"), [("cuda", 3, 3), ("cuda", 0, 1), ("cuda:0", 3, 1), ("cpu", 3, 2)])
@pytest.mark.parametrize("affinity", [True, False])
def test_workers_that_this_machine_has_room_for(monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, count: int, affinity: bool) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(os, "cpu_count", lambda: 99 if affinity else 7)
    if affinity:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0: range(8)}[pid], raising=False)
    else:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert chosen._usable(device) == count


# ---- processes -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (3, "exit code 3"), (None, "exit code None"), (-9, "signal SIGKILL"), (-999, "exit code -999")]
)
def test_how_a_process_ended(code: int | None, words: str) -> None:
    assert local._how(code) == words


@pytest.mark.parametrize(
    ("named", "count", "found"), [("", 2, ("0", "1")), (" a ,, b", 2, ("a", "b")), ("a,b,c", 2, ("a", "b")), ("a", 2, ("a", "1")), ("a", 0, ())]
)
def test_the_gpus_that_this_process_sees(monkeypatch: pytest.MonkeyPatch, named: str, count: int, found: tuple[str, ...]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert local.visible_gpus() == found


@pytest.mark.parametrize(("device", "gpus"), [("cuda", ["a", "b", "a"]), ("cuda:1", [None] * 3), ("cpu", [None] * 3)])
def test_each_process_gets_one_gpu_in_turn_unless_one_is_named_for_all(monkeypatch: pytest.MonkeyPatch, device: str, gpus: list[str | None]) -> None:
    plan: Any = SimpleNamespace(request="request", device=device)
    started: list[Any] = []

    def process(**given: Any) -> Any:
        return SimpleNamespace(start=lambda: started.append((given["args"], given["daemon"], given["name"], os.environ["OMP_NUM_THREADS"])))

    ends: list[str] = []
    pipe = (SimpleNamespace(name="here"), SimpleNamespace(close=lambda: ends.append("closed")))
    monkeypatch.setattr(local, "_SPAWN", SimpleNamespace(Pipe=lambda: pipe, Process=process))
    monkeypatch.setattr(local, "visible_gpus", lambda: ("a", "b"))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    pool = local.Processes(3, plan, SimpleNamespace(opener=lambda: "opener"), "session 7")  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr(local.Processes, "__exit__", lambda self, *ended: None)
        with pool:
            pass
    wanted = [((pipe[1], "request", "opener", "session 7", gpu, os.getpid()), True, f"sepbench-worker-{number}", "5") for number, gpu in enumerate(gpus)]
    assert started == wanted
    assert ends == ["closed"] * 3
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize("before", ["2", None])
def test_the_number_of_threads_is_put_back(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if before is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", before)
    inside: list[str] = []

    def fails() -> None:
        inside.append(os.environ["OMP_NUM_THREADS"])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), local._threads(4):
        fails()
    assert inside == ["4"]
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_ctrl_c_waits_while_processes_are_started() -> None:
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with local._deaf_to_interrupts():
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize("error", [OSError(11, "no more processes"), OSError("odd")], ids=str)
def test_processes_that_cannot_be_started_are_one_line_and_the_others_are_ended(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    ended: list[str] = []
    child = SimpleNamespace(connection=SimpleNamespace(close=lambda: ended.append("closed")))
    child.process = SimpleNamespace(kill=lambda: ended.append("killed"), join=lambda: ended.append("joined"))

    def fails() -> Any:
        raise error

    pool = local.Processes(2, SimpleNamespace(request="", device="cpu"), SimpleNamespace(opener=lambda: None), "")  # type: ignore[arg-type]
    pool._children.append(child)  # type: ignore[arg-type]
    monkeypatch.setattr(local, "_SPAWN", SimpleNamespace(Pipe=fails))
    with pytest.raises(SepbenchError) as refused:
        pool.__enter__()
    assert str(refused.value) == f"cannot start 2 workers: {error.strerror or error}; ask for fewer with --workers"
    assert ended == ["closed", "killed", "joined"]


JOB = Job("separate", Shard("t", "m", 0, 4))


@pytest.mark.parametrize("death", [EOFError(), OSError(), pickle.UnpicklingError()], ids=repr)
def test_what_comes_out_of_a_pipe(monkeypatch: pytest.MonkeyPatch, death: Exception) -> None:
    done: list[str] = []
    answers: list[Any] = [Tell(mixtures=1.0), Report(JOB), death, SepbenchError("no data")]

    def recv() -> Any:
        answer = answers.pop(0)
        if answer is death:
            raise answer
        return answer

    process: Any = SimpleNamespace(join=lambda: done.append("joined"), exitcode=-9)
    child = local._Child(process, SimpleNamespace(recv=recv, close=lambda: done.append("closed")))  # type: ignore[arg-type]
    pool = local.Processes(1, SimpleNamespace(request="", device="cpu"), SimpleNamespace(opener=lambda: None), "")  # type: ignore[arg-type]
    monkeypatch.setattr(pool, "_spawn", lambda number: f"a new worker {number}")
    pool._children = [child]
    assert [pool._read(0, child) for _ in range(3)] == [
        [Event(0, tell=Tell(mixtures=1.0))],
        [Event(0, report=Report(JOB))],
        [Event(0, death="signal SIGKILL")],
    ]
    assert (done, pool._children) == (["joined", "closed"], ["a new worker 0"])
    with pytest.raises(SepbenchError, match="no data"):
        pool._read(0, child)


def test_words_go_through_a_pipe_at_intervals_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    now, sent = [10.0], list[Tell]()
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pipe = local._Pipe(SimpleNamespace(send=sent.append))  # type: ignore[arg-type]
    for clock, tell in (
        *((10.0, Tell(mixtures=1.0)), (10.05, Tell(mixtures=2.0)), (10.0625, Tell(stage="fit 5%", fraction=0.05))),
        *((10.125, Tell(mixtures=0.5)), (10.15, Tell(stage="score")), (10.16, Tell(warning="careful")), (10.17, Tell(mixtures=4.0))),
    ):
        now[0] = clock
        pipe(tell)
    assert sent == [Tell(mixtures=1.0), Tell(mixtures=2.5), Tell(stage="score"), Tell(warning="careful")]
    pipe.flush()
    pipe.flush()
    assert sent[4:] == [Tell(mixtures=4.0)]


def test_a_worker_without_a_cell_tells_nobody_and_one_with_a_cell_all(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, heard = planned("halves"), list[Any]()
    progress: Any = SimpleNamespace(warn=heard.append, stage=lambda *told: heard.append(told), advance=lambda *told: heard.append(told))
    monkeypatch.setattr(local, "Worker", lambda *given: SimpleNamespace(run=lambda job: f"report of {job.kind}"))
    pool = local.Inline(plan, MemorySink(), progress, "")
    everything = Tell(2.0, "fit", 0.5, "careful")
    pool._tell(everything)
    assert heard == []
    pool.start(0, Job("separate", Shard("class-split", "halves", 0, 4)))
    pool._tell(everything)
    pool._tell(Tell())
    assert heard == ["careful", (plan.cells[0], "fit", 0.5), (plan.cells[0], 2.0)]
    assert (pool.ready(0), pool.wait()) == (True, [Event(0, report="report of separate")])  # type: ignore[arg-type]


@pytest.mark.parametrize(("platform", "parent", "ends"), [("linux", 5, False), ("linux", 6, True), ("darwin", 6, False)])
def test_a_worker_ends_with_its_parent(monkeypatch: pytest.MonkeyPatch, platform: str, parent: int, ends: bool) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(local, "sys", SimpleNamespace(platform=platform))
    monkeypatch.setattr(local, "ctypes", SimpleNamespace(CDLL=lambda name: SimpleNamespace(prctl=lambda *given: asked.append(given))))
    monkeypatch.setattr(os, "getppid", lambda: 5)
    if ends:
        with pytest.raises(SystemExit) as stopped:
            local._die_with(parent)
        assert stopped.value.code == 1
    else:
        local._die_with(parent)
    assert asked == ([(1, signal.SIGKILL)] if platform == "linux" else [])
