"""The run's folder at its edges: whole lines about what is in the way, what counts as done, what is kept beside scores, and warnings."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sepbench.metrics.sets.extraction import ShardFeatures
from sepbench.results.layout import Layout
from sepbench.results.store import RunStore, StoreError, _json
from sepbench.run.plan import Shard
from sepbench.run.provenance import FORMAT
from sepbench.run.records import CellRecord, RunRecord
from sepbench.run.sink import ShardEstimates, ShardScores, ShardTotals

METRICS = ("psnr", "ssim")
SHARD = Shard("t", "m", 3, 6)


def record(**changes: Any) -> RunRecord:
    facts = {
        "format": FORMAT,
        "sepbench_version": "0",
        "suite": {"name": "s", "version": 1},
        "tasks": {name: {"pairs_sha256": "a", "mixtures_sha256": "b", "n_planned": 6} for name in ("t", "a")},
        "methods": {name: {"version": "1", "settings": {}, "source": "x:Y", "source_sha256": "c"} for name in ("m", "b")},
        "metrics": list(METRICS),
        "seed": 0,
        "budget": "paper",
        "device": "cpu",
        "limit": None,
        "shard_size": 3,
        "timing_group": "cpu",
        "environment": {"packages": {"torch": "2"}},
    }
    return RunRecord.model_validate(facts | changes)


def scores(**changes: Any) -> ShardScores:
    """Of three mixtures, of which the second failed."""
    usual = ShardScores(
        example=np.array([3, 3, 4, 4, 5, 5]),
        source=np.array([0, 0, -1, -1, 0, 0]),
        metric=np.array([0, 1, 0, 1, 0, 1], np.int32),
        value=np.array([1.0, 2.0, np.nan, np.nan, 3.0, 4.0]),
        seconds=np.array([0.5, 0.5, np.nan, np.nan, 0.5, 0.5]),
        error=np.array([0, 0, 2, 2, 0, 0], np.int32),
        metrics=METRICS,
        errors=["", "", "ValueError: second"],
        fit_failed=False,
        n_separated=2,
        n_failed=1,
        separate_seconds=1.0,
        evaluations=7.0,
    )
    return replace(usual, **changes)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, warnings: list[str]) -> RunStore:
    made = RunStore.create(tmp_path / "run", record(), warnings.append)
    made.write_run(record())
    return made


# --- what is in the way


def test_whole_lines_about_folders_that_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    lines: list[tuple[Callable[[], object], str]] = [
        (lambda: RunStore.create(tmp_path, record()), f"{tmp_path} contains something other than a run; choose a new or empty folder with --out"),
        (lambda: RunStore.create(tmp_path / "thesis.tex", record()), f"{tmp_path}/thesis.tex is a file; choose a new or empty folder with --out"),
        (
            lambda: RunStore.create(tmp_path / "thesis.tex" / "run", record()),
            f"cannot write {tmp_path}/thesis.tex/run: Not a directory; choose a writable folder with --out",
        ),
        (
            lambda: RunStore.open(tmp_path / "none"),
            f"{tmp_path}/none is not the folder of a run: it has no run.json; name one that 'sepbench run' wrote",
        ),
    ]
    for call, line in lines:
        with pytest.raises(StoreError) as caught:
            call()
        assert str(caught.value) == line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "is not of format 2, which is what this sepbench reads; run the suite again"),
        ('{"format": 3}', "is not of format 2, which is what this sepbench reads; run the suite again"),
        ("{", "is damaged (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); the run must be made again in another folder"),
    ],
)
def test_whole_lines_about_a_damaged_run_json(store: RunStore, text: str, told: str) -> None:
    (store.path / "run.json").write_text(text)
    with pytest.raises(StoreError) as caught:
        store.check()
    assert str(caught.value) == f"{store.path}/run.json {told}"


def test_a_folder_that_another_process_holds_and_one_that_cannot_be_held(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    there = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    handle = os.open(store.path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(StoreError) as caught, store.session():
        pass
    os.close(handle)
    assert str(caught.value) == f"another process is working in {store.path}; wait for it, or choose another --out"

    def flock(number: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    before = (store.path / "run.json").read_bytes()
    monkeypatch.setattr(fcntl, "flock", flock)
    with store.session():
        pass
    assert (store.path / "run.json").read_bytes() == before
    assert len(os.listdir("/proc/self/fd")) <= there  # noqa: PTH208 - fewer where an older file was collected meanwhile


def test_leftovers_alone_are_an_empty_folder_and_are_removed_at_any_depth(tmp_path: Path) -> None:
    for name in ("run.json.x.tmp", "scores/t--m/00000/0-3.parquet.x.tmp", "cells/t--m.json.y.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(StoreError, match="something other than a run"):  # folders are no leftovers
        RunStore.create(tmp_path, record())
    made = RunStore.create(tmp_path / "new", record())
    (tmp_path / "new" / "run.json.x.tmp").touch()
    with RunStore.create(tmp_path / "new", record()).session(record()):
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["run.json"]
    assert made.read_run() == record()


def test_a_run_of_an_earlier_format_is_read_and_does_not_go_on(store: RunStore) -> None:
    older = record(format=1)
    store.write_run(older)
    assert store.read_run().format == 1
    told = (
        f"{store.path} contains a run of an earlier sepbench: this one shows and compares its scores, but does not read its estimates; "
        "run the suite again with another --out"
    )
    for call in (lambda: store.refuse_older(older), lambda: RunStore.create(store.path, record())):
        with pytest.raises(StoreError) as caught:
            call()
        assert str(caught.value) == told
    store.refuse_older(record())


def test_a_store_keeps_its_place_when_a_method_goes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = RunStore.create(Path("run"), record())
    store.write_run(record())
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    store.write_cell("t", "m", CellRecord(note="here"))
    again = store.opener()()
    assert (again.read_cells(), again.path) == ({("t", "m"): CellRecord(note="here")}, tmp_path / "run")
    assert store.path == Path("run")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(StoreError, match=r"^run is not the folder of a run"):
        store.read_run()


def test_another_process_opens_the_folder_itself_and_not_a_link_to_it(store: RunStore, tmp_path: Path) -> None:
    """A link may lead elsewhere on another machine, or later."""
    (tmp_path / "link").symlink_to(store.path)
    assert RunStore.open(tmp_path / "link").opener()().path == store.path.resolve()


@pytest.mark.parametrize(
    ("change", "told"),
    [({"seed": "x"}, "seed: must be a whole number"), ({"tasks": {"t": {"pairs_sha256": "a", "mixtures_sha256": "b"}}}, "tasks.t.n_planned: Field required")],
)
def test_what_is_wrong_in_a_run_json_is_told_by_its_place(store: RunStore, change: dict[str, Any], told: str) -> None:
    content = json.loads((store.path / "run.json").read_text())
    (store.path / "run.json").write_text(json.dumps(content | change))
    with pytest.raises(StoreError) as caught:
        store.read_run()
    assert str(caught.value) == f"{store.path}/run.json is damaged ({told}); the run must be made again in another folder"


# --- records


def test_records_are_written_as_people_read_them() -> None:
    text = _json(CellRecord(note="é \udce9"))
    assert text.endswith(b"}\n")
    assert b'\n "note": "\xc3\xa9 ?"' in text
    assert json.loads(text)["note"] == "é ?"


def test_cells_come_in_the_order_of_the_record_and_damaged_ones_are_told(store: RunStore, warnings: list[str]) -> None:
    for task, method in (("a", "b"), ("t", "b"), ("a", "m"), ("t", "m"), ("t", "nobody")):
        store.write_cell(task, method, CellRecord(note=f"{task} {method}"))
    assert list(store.read_cells()) == [("t", "m"), ("t", "b"), ("a", "m"), ("a", "b")]
    (store.path / "cells" / "t--b.json").write_text("{")
    assert list(store.read_cells()) == [("t", "m"), ("a", "m"), ("a", "b")]
    assert warnings == [f"{store.path}/cells/t--b.json is damaged and is made again"]


@pytest.mark.parametrize("part", ["estimates", "scores"])
@pytest.mark.parametrize("found", ["missing", "damaged"])
def test_results_without_their_record_are_neither_shown_nor_gone_on_with(store: RunStore, warnings: list[str], part: str, found: str) -> None:
    store.write_cell("t", "m", CellRecord(estimates_sha256="ab"))
    if part == "scores":
        store.write_scores(SHARD, scores())
    else:
        store.write_estimates(SHARD, ShardEstimates(torch.zeros(3, 2, 1), torch.zeros(3, dtype=torch.float64)))
    path = store.path / "cells" / "t--m.json"
    if found == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    looks: list[Callable[[], object]] = [
        *(lambda: store.read_cell("t", "m"), store.read_cells, lambda: store.end_session(METRICS)),
        *(lambda: RunStore.create(store.path, record(), warnings.append), lambda: RunStore.create(store.path, record(methods={}, grid={"t": ["b"]}))),
    ]
    for look in looks:
        with pytest.raises(StoreError) as caught:
            look()
        assert str(caught.value) == (
            f"{path} is {found}, and nothing else says how the results of m on t were made: put a copy of it back, "
            f"or delete t--m in estimates/, scores/ and features/ of {store.path} and run the command that made them again"
        )
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before
    assert warnings == []
    assert store.read_cell("t", "b") is None  # of which nothing is there
    (shutil.rmtree(store.path / part / "t--m"), RunStore.create(store.path, record()))
    assert store.read_cell("t", "m") is None
    assert warnings == [f"{path} is damaged and is made again"] * (found == "damaged")


def test_a_record_that_a_run_at_work_writes_meanwhile_is_not_lost(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written before the first results are: whoever sees these and no record looks again."""
    found = RunStore.score_files

    def begun(self: RunStore, task: str, method: str) -> list[Path]:
        store.write_cell("t", "m", CellRecord(note="begun"))
        store.write_scores(SHARD, scores())
        return found(self, task, method)

    monkeypatch.setattr(RunStore, "score_files", begun)
    assert store.read_cell("t", "m") == CellRecord(note="begun")


