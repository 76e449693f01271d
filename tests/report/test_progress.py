"""The lines that a run prints while it goes on, and what its bar is told."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sepbench.report.progress import RunProgress
from sepbench.results.store import RunStore
from sepbench.run.execute import execute
from sepbench.run.plan import Plan, make_plan
from sepbench.run.provenance import run_record
from sepbench.run.records import CellRecord
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite

pytestmark = pytest.mark.usefixtures("fake_methods", "data_home")


def _plan(*methods: str, **options: Any) -> Plan:
    return make_plan(RunRequest("digits-pairs", methods, ("class-split",), limit=10, device="cpu", **options), load_suite("digits-pairs"))


@pytest.fixture
def line() -> Callable[..., str]:
    """What is printed when a cell of ``halves`` ends with such a record."""

    def printed(**facts: Any) -> str:
        text = io.StringIO()
        progress, plan = RunProgress(Console(file=text, width=40)), _plan("halves")
        progress.start(plan, 1)
        progress.end(plan.cells[0], CellRecord(**({"state": "done", "n_separated": 1000, "separate_seconds": 50.0} | facts)))
        return text.getvalue()

    return printed


@pytest.mark.parametrize(
    ("facts", "rest"),
    [
        ({}, "1,000 mixtures, 0.05 s each"),
        ({"fit_seconds": 3.0}, "1,000 mixtures, 0.05 s each, fitted in 3 s"),
        ({"fit_seconds": 3.0, "fit_cached": True}, "1,000 mixtures, 0.05 s each, fitted in 3 s (cached)"),
        ({"fit_seconds": 0.01, "fit_cached": True}, "1,000 mixtures, 0.05 s each"),
        ({"fit_seconds": 3671.4}, "1,000 mixtures, 0.05 s each, fitted in 61 min"),
        ({"separate_seconds": 142_000.0}, "1,000 mixtures, 142 s each"),
        ({"separate_seconds": 12.3}, "1,000 mixtures, 0.012 s each"),
        ({"n_failed": 2, "error": "ValueError: [x] no"}, "1,000 mixtures, 0.05 s each; 2 failed, the first with ValueError: [x] no"),
    ],
)
def test_a_cell_that_ended_is_one_line(line: Callable[..., str], facts: dict[str, Any], rest: str) -> None:
    assert line(**facts) == f"done class-split / halves: {rest}\n"


def test_what_did_not_run_says_why(line: Callable[..., str]) -> None:
    assert line(state="failed", error="ValueError: singular [matrix]") == "failed class-split / halves: ValueError: singular [matrix]\n"
    assert line(state="unsupported", note="wants [three] sources") == "unsupported class-split / halves: wants [three] sources\n"
    assert line(state="partial", n_separated=7, separate_seconds=7.0).startswith("partial class-split / halves: 7 mixtures, 1 s each")


def test_warnings_keep_their_brackets() -> None:
    text = io.StringIO()
    RunProgress(Console(file=text, width=40)).warn("a worker died ([/x]) at class-split, halves, mixtures 4 to 19")
    assert text.getvalue() == "warning: a worker died ([/x]) at class-split, halves, mixtures 4 to 19\n"


def _watched(folder: Path, plan: Plan) -> tuple[RunProgress, str]:
    text = io.StringIO()
    progress, record = RunProgress(Console(file=text, width=200)), run_record(plan, "test")
    store = RunStore.create(folder, record)
    with store.session(record), progress:
        execute(plan, store, progress)
    return progress, text.getvalue()


def test_the_bar_is_full_at_the_end_whatever_happened_on_the_way(tmp_path: Path) -> None:
    plan = _plan("halves", "picky", "fails-fit", "broken", "learner", settings={"broken": {"how": "raise", "at": 5}})
    for _ in range(2):  # the second time everything is there
        progress, _ = _watched(tmp_path / "run", plan)
        (row,) = progress._bar.tasks
        assert row.total == 50
        assert row.completed == pytest.approx(50)
        assert progress.finished == 50


def test_a_cached_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LEARNER_NAP", "0.02")
    first, second = (_watched(tmp_path / name, _plan("learner"))[1] for name in ("a", "b"))
    assert "(cached)" not in first
    assert second.endswith(" s (cached)\n")
    assert first.partition("fitted in ")[2].strip() == second.partition("fitted in ")[2].removesuffix(" (cached)\n")


def test_what_was_there_already_is_kept_and_not_told_as_if_it_were_run_again(tmp_path: Path) -> None:
    plan = _plan("halves", "audio-only")
    assert "kept" not in _watched(tmp_path / "run", plan)[1]
    again = _watched(tmp_path / "run", plan)[1]
    assert "kept class-split / halves: 10 mixtures\n" in again
    assert "done" not in again
    assert "unsupported" in again
    assert again.endswith("nothing to do: all of it was there already\n")


def test_a_cell_that_joins_is_something_to_do(tmp_path: Path) -> None:
    _watched(tmp_path / "run", _plan("halves"))
    text = _watched(tmp_path / "run", _plan("halves", "learner"))[1]
    assert "kept class-split / halves" in text
    assert "done class-split / learner" in text
    assert "nothing to do" not in text


def test_a_failure_is_never_kept(tmp_path: Path) -> None:
    for _ in range(2):
        text = _watched(tmp_path / "run", _plan("fails-fit"))[1]
        assert "failed class-split / fails-fit" in text
        assert "nothing to do" not in text
