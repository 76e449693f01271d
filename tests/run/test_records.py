"""Records as files of earlier and later versions have them: what is lacking has its default, what is unknown is kept."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from sepbench.run import records
from sepbench.run.records import CellRecord, EnvironmentRecord, FitRecord, MethodRecord, RunRecord, SessionRecord, SuiteRecord, TaskRecord

RUN: dict[str, Any] = {
    **{"format": 1, "sepbench_version": "0", "suite": {"name": "s", "version": 3}, "tasks": {}, "methods": {}, "metrics": [], "seed": 0},
    **{"budget": "paper", "device": "cpu", "limit": None, "shard_size": None, "timing_group": "cpu", "environment": {}},
}
DIGESTS = {"pairs_sha256": "a", "mixtures_sha256": "b", "n_planned": 5}
NOBODY = dict.fromkeys(("fit_seconds", "load_seconds", "warm_up_seconds", "evaluations", "latency_seconds", "peak_mb"))
WORDS = ("supervision", "note", "error", "fit_timing_group", "weights_sha256", "training_sha256", "prior", "timing_group")
WORDS += ("estimates_sha256", "command", "git_sha", "traceback")
LEAST: dict[type[BaseModel], tuple[dict[str, Any], dict[str, Any]]] = {
    CellRecord: (
        {},
        {"state": "partial", "fit_cached": False, "separate_seconds": 0.0, "n_planned": 0, "n_separated": 0, "n_failed": 0, "samples": 1, "workers": 1}
        | NOBODY
        | dict.fromkeys(WORDS, ""),
    ),
    SuiteRecord: ({"name": "s", "version": 3}, {"path": ""}),
    TaskRecord: (DIGESTS, {"digest": "", "n_examples": 0}),
    MethodRecord: (
        {"version": "1"},
        {"deterministic": False, "settings": {}, "files": {}}
        | dict.fromkeys(("title", "supervision", "bound", "source", "source_sha256", "weights_sha256"), ""),
    ),
    EnvironmentRecord: (
        {},
        {"threads": 0, "packages": {}, "git_dirty": False}
        | dict.fromkeys(("python", "platform", "cpu", "instruction_set", "omp_num_threads", "git_sha", "gpu"), ""),
    ),
    FitRecord: ({"seconds": 2.0, "cached": True}, {"timing_group": ""}),
    SessionRecord: ({"command": "c", "created": "now"}, {"git_sha": "", "backend": "local", "workers": 1}),
}


@pytest.mark.parametrize("kind", LEAST, ids=lambda kind: kind.__name__)
def test_what_an_earlier_version_did_not_write_has_its_default(kind: type[records._Record]) -> None:
    given, defaults = LEAST[kind]
    assert kind.model_validate(given).mapping() == given | defaults
    for name in given:
        with pytest.raises(ValidationError):
            kind.model_validate({key: value for key, value in given.items() if key != name})


def test_a_run_of_an_earlier_version_is_read() -> None:
    run = RunRecord.model_validate(RUN)
    found = run.mapping()
    assert {key: found[key] for key in set(found) - {"suite", "environment"}} == {key: RUN[key] for key in set(RUN) - {"suite", "environment"}} | {
        **{"command": "", "created": "", "grid": {}, "fit_seed": None, "sessions": [], "fits": {}, "refit": ""},
    }
    for name in RUN:
        with pytest.raises(ValidationError):
            RunRecord.model_validate({key: value for key, value in RUN.items() if key != name})


@pytest.mark.parametrize("kind", LEAST, ids=lambda kind: kind.__name__)
def test_what_a_later_version_writes_is_kept(kind: type[records._Record]) -> None:
    later = {**LEAST[kind][0], "invented_later": {"x": [1, 2]}}
    assert kind.model_validate(later).mapping()["invented_later"] == {"x": [1, 2]}
    assert kind.model_validate(later).model_copy().mapping()["invented_later"] == {"x": [1, 2]}


@pytest.mark.parametrize("state", ["done", "failed", "unsupported", "partial", "finished", ""])
def test_a_cell_ends_in_one_of_four_ways(state: str) -> None:
    if state in ("finished", ""):
        with pytest.raises(ValidationError):
            CellRecord.model_validate({"state": state})
    else:
        assert CellRecord.model_validate({"state": state}).state == state


def test_numbers_that_are_none_come_back_from_the_file() -> None:
    text = CellRecord(peak_mb=math.inf, separate_seconds=math.nan).model_dump_json()
    assert '"peak_mb":Infinity' in text
    assert '"separate_seconds":NaN' in text
    back = CellRecord.model_validate(json.loads(text))
    assert (back.peak_mb, math.isnan(back.separate_seconds)) == (math.inf, True)


@pytest.mark.parametrize(
    ("grid", "found"),
    [({}, ["m", "n"]), ({"t": ["n"]}, ["n"]), ({"u": ["m"]}, []), ({"t": ["n", "m"], "u": []}, ["n", "m"]), ({"t": []}, [])],
)
def test_methods_of_a_task_are_those_that_were_asked_for_on_it(grid: dict[str, list[str]], found: list[str]) -> None:
    """Runs of before there was a grid asked for every method on every task."""
    run = RunRecord.model_validate(RUN | {"methods": {"m": {"version": "1"}, "n": {"version": "1"}}, "grid": grid})
    assert run.methods_on("t") == found
