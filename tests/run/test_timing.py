"""Clocks that stop for reading, and peaks that can be set back."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import run_fakes
import torch

from sepbench.run import timing
from sepbench.run.handouts import References, TimedView
from sepbench.run.plan import Plan, Shard
from sepbench.run.separate import measure_latency, separate_shard
from sepbench.run.session import open_session
from sepbench.run.timing import LATENCY_CALLS, PeakMemory, Timer, keep_freed_memory, latency, resident_peak


class Clock:
    """A clock that moves only when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=clock))
    return clock


def test_timer(clock: Clock) -> None:
    with Timer("cpu") as timer:
        clock.now += 2.5
    assert timer.seconds == 2.5


def test_timer_keeps_its_seconds_when_the_block_raises(clock: Clock) -> None:
    timer = Timer("cpu")

    def burst() -> None:
        clock.now += 1.0
        raise ValueError

    with pytest.raises(ValueError), timer:
        burst()
    assert timer.seconds == 1.0


def test_a_gpu_is_waited_for_on_both_sides(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append((device, clock.now)))
    with Timer("cuda:1"):
        clock.now += 1.0
    assert waited == [("cuda:1", 0.0), ("cuda:1", 1.0)]


def test_latency_is_the_median() -> None:
    assert latency(lambda number: float((number * 7) % 10), calls=9) == 5.0  # of 0, 7, 4, 1, 8, 5, 2, 9, 6


def test_reading_is_counted_apart(clock: Clock) -> None:
    def slow(*arguments: Any) -> torch.Tensor:
        clock.now += 3.0
        return torch.zeros(2, 2)

    by_index = SimpleNamespace(load=slow)
    view = TimedView(SimpleNamespace(rows=lambda what, slot: by_index, clean=slow, sources=slow, observed=slow, mixtures=slow, supervision="prior", task=None))  # type: ignore[arg-type]
    view.clean()
    view.sources(0, 5)
    view.observed(1)
    view.mixtures()
    assert view.seconds == 12.0
    view.rows("clean").load([0])
    assert view.seconds == 15.0
    references = References(SimpleNamespace(sources=slow), "cpu")  # type: ignore[arg-type]
    assert references(torch.arange(2)).shape == (2, 2)
    assert references.seconds == 3.0


