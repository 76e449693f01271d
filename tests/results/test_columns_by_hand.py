"""Where the values of a leaderboard's columns come from: each from its record, and what stands where a record says nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from sepbench.results.columns import COLUMNS, RETIRED, Column, Facts, cell_key
from sepbench.run.provenance import FORMAT
from sepbench.run.records import CellRecord, MethodRecord, RunRecord, TaskRecord

ROW: dict[str, Any] = {"task": "t", "method": "m", "metric": "psnr", "unit": "dB", "higher_is_better": True, "mean": 1.0, "std": 2.0, "median": 3.0} | {
    **{"ci_low": 4.0, "ci_high": 5.0, "interval": "cluster t", "cluster": "song", "n_clusters": 6, "n_scored": 7, "n_failed": 8},
}


def facts(cell: dict[str, Any] | None = None, method: dict[str, Any] | None = None, **run: Any) -> Facts:
    usual: dict[str, Any] = {
        **{
            "format": FORMAT,
            "sepbench_version": "9.9",
            "command": "the run's",
            "created": "now",
            "suite": {"name": "s", "version": 3},
            "tasks": {},
            "methods": {},
        },
        **{"metrics": ["psnr"], "seed": 11, "budget": "paper", "device": "cuda", "limit": 5, "shard_size": 9, "timing_group": "cuda:H100:float32"},
        **{"environment": {"packages": {}, "git_sha": "0123abc", "git_dirty": False}},
    }
    known = RunRecord.model_validate(usual | run)
    task = TaskRecord.model_validate({"digest": "d", "pairs_sha256": "p", "mixtures_sha256": "x", "n_examples": 100, "n_planned": 50})
    own = {"version": "2", "title": "M", "supervision": "mixtures", "bound": "", "deterministic": True, "settings": {}, "source": "a:b", "source_sha256": ""}
    return Facts(known, known.suite, task, MethodRecord.model_validate(own | (method or {})), CellRecord.model_validate(cell or {}), ROW)


def value(name: str, found: Facts) -> Any:
    (column,) = (column for column in COLUMNS if column.name == name)
    return column.value(found)


CELL = {
    **{"weights_sha256": "w", "prior": "EDM", "supervision": "sources", "n_planned": 40, "samples": 16, "fit_seconds": 30.0, "fit_cached": True},
    **{"fit_timing_group": "cpu:x", "separate_seconds": 12.0, "n_separated": 8, "evaluations": 400, "peak_mb": 77.5, "command": "the cell's"},
    **{"git_sha": "feed", "state": "done", "timing_group": "cpu:Worker:1threads:float32", "workers": 3},
}


def test_every_column_of_a_cell_that_says_all() -> None:
    found = facts(CELL)
    assert {column.name: column.value(found) for column in COLUMNS if not column.name.startswith("std_")} == {
        **{"suite": "s", "suite_version": 3, "task": "t", "task_digest": "d", "method": "m", "method_version": "2", "weights_sha256": "w", "prior": "EDM"},
        **{"estimates_sha256": "", "supervision": "sources", "metric": "psnr", "unit": "dB", "higher_is_better": True, "mean": 1.0, "std": 2.0, "median": 3.0},
        **{"ci_low": 4.0, "ci_high": 5.0, "interval": "cluster t", "cluster": "song", "n_clusters": 6, "seeds": 1, "fits": 1, "n_expected": 40},
        **{"n_scored": 7, "n_failed": 8, "samples": 16, "fit_seconds": 30.0, "fit_cached": True, "fit_timing_group": "cpu:x", "seconds_per_mixture": 1.5},
        **{"timing_group": "cpu:Worker:1threads:float32:3workers", "evaluations_per_mixture": 50.0, "peak_mb": 77.5, "device": "cuda", "budget": "paper"},
        **{"seed": 11, "sepbench_version": "9.9", "git_sha": "feed", "command": "the cell's"},
    }
    assert all(math.isnan(value(name, found)) for name in ("std_seeds", "std_fits"))


@pytest.mark.parametrize(
    ("name", "cell", "method", "wanted"),
    [
        ("weights_sha256", {}, {}, ""),
        ("prior", {}, {}, ""),
        ("supervision", {}, {}, "mixtures"),
        ("supervision", {"supervision": "sources"}, {}, "sources"),
        ("n_expected", {}, {}, 50),
        ("fit_seconds", {"fit_seconds": 0.0}, {}, 0.0),
        ("fit_seconds", {}, {}, math.nan),
        ("fit_seconds", {"fit_seconds": 1.0}, {"supervision": "blind"}, math.nan),
        ("fit_seconds", {"fit_seconds": 1.0, "supervision": "sources"}, {"supervision": "blind"}, 1.0),
        ("fit_seconds", {"fit_seconds": 1.0, "supervision": "bound"}, {}, math.nan),
        ("seconds_per_mixture", {"separate_seconds": 1.0}, {}, math.nan),  # nothing was separated
        ("seconds_per_mixture", {"separate_seconds": 1.0, "n_separated": 4, "estimates_sha256": "e"}, {}, math.nan),
        ("evaluations_per_mixture", {"n_separated": 4}, {}, math.nan),
        ("evaluations_per_mixture", {"evaluations": 8}, {}, math.nan),
        ("evaluations_per_mixture", {"evaluations": 0, "n_separated": 4}, {}, 0.0),
        ("peak_mb", {}, {}, math.nan),
        ("device", {"estimates_sha256": "e"}, {}, ""),
        ("budget", {"estimates_sha256": "e"}, {}, ""),
        ("seed", {"estimates_sha256": "e"}, {}, 11),
        ("timing_group", {"estimates_sha256": "e", "timing_group": "cpu:x"}, {}, ""),
        ("timing_group", {}, {}, "cuda:H100:float32"),
        ("timing_group", {"workers": 1}, {"settings": {"precision": "bf16"}}, "cuda:H100:bf16"),
        ("timing_group", {"workers": 2}, {"settings": {"precision": "float32"}}, "cuda:H100:float32:2workers"),
        ("timing_group", {"timing_group": "cpu:y:bf16"}, {"settings": {"precision": "float32"}}, "cpu:y:float32"),
        ("git_sha", {}, {}, "0123abc"),
        ("command", {}, {}, "the run's"),
        ("fit_cached", {}, {}, False),
        ("samples", {}, {}, 1),
    ],
)
def test_what_stands_where_a_record_says_nothing(name: str, cell: dict[str, Any], method: dict[str, Any], wanted: Any) -> None:
    found = value(name, facts(cell, method))
    assert found == wanted or (math.isnan(found) and math.isnan(wanted))
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("kind", "default", "nothing"),
    [
        ("text", None, ""),
        ("text", "grey", "grey"),
        ("number", None, math.nan),
        ("number", 0.0, 0.0),
        ("integer", None, None),
        ("integer", 3, 3),
        ("flag", False, False),
    ],
)
def test_a_column_without_a_value(kind: Any, default: Any, nothing: Any) -> None:
    column = Column("x", kind, ("cell.nobody", "run.nobody", "row.nobody"), default=default)
    for found in (column.nothing, column.value(facts())):
        assert found == nothing or (math.isnan(found) and math.isnan(nothing))


def test_of_several_sources_the_first_with_a_value_counts() -> None:
    assert Column("x", "text", ("cell.prior", "row.cluster", "run.device")).value(facts()) == "song"
    assert Column("x", "number", ("cell.n_separated", "row.mean")).value(facts({"n_separated": 0})) == 0  # none is a number too


def test_the_key_of_a_row_and_of_a_file() -> None:
    assert cell_key("a b", "m.x") == "a b--m.x"
    assert [column.name for column in COLUMNS if column.key] == ["suite", "task", "method", "metric"]
    assert RETIRED == ("published", "published_source")
