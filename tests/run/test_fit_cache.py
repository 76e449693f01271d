"""Fits are kept by everything that decides them, loaded instead of made again, made again where they are damaged, and go on after a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_fakes
import torch
from run_harness import Runner, bits
from training_fake import Learner, Mean, counted

from sepbench.protocols import RunContext, TrainingView
from sepbench.run.fit_cache import CacheError, FitFacts, KeptFit, Stopwatch, entries, fits_root
from sepbench.run.plan import Plan
from sepbench.run.records import CellRecord

Planned = Callable[..., Plan]


@pytest.fixture(autouse=True)
def pulse(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the learner counts what it does; fits are kept in a folder of this test's own."""
    monkeypatch.setenv("LEARNER_PULSE", str(data_home / "pulse"))
    monkeypatch.setattr(Learner, "caches", [])
    return data_home / "pulse"


def _cell(runner: Runner, plan: Plan) -> CellRecord:
    _, store = runner(plan)
    return store.read_cells()["class-split", "learner"]


def _kept(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "cache" / "fits" / "learner").iterdir()
    return folder


def test_a_fit_is_made_once_and_loaded_afterwards(planned: Planned, tmp_path: Path, pulse: Path) -> None:
    first, again = Runner(tmp_path / "a"), Runner(tmp_path / "b")
    made, loaded = _cell(first, planned("learner")), _cell(again, planned("learner"))
    assert (counted(pulse, "f"), counted(pulse, "e"), counted(pulse, "l"), counted(pulse, "s")) == (1, 1, 1, 5)
    assert (made.fit_cached, loaded.fit_cached) == (False, True)
    assert made.fit_seconds is not None
    assert made.fit_seconds > 0
    assert loaded.fit_seconds == made.fit_seconds  # those of the real fit
    assert loaded.fit_timing_group == made.fit_timing_group != ""
    assert bits(first(planned("learner"))[1].read_scores()) == bits(again(planned("learner"))[1].read_scores())


def test_what_a_finished_fit_leaves(planned: Planned, runner: Runner, tmp_path: Path) -> None:
    runner(planned("learner"))
    assert fits_root() == tmp_path / "cache" / "fits"  # SEPBENCH_CACHE
    folder = _kept(tmp_path)
    assert Learner.caches == [folder / "work"]
    assert sorted(path.name for path in folder.iterdir()) == ["fit.json", "fitted", "key.json", "lock"]
    assert [path.name for path in (folder / "fitted").iterdir()] == ["mean.safetensors"]
    key = json.loads((folder / "key.json").read_text())
    assert (key["method"], key["settings"]["steps"], key["seed"], key["budget"]) == ("learner", 5, 0, "paper")


def test_tasks_that_are_trained_alike_share_a_fit(planned: Planned, runner: Runner, pulse: Path) -> None:
    _, store = runner(planned("learner", tasks=("class-split", "class-split-val")))
    assert counted(pulse, "f") == 1
    assert [store.read_cells()[task, "learner"].fit_cached for task in ("class-split", "class-split-val")] == [False, True]


def test_a_method_that_cannot_be_kept_has_no_cache(planned: Planned, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path | None] = []
    monkeypatch.setattr(run_fakes.Halves, "fit", lambda self, view, ctx: seen.append(ctx.cache))
    _, store = runner(planned("halves"))
    assert seen == [None]
    assert store.read_cells()["class-split", "halves"].fit_cached is False
    assert not (tmp_path / "cache").exists()


def test_separating_is_told_of_no_cache(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path | None] = []
    separate = Learner.separate

    def looked(self: Learner, mixtures: Any, ctx: RunContext) -> torch.Tensor:
        seen.append(ctx.cache)
        return separate(self, mixtures, ctx)

    monkeypatch.setattr(Learner, "separate", looked)
    runner(planned("learner"))
    assert set(seen) == {None}


# -- asked to fit again


