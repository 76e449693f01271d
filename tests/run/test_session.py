"""``ctx.progress``: what a method says of its own progress becomes a stage while it is prepared, and mixtures while it separates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_fakes
import torch
from hypothesis import given
from hypothesis import strategies as st

from sepbench.protocols import Mixtures, RunContext, TrainingView
from sepbench.results.store import RunStore
from sepbench.run.execute import execute
from sepbench.run.plan import Cell, Plan
from sepbench.run.provenance import run_record
from sepbench.run.session import Tell, Teller
from sepbench.run.sink import Silent

Planned = Callable[..., Plan]


class Heard(Silent):
    """Keeps stages and mixtures in the order in which they are told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, float | None]] = []

    def stage(self, cell: Cell, text: str, fraction: float | None = None) -> None:
        self.said.append((text, fraction))

    def advance(self, cell: Cell, mixtures: float) -> None:
        self.said.append(("", mixtures))

    @property
    def mixtures(self) -> list[float]:
        return [mixtures for text, mixtures in self.said if text == "" and mixtures is not None]


def _run(folder: Path, plan: Plan) -> Heard:
    heard, record = Heard(), run_record(plan, "test")
    store = RunStore.create(folder, record)
    with store.session(record):
        execute(plan, store, heard)
    return heard


def _tells(monkeypatch: pytest.MonkeyPatch, *fractions: float) -> None:
    """``halves`` says these fractions in every call."""

    def separate(self: run_fakes.Halves, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        for fraction in fractions:
            ctx.progress(fraction, f"{fraction:.0%} of it")
        return run_fakes.Fake.separate(self, mixtures, ctx)

    monkeypatch.setattr(run_fakes.Halves, "separate", separate)


def test_parts_of_a_batch_are_told_and_add_up_to_whole_batches(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tells(monkeypatch, 0.25, 0.5)
    heard = _run(tmp_path / "run", planned("halves", limit=10, shard_size=None))
    assert heard.mixtures == [1, 1, 2, 1, 1, 2, 0.5, 0.5, 1]  # batches of 4, 4 and 2


def test_stages_come_in_order_and_carry_fractions(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: run_fakes.Halves, view: TrainingView, ctx: RunContext) -> None:
        ctx.progress(0.5, "step 50,\nloss 0.1")

    _tells(monkeypatch, 0.5)
    monkeypatch.setattr(run_fakes.Halves, "fit", fit)
    heard = _run(tmp_path / "run", planned("halves", limit=2, shard_size=None, latency=True))
    stages = [(text, fraction) for text, fraction in heard.said if text]
    assert stages[:6] == [
        ("fit", None),
        ("fit 50% step 50, loss 0.1", 0.5),
        ("warm up", None),
        ("warm up 50% 50% of it", 0.5),
        ("separate", None),
        ("score", None),
    ]
    assert stages[6] == ("latency", None)
    assert set(stages[7:]) == {("latency 50% 50% of it", 0.5)}
    assert sum(heard.mixtures) == 2  # neither the warm-up nor single mixtures count


@pytest.mark.parametrize("how", ["raise", "shape", "nan"])
def test_a_batch_that_fails_and_is_taken_apart_counts_once(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    separate = run_fakes.Broken.separate

    def telling(self: run_fakes.Broken, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        ctx.progress(0.75, "nearly")
        estimates = separate(self, mixtures, ctx)
        ctx.progress(1.0, "done")
        return estimates

    monkeypatch.setattr(run_fakes.Broken, "separate", telling)
    heard = _run(tmp_path / "run", planned("broken", limit=10, shard_size=None, settings={"broken": {"how": how, "at": 5}}))
    assert sum(heard.mixtures) == 10
    assert min(heard.mixtures) >= 0


@given(batches=st.lists(st.tuples(st.integers(1, 500), st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8)), max_size=6))
def test_whatever_a_method_says_whole_batches_are_told(batches: list[tuple[int, list[float]]]) -> None:
    told: list[Tell] = []
    teller = Teller(told.append)
    teller.enter("separate")
    for size, fractions in batches:
        before = sum(tell.mixtures for tell in told)
        teller.begin(size)
        for fraction in fractions:
            teller(fraction, "so far")
            assert -1e-6 <= sum(tell.mixtures for tell in told) - before <= size + 1e-6
        teller.end()
        assert sum(tell.mixtures for tell in told) - before == pytest.approx(size)
    assert all(tell.mixtures >= 0 for tell in told)


def test_progress_outside_any_stage_is_nothing() -> None:
    told: list[Any] = []
    Teller(told.append)(0.5, "who asked?")
    assert told == []
