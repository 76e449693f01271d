"""What a worker's report counts as the time of a job: separating and scoring, and neither the fit nor the first, untimed call."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from told_places import without_place

from sepbench.run import separate, worker
from sepbench.run.fit_cache import CacheError
from sepbench.run.plan import Plan, Shard
from sepbench.run.request import RequestError
from sepbench.run.worker import FitReport, Job, Worker


class Estimates(str):
    """Estimates of a shard by their name."""

    estimates = torch.zeros(2, 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that moves only when told, for the worker alone."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.fixture
def made(clock: SimpleNamespace, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Plan]:
    """A worker whose fit takes 500 s, its first separation 3 s more of warming up, every separation 4 s and every scoring 2 s."""
    plan = planned("average")

    def opened(cell: Any, *rest: Any) -> Any:
        clock.now += 500.0
        return SimpleNamespace(
            cell=cell, separator=SimpleNamespace(), fit="facts", training="12", cached=False, warm_up_seconds=None, first_traceback="the first"
        )

    def separated(session: Any, shard: Any) -> Estimates:
        if session.warm_up_seconds is None:
            session.warm_up_seconds = 3.0
            clock.now += 3.0
        clock.now += 4.0
        return Estimates()

    def scored(*about: Any) -> str:
        clock.now += 2.0
        return "scores"

    for name, value in (("open_session", opened), ("separate_shard", separated), ("score_shard", scored)):
        monkeypatch.setattr(worker, name, value)
    for name in ("prepare_sets", "claim"):
        monkeypatch.setattr(worker, name, lambda *about: None)
    sink: Any = SimpleNamespace(
        write_estimates=lambda shard, estimates: None,
        read_estimates=lambda shard: "estimates",
        write_scores=lambda shard, scores: None,
        remove_estimates=lambda shard: None,
        read_totals=lambda shard: f"totals of {shard.start}",
    )
    return Worker(plan, sink, lambda tell: None), plan


def test_neither_fit_nor_warm_up_counts_and_only_the_first_job_warms_up(made: tuple[Worker, Plan]) -> None:
    one, plan = made
    first, second = (Shard(plan.cells[0].task.spec.name, "average", start, start + 4) for start in (0, 4))
    reports = [one.run(Job(kind, shard)) for kind, shard in (("separate", first), ("separate", second), ("score", second))]  # type: ignore[arg-type]
    assert [report.seconds for report in reports] == [6.0, 6.0, 2.0]
    assert [report.warm_up_seconds for report in reports] == [3.0, 3.0, None]
    assert [report.totals for report in reports] == [f"totals of {first.start}", f"totals of {second.start}", f"totals of {second.start}"]
    assert [report.traceback for report in reports] == ["the first", "the first", ""]
    assert [report.fit is None for report in reports] == [False, False, True]


def test_a_fit_that_fails_is_reported_and_tried_anew_by_the_next_job(made: tuple[Worker, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    one, plan = made
    shard = Shard(plan.cells[0].task.spec.name, "average", 0, 4)
    asked: list[int] = []

    def fails(*about: Any) -> Any:
        asked.append(len(asked))
        raise error

    monkeypatch.setattr(worker, "open_session", fails)
    error: BaseException
    for error in (ValueError("singular\nmatrix"), SystemExit(3), MemoryError()):
        report = one.run(Job("separate", shard))
        assert without_place(report.fit_error) == separate.one_line(error)
        assert type(error).__name__ in report.traceback
        assert (report.job.shard, report.fit, report.totals, report.timing_group) == (shard, None, None, one._group)
    assert asked == [0, 1, 2]
    error = CacheError("full")
    with pytest.raises(CacheError, match="full"):
        one.run(Job("separate", shard))
    monkeypatch.setattr(worker, "open_session", lambda *about: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        one.run(Job("separate", shard))


def test_a_latency_that_cannot_be_measured_is_a_warning(made: tuple[Worker, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    one, plan = made
    stages: list[str] = []
    session = SimpleNamespace(
        cell=plan.cells[0], separator=SimpleNamespace(posterior_samples=8, weights_sha256="a\nb", prior_label="c"), fit="facts", training="12", cached=True,
        warm_up_seconds=3.0, first_traceback="", teller=SimpleNamespace(enter=stages.append),
    )  # fmt: skip
    monkeypatch.setattr(worker, "open_session", lambda *about: session)
    monkeypatch.setattr(worker, "measure_latency", lambda session, n: float(n))
    job = Job("latency", Shard(plan.cells[0].task.spec.name, "average", 0, 4))
    report = one.run(job)
    assert (report.latency_seconds, report.warning, report.warm_up_seconds, report.timing_group) == (10.0, "", 3.0, one._group)
    assert report.fit == FitReport("facts", True, False, 8, "a b", "c", "12")  # type: ignore[arg-type]
    assert stages == ["latency"]
    assert report.peak_mb is not None

    def fails(*about: Any) -> Any:
        raise error

    error: BaseException = RuntimeError("no\nluck")
    monkeypatch.setattr(worker, "measure_latency", fails)
    lost = one.run(job)
    assert (lost.latency_seconds, without_place(lost.warning)) == (None, "average on class-split: no latency, RuntimeError: no luck")
    error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        one.run(job)


@pytest.mark.parametrize(("draws", "samples", "said"), [(0, None, 1), (0, 8, 8), (0, "many", 1), (256, 8, 256), (256, None, 256)], ids=str)
def test_the_draws_behind_an_estimate(made: tuple[Worker, Plan], draws: int, samples: Any, said: int) -> None:
    cell = made[1].cells[0]
    spec = replace(cell.task.spec, posterior_draws=draws)
    separator = SimpleNamespace() if samples is None else SimpleNamespace(posterior_samples=samples)
    session: Any = SimpleNamespace(separator=separator, cell=replace(cell, task=replace(cell.task, spec=spec)), fit="facts", training="12", cached=False)
    report = worker._fit_report(session)
    assert (report.samples, report.weights_sha256, report.prior, report.kept, report.training_sha256) == (said, "", "", False, "12")


@pytest.mark.parametrize("keep", [True, False])
def test_estimates_are_let_go_once_they_are_scored(clock: SimpleNamespace, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, keep: bool) -> None:
    did: list[str] = []
    monkeypatch.setattr(worker, "score_shard", lambda *about: did.append("score") or "scores")
    monkeypatch.setattr(worker, "prepare_sets", lambda task, metrics, device, sink: did.append(f"sets on {device}"))
    sink: Any = SimpleNamespace(
        read_estimates=lambda shard: did.append("read"),
        write_scores=lambda shard, scores: did.append(f"write {scores}"),
        remove_estimates=lambda shard: did.append("remove"),
        read_totals=lambda shard: "totals",
    )
    plan = planned("average", keep_estimates=keep)
    told: list[Any] = []
    one = Worker(plan, sink, told.append)
    for _ in range(2):
        assert one.run(Job("score", Shard("class-split", "average", 0, 4))).totals == "totals"
    again = ["read", "score", "write scores", *([] if keep else ["remove"])]
    assert did == ["read", "sets on cpu", *again[1:], *again]
    assert [tell.stage for tell in told] == ["score", "score"]


# ---- several cells ---------------------------------------------------------------------------------------------------------------------


class Shop:
    """A worker of two methods on two tasks that notes what it does; a method is its cell's name."""

    def __init__(self, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
        self.did: list[Any] = []
        self.separator: Any = SimpleNamespace()
        self.plan = planned("average", "mixture", tasks=("class-split", "class-agnostic"))
        monkeypatch.setattr(worker, "generators", lambda: lambda: self.did.append("generators"))
        monkeypatch.setattr(worker, "PeakMemory", lambda device: SimpleNamespace(reset=lambda: self.did.append("memory"), read=lambda: 321.5))
        monkeypatch.setattr(worker, "open_session", self._open)
        monkeypatch.setattr(worker, "claim", self._claim)
        self.refuses: RequestError | None = None
        monkeypatch.setattr(worker, "separate_shard", lambda session, shard: Estimates(f"estimates of {session.cell.method} on {session.cell.task.spec.name}"))
        monkeypatch.setattr(worker, "score_shard", lambda shard, estimates, mixtures, task, metrics, sets: (estimates, mixtures, sets))
        monkeypatch.setattr(worker, "prepare_sets", lambda task, metrics, device, sink: self.did.append(f"sets of {task.spec.name}") or f"sets {device}")
        monkeypatch.setattr(type(self.plan.cells[0].task), "mixture_set", lambda task: self.did.append(f"mixtures of {task.spec.name}") or task.spec.name)
        sink: Any = SimpleNamespace(
            write_estimates=lambda shard, data: self.did.append((shard.start, data)),
            read_estimates=lambda shard: f"read {shard.start}",
            write_scores=lambda shard, scores: self.did.append(scores),
            remove_estimates=lambda shard: None,
            read_totals=lambda shard: "totals",
        )
        self.sink, self.told = sink, list[Any]()
        self.worker = Worker(self.plan, sink, self.told.append, "session 7")

    def _open(self, cell: Any, plan: Any, mixtures: Any, tell: Any, name: str) -> Any:
        assert (plan, name) == (self.plan, "session 7")
        self.did.append(f"fit {cell.method} on {mixtures}, {'nothing' if self.worker._session is None else 'another'} open")
        return SimpleNamespace(cell=cell, separator=self.separator, fit="facts", training="12", cached=True, warm_up_seconds=0.0, first_traceback="")

    def _claim(self, cell: Any, sink: Any, metrics: Any, fit: FitReport) -> None:
        assert (sink, metrics) == (self.sink, self.plan.metrics)
        self.did.append(f"claim {cell.method} with {fit.weights_sha256!r}")
        if self.refuses is not None:
            raise self.refuses

    def __call__(self, method: str, task: str, start: int = 0, kind: Any = "separate") -> Any:
        self.did.clear()
        return self.worker.run(Job(kind, Shard(task, method, start, start + 4)))


@pytest.fixture
def shop(planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(planned, monkeypatch)


def test_a_method_stays_fitted_until_another_cell_comes_which_finds_everything_as_the_first_did(shop: Shop) -> None:
    scored = [("read 0", "class-split", "sets cpu")]
    report = shop("average", "class-split")
    assert shop.did == [
        *("mixtures of class-split", "memory", "generators", "fit average on class-split, nothing open", "claim average with ''"),
        *((0, "estimates of average on class-split"), "sets of class-split", *scored),
    ]
    assert (report.peak_mb, report.fit.cached, report.fit.kept, report.totals) == (321.5, True, False, "totals")
    shop("average", "class-split", 4)
    assert shop.did == [(4, "estimates of average on class-split"), ("read 4", "class-split", "sets cpu")]
    shop("mixture", "class-split")
    assert shop.did[:3] == ["memory", "generators", "fit mixture on class-split, nothing open"]  # and neither mixtures nor sets anew
    shop("mixture", "class-agnostic")
    assert shop.did[:4] == ["mixtures of class-agnostic", "memory", "generators", "fit mixture on class-agnostic, nothing open"]
    assert "sets of class-agnostic" in shop.did
    shop("average", "class-split", kind="score")
    assert shop.did == ["mixtures of class-split", ("read 0", "class-split", "sets cpu")]
    shop("mixture", "class-agnostic", 4)
    assert "fit mixture on class-agnostic, nothing open" not in shop.did  # scoring left it the method that it had
    shop.worker.close()
    shop("mixture", "class-agnostic")
    assert "fit mixture on class-agnostic, nothing open" in shop.did


@pytest.mark.parametrize(("extractors", "stages"), [((), ["score", "score"]), (("deep",), ["score", "features of the reference", "score"])])
def test_features_of_a_reference_are_a_stage_once(shop: Shop, monkeypatch: pytest.MonkeyPatch, extractors: tuple[str, ...], stages: list[str]) -> None:
    monkeypatch.setattr(worker, "extractors_of", lambda metrics: extractors)
    shop("average", "class-split")
    shop("average", "class-split", 4)
    assert [tell.stage for tell in shop.told] == stages


def test_a_method_that_cannot_say_what_it_is_once_it_is_fitted_counts_as_not_fitted(shop: Shop) -> None:
    class Odd:
        @property
        def posterior_samples(self) -> int:
            raise RuntimeError("not fitted")

    shop.separator = Odd()
    report = shop("average", "class-split")
    assert (without_place(report.fit_error), report.fit) == ("RuntimeError: not fitted", None)
    assert not [one for one in shop.did if isinstance(one, tuple)]  # nothing was written
    assert shop.worker._session is None


@pytest.mark.parametrize("kind", ["separate", "latency"])
def test_a_method_of_other_weights_is_refused_before_anything_is_written(shop: Shop, kind: Any) -> None:
    shop.separator = SimpleNamespace(weights_sha256="ab")
    shop.refuses = RequestError("other weights")
    with pytest.raises(RequestError, match="other weights"):
        shop("average", "class-split", kind=kind)
    assert shop.did[-1] == "claim average with 'ab'"
    assert not [one for one in shop.did if isinstance(one, tuple)]


def test_a_fit_that_can_be_read_by_others_is_said_to_be_kept(shop: Shop) -> None:
    shop.separator = SimpleNamespace(save=lambda folder: None, load=lambda folder: None, fit_scope=None)
    assert shop("average", "class-split").fit.kept == isinstance(shop.separator, worker.Fitted)
    assert isinstance(shop.separator, worker.Fitted)


@pytest.mark.parametrize(("values", "told"), [([0.5, -25.0], "average on class-split reaches 25, and images are in [0, 1]: "), ([1.5, -0.5], "")])
def test_images_far_outside_their_range_are_warned_of(shop: Shop, monkeypatch: pytest.MonkeyPatch, values: list[float], told: str) -> None:
    monkeypatch.setattr(Estimates, "estimates", torch.tensor(values))
    report = shop("average", "class-split")
    assert report.warning.startswith(told)
    assert bool(report.warning) == bool(told)


# ---- what each step is given -----------------------------------------------------------------------------------------------------------


def test_every_step_is_given_the_plan_s_device_metrics_and_folder(planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed: whatever would ask for one is a stand-in."""
    seen: list[Any] = []
    plan = planned("average")
    plan = replace(plan, request=replace(plan.request, device="cuda:1"), metrics=("ssim", "fid"))
    monkeypatch.setattr(worker, "timing_group", lambda device: f"group of {device}")
    monkeypatch.setattr(worker, "PeakMemory", lambda device: seen.append(f"memory of {device}"))
    monkeypatch.setattr(worker, "extractors_of", lambda metrics: seen.append(metrics))
    monkeypatch.setattr(worker, "prepare_sets", lambda *given: seen.append(given) or "sets")
    monkeypatch.setattr(worker, "score_shard", lambda *given: seen.append(given) or "scores")
    sink: Any = SimpleNamespace(read_estimates=lambda shard: f"estimates of {shard.start}", write_scores=lambda *given: seen.append(given))
    sink.read_totals = lambda shard: f"totals of {shard.start}"
    task, shard = plan.cells[0].task, Shard("class-split", "average", 4, 8)
    monkeypatch.setattr(type(task), "mixture_set", lambda task: f"mixtures of {task.spec.name}")
    report = Worker(plan, sink, lambda tell: None).run(Job("score", shard))
    scored = (shard, "estimates of 4", "mixtures of class-split", task, ("ssim", "fid"), "sets")
    assert seen == ["memory of cuda:1", ("ssim", "fid"), (task, ("ssim", "fid"), "cuda:1", sink), scored, (shard, "scores")]
    assert (report.job.shard, report.totals, report.timing_group) == (shard, "totals of 4", "group of cuda:1")
    assert (report.fit, report.peak_mb, report.warm_up_seconds, report.latency_seconds, report.warning) == (None, None, None, None, "")


def test_what_a_fit_leaves_in_torch_and_numpy_is_put_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what a method leaves that only says what it is."""

    @contextlib.contextmanager
    def noted() -> Iterator[None]:
        shop.did.append("begin")
        yield
        shop.did.append("put back")

    class Says:
        @property
        def posterior_samples(self) -> int:
            shop.did.append("says")
            return 3

    monkeypatch.setattr(worker, "put_back", noted)
    shop.separator = Says()
    assert shop("average", "class-split").fit.samples == 3
    assert shop.did[1:7] == ["memory", "generators", "begin", "fit average on class-split, nothing open", "says", "put back"]


def test_a_traceback_of_a_fit_ends_with_the_failure_and_has_forty_frames(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def deep(left: int) -> Any:
        return deeper(left) if left else {}["lost"]

    def deeper(left: int) -> Any:  # one function alone would be told as "repeated"
        return deep(left - 1)

    monkeypatch.setattr(worker, "open_session", lambda *about: deep(30))
    report = shop("average", "class-split")
    assert without_place(report.fit_error) == "KeyError: 'lost'"
    assert report.traceback.splitlines()[-1] == "KeyError: 'lost'"
    assert report.traceback.count('  File "') == 40
    assert shop("mixture", "class-split").peak_mb is None  # a job without a method has no peak
