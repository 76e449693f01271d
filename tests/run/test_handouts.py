"""What a method is handed says what the task's own view says: every argument is passed on, and only reading costs seconds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sepbench.run import timing
from sepbench.run.handouts import References, TimedView


class View:
    """Answers with what it was asked for."""

    supervision = "prior"
    task = "the task"

    def __init__(self, clock: SimpleNamespace) -> None:
        self.clock, self.rows_asked = clock, list[Any]()

    def _read(self, *asked: Any) -> Any:
        self.clock.now += 2.0
        return asked

    def mixtures(self, limit: int | None = None) -> Any:
        return self._read("mixtures", limit)

    def observed(self, limit: int | None = None) -> Any:
        return self._read("observed", limit)

    def clean(self, limit: int | None = None) -> Any:
        return self._read("clean", limit)

    def sources(self, slot: int, limit: int | None = None) -> Any:
        return self._read("sources", slot, limit)

    def rows(self, what: str, slot: int) -> Any:
        self.rows_asked.append((what, slot))
        return Rows(self)

    def prior(self, slot: int) -> Any:
        return f"prior of {slot}"


class Rows:
    def __init__(self, view: View) -> None:
        self.view = view

    def __len__(self) -> int:
        return 7

    def load(self, indices: Any) -> Any:
        return self.view._read("load", indices)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_a_timed_view_answers_as_the_view_does(clock: SimpleNamespace) -> None:
    own: Any = View(clock)
    view: Any = TimedView(own)
    assert (view.supervision, view.task, view.seconds) == ("prior", "the task", 0.0)
    for name in ("mixtures", "observed", "clean"):
        assert getattr(view, name)() == (name, None)
        assert getattr(view, name)(5) == getattr(view, name)(limit=5) == (name, 5)
    assert (view.sources(1), view.sources(0, 3)) == (("sources", 1, None), ("sources", 0, 3))
    assert view.seconds == 11 * 2.0
    assert view.prior(1) == "prior of 1"
    rows = view.rows("sources", 1)
    view.rows("clean")
    assert own.rows_asked == [("sources", 1), ("clean", 0)]
    assert len(rows) == 7
    assert view.seconds == 11 * 2.0  # nothing was read
    assert rows.load([3, 4]) == ("load", [3, 4])
    assert view.seconds == 12 * 2.0


def test_references_are_those_of_the_examples_on_the_device(clock: SimpleNamespace) -> None:
    asked: list[list[int]] = []

    def sources(ids: torch.Tensor) -> torch.Tensor:
        asked.append(ids.tolist())
        clock.now += 3.0
        return torch.ones(len(ids), 2)

    references = References(SimpleNamespace(sources=sources), "meta")  # type: ignore[arg-type]
    assert references(torch.tensor([4, 2])).device.type == "meta"
    assert (asked, references.seconds) == ([[4, 2]], 3.0)
    references(torch.tensor([1]))
    assert references.seconds == 6.0
