"""Results are kept by the name under which a method is registered. A method that calls itself otherwise is refused; here that check is left out, to see so."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from run_harness import Runner

from sepbench import registry
from sepbench.results.leaderboard import build_leaderboard
from sepbench.results.values import Values
from sepbench.run.fit_cache import entries
from sepbench.run.plan import Plan

NAMES = {"first": "training_fake:Learner", "second": "training_fake:Learner", "noisy": "run_fakes:Halves"}  # the last has another method's name


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, data_home: Path) -> None:
    points = {name: EntryPoint(name, target, registry.SEPARATOR_GROUP) for name, target in NAMES.items()}
    monkeypatch.setattr(registry, "_separators", lambda: points)  # nothing is registered under the classes' own names
    monkeypatch.setattr("sepbench.run.plan.check_name", lambda name, info: None)


def test_one_class_under_two_names_is_two_methods(named: None, planned: Callable[..., Plan], runner: Runner) -> None:
    settings = {"first": {"steps": 1}, "second": {"steps": 3}, "noisy": {"gain": 2.0}}
    plan = planned(*NAMES, settings=settings, limit=4)
    outcome, store = runner(plan)
    assert [(cell.method, record.state) for cell, record in outcome.cells] == [(name, "done") for name in NAMES]
    assert list(store.read_run().methods) == list(NAMES)
    assert [store.read_run().methods[name].settings.get("steps") for name in NAMES] == [1, 3, None]
    cells = store.read_cells()
    assert list(cells) == [("class-split", name) for name in NAMES]
    frame = build_leaderboard(Values.of_run(store), store.read_run(), cells, plan.suite)
    psnr = frame[frame["metric"] == "psnr"].set_index("method")
    assert list(psnr.index) == list(NAMES)
    assert list(psnr["n_scored"]) == [4, 4, 4]
    assert len({round(mean, 9) for mean in psnr["mean"]}) == 3
    assert [entry.method for entry in entries()] == ["first", "second"]
    assert {entry.method: entry.key["settings"]["steps"] for entry in entries()} == {"first": 1, "second": 3}


def test_a_resumed_run_finds_what_it_has_under_the_registered_name(named: None, planned: Callable[..., Plan], runner: Runner) -> None:
    runner(planned("first", "noisy", limit=4))
    outcome, store = runner(planned("first", "noisy", limit=6))
    assert [record.n_separated for _, record in outcome.cells] == [6, 6]
    assert all(record.state == "done" for record in store.read_cells().values())
    assert [entry.method for entry in entries()] == ["first"]