def test_refit_makes_it_again_once_per_session(planned: Planned, tmp_path: Path, pulse: Path) -> None:
    _cell(Runner(tmp_path / "a"), planned("learner"))
    plan = planned("learner", tasks=("class-split", "class-split-val"), refit=True)
    _, store = Runner(tmp_path / "b")(plan)
    assert counted(pulse, "f") == 2
    assert [store.read_cells()[task, "learner"].fit_cached for task in ("class-split", "class-split-val")] == [False, True]
    Runner(tmp_path / "c")(plan)
    assert counted(pulse, "f") == 3
    assert _cell(Runner(tmp_path / "d"), planned("learner")).fit_cached
    assert counted(pulse, "f") == 3


def test_refit_does_not_go_on_from_a_checkpoint(planned: Planned, tmp_path: Path, pulse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "breaks_at", 3)
    Runner(tmp_path / "a")(planned("learner"))
    monkeypatch.setattr(Learner, "breaks_at", None)
    _cell(Runner(tmp_path / "a"), planned("learner", refit=True))
    assert counted(pulse, "s") == 3 + 5


def test_a_refit_that_is_killed_goes_on_until_its_session_has_ended(planned: Planned, tmp_path: Path, pulse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Runner(tmp_path / "a")(planned("learner"))
    monkeypatch.setattr(Learner, "breaks_at", 3)
    Runner(tmp_path / "b")(planned("learner", refit=True))  # ends without the end of its session, as a kill would
    monkeypatch.setattr(Learner, "breaks_at", None)
    assert not _cell(Runner(tmp_path / "b"), planned("learner", refit=True)).fit_cached
    assert counted(pulse, "s") == 5 + 5
    _, store = Runner(tmp_path / "b")(planned("learner", limit=14, refit=True))  # it was killed while it separated
    assert store.read_cells()["class-split", "learner"].fit_cached
    assert counted(pulse, "s") == 5 + 5
    store.end_session(["psnr"])
    assert not _cell(Runner(tmp_path / "b"), planned("learner", limit=18, refit=True)).fit_cached
    assert counted(pulse, "s") == 5 + 5 + 5


def test_a_refit_does_not_go_on_with_that_of_another_run(planned: Planned, tmp_path: Path, pulse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "breaks_at", 3)
    Runner(tmp_path / "a")(planned("learner", refit=True))
    monkeypatch.setattr(Learner, "breaks_at", None)
    _cell(Runner(tmp_path / "b"), planned("learner", refit=True))
    assert counted(pulse, "s") == 3 + 5
    assert sorted(path.name for path in _kept(tmp_path).iterdir()) == ["fit.json", "fitted", "key.json", "lock"]


# -- damage and failure


def _truncate(folder: Path) -> None:
    path = folder / "fitted" / "mean.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _lose(folder: Path) -> None:
    (folder / "fitted" / "mean.safetensors").unlink()


def _scribble(folder: Path) -> None:
    (folder / "fit.json").write_text("{")


@pytest.mark.parametrize("damage", [_truncate, _lose, _scribble])
def test_a_damaged_fit_is_made_again_with_a_warning(
    planned: Planned, tmp_path: Path, pulse: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    _, store = Runner(tmp_path / "a")(planned("learner"))
    damage(_kept(tmp_path))
    warned = _warnings(monkeypatch)
    _, again = Runner(tmp_path / "b")(planned("learner"))
    assert warned == [f"the kept fit in {_kept(tmp_path)} is damaged and is made again"]
    assert counted(pulse, "f") == 2
    assert bits(again.read_scores()) == bits(store.read_scores())
    assert _cell(Runner(tmp_path / "c"), planned("learner")).fit_cached
    assert len(warned) == 1


def _warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run's progress is warned of from now on."""
    found: list[str] = []
    monkeypatch.setattr("sepbench.run.sink.Silent.warn", lambda self, text: found.append(text))
    return found


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_fit_that_cannot_be_loaded_is_made_again_by_a_fresh_method(
    planned: Planned, tmp_path: Path, pulse: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    Runner(tmp_path / "a")(planned("learner"))
    loaded: list[Learner] = []
    fitted: list[Learner] = []
    fit = Learner.fit

    def half(self: Learner, folder: Path, ctx: RunContext) -> None:
        loaded.append(self)
        raise kind("format 1\nof last year")

    def noted(self: Learner, view: TrainingView, ctx: RunContext) -> None:
        fitted.append(self)
        fit(self, view, ctx)

    monkeypatch.setattr(Learner, "load", half)
    monkeypatch.setattr(Learner, "fit", noted)
    warned = _warnings(monkeypatch)
    record = _cell(Runner(tmp_path / "b"), planned("learner"))
    assert (record.state, record.fit_cached) == ("done", False)
    assert warned == [f"the kept fit in {_kept(tmp_path)} cannot be loaded ({kind.__name__}: format 1 of last year) and is made again"]
    assert (len(loaded), len(fitted)) == (1, 1)
    assert loaded[0] is not fitted[0]  # what load left half done is not fitted


def test_a_failed_fit_keeps_its_checkpoints_and_goes_on(planned: Planned, tmp_path: Path, pulse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, undisturbed = Runner(tmp_path / "undisturbed")(planned("learner"))
    (steps,) = {counted(pulse, "s")}
    _remove_all()
    runner = Runner(tmp_path / "run")
    monkeypatch.setattr(Learner, "breaks_at", 3)
    outcome, _ = runner(planned("learner"))
    assert outcome.exit_code == 1
    assert (_kept(tmp_path) / "work" / "checkpoint.pt").is_file()
    assert not (_kept(tmp_path) / "fit.json").exists()
    monkeypatch.setattr(Learner, "breaks_at", None)
    outcome, store = runner(planned("learner"))
    assert outcome.exit_code == 0
    assert counted(pulse, "s") - steps == 3 + 2  # the three steps before the failure are not made again
    assert bits(store.read_scores()) == bits(undisturbed.read_scores())


def _remove_all() -> None:
    from sepbench.run.fit_cache import clear

    clear()


def test_seconds_of_a_fit_are_those_of_all_its_sessions(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    def advance(self: Mean, real: Callable[[Mean], None] = Mean.advance) -> None:
        real(self)
        now[0] += 5.0

    clock = type("Clock", (), {"monotonic": staticmethod(lambda: now[0]), "perf_counter": staticmethod(lambda: now[0])})
    monkeypatch.setattr("sepbench.run.fit_cache.time", clock)
    monkeypatch.setattr("sepbench.run.timing.time", clock)
    monkeypatch.setattr(Mean, "advance", advance)
    monkeypatch.setattr(Learner, "breaks_at", 3)
    runner(planned("learner"))
    monkeypatch.setattr(Learner, "breaks_at", None)
    assert _cell(runner, planned("learner")).fit_seconds == pytest.approx(5 * 5.0)


def test_seconds_of_a_failed_attempt_do_not_count_where_it_left_nothing_to_go_on_from(tmp_path: Path) -> None:
    kept = KeptFit("learner", {"seed": 0})
    kept.note_seconds(40.0)
    assert kept.spent() == Stopwatch(kept).before == 0.0
    (kept.work() / "checkpoint.pt").write_text("step 3")
    assert kept.spent() == Stopwatch(kept).before == 40.0


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = KeptFit("learner", {"seed": 0})

    def save(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "whole").write_text("x")

    with kept.locked():
        kept.keep(save, FitFacts(1.0, 0.0, "cpu"))
    names = sorted(path.name for path in kept.folder.iterdir())
    half = kept.folder / "fitted.elsewhere-1.tmp"
    half.mkdir()
    (half / "half").write_text("x")
    (kept.folder / "fit.json.elsewhere-1.tmp").write_text("{")
    (kept.work() / "checkpoint.pt").write_text("it was killed before it could drop this")
    with kept.locked():
        assert kept.facts() == FitFacts(1.0, 0.0, "cpu")
    assert sorted(path.name for path in kept.folder.iterdir()) == names


def test_checkpoints_of_an_unfinished_fit_stay(tmp_path: Path) -> None:
    kept = KeptFit("learner", {"seed": 0})
    (kept.work() / "checkpoint.pt").write_text("step 3")
    with kept.locked():
        pass
    assert (kept.work() / "checkpoint.pt").read_text() == "step 3"


# -- the cache folder


def test_a_cache_that_cannot_be_written_is_one_line(planned: Planned, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pulse: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(CacheError, match=r"cannot write .*/file/fits/learner/.*; free some space or set SEPBENCH_CACHE to a writable folder") as caught:
        runner(planned("learner"))
    assert "\n" not in str(caught.value)
    assert counted(pulse, "f") == 0
    assert not (runner.folder / "scores").exists()
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    assert _cell(runner, planned("learner")).state == "done"


def test_a_fit_that_cannot_be_kept_is_used_all_the_same(planned: Planned, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Learner, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Learner, "save", full)
    warned = _warnings(monkeypatch)
    record = _cell(runner, planned("learner"))
    assert record.state == "done"
    (text,) = warned
    assert text.startswith("the fit of learner is not kept: cannot write ")
    assert "No space left on device" in text
    assert (_kept(tmp_path) / "work" / "checkpoint.pt").is_file()


def test_a_cell_that_is_done_keeps_what_is_known_of_its_fit(planned: Planned, runner: Runner) -> None:
    made = _cell(runner, planned("learner"))
    assert _cell(runner, planned("learner")) == made


# -- two processes

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/run"]
from run_until_done import register, run
from sepbench.run.request import RunRequest
register()
run(Path(sys.argv[2]), RunRequest("digits-pairs", ("learner",), ("class-split",), limit=4, device="cpu"))
"""


@pytest.mark.slow
def test_the_second_of_two_processes_waits_and_loads(tmp_path: Path, pulse: Path, planned: Planned) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LEARNER_NAP": "0.1"}
    tests = str(Path(__file__).parents[1])

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, tests, str(tmp_path / name)], env=environment, stderr=subprocess.PIPE, text=True)

    both = [start("a"), start("b")]
    for process in both:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert (counted(pulse, "f"), counted(pulse, "l"), counted(pulse, "s")) == (1, 1, 5)
    cells = [json.loads((tmp_path / name / "cells" / "class-split--learner.json").read_text()) for name in ("a", "b")]
    assert sorted(cell["fit_cached"] for cell in cells) == [False, True]
    assert cells[0]["fit_seconds"] == cells[1]["fit_seconds"]


HOLDER = """
import sys
from sepbench.run.fit_cache import KeptFit
with KeptFit("learner", {"seed": 0}).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_waits_says_so() -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    told: list[str] = []

    def waiting() -> None:
        told.append("waits")
        assert process.stdin is not None
        process.stdin.close()  # the other lets go

    with KeptFit("learner", {"seed": 1}).locked(waiting):
        assert told == []  # another fit is no hindrance
    with KeptFit("learner", {"seed": 0}).locked(waiting):
        assert told == ["waits"]
    process.wait(timeout=60)


def test_kept_fits_are_open_to_others_and_those_of_others_are_not_replaced(
    planned: Planned, tmp_path: Path, pulse: Path, forbid: Callable[[Path], None]
) -> None:
    before = os.umask(0o022)
    try:
        _cell(Runner(tmp_path / "a"), planned("learner"))
    finally:
        os.umask(before)
    (kept,) = (_kept(tmp_path) / "fitted").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o644
    forbid(kept)
    _, store = Runner(tmp_path / "b")(planned("learner", "halves"))
    cells = store.read_cells()
    assert "cannot be read: permission denied; ask its owner" in cells["class-split", "learner"].error
    assert cells["class-split", "halves"].state == "done"
    assert counted(pulse, "f") == 1
    assert [entry.facts for entry in entries("learner")] == [None]
