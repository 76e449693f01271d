"""A batch that is too large for the memory is halved, said so, and remembered; the estimates are those of any other batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import run_fakes
import torch
from run_harness import Runner

from sepbench.precision import as_the_session_says
from sepbench.protocols import Mixtures, RunContext, TrainingView
from sepbench.run.plan import Plan
from sepbench.run.sink import Silent

Planned = Callable[..., Plan]


def _crowded(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    def separate(self: run_fakes.Halves, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        estimates = run_fakes.Fake.separate(self, mixtures, ctx)
        if len(mixtures) > most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return estimates

    monkeypatch.setattr(run_fakes.Halves, "separate", separate)


def test_batches_are_halved_until_they_fit(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(Silent, "warn", lambda self, text: warned.append(text))
    _crowded(monkeypatch, most=2)
    outcome, store = runner(planned("halves"))
    assert run_fakes.Fake.batches == [1, 4, 2, 2, 2, 2, 2]
    assert [text for text in warned if "memory" in text] == ["halves on class-split: out of memory with 4 mixtures at once; 2 from here on"]
    assert outcome.exit_code == 0
    cell = store.read_cells()["class-split", "halves"]
    assert (cell.state, cell.n_failed, cell.traceback) == ("done", 0, "")
    _crowded(monkeypatch, most=100)
    other = Runner(runner.folder.parent / "other")
    _, roomy = other(planned("halves"))
    columns = ["example", "source", "metric", "value"]
    assert store.read_scores()[columns].equals(roomy.read_scores()[columns])


def test_what_fits_in_no_size_fails_one_by_one(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    _crowded(monkeypatch, most=0)
    _, store = runner(planned("halves"))
    cell = store.read_cells()["class-split", "halves"]
    assert (cell.state, cell.n_failed) == ("failed", 10)
    assert cell.error.startswith("OutOfMemoryError")
    assert "OutOfMemoryError" in cell.traceback


def test_fits_and_separations_compute_float32_as_the_session_says(planned: Planned, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions of a method without a precision of its own are not TF32 behind the back of a row that says float32; the CPU stands in for the GPU."""
    seen: list[bool] = []

    def separate(self: run_fakes.Halves, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return run_fakes.Fake.separate(self, mixtures, ctx)

    def fit(self: run_fakes.Halves, view: TrainingView, ctx: RunContext) -> None:
        seen.append(torch.backends.cudnn.allow_tf32)

    monkeypatch.setattr(run_fakes.Halves, "separate", separate)
    monkeypatch.setattr(run_fakes.Halves, "fit", fit)
    for module in ("separate", "session"):
        monkeypatch.setattr(f"sepbench.run.{module}.as_the_session_says", lambda device: as_the_session_says("cuda"))
    assert torch.backends.cudnn.allow_tf32
    runner(planned("halves"))
    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32
