"""The run's folder: whole files or none, one run per folder, one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sepbench.errors import SepbenchError
from sepbench.results.columns import SCORE_COLUMNS
from sepbench.results.store import RunStore, StoreError
from sepbench.run.plan import Shard
from sepbench.run.provenance import FORMAT
from sepbench.run.records import CellRecord, FitRecord, RunRecord
from sepbench.run.sink import ShardEstimates, ShardScores

METRICS = ("psnr", "ssim")
SHARD = Shard("t", "m", 3, 6)
FIRST = Shard("t", "m", 0, 3)


def record(**changes: Any) -> RunRecord:
    facts = {
        "format": FORMAT,
        "sepbench_version": "0",
        "suite": {"name": "s", "version": 1},
        "tasks": {"t": {"pairs_sha256": "a", "mixtures_sha256": "b", "n_planned": 6}},
        "methods": {"m": {"version": "1", "settings": {}, "source": "x:Y", "source_sha256": "c"}},
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


def scores(shard: Shard = SHARD, metrics: tuple[str, ...] = METRICS, fit_failed: bool = False, error: str = "") -> ShardScores:
    n = len(shard)
    return ShardScores(
        example=np.arange(shard.start, shard.stop).repeat(len(metrics)),
        source=np.zeros(n * len(metrics), np.int64),
        metric=np.tile(np.arange(len(metrics), dtype=np.int32), n),
        value=np.linspace(0.1, 0.9, n * len(metrics)),
        seconds=np.full(n * len(metrics), 0.5),
        error=np.full(n * len(metrics), int(bool(error)), np.int32),
        metrics=metrics,
        errors=["", *([error] if error else [])],
        fit_failed=fit_failed,
        n_separated=0 if error else n,
        n_failed=n if error else 0,
        separate_seconds=0.0 if error else 0.5 * n,
    )


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    made = RunStore.create(tmp_path / "run", record())
    made.write_run(record())
    return made


@given(
    shape=st.tuples(st.just(3), st.integers(1, 3), st.integers(1, 5)),
    errors=st.dictionaries(st.integers(3, 5), st.text(min_size=1), max_size=3),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_estimates_come_back_bit_for_bit(store: RunStore, shape: tuple[int, ...], errors: dict[int, str], seed: int) -> None:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    values[0, 0] = torch.nan
    seconds = torch.tensor([0.25, torch.nan, 1.0], dtype=torch.float64)
    store.write_estimates(SHARD, ShardEstimates(values, seconds, errors))
    back = store.read_estimates(SHARD)
    assert back.estimates.numpy().tobytes() == values.numpy().tobytes()
    assert back.seconds.numpy().tobytes() == seconds.numpy().tobytes()
    assert back.errors == errors


def test_estimates_of_another_size_count_as_missing(store: RunStore) -> None:
    store.write_estimates(SHARD, ShardEstimates(torch.zeros(2, 1, 1), torch.zeros(2, dtype=torch.float64)))
    assert not store.find("t", "m", METRICS)[0].estimates


def test_scores_come_back(store: RunStore) -> None:
    store.write_scores(SHARD, scores())
    store.write_scores(FIRST, scores(FIRST, error="Broken: badly"))
    frame = store.read_scores()
    assert list(frame.columns) == list(SCORE_COLUMNS)
    assert frame["example"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert frame["metric"].tolist() == ["psnr", "ssim"] * 6
    assert frame["error"].tolist() == ["Broken: badly"] * 6 + [""] * 6
    assert set(frame["suite"]) == {"s"}
    assert frame["value"].to_numpy()[6:].tobytes() == scores().value.tobytes()
    assert store.read_scores(["value", "error"]).columns.tolist() == ["value", "error"]
    totals = store.read_totals(SHARD)
    assert (totals.n_separated, totals.n_failed, totals.separate_seconds, totals.error) == (3, 0, 1.5, "")
    assert store.read_totals(FIRST).error == "Broken: badly"


def test_anyone_can_open_a_shard(store: RunStore) -> None:
    store.write_scores(SHARD, scores())
    frame = pd.read_parquet(store.path / "scores")
    assert list(frame.columns) == list(SCORE_COLUMNS)
    assert frame["task"].tolist() == ["t"] * 6


def test_errors_can_be_filled_and_compared(store: RunStore) -> None:
    store.write_scores(SHARD, scores(error="all of them"))
    frame = store.read_scores()
    assert (frame["error"].fillna("") != "").all()


def test_no_scores_is_an_empty_table(store: RunStore) -> None:
    frame = store.read_scores()
    assert list(frame.columns) == list(SCORE_COLUMNS)
    assert len(frame) == 0


def test_scores_of_other_metrics_or_of_a_failed_fit_are_not_done(store: RunStore) -> None:
    assert store.find("t", "m", METRICS) == []
    store.write_scores(SHARD, scores())
    (found,) = store.find("t", "m", METRICS)
    assert (found.shard, found.scored, found.estimates) == (SHARD, True, False)
    assert not store.find("t", "m", ("psnr",))[0].scored
    store.write_scores(SHARD, scores(fit_failed=True, error="no fit"))
    (found,) = store.find("t", "m", METRICS)
    assert found.fit_failed
    assert not found.scored


def test_shards_are_found_in_order_and_no_folder_grows_without_bound(store: RunStore) -> None:
    starts = [0, 3, 9_999, 10_000, 123_456]
    for start in reversed(starts):
        store.write_scores(Shard("t", "m", start, start + 1), scores(Shard("t", "m", start, start + 1)))
    assert [item.shard.start for item in store.find("t", "m", METRICS)] == starts
    assert [path.name[:8] for path in store.score_files("t", "m")] == [f"{start:08d}" for start in starts]
    assert sorted(folder.name for folder in (store.path / "scores" / "t--m").iterdir()) == ["00000", "00001", "00012"]


def test_only_planned_methods_are_read(store: RunStore) -> None:
    store.write_scores(SHARD, scores())
    store.write_scores(Shard("t", "m-old", 3, 6), scores())
    assert set(store.read_scores()["method"]) == {"m"}


def test_totals_of_missing_scores(store: RunStore) -> None:
    with pytest.raises(StoreError, match="missing"):
        store.read_totals(SHARD)


def test_cells(store: RunStore) -> None:
    assert store.read_cell("t", "m") is None
    store.write_cell("t", "m", CellRecord(state="done", note="é"))
    assert store.read_cells() == {("t", "m"): CellRecord(state="done", note="é")}
    (store.path / "cells" / "t--m.json").write_text('{"state": "do')
    assert store.read_cells() == {}
    (store.path / "cells" / "t--m.json").unlink()
    (store.path / "cells" / "t--m.json").mkdir()
    with pytest.raises(StoreError, match=r"t--m\.json cannot be read: is a directory"):
        store.read_cells()


def test_a_session_ends_with_its_metrics_and_its_fits(store: RunStore) -> None:
    store.end_session(["ssim"])
    assert store.read_run() == record(metrics=["ssim"])
    store.write_cell("t", "m", CellRecord(fit_seconds=2.5, fit_cached=True, fit_timing_group="cpu"))
    store.end_session(["ssim"])
    assert store.read_run().fits == {"t": {"m": FitRecord(seconds=2.5, cached=True, timing_group="cpu")}}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write_cell("t", "m", CellRecord(state="done"))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write_cell("t", "m", CellRecord(state="failed"))
    with pytest.raises(StoreError, match="No space left"):
        store.write_estimates(SHARD, ShardEstimates(torch.zeros(3, 1, 1), torch.zeros(3, dtype=torch.float64)))
    monkeypatch.undo()
    assert store.read_cell("t", "m") == CellRecord(state="done")
    assert store.find("t", "m", METRICS) == []
    assert not list(store.path.rglob("*.tmp"))


def test_create_again_is_resume(store: RunStore) -> None:
    again = RunStore.create(store.path, record(command="another", created="later"))
    with again.session(record(command="another", sessions=[{"command": "another", "created": "later"}])):
        assert again.read_run().command == ""
        assert [session.command for session in again.read_run().sessions] == ["another"]


def test_a_run_grows(store: RunStore) -> None:
    method, task = {"version": "2", "settings": {}, "source": "x:Z", "source_sha256": "d"}, {"pairs_sha256": "e", "mixtures_sha256": "f", "n_planned": 9}
    more = record(limit=9, tasks={"t": {"pairs_sha256": "a", "mixtures_sha256": "b", "n_planned": 9}, "u": task}, methods={"n": method}, grid={"u": ["n"]})
    store.write_run(record(limit=6, grid={"t": ["m"]}))
    with RunStore.create(store.path, more).session(more):
        grown = store.read_run()
    assert {name: task.n_planned for name, task in grown.tasks.items()} == {"t": 9, "u": 9}
    assert list(grown.methods) == ["m", "n"]
    assert (grown.methods_on("t"), grown.methods_on("u")) == (["m"], ["n"])
    assert grown.limit == 9
    with RunStore.create(store.path, record(limit=3)).session(record(limit=3)):
        assert store.read_run().tasks["t"].n_planned == 9


OTHER_CODE: dict[str, Any] = {"methods": {"m": {"version": "1", "settings": {}, "source": "x:Y", "source_sha256": "other"}}}


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"seed": 1}, "seed is 0 in .* and 1 here"), ({"suite": {"name": "s", "version": 2}}, "suite version"), (OTHER_CODE, "source_sha256 of method m")],
)
def test_another_run_is_refused(store: RunStore, changes: dict[str, Any], what: str) -> None:
    before = {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=what) as caught:
        RunStore.create(store.path, record(**changes))
    assert "--out" in str(caught.value)
    assert {path: path.read_bytes() for path in store.path.rglob("*") if path.is_file()} == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreError, match="something other than a run"):
        RunStore.create(tmp_path, record())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_leftovers_are_removed_and_do_not_hinder(tmp_path: Path) -> None:
    (tmp_path / "run.json.123.tmp").write_text("{")
    store = RunStore.create(tmp_path, record())
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "x.parquet.9.tmp").write_text("x")
    with store.session(record()):
        assert not list(tmp_path.rglob("*.tmp"))
        assert store.read_run() == record()


UNUSABLE: dict[str, Callable[[Path], Path]] = {
    "a file": lambda folder: folder / "file",
    "under a file": lambda folder: folder / "file" / "run",
    "name too long": lambda folder: folder / ("x" * 300),
    "no such place": lambda folder: Path("/proc/no/such"),
}


@pytest.mark.parametrize("place", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_unwritable_places_get_one_line(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SepbenchError, match=r"cannot write|is a file; choose") as caught:
        RunStore.create(place(tmp_path), record())
    assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_without_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot write"):
        RunStore.create(tmp_path / "run", record())


BAD_RUNS = {
    "damaged": ('{"format": 1', "damaged"),
    "other format": ('{"format": 99}', "format 2"),
    "a list": ("[]", "format 2"),
    "half": ('{"format": 2}', "damaged"),
    "not text": ("\0", "damaged"),
}


@pytest.mark.parametrize(("text", "message"), BAD_RUNS.values(), ids=BAD_RUNS.keys())
def test_bad_run_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        RunStore.open(tmp_path)
    with pytest.raises(StoreError, match=message):
        RunStore.create(tmp_path, record())


def test_open_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no run\.json"):
        RunStore.open(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"no run\.json"):
        RunStore.open(tmp_path / "file")


def test_one_process_at_a_time(store: RunStore) -> None:
    handle = os.open(store.path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(StoreError, match="another process"), store.session():
        pass
    os.close(handle)
    with store.session():
        pass


@pytest.mark.parametrize("kind", ["seeds", "fits"])
def test_a_session_leaves_what_another_writes_in_a_repetition(store: RunStore, kind: str) -> None:
    repetition = RunStore.create(store.path / kind / "1", record(seed=1))
    with repetition.session(record(seed=1)):
        unfinished = repetition.path / "cells" / "t--m.json.host-1-1.tmp"
        unfinished.parent.mkdir()
        unfinished.touch()
        with store.session(record()):
            assert unfinished.exists()
    with repetition.session():
        assert not unfinished.exists()


def test_run_json_is_readable_text(store: RunStore) -> None:
    text = (store.path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text) == record().mapping()
    assert text.count("\n") > 20


@pytest.mark.parametrize("part", ["estimates", "scores", "cells", "run.json"])
def test_a_file_of_another_user_is_not_damaged(tmp_path: Path, forbid: Callable[[Path], None], part: str) -> None:
    warnings: list[str] = []
    store = RunStore.create(tmp_path / "run", record(), warnings.append)
    with store.session(record()):
        store.write_estimates(SHARD, ShardEstimates(torch.zeros(3, 2, 1), torch.zeros(3, dtype=torch.float64), {}))
        store.write_scores(SHARD, scores())
        store.write_cell("t", "m", CellRecord())
    (path,) = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and part in str(path.relative_to(tmp_path))]
    before = path.read_bytes()
    forbid(path)
    reads: dict[str, Callable[[], object]] = {"estimates": lambda: store.read_estimates(SHARD), "scores": store.read_scores}
    for read in {reads.get(part, store.read_cells), lambda: store.find("t", "m", METRICS) if part in reads else store.read_cells()}:
        with pytest.raises(StoreError, match=f"{path.name} cannot be read: permission denied; ask its owner"):
            read()
    assert warnings == []
    with open(path, "rb") as handle:  # noqa: PTH123 - Path.open is forbidden
        assert handle.read() == before


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"caf\\udce9 is not UTF-8"):
        RunStore.create(tmp_path / "caf\udce9", record())
    assert list(tmp_path.iterdir()) == []
