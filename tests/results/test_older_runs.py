"""Runs of format 1: shown, compared, held against and published as ever; what needs their estimates refuses them in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer
from safetensors.torch import save_file
from synthetic_run import SyntheticRun
from typer.testing import CliRunner

from sepbench.cli.score import score
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.results.compare import compare_sides, open_side
from sepbench.results.leaderboard import read_leaderboard
from sepbench.results.publication import publish_run
from sepbench.results.store import RunStore, StoreError
from sepbench.results.target import open_results

RUN_OF_1 = [
    "format",
    "sepbench_version",
    "command",
    "created",
    "suite",
    "tasks",
    "methods",
    "metrics",
    "seed",
    "budget",
    "device",
    "limit",
    "shard_size",
    "timing_group",
    "environment",
]
CELL_OF_1 = [
    "state",
    "supervision",
    "note",
    "error",
    "fit_seconds",
    "load_seconds",
    "warm_up_seconds",
    "separate_seconds",
    "n_planned",
    "n_separated",
    "n_failed",
    "latency_seconds",
    "peak_mb",
    "samples",
    "weights_sha256",
    "traceback",
]
"""Entries as sepbench 0.1.0 wrote them."""


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """One run twice: as it is written now, and as format 1 laid it down."""
    made = SyntheticRun(n=10).fail("nmf", 3)
    for cell in made.cells.values():
        cell["n_planned"] = 10
    now, older = tmp_path / "now", tmp_path / "older"
    made.save(now)
    made.save(older)
    content = json.loads((older / "run.json").read_text())
    content = {name: content[name] for name in RUN_OF_1} | {"format": 1}
    for method in content["methods"].values():
        del method["files"], method["weights_sha256"]
    (older / "run.json").write_text(json.dumps(content))
    (older / "estimates").mkdir()
    for path in sorted((older / "cells").iterdir()):
        cell = json.loads(path.read_text())
        path.write_text(json.dumps({name: cell[name] for name in CELL_OF_1}))
        (file,) = (older / "scores" / path.stem).rglob("*.parquet")
        file.rename(older / "scores" / f"{path.stem}--00000.parquet")
        file.parent.rmdir()
        (older / "scores" / path.stem).rmdir()
        save_file({"estimates": torch.zeros(10, 2, 1, 8, 8)}, older / "estimates" / f"{path.stem}--00000.safetensors")
    return now, older


def test_its_scores_count_as_ever(runs: tuple[Path, Path], tmp_path: Path) -> None:
    now, older = (str(path) for path in runs)
    pd.testing.assert_frame_equal(open_results(older).frame, open_results(now).frame)
    tables = [compare_sides(open_side(f"{run}:nmf"), open_side(f"{run}:average")) for run in (now, older)]
    pd.testing.assert_frame_equal(*tables)
    assert list(tables[0]["n"]) == [9] * len(tables[0])
    publish_run(older, tmp_path)
    assert len(read_leaderboard(tmp_path / "digits-pairs.csv")) == len(open_results(now).frame)


def test_what_needs_its_estimates_refuses_it(runs: tuple[Path, Path]) -> None:
    now, older = runs
    message = f"{older} contains a run of an earlier sepbench: .* run the suite again with another --out$"
    before = {path: path.read_bytes() for path in older.rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=message):
        RunStore.create(older, RunStore.open(now).read_run())
    app = typer.Typer()
    app.command()(score)
    with pytest.raises(StoreError, match=message):
        CliRunner().invoke(app, [str(older)], catch_exceptions=False)
    opened = OpenedRun.open(older)
    (task,) = opened.tasks()
    assert len(opened.values(task.spec.name, "nmf")) == 10  # a histogram can be drawn
    with pytest.raises(StoreError, match=message):
        opened.estimates(task, "nmf", [0])
    assert {path: path.read_bytes() for path in older.rglob("*") if path.is_file()} == before
