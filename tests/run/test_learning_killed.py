"""A method that trains, killed 21 times while it fits, while its fit is put away and while it separates, ends with the bits of an undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_harness import Runner, bits
from training_fake import counted

from sepbench.results.store import RunStore
from sepbench.run.plan import Plan

SCRIPT = Path(__file__).with_name("kill_while_learning.py")
STEPS = 60
OPTIONS: dict[str, Any] = {"suite": "digits-pairs", "methods": ["learner"], "tasks": ["class-split"], "limit": 120, "shard_size": 3}
OPTIONS |= {"settings": {"learner": {"steps": STEPS}}}


def _run(home: Path, folder: str, kills: int) -> dict[str, Any]:
    """Run with a cache of its own; returns what the script says."""
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LEARNER_NAP": "0.005", "LEARNER_PULSE": str(home / "pulse"), "SEPBENCH_CACHE": str(home / "cache")}
    arguments = [sys.executable, str(SCRIPT), str(home / folder), json.dumps(OPTIONS), str(kills), "1"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.slow
def test_killed_while_it_learns_and_separates(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert _run(undisturbed, "run", 0)["killed"] == {"s": 0, "el": 0, "b": 0}
    assert counted(undisturbed / "pulse", "s") == STEPS
    expected = bits(RunStore.open(undisturbed / "run").read_scores())
    assert _run(killed, "run", 7)["killed"] == {"s": 7, "el": 7, "b": 7}

    store = RunStore.open(killed / "run")
    assert bits(store.read_scores()) == expected
    (cell,) = store.read_cells().values()
    assert (cell.state, cell.n_separated, cell.n_failed) == ("done", OPTIONS["limit"], 0)
    assert counted(killed / "pulse", "s") <= STEPS + 14  # a kill loses no more than the step that was not written yet
    assert not list((killed / "run").rglob("*.tmp"))
    (kept,) = (killed / "cache" / "fits" / "learner").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["fit.json", "fitted", "key.json", "lock"]

    fits, steps = counted(killed / "pulse", "f"), counted(killed / "pulse", "s")
    said = _run(killed, "again", 0)
    assert said["cached"]
    assert (counted(killed / "pulse", "f"), counted(killed / "pulse", "s")) == (fits, steps)
    again = RunStore.open(killed / "again")
    assert bits(again.read_scores()) == expected
    assert [cell.fit_cached for cell in again.read_cells().values()] == [True]
    sys.stdout.write(f"a second run has its method fitted after {said['seconds']:.3f} s\n")


@pytest.mark.slow
def test_killed_at_every_write_of_a_fit(planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rename and flush of checkpoints, of the kept fit and of the run is once the last thing that the process does."""
    from sepbench import files

    flush, replace, rename = files.flush, Path.replace, Path.rename
    steps = {"taken": 0, "last": 0}

    def counting(step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            steps["taken"] += 1
            if steps["taken"] == steps["last"]:
                signal.raise_signal(signal.SIGINT)  # what a method raises becomes a row, Ctrl-C excepted
            return step(*arguments)

        return wrapped

    monkeypatch.setattr(files, "flush", counting(flush))
    monkeypatch.setattr(Path, "replace", counting(replace))
    monkeypatch.setattr(Path, "rename", counting(rename))
    plan = planned("learner", limit=3, shard_size=3, settings={"learner": {"steps": 2}})
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    expected = bits(Runner(tmp_path / "undisturbed")(plan)[1].read_scores())
    for last in range(1, steps["taken"] + 1):
        monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / f"cache-{last}"))
        runner = Runner(tmp_path / str(last))
        steps |= {"taken": 0, "last": last}
        with pytest.raises(KeyboardInterrupt):
            runner(plan)
        steps["last"] = 0
        _, store = runner(plan)
        assert bits(store.read_scores()) == expected, f"died at step {last}"
        assert store.read_cells()["class-split", "learner"].state == "done"