def test_a_refit_has_one_name_until_its_session_has_ended(store: RunStore) -> None:
    name = store.refit_name()
    assert len(name) == 32
    with RunStore.create(store.path, record()).session(record()):  # the next session after a kill
        assert RunStore(store.path).refit_name() == name == store.read_run().refit
    store.end_session(METRICS)
    assert store.read_run().refit == ""
    assert store.refit_name() != name


def test_a_session_that_changes_nothing_writes_nothing(store: RunStore) -> None:
    store.write_cell("t", "m", CellRecord())  # without a fit
    before = (store.path / "run.json").stat().st_mtime_ns
    os.utime(store.path / "run.json", ns=(before - 10**9, before - 10**9))
    store.end_session(METRICS)
    assert (store.path / "run.json").stat().st_mtime_ns == before - 10**9
    store.write_cell("a", "b", CellRecord(fit_seconds=0.0))
    store.end_session(METRICS)
    assert {task: list(of_task) for task, of_task in store.read_run().fits.items()} == {"a": ["b"]}


# --- estimates and scores


def test_estimates_come_with_their_mixtures_and_what_was_counted(store: RunStore) -> None:
    counted = torch.tensor([1.0, torch.nan, 3.0], dtype=torch.float64)
    store.write_estimates(SHARD, ShardEstimates(torch.zeros(3, 2, 1), torch.zeros(3, dtype=torch.float64), {4: "no"}, counted))
    path = Layout(store.path).estimates(SHARD)
    with safe_open(path, "pt") as file:
        assert file.get_tensor("example_ids").tolist() == [3, 4, 5]
        assert json.loads(file.metadata()["errors"]) == {"4": "no"}
    back = store.read_estimates(SHARD)
    assert back.evaluations is not None
    assert back.evaluations.nan_to_num(-1).tolist() == [1.0, -1.0, 3.0]
    store.write_estimates(SHARD, ShardEstimates(torch.zeros(3, 2, 1), torch.zeros(3, dtype=torch.float64)))
    assert (store.read_estimates(SHARD).evaluations, store.read_estimates(SHARD).errors) == (None, {})
    path.write_bytes(b"cut")
    with pytest.raises(StoreError) as caught:
        store.read_estimates(SHARD)
    assert str(caught.value).startswith(f"{path} cannot be read (")
    assert str(caught.value).endswith("); delete it and run the same command again")


