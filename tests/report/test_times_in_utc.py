"""Times that are written down are those of UTC, wherever the machine stands: records of runs and fits, and pages, travel."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from synthetic_run import SyntheticRun

from sepbench.report.html import page
from sepbench.run import supplied
from sepbench.run.fit_cache import FitFacts, KeptFit
from sepbench.run.plan import make_plan
from sepbench.run.provenance import run_record
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite


@pytest.fixture(autouse=True)
def far_in_the_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Clocks here are eleven hours and a half before those of Greenwich."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "EAST-11:30")
        time.tzset()
        yield
    time.tzset()


def is_now(text: str) -> bool:
    when = datetime.fromisoformat(text)
    assert (when.utcoffset(), when.microsecond) == (timedelta(0), 0)
    return abs(datetime.now(UTC) - when) < timedelta(minutes=10)


def test_a_run_that_begins() -> None:
    suite = load_suite("digits-pairs")
    record = run_record(make_plan(RunRequest("digits-pairs", ("average",), device="cpu"), suite), "command")
    assert is_now(record.created)
    assert record.sessions[0].created == record.created


def test_estimates_that_are_handed_in() -> None:
    suite = load_suite("digits-pairs")
    cell: Any = SimpleNamespace(task=suite.tasks["class-split"], name="mine", n_planned=3)
    record = supplied.supplied_record(cell, suite, "", None, "command", None)
    assert is_now(record.created)
    assert record.sessions[0].created == record.created


def test_a_fit_that_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path))
    fit = KeptFit("m", {"seed": 0})
    with fit.locked():
        fit.keep(lambda folder: None, FitFacts(1.0, 0.0, "here"))
    assert is_now(json.loads((fit.folder / "fit.json").read_text())["created"])


def test_a_page_that_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("altair")
    made: list[str] = []
    monkeypatch.setattr(page, "check_html", lambda: None)
    monkeypatch.setattr(page, "vega_script", lambda: "")
    monkeypatch.setattr(page, "_board_page", lambda report, *rest: made.append(report.made))
    page.write_report([SyntheticRun({"nmf": 1.0}, n=2, metrics=("psnr",)).save(tmp_path / "run")], tmp_path / "report")
    when = datetime.strptime(made[0], "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=10)