def test_references_do_not_count_as_separation(clock: Clock, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("oracle")
    mixture_set = plan.cells[0].task.mixture_set()
    sources = mixture_set.sources
    session = open_session(plan.cells[0], plan, mixture_set, lambda tell: None)

    def slow(example_ids: torch.Tensor) -> torch.Tensor:
        clock.now += 3.0
        return sources(example_ids)

    monkeypatch.setattr(mixture_set, "sources", slow)
    separate = session.separator.separate

    def half_a_second_more(*arguments: Any) -> torch.Tensor:
        clock.now += 0.5
        return separate(*arguments)

    monkeypatch.setattr(session.separator, "separate", half_a_second_more)
    shard = Shard("class-split", "oracle", 0, 4)
    data = separate_shard(session, shard)
    assert data.seconds.tolist() == [0.5 / len(shard)] * len(shard)


PEAKS = """
import torch
from sepbench.run.timing import PeakMemory
memory = PeakMemory("cpu")
memory.reset()
peaks = [memory.read()]
block = torch.ones(50_000_000)  # 200 MB, touched
peaks.append(memory.read())
del block
memory.reset()
peaks.append(memory.read())
print(*peaks)
"""


def test_peak_memory_sees_an_allocation_and_can_be_set_back() -> None:
    """In a process of its own: one that has freed a lot, and kept it, takes 200 MB from there."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    before, peak, after = map(float, done.stdout.split())
    assert peak > before + 150
    if after > peak - 50:
        pytest.skip("this system does not let a process set its peak back")
    assert after < before + 150


def test_peak_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(timing, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(timing, "_CLEAR", tmp_path / "none" / "none")
    memory = PeakMemory("cpu")
    memory.reset()
    assert resident_peak() > 10_000_000


def test_reading_training_data_does_not_count_as_fitting(clock: Clock, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("noisy")
    (cell,) = plan.cells
    view_of = type(cell.task).view

    class Slow:
        def __init__(self, view: Any) -> None:
            self.view = view

        def __getattr__(self, name: str) -> Any:
            return getattr(self.view, name)

        def sources(self, *arguments: Any) -> torch.Tensor:
            clock.now += 3.0
            found: torch.Tensor = self.view.sources(*arguments)
            return found

    monkeypatch.setattr(type(cell.task), "view", lambda self, level: Slow(view_of(self, level)))
    fit = run_fakes.Noisy.fit

    def with_work(self: run_fakes.Noisy, *arguments: Any) -> None:
        clock.now += 0.25
        fit(self, *arguments)

    monkeypatch.setattr(run_fakes.Noisy, "fit", with_work)
    session = open_session(cell, plan, cell.task.mixture_set(), lambda tell: None)
    assert (session.fit.seconds, session.fit.load_seconds) == (0.25, 6.0)


def test_latency_is_that_of_the_first_mixtures_one_after_the_other(planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned("halves", limit=4)
    session = open_session(plan.cells[0], plan, plan.cells[0].task.mixture_set(), lambda tell: None)
    seen, separate = list[list[int]](), session.separator.separate

    def watched(mixtures: Any, ctx: Any) -> torch.Tensor:
        seen.append(mixtures.example_ids.tolist())
        return separate(mixtures, ctx)

    monkeypatch.setattr(session.separator, "separate", watched)
    measure_latency(session, 4)
    assert seen == [[0], *([number % 4] for number in range(LATENCY_CALLS))]  # the first warms up


def test_a_gpu_is_not_waited_for_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    with pytest.raises(ValueError, match="no"), Timer("cuda:1"):
        raise ValueError("no")
    with Timer("cpu"):
        pass
    assert waited == ["cuda:1"]


def test_peaks_of_a_gpu_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(str(device)))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:1": 2_500_000}[str(device)])
    memory = PeakMemory("cuda:1")
    memory.reset()
    assert (asked, memory.read()) == (["cuda:1"], 2.5)


@pytest.mark.parametrize(("text", "peak"), [("VmPeak:\t 9 kB\nVmHWM:\t 1500 kB\nVmRSS: 3 kB\n", 1_536_000), ("VmPeak: 9 kB\n", 7_168), (None, 7_168)])
def test_the_peak_of_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, peak: int) -> None:
    if text is not None:
        (tmp_path / "status").write_text(text)
    monkeypatch.setattr(timing, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(timing, "_CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss={resource.RUSAGE_SELF: 7}[who]))
    assert resident_peak() == peak
    memory = PeakMemory("cpu")
    memory.reset()
    assert (memory.read(), (tmp_path / "clear_refs").read_text()) == (peak / 1e6, "5")


def test_memory_is_read_where_linux_keeps_it_and_latency_has_ten_calls() -> None:
    assert (str(timing._STATUS), str(timing._CLEAR), LATENCY_CALLS) == ("/proc/self/status", "/proc/self/clear_refs", 10)


@pytest.mark.parametrize("variable", ["", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
@pytest.mark.parametrize("library", ["glibc", ""])
@pytest.mark.parametrize("answers", [{-1: 1, -3: 1}, {-1: 0, -3: 1}, {-1: 1, -3: 0}], ids=str)
def test_freed_memory_is_kept_where_the_library_can_and_the_user_has_not_said(
    monkeypatch: pytest.MonkeyPatch, variable: str, library: str, answers: dict[int, int]
) -> None:
    asked: list[tuple[int, int]] = []
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    library_of = {None: SimpleNamespace(mallopt=lambda *given: asked.append(given) or answers[given[0]])}  # of this process, whatever it is called
    monkeypatch.setattr(timing.ctypes, "CDLL", library_of.__getitem__)
    agreed = keep_freed_memory()
    if variable or not library:
        assert (agreed, asked) == (False, [])
    else:
        assert agreed == (0 not in answers.values())
        assert asked == [(-1, 1 << 30), (-3, 32 * 1024 * 1024)][: len(asked)]
        assert len(asked) == (1 if answers[-1] == 0 else 2)
