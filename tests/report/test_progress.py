"""The lines that a run prints while it goes on, and what its bar is told."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sepbench.report.progress import RunProgress, in_seconds, in_words
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


@pytest.mark.parametrize(
    ("facts", "rest"),
    [
        ({"n_separated": 0, "separate_seconds": 0.0, "n_failed": 1200, "error": "E: x"}, "0 mixtures, 0 s each; 1,200 failed, the first with E: x"),
        ({"fit_seconds": 0.05}, "1,000 mixtures, 0.05 s each, fitted in 0.05 s"),
        ({"fit_seconds": 0.0499}, "1,000 mixtures, 0.05 s each"),
        (
            {"fit_seconds": 9000.0, "fit_cached": True, "n_failed": 1, "error": "E"},
            "1,000 mixtures, 0.05 s each, fitted in 2 h 30 min (cached); 1 failed, the first with E",
        ),
    ],
)
def test_ends_of_what_a_line_tells(line: Callable[..., str], facts: dict[str, Any], rest: str) -> None:
    assert line(**facts) == f"done class-split / halves: {rest}\n"


@pytest.mark.parametrize(
    ("seconds", "alone", "words"),
    [
        (0.0123, "0.012 s", "0.012 s"),
        (9.94, "9.9 s", "9.9 s"),
        (10.0, "10 s", "10 s"),
        (99.7, "100 s", "100 s"),
        (119.4, "119 s", "119 s"),
        (120.0, "120 s", "2 min"),
        (7_140.0, "7,140 s", "119 min"),
        (7_190.0, "7,190 s", "2 h 0 min"),
        (4_000_000.0, "4,000,000 s", "1,111 h 7 min"),
    ],
)
def test_seconds_in_words(seconds: float, alone: str, words: str) -> None:
    assert (in_seconds(seconds), in_words(seconds)) == (alone, words)


@pytest.mark.parametrize(
    ("state", "code"),
    [("done", "32"), ("partial", "33"), ("failed", "31"), ("unsupported", "2")],
)
def test_marks_have_their_colours_and_the_rest_of_a_line_has_none(state: str, code: str) -> None:
    text = io.StringIO()
    progress, plan = RunProgress(Console(file=text, width=40, force_terminal=True, color_system="standard", no_color=False)), _plan("halves")
    progress.start(plan, 1)
    progress.end(plan.cells[0], CellRecord(state=state, n_separated=8, separate_seconds=8.0, note="1 x", error="2 x"))  # type: ignore[arg-type]
    first, _, rest = text.getvalue().partition(" class-split / halves")
    assert first == f"\x1b[{code}m{state}\x1b[0m"
    assert "\x1b" not in rest


def test_the_bar_is_told_the_cell_and_its_stage_and_is_there_on_a_terminal_only() -> None:
    plan = _plan("halves", "audio-only")
    first, other = plan.cells
    assert not other.support.ok
    for terminal in (True, False):
        progress = RunProgress(Console(file=io.StringIO(), width=80, force_terminal=terminal))
        (row,) = progress._bar.tasks
        assert (progress._bar.disable, progress._bar.live.transient, row.total) == (not terminal, True, None)
    progress.start(plan, 1)
    assert row.total == 20  # of those too that no method takes
    progress.begin(first, 3)
    assert (row.description, row.completed, progress.finished) == ("class-split / halves", 3, 3)
    progress.stage(first, "fit [red]", 0.5)
    assert row.description == r"class-split / halves: fit \[red]"
    progress.advance(first, 1.75)
    assert (row.completed, progress.finished) == (4.75, 5)
    progress.begin(other, 10)
    assert (row.description, row.completed) == ("class-split / audio-only", 14.75)


def test_seconds_left_are_written_beside_the_bar() -> None:
    plan = _plan("halves", "audio-only")
    progress = RunProgress(Console(file=io.StringIO(), width=80))
    column = progress._bar.columns[-1]
    (row,) = progress._bar.tasks
    assert str(column(row)) == "-:--:-- left"
    progress.time_left.clock = iter([0.0, 20.0, 20.0]).__next__
    progress.start(plan, 1)
    progress.begin(plan.cells[0], 2)
    progress.stage(plan.cells[0], "separate", None)
    progress.advance(plan.cells[0], 4)
    assert progress.time_left.seconds() == 20.0  # four mixtures of eight are left; those that no method takes take no time
    shown = column.render(row)  # type: ignore[union-attr]
    assert (str(shown), shown.style) == ("0:00:20 left", "progress.remaining")  # type: ignore[union-attr]


def test_how_much_of_a_fit_is_done_is_handed_on() -> None:
    plan = _plan("halves")
    progress = RunProgress(Console(file=io.StringIO(), width=80))
    progress.time_left.clock = iter([0.0, 10.0]).__next__
    progress.start(plan, 1)
    progress.stage(plan.cells[0], "fit")
    progress.stage(plan.cells[0], "fit 20% step 2", 0.2)
    assert progress.time_left.seconds() == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("done", "then", "kept"),
    [(10, "", True), (11, "", True), (9, "", False), (10, "stage", False), (10, "advance", False)],
)
@pytest.mark.parametrize("state", ["done", "partial", "failed"])
def test_what_counts_as_kept(done: int, then: str, kept: bool, state: str) -> None:
    """All of it was there and nothing was done: not even scored again."""
    text, plan = io.StringIO(), _plan("halves")
    progress, cell = RunProgress(Console(file=text, width=200)), plan.cells[0]
    with progress:
        progress.start(plan, 1)
        progress.begin(cell, done)
        if then == "stage":
            progress.stage(cell, "score")
        if then == "advance":
            progress.advance(cell, 0.5)
        progress.end(cell, CellRecord(state=state, n_separated=10, separate_seconds=5.0, error="E"))  # type: ignore[arg-type]
    kept = kept and state != "failed"
    first, *rest = text.getvalue().splitlines()
    assert first.startswith("kept class-split / halves: 10 mixtures" if kept else f"{state} class-split / halves: ")
    assert rest == ["nothing to do: all of it was there already"] * kept


def test_a_run_that_was_stopped_does_not_say_that_there_was_nothing_to_do() -> None:
    text, plan = io.StringIO(), _plan("halves")
    progress = RunProgress(Console(file=text, width=200))
    progress.start(plan, 1)
    progress.begin(plan.cells[0], 10)
    progress.end(plan.cells[0], CellRecord(state="done", n_separated=10))
    with pytest.raises(KeyboardInterrupt), progress:
        raise KeyboardInterrupt
    assert text.getvalue() == "kept class-split / halves: 10 mixtures\n"


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


def test_seconds_left_are_looked_at_twice_a_second() -> None:
    """More often they would flicker."""
    progress = RunProgress(Console(file=io.StringIO(), width=80))
    assert progress._bar.columns[-1].max_refresh == 0.5
