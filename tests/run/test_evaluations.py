"""Evaluations of a prior, beside the seconds: the same sum however a run is cut, killed, grown or scored again; nothing where nothing was counted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from run_fakes import Counting
from run_harness import Runner

from sepbench.results.recording import finish
from sepbench.results.store import RunStore
from sepbench.run.cell import finished
from sepbench.run.plan import Plan
from sepbench.run.records import CellRecord
from sepbench.run.sink import ShardTotals
from sepbench.suites.model import Suite

Planned = Callable[..., Plan]
CELL = ("class-split", "counting")
ALL = sum(Counting.cost(example) for example in range(10))


def counted(store: RunStore) -> float | None:
    return store.read_cells()[CELL].evaluations


@pytest.mark.parametrize("shard_size", [1, 4, 10])
def test_how_a_run_is_cut_changes_nothing(planned: Planned, runner: Runner, shard_size: int) -> None:
    assert counted(runner(planned("counting", shard_size=shard_size))[1]) == ALL


def test_a_run_that_grows_counts_as_one_that_was_whole(planned: Planned, runner: Runner) -> None:
    first = counted(runner(planned("counting", limit=5))[1])
    assert first == sum(Counting.cost(example) for example in range(5))
    assert counted(runner(planned("counting"))[1]) == ALL


@pytest.mark.parametrize("folder", ["scores", "estimates"])
def test_a_resumed_run_counts_as_one_that_was_not_disturbed(planned: Planned, runner: Runner, folder: str) -> None:
    _, store = runner(planned("counting"))
    for lost in sorted((store.path / folder).rglob("*--00004-*" if folder == "estimates" else "*"))[:1]:
        lost.unlink() if lost.is_file() else [path.unlink() for path in lost.rglob("*") if path.is_file()]
    assert counted(runner(planned("counting"))[1]) == ALL


def test_estimates_need_not_be_kept(planned: Planned, runner: Runner) -> None:
    _, store = runner(planned("counting", keep_estimates=False))
    assert not list((store.path / "estimates").rglob("*.safetensors"))
    assert counted(store) == ALL


def test_a_mixture_without_an_estimate_is_not_counted(planned: Planned, runner: Runner, digits: Suite) -> None:
    _, store = runner(planned("counting", settings={"counting": {"at": 3}}))
    assert counted(store) == ALL - Counting.cost(3)
    frame = finish(store, digits).frame
    assert set(frame["evaluations_per_mixture"]) == {(ALL - Counting.cost(3)) / 9}


def test_nothing_counted_is_no_zero(planned: Planned, runner: Runner, digits: Suite) -> None:
    _, store = runner(planned("counting", "halves", settings={"counting": {"how": "none"}}))
    assert {cell.evaluations for cell in store.read_cells().values()} == {None}
    assert finish(store, digits).frame["evaluations_per_mixture"].isna().all()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("one number", r"network_evaluations returned float instead of a tensor of shape \(3,\), one number per mixture"),
        ("shape", r"network_evaluations returned shape \(3, 1\) instead"),
        ("minus", "network_evaluations returned values below 0 or not finite"),
        ("nan", "network_evaluations returned values below 0 or not finite"),
    ],
)
def test_what_is_no_count_breaks_the_contract(planned: Planned, runner: Runner, how: str, message: str) -> None:
    _, store = runner(planned("counting", settings={"counting": {"how": how}}))
    cell = store.read_cells()[CELL]
    assert cell.n_failed == 10
    assert re.search(message, cell.error)


def test_a_cell_with_a_part_of_an_earlier_version_has_no_sum() -> None:
    record = CellRecord(n_planned=8)
    finished(record, [ShardTotals(4, 0, 1.0, "", 40.0), ShardTotals(4, 0, 1.0, "")])
    assert (record.evaluations, record.n_separated) == (None, 8)
    finished(record, [ShardTotals(4, 0, 1.0, "", 40.0), ShardTotals(0, 4, 0.0, "failed")])
    assert record.evaluations == 40.0  # shards in which everything failed have nothing to count
    finished(record, [ShardTotals(0, 4, 0.0, "failed")])
    assert record.evaluations is None


def test_shards_of_an_earlier_version_are_read(planned: Planned, runner: Runner) -> None:
    _, store = runner(planned("counting"))
    for path in store.score_files(*CELL):
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[b"sepbench"])
        del facts["evaluations"]
        pq.write_table(table.replace_schema_metadata({b"sepbench": json.dumps(facts)}), path)
    _, store = runner(planned("counting"))
    cell = store.read_cells()[CELL]
    assert (cell.evaluations, cell.state) == (None, "done")


def test_an_older_cell_record_is_read(tmp_path: Path) -> None:
    content = CellRecord(state="done").mapping()
    del content["evaluations"]
    assert CellRecord.model_validate(content).evaluations is None
