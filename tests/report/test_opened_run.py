"""A run as pictures open it: which tasks and methods of it are asked for, and why one of them cannot be shown, word by word."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.panels import opened_run
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.results.store import RunStore, StoreError
from sepbench.run.plan import Shard
from sepbench.run.records import CellRecord

TASKS = ("class-split", "class-agnostic")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> OpenedRun:
    """Two methods on two tasks; nmf is better on the first, ica on the second."""
    made = SyntheticRun({"ica": 13.0, "nmf": 16.0}, TASKS, n=4)
    made.scores.loc[made.where("ica", "psnr") & (made.scores["task"] == "class-agnostic"), "value"] += 9.0
    return OpenedRun.open(Path(made.save(tmp_path_factory.mktemp("opened") / "run")))


@pytest.mark.parametrize("wanted", [("class-agnostic",), ("class-split",), ("class-agnostic", "class-split"), TASKS])
def test_the_tasks_that_are_named_are_given_in_their_order_and_no_others(run: OpenedRun, wanted: tuple[str, ...]) -> None:
    assert [task.spec.name for task in run.tasks(wanted)] == list(wanted)
    assert [task.spec.name for task in run.tasks(list(wanted))] == list(wanted)


def test_all_tasks_where_none_is_named(run: OpenedRun) -> None:
    assert [task.spec.name for task in run.tasks()] == [task.spec.name for task in run.tasks(())] == list(TASKS)


@pytest.mark.parametrize("wanted", [("clas-split",), ("class-split", "clas-split")])
def test_a_task_that_the_run_does_not_have(run: OpenedRun, wanted: tuple[str, ...]) -> None:
    with pytest.raises(SepbenchError) as caught:
        run.tasks(wanted)
    assert str(caught.value) == f"unknown task of {run.store.path} 'clas-split'; did you mean class-split?"


@pytest.mark.parametrize("wanted", [("nfm",), ("nmf", "nfm")])
def test_a_method_that_the_run_does_not_have(run: OpenedRun, wanted: tuple[str, ...]) -> None:
    with pytest.raises(SepbenchError) as caught:
        run.methods("class-split", wanted)
    assert str(caught.value) == f"unknown method of {run.store.path} 'nfm'; did you mean nmf?"


def test_methods_are_ordered_by_the_task_that_is_asked_for(run: OpenedRun) -> None:
    assert [run.methods(task) for task in TASKS] == [["nmf", "ica"], ["ica", "nmf"]]
    assert run.methods("class-agnostic", ("nmf", "ica", "nmf")) == ["ica", "nmf"]  # each once
    assert run.methods("class-split", ("ica",)) == ["ica"]


@pytest.mark.parametrize("digest", ["pairs_sha256", "mixtures_sha256"])
def test_mixtures_of_another_task_may_have_changed(tmp_path: Path, digest: str) -> None:
    made = SyntheticRun(tasks=TASKS, n=2)
    made.record["tasks"]["class-agnostic"][digest] = "feed"
    run = OpenedRun.open(Path(made.save(tmp_path / "run")))
    assert [task.spec.name for task in run.tasks(("class-split",))] == ["class-split"]
    for wanted in ((), ("class-agnostic",), TASKS):
        with pytest.raises(SepbenchError) as caught:
            run.tasks(wanted)
        told = f"the mixtures of task 'class-agnostic' are not those that {tmp_path / 'run'} was made on; run the suite again"
        assert str(caught.value) == told


def test_a_task_that_the_suite_no_longer_has_is_not_shown(tmp_path: Path) -> None:
    made = SyntheticRun(n=2)
    made.record["tasks"]["gone"] = made.record["tasks"]["class-split"]
    run = OpenedRun.open(Path(made.save(tmp_path / "run")))
    with pytest.raises(SepbenchError, match=r"^the mixtures of task 'gone' are not those"):
        run.tasks(("gone",))
    assert run.n_planned("gone") == 2


@pytest.mark.parametrize(
    ("cell", "lost", "told"),
    [
        ({}, 1, "nmf on class-split is not finished (3 of 4 mixtures); finish the run with its own command: sepbench run --suite digits-pairs --limit 4"),
        ({"command": "own"}, 1, "nmf on class-split is not finished (3 of 4 mixtures); finish the run with its own command: own"),
        ({"n_planned": 1200}, 0, "nmf on class-split is not finished (4 of 1,200 mixtures); finish the run with its own command: sepbench run --suite"),
        ({"n_planned": 3}, 0, ""),
        ({"n_planned": 3}, 1, ""),  # the run has grown since; this cell is of fewer mixtures
        ({"state": "unsupported", "note": "no colour"}, 1, "nmf does not take task class-split (no colour); choose other methods with --method"),
        ({"state": "failed", "error": "OSError: x"}, 4, "nmf on class-split is not finished (0 of 4 mixtures); finish the run"),
    ],
)
def test_why_a_method_cannot_be_shown(tmp_path: Path, cell: dict[str, Any], lost: int, told: str) -> None:
    made = SyntheticRun({"ica": 13.0, "nmf": 16.0}, n=4)
    made.scores = made.scores[~(made.where("nmf") & (made.scores["example"] >= 4 - lost))]
    made.cells["class-split", "nmf"] |= cell
    warned: list[str] = []
    run = OpenedRun.open(Path(made.save(tmp_path / "run")), warned.append)
    assert run.methods("class-split") == (["ica"] if told else ["nmf", "ica"])
    assert len(warned) == bool(told)
    if told:
        assert warned[0].startswith(f"left out: {told}")
        with pytest.raises(SepbenchError) as caught:
            run.methods("class-split", ("ica", "nmf"))
        assert f"left out: {caught.value}" == warned[0]


@pytest.mark.parametrize(("error", "why"), [("ValueError: b", "ValueError: b"), ("", "no finite value")])
def test_a_method_without_a_finite_value_has_failed(tmp_path: Path, error: str, why: str) -> None:
    made = SyntheticRun({"nmf": 16.0}, n=2)
    for example in range(2):
        made.fail("nmf", example)
    made.cells["class-split", "nmf"]["error"] = error
    run = OpenedRun.open(Path(made.save(tmp_path / "run")), pytest.fail)
    with pytest.raises(SepbenchError) as caught:  # none is left: no warning, an error
        run.methods("class-split")
    assert str(caught.value) == f"nmf failed on class-split ({why}); mend it and run again"


def test_values_are_those_of_the_ranking_metric(run: OpenedRun, tmp_path: Path) -> None:
    made = SyntheticRun({"nmf": 16.0}, n=3, metrics=("ssim", "psnr")).fail("nmf", 1)
    rows = made.scores[made.where("nmf", "psnr")].set_index(["example", "source"])["value"].to_dict()
    opened = OpenedRun.open(Path(made.save(tmp_path / "run")))
    values = opened.values("class-split", "nmf")
    assert list(values) == [0, 1, 2]
    assert math.isnan(values[1])
    assert (values[0], values[2]) == pytest.approx(((rows[0, 0] + rows[0, 1]) / 2, (rows[2, 0] + rows[2, 1]) / 2))
    assert opened.source_values("class-split", "nmf", (2,)) == {(2, k): rows[2, k] for k in range(2)}


def test_damaged_records_are_told_to_whom_the_run_is_opened_for(tmp_path: Path) -> None:
    made = SyntheticRun({"nmf": 16.0, "average": 14.0}, n=2)
    made.scores = made.scores[~made.where("nmf")]
    made.save(tmp_path / "run")
    record = tmp_path / "run" / "cells" / "class-split--nmf.json"
    record.write_text("{", encoding="utf-8")
    told: list[str] = []
    assert OpenedRun.open(tmp_path / "run", told.append).methods("class-split") == ["average"]
    assert told[0] == f"{record} is damaged and is made again"
    (tmp_path / "run" / "cells" / "class-split--average.json").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match="is damaged, and nothing else says how the results of average on class-split were made"):
        OpenedRun.open(tmp_path / "run").methods("class-split")


@pytest.fixture
def shards(run: OpenedRun, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Kept estimates of mixtures 0 to 5 in shards of two; the list holds the shards that were read. An estimate is its mixture's number."""
    read: list[tuple[int, int]] = []

    def kept(self: RunStore, shard: Shard) -> Any:
        read.append((shard.start, shard.stop))
        return SimpleNamespace(estimates=torch.arange(shard.start, shard.stop).float().reshape(-1, 1))

    monkeypatch.setattr(RunStore, "estimates_of", lambda self, task, method: [Shard(task, method, start, start + 2) for start in (2, 4, 0)])
    monkeypatch.setattr(RunStore, "is_damaged", lambda self, shard: shard.start == 4)
    monkeypatch.setattr(RunStore, "read_estimates", kept)
    return read


