"""A method that is fitted again for pictures: with what it is fitted, and why it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.errors import DataError, SepbenchError
from sepbench.report.panels import session
from sepbench.report.panels.session import fitted_again
from sepbench.run.request import RunRequest

TASK: Any = SimpleNamespace(spec=SimpleNamespace(name="t"), mixture_set=lambda: "the mixtures")


class Made:
    """A run of ``nes`` on task ``t``; what it is fitted with is written down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[tuple[RunRequest, Any]] = []
        self.opened: list[tuple[Any, ...]] = []
        self.inside = False
        self.error: BaseException | None = None
        self.weights: dict[str, str] = {}
        self.cell: Any = SimpleNamespace(weights_sha256="")
        self.planned: Any = SimpleNamespace(info=SimpleNamespace(version="2"), support=SimpleNamespace(ok=True, note="wants colour"))
        self.run: Any = SimpleNamespace(
            suite=SimpleNamespace(name="s"),
            record=SimpleNamespace(methods={"nes": SimpleNamespace(version="2", settings={"k": 3})}, limit=40, seed=7, budget="paper", shard_size=16),
            store=SimpleNamespace(read_cell=lambda task, method: {("t", "nes"): self.cell}[task, method]),
        )
        monkeypatch.setattr(session, "make_plan", self.plan)
        monkeypatch.setattr(session, "open_session", self.open)
        monkeypatch.setattr(session, "put_back", self.put_back)

    def plan(self, request: RunRequest, suite: Any) -> Any:
        self.requests.append((request, suite))
        return SimpleNamespace(cells=[self.planned])

    @contextmanager
    def put_back(self) -> Iterator[None]:
        self.inside = True
        yield
        self.inside = False

    def open(self, *given: Any) -> Any:
        assert self.inside
        self.opened.append(given)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(separator=SimpleNamespace(**self.weights))

    def fitted(self) -> Any:
        return fitted_again(self.run, TASK, "nes", "cuda")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


@pytest.mark.parametrize(("recorded", "budget"), [("quick", "quick"), ("paper", "paper"), ("", "paper")])
def test_it_is_fitted_as_the_run_fitted_it(made: Made, recorded: str, budget: Any) -> None:
    made.run.record.budget = recorded
    found = made.fitted()
    wanted = RunRequest("s", ("nes",), ("t",), limit=40, device="cuda", seed=7, budget=budget, settings={"nes": {"k": 3}}, shard_size=16)
    assert made.requests == [(wanted, made.run.suite)]
    ((cell, plan, mixtures, tell),) = made.opened
    assert (cell, plan.cells, mixtures) == (made.planned, [made.planned], "the mixtures")
    assert tell(lambda: pytest.fail("nobody is told")) is None
    assert found.separator is not None
    assert not made.inside


def test_another_version_is_another_method(made: Made) -> None:
    made.planned.info.version = "3"
    with pytest.raises(SepbenchError) as caught:
        made.fitted()
    assert str(caught.value) == "the run was made with nes version 2, version 3 is installed; run the suite again"
    assert made.opened == []


def test_a_task_that_the_method_does_not_take(made: Made) -> None:
    made.planned.support.ok = False
    with pytest.raises(SepbenchError) as caught:
        made.fitted()
    assert str(caught.value) == "nes does not take task t: wants colour"
    assert made.opened == []


@pytest.mark.parametrize("error", [RuntimeError("no\nfit"), SystemExit(3), MemoryError("all")])
def test_whatever_a_fit_raises_is_one_line(made: Made, error: BaseException) -> None:
    made.error = error
    with pytest.raises(SepbenchError) as caught:
        made.fitted()
    assert str(caught.value).startswith(f"nes cannot be fitted on t: {type(error).__name__}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [DataError("the data are gone"), KeyboardInterrupt()])
def test_what_is_said_in_one_line_already_and_ctrl_c_stay_as_they_are(made: Made, error: BaseException) -> None:
    made.error = error
    with pytest.raises(type(error)) as caught:
        made.fitted()
    assert caught.value is error


@pytest.mark.parametrize(
    ("cell", "weights", "changed"),
    [
        (None, {"weights_sha256": "b"}, False),
        ("", {"weights_sha256": "b"}, False),  # the run did not say
        ("a", {"weights_sha256": "a"}, False),
        ("a", {"weights_sha256": "b"}, True),
        ("a", {}, True),
        ("", {}, False),
    ],
)
def test_weights_that_have_changed_are_refused(made: Made, cell: str | None, weights: dict[str, str], changed: bool) -> None:
    made.cell = None if cell is None else SimpleNamespace(weights_sha256=cell)
    made.weights = weights
    if not changed:
        made.fitted()
        return
    with pytest.raises(SepbenchError) as caught:
        made.fitted()
    assert str(caught.value) == "the weights of nes have changed since the run; restore them, or run the suite again"
