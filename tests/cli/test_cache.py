"""``sepbench cache``: what is kept, what is not finished, and how it goes away."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_fake import Learner, counted
from typer.testing import CliRunner

from sepbench.cli.cache import app
from sepbench.errors import SepbenchError
from sepbench.results.store import RunStore
from sepbench.run.execute import execute
from sepbench.run.fit_cache import FitFacts, KeptFit, entries
from sepbench.run.plan import make_plan
from sepbench.run.provenance import run_record
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite

pytestmark = pytest.mark.usefixtures("fake_methods", "data_home")


def _cache(*arguments: str) -> list[str]:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def _fit(tmp_path: Path, name: str, seed: int = 0) -> None:
    plan = make_plan(RunRequest("digits-pairs", ("learner",), ("class-split",), limit=3, seed=seed, budget="quick", device="cpu"), load_suite("digits-pairs"))
    record = run_record(plan, "test")
    store = RunStore.create(tmp_path / name, record)
    with store.session(record):
        execute(plan, store)


def _kept(method: str, seconds: float = 1.0, **task: object) -> KeptFit:
    kept = KeptFit(method, {"task": task or {"source_classes": ["bags", "bags"]}, "budget": "paper", "seed": 7})

    def save(folder: Path) -> None:
        (folder / "weights").write_bytes(bytes(2_500_000))

    with kept.locked():
        kept.keep(save, FitFacts(seconds, 0.0, "cpu"))
    return kept


def test_nothing_is_kept_at_first(tmp_path: Path) -> None:
    assert "".join(_cache("list")).replace(" ", "") == f"no fits are kept in {tmp_path / 'cache' / 'fits'}".replace(" ", "")
    assert _cache("clear") == ["0 fits removed"]
    assert not (tmp_path / "cache").exists()


def test_finished_and_unfinished_fits_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fit(tmp_path, "a")
    monkeypatch.setattr(Learner, "breaks_at", 3)
    _fit(tmp_path, "b", seed=1)
    found = _cache("list")
    assert found[0].startswith("Fits in ")
    rows = [line.replace("│", " ").split() for line in found if " learner " in line]
    assert [row[:5] for row in rows] == [["learner", "0-4,", "5-9", "quick", "0"], ["learner", "0-4,", "5-9", "quick", "1"]]
    assert rows[0][6] == "s"
    assert float(rows[0][5]) > 0
    assert rows[1][5:7] == ["not", "finished"]
    folders = {folder.name for folder in (tmp_path / "cache" / "fits" / "learner").iterdir()}
    assert {row[-1] for row in rows} == folders


def test_seconds_and_size_of_a_fit(tmp_path: Path) -> None:
    _kept("nmf", 3600.0)
    (row,) = [line.replace("│", " ").split() for line in _cache("list") if " nmf " in line]
    assert row[:7] == ["nmf", "bags", "paper", "7", "60", "min", "2.5"]


def test_a_narrow_terminal_gets_a_table_of_what_matters(tmp_path: Path) -> None:
    _kept("nmf", 12_000.0)
    (done, narrow) = (CliRunner(env={"COLUMNS": "80"}).invoke(app, ["list"]), CliRunner(env={"COLUMNS": "40"}).invoke(app, ["list"]))
    (row,) = [line for line in done.output.splitlines() if " nmf " in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["nmf", "bags", "paper", "7", "3 h 20 min", "2.5 MB"]  # no folder
    assert done.output.splitlines()[-1] == "1 fit, 2.5 MB; 'sepbench cache clear METHOD' removes those of a method"
    folder = next((tmp_path / "cache" / "fits" / "nmf").iterdir()).name
    assert folder in narrow.output  # paragraphs have all


def test_a_fit_of_any_classes_shows_its_shape(tmp_path: Path) -> None:
    _kept("one", source_shape=[1, 28, 28])
    assert any("1 x 28 x 28" in line for line in _cache("list"))


def test_methods_that_share_fits_find_them(tmp_path: Path) -> None:
    _kept("s-d", source_shape=[1, 28, 28])
    assert any("1 x 28 x 28" in line for line in _cache("list", "s-d-32"))
    assert _cache("clear", "s-d-1") == ["1 fit removed"]
    assert _cache("clear", "gone-method") == ["0 fits removed"]


def test_only_the_fits_of_one_method(tmp_path: Path) -> None:
    kept = {name: _kept(name) for name in ("nmf", "nmf-semi", "ica")}
    assert sum(" nmf " in line for line in _cache("list", "nmf")) == 1
    assert not any("nmf-semi" in line or " ica " in line for line in _cache("list", "nmf"))
    assert _cache("clear", "nmf") == ["1 fit removed"]
    assert [name for name, fit in kept.items() if fit.facts() is not None] == ["nmf-semi", "ica"]
    assert _cache("clear", "n*") == ["0 fits removed"]  # a name, not a pattern
    assert _cache("clear") == ["2 fits removed"]
    assert entries() == []


def test_what_was_cleared_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARNER_PULSE", str(tmp_path / "pulse"))
    _fit(tmp_path, "a")
    _cache("clear")
    _fit(tmp_path, "b")
    assert (counted(tmp_path / "pulse", "f"), counted(tmp_path / "pulse", "l")) == (2, 0)


def test_an_unfinished_fit_is_cleared_with_its_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learner, "breaks_at", 3)
    monkeypatch.setenv("LEARNER_PULSE", str(tmp_path / "pulse"))
    _fit(tmp_path, "a")
    assert _cache("clear") == ["1 fit removed"]
    monkeypatch.setattr(Learner, "breaks_at", None)
    _fit(tmp_path, "a")
    assert counted(tmp_path / "pulse", "s") == 3 + 5


def test_a_folder_without_a_key_is_not_listed_and_is_cleared(tmp_path: Path) -> None:
    kept = _kept("nmf")
    (kept.folder / "key.json").write_text("{")
    assert not any(" nmf " in line for line in _cache("list"))
    assert _cache("clear") == ["1 fit removed"]
    assert not kept.folder.exists()


def test_what_cannot_be_removed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _kept("nmf")

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sepbench.run.fit_cache.shutil.rmtree", refused)
    done = CliRunner().invoke(app, ["clear"])
    assert isinstance(done.exception, SepbenchError)
    assert "Permission denied" in str(done.exception)
    assert "\n" not in str(done.exception)