def test_estimates_are_read_once_a_shard_and_come_in_the_order_that_is_asked_for(run: OpenedRun, shards: list[tuple[int, int]]) -> None:
    task = run.tasks()[0]
    assert run.estimates(task, "nmf", (3, 0, 2, 1, 3)).flatten().tolist() == [3.0, 0.0, 2.0, 1.0, 3.0]
    assert shards == [(2, 4), (0, 2)]


@pytest.mark.parametrize(
    ("example", "told"),
    [
        (4, "the estimates of nmf on class-split are damaged; run the run's own command again, which makes them anew"),
        (
            6,
            "the estimates of nmf on class-split were not kept, and pictures of them need them: run again without "
            "--no-keep-estimates in another --out, or draw the histogram alone with --figures histogram",
        ),
    ],
)
def test_estimates_that_cannot_be_read(run: OpenedRun, shards: list[tuple[int, int]], example: int, told: str) -> None:
    with pytest.raises(SepbenchError) as caught:
        run.estimates(run.tasks()[0], "nmf", (1, example))
    assert str(caught.value) == told
    assert shards == [(0, 2)]


def test_estimates_of_an_earlier_version_are_refused_before_any_is_read(run: OpenedRun, shards: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: RunStore, record: Any) -> None:
        assert record is run.record
        raise SepbenchError("older")

    monkeypatch.setattr(RunStore, "refuse_older", refuse)
    with pytest.raises(SepbenchError, match=r"^older$"):
        run.estimates(run.tasks()[0], "nmf", (0,))
    assert shards == []


def test_a_file_is_there_and_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "board.csv").write_text("")
    with pytest.raises(SepbenchError) as caught:
        OpenedRun.open(tmp_path / "board.csv")
    assert "there is no" not in str(caught.value)


def test_the_suite_is_the_one_that_the_run_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the user's own is found again by its file."""
    made = SyntheticRun({"nmf": 16.0}, n=2)
    made.record["suite"]["path"] = "/home/me/own.toml"
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(opened_run, "recorded_suite", lambda *given: asked.append(given) or made.suite)
    assert OpenedRun.open(Path(made.save(tmp_path / "run"))).suite is made.suite
    assert asked == [("digits-pairs", "/home/me/own.toml")]


def test_thousands_of_mixtures_have_commas(run: OpenedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run.store, "read_cell", lambda task, method: CellRecord(n_planned=4200, command="own"))
    monkeypatch.setattr(run, "values", lambda task, method: dict.fromkeys(range(1200), 1.0))
    with pytest.raises(SepbenchError) as caught:
        run.methods("class-split", ("nmf",))
    assert str(caught.value) == "nmf on class-split is not finished (1,200 of 4,200 mixtures); finish the run with its own command: own"