def test_seconds_of_another_number_of_mixtures_are_damage(store: RunStore, warnings: list[str]) -> None:
    for estimates, seconds in ((3, 2), (2, 3)):
        store.write_estimates(SHARD, ShardEstimates(torch.zeros(estimates, 2, 1), torch.zeros(seconds, dtype=torch.float64)))
        assert store.is_damaged(SHARD)
        (found,) = store.find("t", "m", METRICS)
        assert (found.estimates, found.damaged, found.totals) == (False, True, None)
    assert warnings == []
    path = Layout(store.path).estimates(SHARD)
    path.write_bytes(b"cut")
    assert store.is_damaged(SHARD)
    assert warnings[0].startswith(f"{path} is damaged (")
    assert warnings[0].endswith("); the run's own command makes it again")


def test_what_counts_as_scored(store: RunStore, warnings: list[str]) -> None:
    store.write_scores(SHARD, scores())
    totals = ShardTotals(2, 1, 1.0, "ValueError: second", 7.0)
    assert store.read_totals(SHARD) == totals
    (found,) = store.find("t", "m", METRICS)
    assert (found.shard, found.estimates, found.damaged, found.totals, found.fit_failed) == (SHARD, False, False, totals, False)
    for others in (("ssim", "psnr"), ("psnr",), ("psnr", "ssim", "sdr"), ()):
        assert store.find("t", "m", others)[0].totals is None
    store.write_scores(SHARD, scores(fit_failed=True))
    (found,) = store.find("t", "m", ())
    assert (found.totals, found.fit_failed) == (None, True)
    path = Layout(store.path).scores(SHARD)
    other = Layout(store.path).scores(Shard("t", "m", 6, 9))
    other.write_bytes(path.read_bytes())  # scores of mixtures 3 to 5 under another name
    assert store.find("t", "m", METRICS)[1].totals is None
    with pytest.raises(StoreError) as caught:
        store.read_totals(Shard("t", "m", 6, 9))
    assert str(caught.value) == f"{other} is missing; run the same command again"
    longer = Layout(store.path).scores(Shard("t", "m", 3, 9))  # they begin there, and end earlier
    longer.write_bytes(path.read_bytes())
    assert [found.totals for found in store.find("t", "m", METRICS) if found.shard.stop == 9] == [None, None]
    with pytest.raises(StoreError):
        store.read_totals(Shard("t", "m", 3, 9))
    longer.unlink()
    assert warnings == []
    path.write_bytes(b"cut")
    assert store.find("t", "m", METRICS)[0].totals is None
    assert warnings[0].startswith(f"{path} is damaged (")
    assert warnings[0].endswith(") and is made again")


