"""A run that dies at any moment is resumed, and its scores have the bits of an undisturbed run."""

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
from run_harness import Runner, bits

from sepbench import files
from sepbench.protocols import RunContext, TrainingView
from sepbench.results.store import RunStore
from sepbench.run.plan import Plan
from sepbench.run.request import RequestError

Planned = Callable[..., Plan]
SCRIPT = Path(__file__).with_name("run_until_done.py")


def _until_done(folder: Path, options: dict[str, Any], longest: float, seed: int) -> tuple[int, float]:
    """Kills it took, and the seconds of the attempt that finished."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # forked children must not inherit a pool of threads
    arguments = [sys.executable, str(SCRIPT), str(folder), json.dumps(options), str(longest), str(seed)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    kills, seconds = done.stdout.split()
    return int(kills), float(seconds)


def _compare(tmp_path: Path, options: dict[str, Any]) -> None:
    kills, seconds = _until_done(tmp_path / "undisturbed", options, 600.0, seed=0)
    assert kills == 0
    expected = bits(RunStore.open(tmp_path / "undisturbed").read_scores())
    kills, _ = _until_done(tmp_path / "killed", options, seconds / 4, seed=1)
    assert kills >= 3, "the test must disturb the run to say anything"
    killed = RunStore.open(tmp_path / "killed")
    assert bits(killed.read_scores()) == expected
    assert {cell.state for cell in killed.read_cells().values()} == {"done"}
    assert {cell.n_separated for cell in killed.read_cells().values()} == {options["limit"]}
    assert not list((tmp_path / "killed").rglob("*.tmp"))


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    options = {"suite": "digits-pairs", "methods": ["noisy", "halves"], "limit": 28, "shard_size": 4, "settings": {"noisy": {"nap": 0.004}}}
    _compare(tmp_path, options)


@pytest.mark.slow
def test_kill_9_with_real_methods(tmp_path: Path) -> None:
    _compare(tmp_path, {"suite": "digits-pairs", "methods": ["average", "nmf"], "limit": 1000, "shard_size": 100})


class _Killed(BaseException):
    """Stands for SIGKILL: nothing that catches errors may see it."""


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], dict[str, int]]:
    """Makes the n-th step of any write the last one: before the temporary file is flushed, before it is renamed, or after."""
    flush, replace = files.flush, Path.replace

    def arm(last: int) -> dict[str, int]:
        steps = {"taken": 0}

        def counted(step: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*arguments: Any) -> Any:
                steps["taken"] += 1
                if steps["taken"] == last:
                    raise _Killed
                return step(*arguments)

            return wrapped

        monkeypatch.setattr(files, "flush", counted(flush))
        monkeypatch.setattr(Path, "replace", counted(replace))
        return steps

    return arm


@pytest.mark.parametrize("keep", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_death_at_every_step_of_every_write(planned: Planned, tmp_path: Path, deadly: Callable[[int], dict[str, int]], keep: bool) -> None:
    plan = planned("noisy", limit=4, shard_size=2, keep_estimates=keep)
    steps = deadly(0)
    expected = bits(Runner(tmp_path / "undisturbed")(plan)[1].read_scores())
    writes = 1 + 4 + 2 * 2  # run.json, the cell (begun, fitted, reported, ended), two shards of estimates and of scores
    assert steps["taken"] == 3 * writes + 3  # and three folders of which the parent is flushed
    for last in range(1, steps["taken"] + 1):
        runner = Runner(tmp_path / str(last))
        deadly(last)
        with pytest.raises(_Killed):
            runner(plan)
        deadly(0)
        _, store = runner(plan)
        assert bits(store.read_scores()) == expected, f"died at step {last}"
        assert store.read_cells()["class-split", "noisy"].state == "done"
        assert not runner.warnings
        assert not list(runner.folder.rglob("*.tmp"))


def test_other_weights_are_refused_every_time_and_leave_nothing(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: run_fakes.Halves, view: TrainingView, ctx: RunContext) -> None:
        self.weights_sha256 = weights

    def results() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for part in ("estimates", "scores") for path in (runner.folder / part).rglob("*.*")}

    monkeypatch.setattr(run_fakes.Halves, "fit", fit)
    runner, weights = Runner(tmp_path / "run"), "ab"
    runner(planned("halves", limit=8))
    before = results()
    weights = "cd"
    for _ in range(3):
        with pytest.raises(RequestError, match=r"^the weights of halves have changed since this run began; restore them, or choose another --out$"):
            runner(planned("halves", limit=12))
        cell = runner(planned("halves", limit=8))[1].read_cells()["class-split", "halves"]  # nothing is missing, so nothing is fitted
        assert (cell.weights_sha256, cell.n_separated) == ("ab", 8)
        assert results() == before
    weights = "ab"
    assert runner(planned("halves", limit=12))[1].read_cells()["class-split", "halves"].n_separated == 12


def test_other_training_data_are_refused_by_methods_that_learn(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(tmp_path / "run")
    runner(planned("noisy", "halves", limit=4))
    cells = RunStore.open(runner.folder).read_cells()
    assert [len(cell.training_sha256) for cell in cells.values()] == [64, 0]
    monkeypatch.setattr("sepbench.data.views.training_digest", lambda material, supervision: "of other data")
    scores = bits(RunStore.open(runner.folder).read_scores())
    for _ in range(2):
        with pytest.raises(RequestError, match="the training data of noisy on class-split have changed since this run began"):
            runner(planned("noisy", limit=8))
        assert bits(RunStore.open(runner.folder).read_scores()) == scores
    assert runner(planned("halves", limit=8))[0].exit_code == 0


def test_a_kill_at_the_only_shard_leaves_a_record_of_its_fit(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next session finds the estimates there, and never fits."""

    def fit(self: run_fakes.Halves, view: TrainingView, ctx: RunContext) -> None:
        self.weights_sha256 = "ab"

    def killed(*about: Any) -> None:
        raise _Killed

    runner, plan = Runner(tmp_path / "run"), planned("halves", limit=4)
    monkeypatch.setattr(run_fakes.Halves, "fit", fit)
    with monkeypatch.context() as deadly:
        deadly.setattr("sepbench.run.worker.score_shard", killed)
        with pytest.raises(_Killed):
            runner(plan)
    monkeypatch.setattr(run_fakes.Halves, "fit", None)
    cell = runner(plan)[1].read_cells()["class-split", "halves"]
    assert (cell.state, cell.weights_sha256, cell.fit_seconds is not None, cell.fit_timing_group != "") == ("done", "ab", True, True)