def test_features_stand_beside_the_scores_that_they_belong_to(store: RunStore, tmp_path: Path) -> None:
    features = {"toy": ShardFeatures(torch.ones(2, 1, 2), torch.zeros(2, 1, 0), "toy-key")}
    path = Layout(store.path).features(SHARD)
    store.write_scores(SHARD, scores(features=features, feature_examples=np.array([3, 5])))
    with safe_open(path, "np") as file:
        assert file.get_tensor("examples").tolist() == [3, 5]
    store.remove_scores(SHARD)
    assert (path.exists(), Layout(store.path).scores(SHARD).exists()) == (False, False)
    store.remove_scores(SHARD)  # once more is no error
    store.remove_estimates(SHARD)
    store.write_scores(SHARD, scores(features=features, feature_examples=np.array([3, 5])))
    store.write_scores(SHARD, scores())  # scored again by metrics that need none
    assert not path.exists()
    (tmp_path / "features").write_text("first")
    store.keep_reference("toy-key", tmp_path / "features")
    (tmp_path / "features").write_text("second")
    store.keep_reference("toy-key", tmp_path / "features")
    assert (store.path / "references" / "toy-key.safetensors").read_text() == "first"


def test_scores_of_the_first_format_count_where_there_are_no_others(store: RunStore) -> None:
    (store.path / "scores").mkdir()
    old = store.path / "scores" / "t--m--00000.parquet"
    old.touch()
    assert store.score_files("t", "m") == [old]
    store.write_scores(SHARD, scores())
    assert store.score_files("t", "m") == [Layout(store.path).scores(SHARD)]
